"""The router: a network namespace of ours between workers and the outside, and the link from it to the host.

Workers are attached to it by forklight-init (native/init/network.c). What is on the host itself is one interface, one table of packet
filter rules and the forwarding of the interfaces to the outside: made when the first function wants it, taken back by `close`, and noted
so that a successor takes back what a killed supervisor left. Everything else goes with the namespace, however we end.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from sandbox import native
from sandbox.egress import addresses, forwarding, rules
from sandbox.egress.links import Links
from sandbox.egress.netlink import NETLINK_NETFILTER, NETLINK_ROUTE
from sandbox.egress.nftables import HOOKS, PacketFilter
from sandbox.errors import SandboxError

UPLINK = "up0"
_NAME_SERVER_BACKLOG = 64
# Any two addresses of the public internet, one in each half: they are looked up in the routing table, nothing is sent to them.
_LOOKED_UP = (IPv4Address("1.1.1.1"), IPv4Address("200.0.0.1"))
_LOOK_AGAIN_S = 1.0
_DEFAULT_MTU = 1500
# Otherwise the kernel says so once a second and counts it against what it says for the whole host.
_ALL_REFUSALS_ARE_SAID = ("/proc/sys/net/ipv4/icmp_ratemask", "0")
# A new namespace has the host's settings: what we rely on is said.
_SETTINGS = {
    "ipv4 forwarding": "1",
    "ipv4 arp_ignore": "0",
    "ipv4 arp_filter": "0",
    "ipv4 route_localnet": "0",
    "ipv4 proxy_arp": "0",
    "ipv4 accept_redirects": "0",
    "ipv4 send_redirects": "0",
    "ipv6 disable_ipv6": "1",
}


@dataclass(slots=True)
class Note:
    """What is on the host because of us."""

    table: str = ""
    link: str = ""
    forwarding: list[str] | None = None

    def as_dict(self) -> dict[str, object]:
        return {"table": self.table, "link": self.link, "forwarding": self.forwarding or []}


class Router:
    """Made by `open`. `remember(note)` writes a note down before what is in it is done."""

    def __init__(
        self,
        network: int,
        allowed: Sequence[IPv4Network],
        remember: Callable[[Note], None],
        places: Sequence[addresses.Place] = (),
    ) -> None:
        self._network = network
        self._allowed = list(allowed)
        self._places = list(places)
        self._remember = remember
        self._note = Note()
        self._links: Links | None = None  # the host's
        self._filter: PacketFilter | None = None
        self._looked_at = float("-inf")
        self._workers = 0
        self._mtu = _DEFAULT_MTU

    @classmethod
    def open(
        cls,
        allowed: Sequence[IPv4Network],
        remember: Callable[[Note], None],
        places: Sequence[addresses.Place] = (),
    ) -> Router:
        """The namespace with its rules; nothing on the host yet. Raises SandboxError where the kernel lacks something."""
        network = native.new_network()
        router = cls(network, allowed, remember, places)
        try:
            router._fill()
        except BaseException:
            os.close(network)
            raise
        return router

    def close(self) -> None:
        """Idempotent. Workers that are still attached lose their way out."""
        if self._network < 0:
            return
        os.close(self._network)
        self._network = -1
        if self._links is not None and self._filter is not None:
            take_back(self._note, self._links, self._filter)
            self._links.close()
            self._filter.close()

    # ---- for sandboxes ---------------------------------------------------------------------------------------------

    @property
    def descriptor(self) -> int:
        """Of the namespace; to be passed to forklight-init together with `init_arguments`."""
        return self._network

    def init_arguments(self, slot: int, descriptor: int) -> list[bytes]:
        """`descriptor`: the number that ours has in forklight-init."""
        # Not the slot: the interface of its last sandbox goes some time after that.
        self._workers = (self._workers + 1) % 1_000_000_000
        words = (descriptor, f"w{self._workers}", addresses.worker_address(slot), addresses.ROUTER, self._mtu)
        return [b"--egress", *(str(word).encode() for word in words)]

    def name_server_sockets(self) -> tuple[socket.socket, socket.socket]:
        """UDP and TCP, bound where sandboxes look for their name server. They are the caller's."""
        made = []
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            sock = self._socket(socket.AF_INET, kind, 0)
            made.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((str(addresses.ROUTER), rules.DNS_PORT))
        made[1].listen(_NAME_SERVER_BACKLOG)
        return made[0], made[1]

    # ---- the way out -----------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Make the link to the host and its rules, at the first call; and see that interfaces to the outside forward.

        Raises SandboxError.
        """
        if self._links is None:
            self._connect()
        if time.monotonic() - self._looked_at > _LOOK_AGAIN_S:
            self._follow_routes()
            self._looked_at = time.monotonic()

    def _follow_routes(self) -> None:
        """Interfaces to the outside forward: again when a sandbox is made, because routes change."""
        assert self._links is not None and self._filter is not None
        try:
            for interface in self._ways_out():
                if forwarding.forwards(interface):
                    continue
                self._note.forwarding = [*(self._note.forwarding or []), interface]
                self._remember(self._note)
                self._filter.append(self._note.table, "guard", rules.guard(interface))
                forwarding.switch_on(interface)
        except OSError as error:
            raise SandboxError(
                error.errno or 0, "switch forwarding on", str(error.filename or error)
            ) from error

    def blocked_by(self) -> list[str]:
        """Chains of others on this host that drop what is forwarded unless a rule of theirs allows it."""
        packet_filter = PacketFilter(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER))
        try:
            forward = HOOKS["forward"]
            chains = packet_filter.chains()
            return [f"{each.table} {each.name}" for each in chains if each.hook == forward and each.drops]
        finally:
            packet_filter.close()

    def _ways_out(self) -> set[str]:
        assert self._links is not None
        to = (*_LOOKED_UP, *(network[min(1, network.num_addresses - 1)] for network in self._allowed))
        to += tuple(address for address, _ in self._places)
        found = {self._links.way_to(address) for address in to}
        return {name for name in found if name is not None and name != self._note.link}

    def _fill(self) -> None:
        native.set_in_network(self._network, *_ALL_REFUSALS_ARE_SAID)
        for scope in ("all", "default"):
            for name, value in _SETTINGS.items():
                family, _, setting = name.partition(" ")
                path = f"/proc/sys/net/{family}/conf/{scope}/{setting}"
                if family == "ipv4" or os.path.exists(path):
                    native.set_in_network(self._network, path, value)
        links = Links(self._socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE))
        packet_filter = PacketFilter(self._socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER))
        try:
            packet_filter.load(rules.router_table(UPLINK, addresses.ROUTER, self._allowed, self._places))
            links.bring_up("lo")
            links.add_address("lo", addresses.ROUTER, 32)
        finally:
            links.close()
            packet_filter.close()

    def _connect(self) -> None:
        instance = f"{os.getpid()}-{os.urandom(2).hex()}"
        links = Links(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE))
        packet_filter = PacketFilter(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER))
        note = Note(table=f"forklight-{instance}", link=f"fl{instance}")
        try:
            self._mtu = self._smallest_mtu(links)
            network = addresses.free_link(links.networks())
            self._remember(note)
            packet_filter.load(rules.host_table(note.table, note.link, network, self._allowed, self._places))
            self._make_link(links, note.link, network)
        except BaseException as error:
            take_back(note, links, packet_filter)
            links.close()
            packet_filter.close()
            if isinstance(error, LookupError):
                raise SandboxError(99, "choose addresses", str(error)) from error
            raise
        self._note, self._links, self._filter = note, links, packet_filter

    def _smallest_mtu(self, links: Links) -> int:
        ways = (links.way_to(address) for address in _LOOKED_UP)
        return min((links.mtu(name) for name in ways if name is not None), default=_DEFAULT_MTU)

    def _make_link(self, links: Links, name: str, network: IPv4Network) -> None:
        here, there = network[1], network[2]
        links.make_pair(name, UPLINK, self._network, self._mtu)
        forwarding_of_link = f"/proc/sys/net/ipv4/conf/{name}/forwarding"
        with open(forwarding_of_link, "w", encoding="ascii") as setting:
            setting.write("1")
        links.add_address(name, here, network.prefixlen)
        links.bring_up(name)
        inside = Links(self._socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE))
        try:
            inside.add_address(UPLINK, there, network.prefixlen)
            inside.bring_up(UPLINK)
            inside.add_default_route(here)
        finally:
            inside.close()

    def _socket(self, family: int, kind: int, protocol: int) -> socket.socket:
        return socket.socket(fileno=native.socket_in_network(self._network, family, kind, protocol))


def take_back(note: Note, links: Links, packet_filter: PacketFilter) -> None:
    """Remove from the host what the note names, as far as it is there."""
    if note.link:
        _unless_gone(lambda: links.remove(note.link))
    forwarding.restore(note.forwarding or [])
    # Last: until here its guard held.
    if note.table:
        _unless_gone(lambda: packet_filter.remove(note.table))


def take_back_from(document: object) -> None:
    """The same for what a dead predecessor noted (`Note.as_dict`). Raises SandboxError."""
    if not isinstance(document, dict) or not document.get("table"):
        return
    interfaces = document.get("forwarding")
    note = Note(
        str(document["table"]),
        str(document.get("link") or ""),
        [str(name) for name in interfaces if "/" not in str(name)] if isinstance(interfaces, list) else [],
    )
    links = Links(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE))
    packet_filter = PacketFilter(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER))
    try:
        take_back(note, links, packet_filter)
    finally:
        links.close()
        packet_filter.close()


def _unless_gone(act: Callable[[], None]) -> None:
    try:
        act()
    except SandboxError as error:
        if error.errno not in (2, 19):  # ENOENT, ENODEV
            raise
