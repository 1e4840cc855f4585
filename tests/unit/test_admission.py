"""Who gets in: places in all and of one address, what an address is, and what the limit of open files leaves."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from gateway import admission
from gateway.admission import Admission, peer_of, places
from gateway.settings import Settings


def test_places_in_all_and_of_one_address() -> None:
    door = Admission(3, 2)
    first, second = door.enter("a"), door.enter("a")
    assert first and second
    assert door.enter("a") is None
    other = door.enter("b")
    assert other
    assert door.enter("c") is None
    assert (door.inside, door.refused) == (3, 2)
    first.leave()
    first.leave()  # a second time means nothing
    assert door.inside == 2
    assert door.enter("a")
    for ticket in (second, other):
        ticket.leave()
    assert door.inside == 1


def test_without_a_limit_one_address_may_have_all_places() -> None:
    door = Admission(3)
    assert all(door.enter("a") for _ in range(3))
    assert door.enter("a") is None


def test_nothing_is_remembered_of_those_who_left() -> None:
    door = Admission(10_000)
    for number in range(5000):
        ticket = door.enter(str(number))
        assert ticket
        ticket.leave()
    assert door._peers == {}


def test_of_ipv6_an_address_is_what_one_host_is_given() -> None:
    assert peer_of(("127.0.0.1", 1)) == "127.0.0.1" != peer_of(("127.0.0.2", 1))
    assert peer_of(("2001:db8::1", 1, 0, 0)) == peer_of(("2001:db8::ffff:2", 2, 0, 0))
    assert peer_of(("2001:db8::1", 1, 0, 0)) != peer_of(("2001:db8:0:1::1", 1, 0, 0))
    assert peer_of(("fe80::1%eth0", 1, 0, 2)) == peer_of(("fe80::2", 1, 0, 2))
    assert peer_of("") == peer_of(b"")


@pytest.mark.parametrize(
    ("files", "expected"), [(1 << 20, (10_000, 4_096)), (20_000, (10_000, 4_096)), (1024, (363, 148))]
)
def test_the_limit_of_open_files_leaves_room_for_workers(
    monkeypatch: pytest.MonkeyPatch, files: int, expected: tuple[int, int]
) -> None:
    monkeypatch.setattr(admission.resource, "getrlimit", lambda which: (files, files))
    settings = Settings(state_dir=Path("/x"))
    assert places(settings) == expected
    assert resource.RLIM_INFINITY == -1
