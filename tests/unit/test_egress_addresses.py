from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from sandbox.egress.addresses import OURS, ROUTER, free_link, parse_allowed, worker_address
from sandbox.egress.rules import BLOCKED
from sandbox.shell_pool import SLOTS


def test_every_slot_has_an_address_of_its_own_and_none_is_the_routers_or_a_links() -> None:
    workers = {worker_address(slot) for slot in range(SLOTS)}
    assert len(workers) == SLOTS
    assert ROUTER not in workers
    assert all(address in OURS for address in workers)
    link = free_link([])
    assert link.prefixlen == 30
    assert link.subnet_of(OURS)
    assert not any(address in workers for address in link)


def test_a_link_is_free_of_what_the_host_has() -> None:
    rest = IPv4Network("198.19.7.4/30")
    used = list(IPv4Network("198.19.0.0/16").address_exclude(rest))
    assert free_link(used) == rest
    with pytest.raises(LookupError):
        free_link([IPv4Network("198.16.0.0/12")])


@pytest.mark.parametrize(
    "address",
    ["10.1.2.3", "172.31.255.255", "192.168.0.1", "169.254.169.254", "127.0.0.53", "100.100.100.200", "0.0.0.0",
     "255.255.255.255", "239.1.2.3", "192.0.0.192", str(ROUTER)],
)  # fmt: skip
def test_what_is_inside_is_blocked(address: str) -> None:
    assert any(IPv4Address(address) in network for network in BLOCKED)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "172.32.0.1", "100.128.0.1", "203.0.113.10", "223.255.255.255"]
)
def test_what_is_outside_is_not(address: str) -> None:
    assert not any(IPv4Address(address) in network for network in BLOCKED)


def test_an_operator_allows_networks() -> None:
    assert parse_allowed(["10.1.2.0/24", "192.168.1.9"]) == [
        IPv4Network("10.1.2.0/24"),
        IPv4Network("192.168.1.9/32"),
    ]
    assert parse_allowed([]) == []


@pytest.mark.parametrize(
    "text", ["127.0.0.1", "198.18.0.1/32", "224.0.0.0/4", "10.1.2.3/8", "fd00::/8", "host"]
)
def test_what_cannot_be_allowed_is_said_in_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=text.partition("/")[0]):
        parse_allowed([text])
