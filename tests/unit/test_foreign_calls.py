"""What a call of a foreign architecture is called."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sandbox.foreign_calls import call_name
from sandbox.seccomp import POLICIES

I386, X86_64, ARM = 0x40000003, 0xC000003E, 0x40000028


@pytest.mark.parametrize(
    ("architecture", "number", "name"),
    [
        (I386, 20, "i386 getpid"),
        (I386, 11, "i386 execve"),
        (I386, 9999, "i386 call 9999"),
        (X86_64, 0x40000000 | 39, "x32 getpid"),
        (X86_64, 0x40000000 | 521, "x32 ptrace"),  # numbers of its own
        (X86_64, -1, "x32 call 1073741823"),
        (ARM, 20, "arm call 20"),  # no table
        (0xC00000B7, 1, "call 1 of architecture 0xc00000b7"),
    ],
)
def test_call_name(architecture: int, number: int, name: str) -> None:
    assert call_name(architecture, number) == name


@pytest.mark.parametrize(("architecture", "header"), [("i386", "unistd_32.h"), ("x32", "unistd_x32.h")])
def test_the_tables_are_those_of_the_kernels_headers(architecture: str, header: str) -> None:
    path = Path("/usr/include/x86_64-linux-gnu/asm") / header
    if not path.exists():
        pytest.skip("no kernel headers of this architecture")
    calls = json.loads((POLICIES / "foreign" / f"{architecture}.json").read_text())["calls"]
    line = re.compile(r"#define __NR_(\w+) \(?(?:__X32_SYSCALL_BIT \+ )?(\d+)\)?")
    defined = {found[1]: int(found[2]) for found in map(line.match, path.read_text().splitlines()) if found}
    assert {name: number for name, number in calls.items() if name in defined} == {
        name: number for name, number in defined.items() if name in calls
    }
    assert len(calls.keys() & defined.keys()) > 300
