"""Who of the server's own processes may do what: who listens has no privileges, and who has them listens on no network."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.support.processes import role_of
from tests.support.server import Server

pytestmark = pytest.mark.security

UNPRIVILEGED = ("door", "control", "events")
LISTENING = "0A"


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def sockets(pid: int) -> set[str]:
    """Inodes of the sockets that a process has open."""
    found = set()
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        try:
            match = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(f"/proc/{pid}/fd/{descriptor}"))
        except OSError:
            continue  # closed meanwhile
        if match:
            found.add(match.group(1))
    return found


def of_the_network(pid: int) -> dict[str, str]:
    """Inode -> state, of every TCP and UDP socket of the process's network."""
    found = {}
    for table in ("tcp", "tcp6", "udp", "udp6"):
        path = Path(f"/proc/{pid}/net/{table}")
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            fields = line.split()
            found[fields[9]] = fields[3] if table.startswith("tcp") else LISTENING
    return found


@pytest.mark.parametrize("role", UNPRIVILEGED)
def test_who_parses_what_strangers_send_has_no_privileges(server: Server, role: str) -> None:
    pids = role_of(server.pid, role)
    assert pids
    for pid in pids:
        found = status(pid)
        assert {found[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
        assert found["NoNewPrivs"] == "1"
        # Of whoever started the server the ids are, where that is an ordinary user, and else nobody's.
        uids, gids = ({int(number) for number in found[name].split()} for name in ("Uid", "Gid"))
        assert len(uids) == len(gids) == 1
        if os.geteuid() == 0:
            assert uids != {0} and gids != {0}
            assert found["Groups"] == ""
            assert found["CapBnd"] == "0" * 16


@pytest.mark.root("descriptors of other users' processes")
def test_the_supervisor_listens_on_no_network(server: Server) -> None:
    network = of_the_network(server.pid)
    held = {inode for inode in sockets(server.pid) if inode in network}
    assert held == set()
    # The look would have found them: doors do listen.
    (door,) = role_of(server.pid, "door")[:1]
    assert any(network.get(inode) == LISTENING for inode in sockets(door))


@pytest.mark.root("descriptors of other users' processes")
def test_only_doors_listen(server: Server) -> None:
    network = of_the_network(server.pid)
    for role in ("control", "events"):
        for pid in role_of(server.pid, role):
            assert not any(network.get(inode) == LISTENING for inode in sockets(pid))
