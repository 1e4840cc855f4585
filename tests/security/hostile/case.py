"""What a hostile function is: a handler's source, how it is configured, what is sent to it and what must come back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# Names of errno by which a kernel or a sandbox says no. EBADF and the like are missing on purpose: they would be a broken probe.
NO = frozenset(
    "EACCES EPERM ENOSYS EROFS ENOENT EINVAL EXDEV ENODEV ENXIO ESRCH ENOTDIR EAFNOSUPPORT EPROTONOSUPPORT ESOCKTNOSUPPORT "
    "ECONNREFUSED ENETUNREACH EHOSTUNREACH EADDRNOTAVAIL ENOTTY EOPNOTSUPP ETXTBSY ENOTSUP".split()
)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a caller got. `error` is the error type of the function or "<status> <code>" of a refusal; empty: it answered."""

    value: Any
    error: str
    message: str
    seconds: float
    log: str = ""

    def __str__(self) -> str:
        text = f"{self.error}: {self.message}" if self.error else repr(self.value)
        return f"{text[:1500]} after {self.seconds:.2f} s"


# Raises AssertionError when a reply is not what it must be.
Expectation = Callable[[Reply], None]


@dataclass(frozen=True, slots=True)
class Case:
    """`calls` are made one after the other: (event, what must come back). Sizes in MB, `timeout` in seconds.

    `needs`: features of the host's isolation report that must be enforced, else the case is skipped by their names.
    """

    name: str
    source: str
    calls: tuple[tuple[Any, Expectation], ...]
    memory: int = 256
    tmp: int = 512
    timeout: int = 20
    isolation: str = "reuse"
    snapshot: str = "off"
    network: str = "none"
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    files: Mapping[str, str | bytes] = dataclasses.field(default_factory=dict)
    needs: tuple[str, ...] = ()
    slow: bool = False


def case(
    name: str,
    source: str,
    expect: Expectation,
    *,
    event: Any = None,
    then: tuple[tuple[Any, Expectation], ...] = (),
    **options: Any,
) -> Case:
    return Case(name, source, ((event, expect), *then), **options)


def in_both(one: Case) -> list[Case]:
    """The same attack on a worker of its own zygote's, and on one that shares a sandbox with its function's snapshot.

    The second one is left to `make test-security`: all of both take too long for every test run.
    """
    return [one, dataclasses.replace(one, name=f"{one.name}, from a snapshot", snapshot="on", slow=True)]


def in_both_always(one: Case) -> list[Case]:
    """As in_both; what a snapshot shares is most likely to be a hole here."""
    return [one, dataclasses.replace(in_both(one)[1], slow=one.slow)]


# ---- what must come back ---------------------------------------------------------------------------------------------


def answers(value: Any) -> Expectation:
    def check(reply: Reply) -> None:
        assert not reply.error, f"expected {value!r}, got {reply}"
        assert reply.value == value, f"expected {value!r}, got {reply}"

    return check


def answers_anything(reply: Reply) -> None:
    assert not reply.error, f"expected an answer, got {reply}"


def fails(*errors: str, saying: str = "", within: float = 60.0) -> Expectation:
    """One of these error types."""

    def check(reply: Reply) -> None:
        assert reply.error in errors, f"expected {' or '.join(errors)}, got {reply}"
        assert saying in reply.message, f"expected {saying!r} in {reply}"
        assert reply.seconds < within, f"expected it within {within} s, got {reply}"

    return check


def denied(*but: str, also: frozenset[str] = frozenset()) -> Expectation:
    """The answer maps each attempt to the name of the errno that refused it, and none of them worked. `but`: these may work."""

    def check(reply: Reply) -> None:
        assert not reply.error, f"expected refusals, got {reply}"
        assert isinstance(reply.value, dict) and reply.value, f"expected refusals, got {reply}"
        holes = {
            name: answer
            for name, answer in reply.value.items()
            if name not in but and answer not in NO | also
        }
        assert not holes, f"not refused: {holes}"

    return check


def either(*choices: Expectation) -> Expectation:
    """The first that holds; the error of the last if none does."""

    def check(reply: Reply) -> None:
        for choice in choices[:-1]:
            try:
                choice(reply)
            except AssertionError:
                continue
            return
        choices[-1](reply)

    return check


def between(low: float, high: float) -> Expectation:
    """A number within both limits."""

    def check(reply: Reply) -> None:
        assert not reply.error, f"expected a number, got {reply}"
        assert low <= reply.value <= high, f"expected {low} to {high}, got {reply}"

    return check


timed_out = fails("Sandbox.Timedout", saying="Task timed out after")
exited = fails("Runtime.ExitError")
out_of_memory = fails("Runtime.OutOfMemory")


def ended_by(signal: str) -> Expectation:
    return fails("Runtime.ExitError", saying=f"signal: {signal}")
