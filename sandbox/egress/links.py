"""Interfaces, addresses and routes of one network namespace, through rtnetlink(7)."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv4Network

from sandbox.egress import netlink
from sandbox.egress.netlink import Netlink, Request, attribute, attributes, nest, string
from sandbox.errors import SandboxError

_NEWLINK, _DELLINK, _GETLINK, _NEWADDR, _GETADDR, _NEWROUTE, _GETROUTE = 16, 17, 18, 20, 22, 24, 26
_IFNAME, _MTU, _LINKINFO, _NET_NS_FD = 3, 4, 18, 28
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_ADDRESS, _LOCAL = 1, 2
_DST, _OIF, _GATEWAY, _METRICS = 1, 4, 5, 8
_UP = 1

_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, change
_ADDR = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, dst, src, tos, table, protocol, scope, type, flags
_TABLE_MAIN, _STATIC, _UNICAST = 254, 4, 1
_U32 = struct.Struct("=I")


def _u32(kind: int, value: int) -> bytes:
    return attribute(kind, _U32.pack(value))


class Links:
    """Owns its socket. Every method raises SandboxError with the kernel's errno."""

    def __init__(self, sock: socket.socket) -> None:
        self._netlink = Netlink(sock, "configure the network")

    def close(self) -> None:
        self._netlink.close()

    def make_pair(self, name: str, peer: str, peer_network: int, mtu: int) -> None:
        """A veth pair: `name` here, `peer` in the network namespace of descriptor `peer_network`."""
        other = (
            _LINK.pack(0, 0, 0, 0, 0)
            + string(_IFNAME, peer)
            + _u32(_MTU, mtu)
            + _u32(_NET_NS_FD, peer_network)
        )
        info = nest(_LINKINFO, string(_INFO_KIND, "veth"), nest(_INFO_DATA, nest(_VETH_PEER, other)))
        body = _LINK.pack(0, 0, 0, 0, 0) + string(_IFNAME, name) + _u32(_MTU, mtu) + info
        self._change(_NEWLINK, netlink.CREATE | netlink.EXCL, body, name)

    def remove(self, name: str) -> None:
        self._change(_DELLINK, 0, _LINK.pack(0, 0, 0, 0, 0) + string(_IFNAME, name), name)

    def index(self, name: str) -> int:
        return int(_LINK.unpack_from(self._link(name))[2])

    def mtu(self, name: str) -> int:
        return int(_U32.unpack(attributes(self._link(name)[_LINK.size :])[_MTU])[0])

    def name(self, index: int) -> str:
        body = self._netlink.dump(Request(_GETLINK, 0, _LINK.pack(0, 0, index, 0, 0), f"interface {index}"))[
            0
        ]
        return attributes(body[_LINK.size :])[_IFNAME].rstrip(b"\0").decode(errors="replace")

    def bring_up(self, name: str) -> None:
        self._change(_NEWLINK, 0, _LINK.pack(0, 0, self.index(name), _UP, _UP), name)

    def add_address(self, name: str, address: IPv4Address, prefix: int) -> None:
        body = _ADDR.pack(socket.AF_INET, prefix, 0, 0, self.index(name))
        body += attribute(_LOCAL, address.packed) + attribute(_ADDRESS, address.packed)
        self._change(_NEWADDR, netlink.CREATE | netlink.EXCL, body, f"{address}/{prefix}")

    def networks(self) -> list[IPv4Network]:
        """Of the addresses that interfaces have here."""
        request = Request(_GETADDR, netlink.DUMP, _ADDR.pack(socket.AF_INET, 0, 0, 0, 0), "addresses")
        found = []
        for body in self._netlink.dump(request):
            address = attributes(body[_ADDR.size :]).get(_ADDRESS)
            if address is not None:
                found.append(IPv4Network((address, body[1]), strict=False))
        return found

    def add_default_route(self, gateway: IPv4Address) -> None:
        body = _ROUTE.pack(socket.AF_INET, 0, 0, 0, _TABLE_MAIN, _STATIC, 0, _UNICAST, 0)
        body += attribute(_GATEWAY, gateway.packed)
        self._change(_NEWROUTE, netlink.CREATE | netlink.REPLACE, body, "default route")

    def way_to(self, address: IPv4Address) -> str | None:
        """The interface that packets to this address leave by; None when there is no route or it is an address of our own."""
        body = _ROUTE.pack(socket.AF_INET, 32, 0, 0, 0, 0, 0, 0, 0) + attribute(_DST, address.packed)
        try:
            answer = self._netlink.dump(Request(_GETROUTE, 0, body, str(address)))[0]
        except SandboxError:
            return None
        oif = attributes(answer[_ROUTE.size :]).get(_OIF)
        if oif is None or _ROUTE.unpack_from(answer)[7] != _UNICAST:
            return None
        return self.name(_U32.unpack(oif)[0])

    def _link(self, name: str) -> bytes:
        body = _LINK.pack(0, 0, 0, 0, 0) + string(_IFNAME, name)
        return self._netlink.dump(Request(_GETLINK, 0, body, name))[0]

    def _change(self, kind: int, flags: int, body: bytes, what: str) -> None:
        self._netlink.ask(Request(kind, flags | netlink.ACK, body, what))
