"""Compiles a policy (seccomp_policies/*.json) to the BPF program that a worker installs as its last step.

The calls are sorted into ranges of numbers with the same answer and searched like a binary tree, 8 comparisons deep: the kernel takes
some 3 us per instruction to load a program, so the usual list of comparisons would cost every cold start 0.3 ms. What the kernel does
per call is the same either way: it remembers which numbers are always allowed.
"""

from __future__ import annotations

import errno
import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POLICIES = Path(__file__).parent / "seccomp_policies"

# What `uname -m` may say -> name of the policy.
_MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}

# From <linux/seccomp.h>.
RET_KILL_PROCESS = 0x80000000
RET_ERRNO = 0x00050000
RET_USER_NOTIF = 0x7FC00000
RET_TRACE = 0x7FF00000
RET_ALLOW = 0x7FFF0000

# From <linux/bpf_common.h>: load a word, and, jump if equal, jump if greater or equal, jump always, return.
LD_W_ABS, ALU_AND_K, JEQ_K, JGE_K, JA, RET_K = 0x20, 0x54, 0x15, 0x35, 0x05, 0x06

# struct seccomp_data: number, architecture, instruction pointer, six arguments of 64 bits (little endian: the low half first).
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16

# Numbers from here on are the x32 ABI of x86_64; aarch64 has nothing there.
_X32_BIT = 0x40000000

# A conditional jump reaches this far.
_FAR = 255

CLONE_PARENT = 0x00008000

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, constant
Code = list[Instruction]


@dataclass(frozen=True, slots=True)
class Condition:
    """True when (argument & mask), low 32 bits, is one of `values`."""

    argument: int
    mask: int
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """Allowed when all conditions of one alternative hold, else `otherwise`."""

    alternatives: tuple[tuple[Condition, ...], ...]
    otherwise: int


Answer = int | Rule  # a seccomp return value, or a look at the arguments


@dataclass(frozen=True, slots=True)
class Policy:
    """`answers`: number of a call -> what it gets; every other number gets ENOSYS."""

    audit_architecture: int
    names: Mapping[str, int]
    answers: Mapping[int, Answer]


def compile_program(machine: str, *, may_clone_parent: bool = True, watched: bool = False) -> bytes:
    """The program for this machine, an array of struct sock_filter; empty where there is no policy.

    `may_clone_parent`: a function's own zygote makes workers with CLONE_PARENT, so that the supervisor is their parent.
    `watched`: the zygote runs under `compile_watch`, so a call of a foreign architecture is left to that: it has a lower rank than a
    kill. Without a watcher the kernel answers it ENOSYS (seccomp(2): no tracer, no listener), so even then nothing gets through.
    """
    name = _MACHINES.get(machine)
    if name is None:
        return b""
    policy = load_policy(POLICIES / f"{name}.json", may_clone_parent=may_clone_parent)
    foreign = RET_TRACE if watched else RET_KILL_PROCESS
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in assemble(policy, foreign))


