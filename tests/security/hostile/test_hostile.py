"""Every hostile function and client gets what it deserves, nobody else is harmed, and nothing is left of it.

`make test-security` runs all of it, also against a server elsewhere (ARGS="--endpoint http://host:port", credentials from the
environment as `forklight env` prints them); `make test` what is not slow.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from statistics import median

import pytest

from tests.security.hostile.case import Case
from tests.security.hostile.clients import every
from tests.security.hostile.conftest import Client, Running, roles_of
from tests.security.hostile.functions import CASES
from tests.support.processes import zombies_of

pytestmark = [pytest.mark.security]

LEFT_OVER_S = 60.0


def parameters(cases: list[Case]) -> list[object]:
    names = [case.name for case in cases]
    assert len(set(names)) == len(names), "two cases have one name"
    return [pytest.param(case, id=case.name, marks=[pytest.mark.slow] if case.slow else []) for case in cases]


@pytest.mark.parametrize("case", parameters(CASES))
def test_function(attacks: Running, case: Case) -> None:
    lacking = attacks.arena.lacking(case)
    if lacking:
        pytest.skip(f"this host does not enforce: {', '.join(lacking)}")
    attacks.futures[case.name].result()


def client_parameters() -> list[object]:
    return [
        pytest.param(
            client,
            id=f"{client.__module__.rpartition('.')[2]}: {client.__name__.replace('_', ' ')}",
            marks=[pytest.mark.slow] if client in every.SLOW else [],
        )
        for client in every.ALL
    ]


@pytest.mark.parametrize("client", client_parameters())
def test_client(attacks: Running, client: Client) -> None:
    attacks.futures[client.__name__].result()


def test_the_canary_was_served_all_the_time(attacks: Running) -> None:
    """With twelve attacks at a time beside it; each single attack was followed by a check of its own."""
    seconds = attacks.arena.canary_seconds
    assert median(seconds) < 0.5


def test_nothing_is_left_over(attacks: Running) -> None:
    attacks.finish()
    server = attacks.server
    if server is None:
        pytest.skip("the server is not ours: nobody counted what it held before")
    assert attacks.before is not None
    before = attacks.before
    if os.geteuid() != 0:
        # Of its own sandboxes an ordinary user may not read the descriptors, so that their number says little.
        before = dataclasses.replace(before, fds=sys.maxsize)
    before.assert_no_more_than_before(timeout_s=LEFT_OVER_S)
    deadline = time.monotonic() + LEFT_OVER_S
    while zombies := zombies_of(server.pid):  # one that has just died may not be reaped yet
        assert time.monotonic() < deadline, zombies
        time.sleep(0.05)
    assert roles_of(server) == attacks.roles, "a process of the platform has died"
    assert "Traceback" not in server.log(), server.log()[-4000:]
