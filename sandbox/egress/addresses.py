"""Who has which address. All of it is 198.18.0.0/15, which RFC 2544 keeps for benchmarks: no network that a function could want to reach.

198.18.0.1                the router, towards workers: gateway and name server, the same for all
198.18.1.0-198.18.255.255 workers, by slot; seen by the router only
198.19.0.0/16             one /30 of it is the link between router and host
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network
from urllib.parse import urlsplit

OURS = IPv4Network("198.18.0.0/15")
ROUTER = IPv4Address("198.18.0.1")
_FIRST_WORKER = int(IPv4Address("198.18.1.0"))
_LINKS = IPv4Network("198.19.0.0/16")
_LINK_PREFIX = 30

# What `--egress-allow` cannot open: a worker's own loopback, and what the router uses itself.
_NEVER_ALLOWED = (IPv4Network("127.0.0.0/8"), OURS, IPv4Network("224.0.0.0/4"))


def worker_address(slot: int) -> IPv4Address:
    """`slot` < 65,280."""
    return IPv4Address(_FIRST_WORKER + slot)


def free_link(used: Iterable[IPv4Network]) -> IPv4Network:
    """A /30 that none of the networks in use touches. Raises LookupError when there is none."""
    taken = [network for network in used if network.overlaps(_LINKS)]
    links = [IPv4Network((number, _LINK_PREFIX)) for number in _numbers()]
    random.shuffle(links)  # two servers that start at once choose differently
    for link in links:
        if not any(link.overlaps(network) for network in taken):
            return link
    raise LookupError(f"every link network of {_LINKS} is in use on this host")


def _numbers() -> range:
    first = int(_LINKS.network_address)
    return range(first, first + _LINKS.num_addresses, 1 << (32 - _LINK_PREFIX))


# An address and a port of it, for TCP.
Place = tuple[IPv4Address, int]


def place_of(url: str) -> Place | None:
    """Where an HTTP URL leads, if that is an IPv4 address that a sandbox can reach at all; else None. Raises ValueError with a sentence
    for what is no such URL."""
    parts = urlsplit(url)
    try:
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (KeyError, ValueError):
        raise ValueError(f"{url}: not a URL such as http://10.0.0.5:8080") from None
    if not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment or parts.username:
        raise ValueError(f"{url}: not a URL such as http://10.0.0.5:8080")
    try:
        address = IPv4Address(parts.hostname)
    except ValueError:
        return None
    return None if any(address in never for never in _NEVER_ALLOWED) else (address, port)


def parse_allowed(texts: Sequence[str]) -> list[IPv4Network]:
    """Networks as an operator writes them. Raises ValueError with a sentence."""
    networks = []
    for text in texts:
        try:
            network = IPv4Network(text)
        except ValueError as error:
            raise ValueError(f"{text}: not an IPv4 network such as 10.1.2.0/24 ({error})") from None
        for never in _NEVER_ALLOWED:
            if network.overlaps(never) and network.prefixlen >= never.prefixlen:
                raise ValueError(f"{text}: {never} cannot be reached from a sandbox")
        networks.append(network)
    return networks