def compile_watch(machine: str) -> bytes:
    """Of a runtime zygote and all that come of it: tells the supervisor of calls of a foreign architecture and allows the rest."""
    name = _MACHINES.get(machine)
    if name is None:
        return b""
    architecture = load_policy(POLICIES / f"{name}.json").audit_architecture
    code = [*_foreign(architecture, RET_USER_NOTIF), (RET_K, 0, 0, RET_ALLOW)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def all_programs(machine: str) -> dict[str, bytes]:
    """What a runtime zygote needs, by name: `watch` for itself; `worker` and `zygote` for its children by role, of which only a function
    zygote may clone with CLONE_PARENT; `watched_worker` and `watched_zygote` for the same once `watch` is in force."""
    programs = {"watch": compile_watch(machine)}
    for role in ("worker", "zygote"):
        for prefix in ("", "watched_"):
            parent, watched = role == "zygote", bool(prefix)
            programs[prefix + role] = compile_program(machine, may_clone_parent=parent, watched=watched)
    return programs


def load_policy(path: Path, *, may_clone_parent: bool = True) -> Policy:
    """Raises ValueError when a call is named twice: one of the two would silently not count."""
    document = json.loads(path.read_text())
    names: dict[str, int] = {}
    answers: dict[int, Answer] = {}

    def add(name: str, number: int, answer: Answer) -> None:
        if name in names or number in answers:
            raise ValueError(f"{path.name}: {name} ({number}) is there twice")
        names[name] = number
        answers[number] = answer

    for group in document["allow"]:
        for name, number in group["calls"].items():
            add(name, number, RET_ALLOW)
    for group in document["answer"]:
        for name, number in group["calls"].items():
            add(name, number, RET_ERRNO | group["errno"])
    for rule in document["rules"]:
        alternatives = tuple(
            tuple(_condition(raw, rule["call"], may_clone_parent) for raw in alternative)
            for alternative in rule["allow_when"]
        )
        add(rule["call"], rule["number"], Rule(alternatives, RET_ERRNO | rule["else_errno"]))
    return Policy(_number(document["audit_architecture"]), names, answers)


def _condition(raw: Mapping[str, Any], call: str, may_clone_parent: bool) -> Condition:
    mask = _number(raw.get("mask", "0xffffffff"))
    if call == "clone" and not may_clone_parent:
        mask |= CLONE_PARENT
    return Condition(raw["arg"], mask, tuple(_number(value) for value in raw["in"]))


def _number(value: int | str) -> int:
    return int(value, 0) if isinstance(value, str) else value


# ---- code generation -------------------------------------------------------------------------------------------------


def assemble(policy: Policy, foreign: int = RET_KILL_PROCESS) -> Code:
    return [*_foreign(policy.audit_architecture, foreign), *_search(_ranges(policy.answers))]


def _foreign(architecture: int, answer: int) -> Code:
    """What calls of another architecture get; goes on behind itself, with the number loaded, for those of ours."""
    return [
        (LD_W_ABS, 0, 0, _ARCHITECTURE),
        (JEQ_K, 1, 0, architecture),
        (RET_K, 0, 0, answer),
        (LD_W_ABS, 0, 0, _NUMBER),
        (JGE_K, 0, 1, _X32_BIT),
        (RET_K, 0, 0, answer),
    ]


def _ranges(answers: Mapping[int, Answer]) -> list[tuple[int, Answer]]:
    """(first number, answer) of each run of numbers with the same answer, from 0 to the end."""
    default = RET_ERRNO | errno.ENOSYS
    ranges: list[tuple[int, Answer]] = []
    end = 0
    for number in sorted(answers):
        if number > end and (not ranges or ranges[-1][1] != default):
            ranges.append((end, default))
        if not ranges or ranges[-1][1] != answers[number]:
            ranges.append((number, answers[number]))
        end = number + 1
    if not ranges or ranges[-1][1] != default:
        ranges.append((end, default))
    return ranges


def _search(ranges: list[tuple[int, Answer]]) -> Code:
    if len(ranges) == 1:
        return _answer(ranges[0][1])
    middle = len(ranges) // 2
    first = ranges[middle][0]
    below, above = _search(ranges[:middle]), _search(ranges[middle:])
    if len(below) <= _FAR:
        return [(JGE_K, len(below), 0, first), *below, *above]
    return [(JGE_K, 0, 1, first), (JA, 0, 0, len(below)), *below, *above]


def _answer(answer: Answer) -> Code:
    if isinstance(answer, int):
        return [(RET_K, 0, 0, answer)]
    code: Code = []
    for alternative in answer.alternatives:
        code += _alternative(alternative)
    return [*code, (RET_K, 0, 0, answer.otherwise)]


def _alternative(conditions: Iterable[Condition]) -> Code:
    """Returns ALLOW if all hold, else runs off its end."""
    code: Code = [(RET_K, 0, 0, RET_ALLOW)]
    for condition in reversed(list(conditions)):
        code = [*_test(condition, len(code)), *code]
    return code


def _test(condition: Condition, rest: int) -> Code:
    """Goes on behind itself if the condition holds, else jumps over the `rest` instructions that follow."""
    load: Code = [(LD_W_ABS, 0, 0, _ARGUMENTS + 8 * condition.argument)]
    if condition.mask != 0xFFFFFFFF:
        load.append((ALU_AND_K, 0, 0, condition.mask))
    compare: Code = []
    for i, value in enumerate(condition.values):
        after = len(condition.values) - i - 1  # comparisons that still follow
        last = after == 0
        compare.append((JEQ_K, after, rest if last else 0, value))
    if rest > _FAR or len(compare) > _FAR:
        raise ValueError("a rule is too long for conditional jumps")
    return [*load, *compare]
