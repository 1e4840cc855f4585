"""What may go where: the packet filter of the router (workers -> outside) and that of the host (router -> outside).

The router decides about everything that a worker sends. The host decides again, because it alone knows its own addresses and what its
other rules make of a packet: a port that a container engine publishes is redirected to a private address after the router has seen it.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network

from sandbox.egress import nftables as nft
from sandbox.egress.addresses import Place
from sandbox.egress.nftables import Chain, Expression, Table

ICMP, TCP, UDP = 1, 6, 17
DNS_PORT = 53
# Of one worker at a time, DNS included. Each costs the host two entries in its connection table.
MAX_CONNECTIONS = 1024

# Nothing that is not the public internet: RFC 6890's special addresses that somebody may use for something inside.
BLOCKED = [
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared address space: carriers, some clouds' metadata
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local: most clouds' metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments, Oracle's metadata
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarking: our own links
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
]

_ROUTER_TABLE = "forklight"
_COUNTER = "connections"


def _policy(
    allowed: Sequence[IPv4Network], places: Sequence[Place], then: Expression
) -> list[list[Expression]]:
    """Rules that refuse what is blocked and go on with the rest."""
    rules = [[*_to(place), then] for place in places]
    rules += [[nft.to_network(network), then] for network in allowed]
    rules += [[nft.to_network(network), nft.goto("refuse")] for network in BLOCKED]
    return [*rules, [then]]


def _to(place: Place) -> tuple[Expression, ...]:
    address, port = place
    return nft.protocol(TCP), nft.to_address(address), nft.to_port(port)


# A caller that is told at once does not wait for its own time-out.
_REFUSE = Chain("refuse", [[nft.protocol(TCP), nft.REJECT_WITH_RESET], [nft.REJECT]])


def router_table(
    uplink: str, name_server: IPv4Address, allowed: Sequence[IPv4Network], places: Sequence[Place] = ()
) -> Table:
    """`uplink`: the router's interface to the outside; every other one is a worker's. `name_server`: its own address. `allowed` and
    `places`: what may be reached although it is not of the public internet."""
    from_worker = nft.did_not_come_in_by(uplink)
    dns = [nft.to_address(name_server), nft.to_port(DNS_PORT), nft.ACCEPT]
    return Table(
        _ROUTER_TABLE,
        [
            _REFUSE,
            Chain(
                "counted",
                [
                    [nft.more_connections_than(MAX_CONNECTIONS, _COUNTER), nft.goto("refuse")],
                    *([nft.protocol(number), nft.ACCEPT] for number in (TCP, UDP, ICMP)),
                    [nft.DROP],
                ],
            ),
            Chain("outwards", _policy(allowed, places, nft.goto("counted"))),
            Chain(
                "prerouting",
                [[nft.IS_NOT_IPV4, nft.DROP], [from_worker, nft.SOURCE_IS_FORGED, nft.DROP]],
                hook="prerouting",
                priority=-300,
            ),
            Chain(
                "forward",
                [
                    [nft.in_state(nft.ESTABLISHED | nft.RELATED), nft.ACCEPT],
                    # Only workers begin anything, and only towards the outside: not another worker.
                    [from_worker, nft.goes_out_by(uplink), nft.in_state(nft.NEW), nft.goto("outwards")],
                    [from_worker, nft.goto("refuse")],
                ],
                hook="forward",
                drops=True,
            ),
            Chain(
                "input",
                [
                    [nft.in_state(nft.ESTABLISHED | nft.RELATED), nft.ACCEPT],
                    [from_worker, nft.more_connections_than(MAX_CONNECTIONS, _COUNTER), nft.DROP],
                    [from_worker, nft.protocol(UDP), *dns],
                    [from_worker, nft.protocol(TCP), *dns],
                    [from_worker, nft.goto("refuse")],
                ],
                hook="input",
                drops=True,
            ),
            Chain(
                "postrouting",
                [[nft.goes_out_by(uplink), nft.MASQUERADE]],
                hook="postrouting",
                kind="nat",
                priority=100,
            ),
        ],
        counters=[_COUNTER],
    )


def host_table(
    name: str,
    link: str,
    network: IPv4Network,
    allowed: Sequence[IPv4Network],
    places: Sequence[Place] = (),
) -> Table:
    """`link`: the host's interface to the router; `network`: the addresses of the two."""
    from_router, to_router = nft.came_in_by(link), nft.goes_out_by(link)
    return Table(
        name,
        [
            _REFUSE,
            Chain("outwards", _policy(allowed, places, nft.ACCEPT)),
            # Interfaces that forward only because of us (`guard`): for nobody else but who had a connection anyway.
            Chain("guard", []),
            Chain(
                "prerouting",
                [
                    [from_router, nft.IS_NOT_IPV4, nft.DROP],
                    [from_router, nft.SOURCE_IS_FORGED, nft.DROP],
                ],
                hook="prerouting",
                priority=-300,
            ),
            Chain(
                "forward",
                [
                    [from_router, nft.in_state(nft.ESTABLISHED | nft.RELATED), nft.ACCEPT],
                    [from_router, nft.in_state(nft.NEW), nft.goto("outwards")],
                    [from_router, nft.DROP],
                    [to_router, nft.in_state(nft.ESTABLISHED | nft.RELATED), nft.ACCEPT],
                    [to_router, nft.DROP],
                    [nft.jump("guard")],
                ],
                hook="forward",
            ),
            Chain(
                "input",
                [
                    # The host's own addresses, whatever they are: only those that the operator has named.
                    *([from_router, nft.to_network(network), nft.ACCEPT] for network in allowed),
                    *([from_router, *_to(place), nft.ACCEPT] for place in places),
                    [from_router, nft.goto("refuse")],
                ],
                hook="input",
            ),
            Chain(
                "postrouting",
                [[nft.from_network(network), nft.does_not_go_out_by(link), nft.MASQUERADE]],
                hook="postrouting",
                kind="nat",
                priority=100,
            ),
        ],
    )


def guard(interface: str) -> list[Expression]:
    """A rule of the chain `guard`: this interface forwards only because of us, so it begins nothing through this host.

    What a port forwarding of the host's own has redirected passes: a container engine has then switched forwarding on itself.
    """
    return [
        nft.came_in_by(interface),
        nft.in_state(nft.NEW),
        nft.WAS_NOT_REDIRECTED,
        nft.DROP,
    ]
