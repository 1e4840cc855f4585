"""How a worker ended, from its exit status and from what we had wanted of it."""

from __future__ import annotations

import logging

import pytest

from sandbox.cgroups import Starved
from sandbox.deaths import LINES_PER_SECOND, ORDINARY, Cause, Death, Deaths, of_status
from sandbox.limits import Limits
from sandbox.processes import ExitStatus
from sandbox.spec import Spec

SPEC = Spec(
    key="k",
    runtime="python3.11",
    code="/x",
    layers=(),
    runtime_layer=None,
    limits=Limits(128, 512),
    network="none",
    isolation="reuse",
    snapshot="off",
    init={"region": "us-east-1", "function_name": "hello"},
)


def exited(code: int) -> ExitStatus:
    return ExitStatus("exit", code)


def killed(number: int) -> ExitStatus:
    return ExitStatus("signal", number)


@pytest.mark.parametrize(
    ("status", "wanted", "starved", "death"),
    [
        # of itself
        (exited(0), None, None, Death("exit", "0")),
        (exited(3), None, None, Death("exit", "3")),
        (killed(11), None, None, Death("signal", "segmentation fault")),
        (killed(60), None, None, Death("signal", "signal 60")),
        (killed(9), None, None, Death("signal", "killed")),
        # the kernel, for want of memory
        (killed(9), None, "oom", Death("oom")),
        (killed(9), None, "host_oom", Death("host_oom")),
        # a child of it was killed for that, but it died of something else
        (killed(6), None, "oom", Death("signal", "aborted")),
        # our wish
        (killed(9), "timeout", None, Death("timeout")),
        (killed(9), "operator", "oom", Death("operator")),
        (exited(0), "released", None, Death("released")),
        (exited(1), "shutdown", None, Death("shutdown")),
        # what only follows its end is not the reason of its end
        (killed(11), "released", None, Death("signal", "segmentation fault")),
        (exited(7), "init_failed", None, Death("exit", "7")),
        (exited(120), "released", None, Death("setup")),
        (exited(0), "protocol", None, Death("protocol")),
        (killed(9), "protocol", None, Death("protocol")),
        (killed(9), "protocol", "oom", Death("oom")),
        (killed(9), "init_failed", "host_oom", Death("host_oom")),
    ],
)
def test_of_status(status: ExitStatus, wanted: Cause | None, starved: Starved | None, death: Death) -> None:
    assert of_status(status, None if wanted is None else Death(wanted), lambda: starved) == death


def test_deaths_are_counted_by_function_and_cause() -> None:
    deaths = Deaths(lambda: 0.0)
    for death in (Death("oom"), Death("signal", "aborted"), Death("oom"), Death("setup", "no such file")):
        deaths.note("worker 1", death, SPEC)
    deaths.note("the zygote of python3.11", Death("exit", "1"))
    assert sorted(map(str, deaths.take())) == sorted(
        map(
            str,
            [
                ["us-east-1", "hello", "oom", "", 2],
                ["us-east-1", "hello", "signal", "aborted", 1],
                ["us-east-1", "hello", "setup", "", 1],  # a text of its own would make a metric of its own
                ["", "", "exit", "1", 1],
            ],
        )
    )
    assert deaths.take() == []


def test_the_log_names_what_nobody_wished_and_no_more_than_it_can_bear(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = [0.0]
    deaths = Deaths(lambda: now[0])
    with caplog.at_level(logging.INFO):
        for cause in ORDINARY:
            deaths.note("worker 1", Death(cause), SPEC)  # type: ignore[arg-type]
        assert caplog.messages == []
        deaths.note("worker 7", Death("seccomp", "i386 getpid"), SPEC)
        assert caplog.messages == ["worker 7 of hello died: system call not allowed: i386 getpid"]
        for _ in range(1000):
            deaths.note("worker 8", Death("exit", "1"), SPEC)
        assert len(caplog.messages) == LINES_PER_SECOND
        now[0] = 1.5
        deaths.note("worker 9", Death("operator"), SPEC)
    untold = 1001 - LINES_PER_SECOND
    assert caplog.messages[-2:] == [
        f"{untold} more workers died; the metrics have counted them",
        "worker 9 of hello was ended: killed by an operator",
    ]
