"""Packet filter rules in the kernel's own words (nf_tables over netlink): no `nft` program is needed.

An expression is bytes; a rule is a list of them. Each comparison leaves the rule when it does not hold, so a rule reads like nft's own:
`[came_in_by("up0"), to_network(net), DROP]`. Register 1 is all that is used.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from sandbox.egress import netlink
from sandbox.egress.netlink import Netlink, Request, attribute, attributes, nest, string

_SUBSYSTEM = 10 << 8
_NEWTABLE, _DELTABLE, _NEWCHAIN, _GETCHAIN, _NEWRULE, _NEWSET = 0, 2, 3, 4, 6, 9
_BATCH_BEGIN, _BATCH_END = 16, 17
_INET = 1  # NFPROTO_INET: IPv4 and IPv6 together
_VERDICT_ACCEPT, _VERDICT_DROP, _GOTO, _JUMP = 1, 0, -4, -3
HOOKS = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}
# enum nft_registers
_VERDICT, _REGISTER = 0, 1
_EQUAL, _DIFFERENT = 0, 1
_SET_DYNAMIC = 0x20
_IPV4_TYPE = 7  # nft's own number of the data type, for who lists the set

Expression = bytes


def _be32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!I", value & 0xFFFFFFFF))


def _expression(name: str, *parts: bytes) -> Expression:
    return string(1, name) + nest(2, *parts)


def _compare(value: bytes, operation: int = _EQUAL) -> Expression:
    data = nest(3, attribute(1, value))
    return nest(1, _expression("cmp", _be32(1, _REGISTER), _be32(2, operation), data))


def _load(name: str, key: int) -> Expression:
    return nest(1, _expression(name, _be32(1, _REGISTER), _be32(2, key)))


def _mask(mask: bytes) -> Expression:
    parts = (_be32(1, _REGISTER), _be32(2, _REGISTER), _be32(3, len(mask)))
    zero = nest(5, attribute(1, bytes(len(mask))))
    return nest(1, _expression("bitwise", *parts, nest(4, attribute(1, mask)), zero))


def _payload(base: int, offset: int, size: int) -> Expression:
    parts = (_be32(1, _REGISTER), _be32(2, base), _be32(3, offset), _be32(4, size))
    return nest(1, _expression("payload", *parts))


def _verdict(code: int, chain: str = "") -> Expression:
    parts = [_be32(1, code)] + ([string(2, chain)] if chain else [])
    return nest(1, _expression("immediate", _be32(1, _VERDICT), nest(2, nest(2, *parts))))


def _interface(name: str) -> bytes:
    return name.encode().ljust(16, b"\0")


# ---- what a rule is made of ------------------------------------------------------------------------------------------

ACCEPT, DROP = _verdict(_VERDICT_ACCEPT), _verdict(_VERDICT_DROP)
MASQUERADE = nest(1, _expression("masq"))
REJECT_WITH_RESET = nest(1, _expression("reject", _be32(1, 1), attribute(2, b"\0")))
_ADMIN_PROHIBITED = 13
REJECT = nest(1, _expression("reject", _be32(1, 0), attribute(2, bytes([_ADMIN_PROHIBITED]))))

_META_IIFNAME, _META_OIFNAME, _META_NFPROTO, _META_L4PROTO = 6, 7, 15, 16
_CT_STATE, _CT_STATUS = 0, 2
ESTABLISHED, RELATED, NEW = 2, 4, 8
_STATUS_DNAT = 1 << 5
_FIB_RESULT_INDEX, _FIB_SOURCE, _FIB_IIF = 1, 1, 8


def goto(chain: str) -> Expression:
    return _verdict(_GOTO, chain)


def jump(chain: str) -> Expression:
    return _verdict(_JUMP, chain)


def came_in_by(name: str) -> Expression:
    return _load("meta", _META_IIFNAME) + _compare(_interface(name))


def did_not_come_in_by(name: str) -> Expression:
    return _load("meta", _META_IIFNAME) + _compare(_interface(name), _DIFFERENT)


def goes_out_by(name: str) -> Expression:
    return _load("meta", _META_OIFNAME) + _compare(_interface(name))


def does_not_go_out_by(name: str) -> Expression:
    return _load("meta", _META_OIFNAME) + _compare(_interface(name), _DIFFERENT)


IS_NOT_IPV4 = _load("meta", _META_NFPROTO) + _compare(bytes([socket.AF_INET]), _DIFFERENT)


def protocol(number: int) -> Expression:
    return _load("meta", _META_L4PROTO) + _compare(bytes([number]))


def to_port(number: int) -> Expression:
    """Of TCP or UDP, to be said before by `protocol`."""
    return _payload(2, 2, 2) + _compare(struct.pack("!H", number))


def to_network(network: IPv4Network) -> Expression:
    """Of IPv4 packets only, to be said before."""
    return _payload(1, 16, 4) + _mask(network.netmask.packed) + _compare(network.network_address.packed)


def from_network(network: IPv4Network) -> Expression:
    """Of IPv4 packets only, to be said before."""
    return _payload(1, 12, 4) + _mask(network.netmask.packed) + _compare(network.network_address.packed)


def to_address(address: IPv4Address) -> Expression:
    return to_network(IPv4Network(address))


def in_state(states: int) -> Expression:
    """The connection is in one of these states (ESTABLISHED | RELATED, say)."""
    return _load("ct", _CT_STATE) + _mask(struct.pack("=I", states)) + _compare(bytes(4), _DIFFERENT)


WAS_NOT_REDIRECTED = _load("ct", _CT_STATUS) + _mask(struct.pack("=I", _STATUS_DNAT)) + _compare(bytes(4))

# No route leads back to the sender by the interface that the packet came in by: the sender is not who it says it is.
SOURCE_IS_FORGED = nest(
    1,
    _expression("fib", _be32(1, _REGISTER), _be32(2, _FIB_RESULT_INDEX), _be32(3, _FIB_SOURCE | _FIB_IIF)),
) + _compare(bytes(4))


def more_connections_than(limit: int, table_set: str) -> Expression:
    """The sender has more than `limit` connections; `table_set` is a set of `dynamic_set`."""
    count = nest(7, _expression("connlimit", _be32(1, limit), _be32(2, 1)))
    parts = (string(1, table_set), _be32(3, 0), _be32(4, _REGISTER), count)
    return _payload(1, 12, 4) + nest(1, _expression("dynset", *parts))


# ---- tables ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Chain:
    """`hook` "": a chain that others go to. `policy` of a base chain: what happens to a packet that no rule decided about."""

    name: str
    rules: Sequence[Sequence[Expression]]
    hook: str = ""
    kind: str = "filter"
    priority: int = 0
    drops: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Family inet. `counters`: names of sets that `more_connections_than` counts in."""

    name: str
    chains: Sequence[Chain]
    counters: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class BaseChain:
    """One that is there. `hook`: its number, see HOOKS; `drops`: by policy."""

    table: str
    name: str
    hook: int
    drops: bool


class PacketFilter:
    """Owns its socket. Methods raise SandboxError with the kernel's errno; a change is made whole or not at all."""

    def __init__(self, sock: socket.socket) -> None:
        self._netlink = Netlink(sock, "load packet filter rules")

    def close(self) -> None:
        self._netlink.close()

    def load(self, table: Table) -> None:
        requests = [_request(_NEWTABLE, netlink.CREATE | netlink.EXCL, string(1, table.name), table.name)]
        requests += [_set(table.name, name, number) for number, name in enumerate(table.counters, 1)]
        requests += [_chain(table.name, chain) for chain in table.chains]
        for chain in table.chains:
            requests += [rule_request(table.name, chain.name, rule) for rule in chain.rules]
        self._batch(requests)

    def append(self, table: str, chain: str, rule: Sequence[Expression]) -> None:
        self._batch([rule_request(table, chain, rule)])

    def remove(self, table: str) -> None:
        self._batch([_request(_DELTABLE, 0, string(1, table), table)])

    def chains(self) -> list[BaseChain]:
        """The base chains of this namespace that see IPv4 packets."""
        request = Request(_SUBSYSTEM | _GETCHAIN, netlink.DUMP, struct.pack("!BBH", 0, 0, 0), "chains")
        found = []
        for body in self._netlink.dump(request):
            have = attributes(body[4:])
            hook = attributes(have.get(4, b"")).get(1)
            if body[0] not in (_INET, socket.AF_INET) or hook is None:
                continue
            table, name = (have[kind].rstrip(b"\0").decode(errors="replace") for kind in (1, 3))
            drops = have.get(5) == struct.pack("!I", _VERDICT_DROP)
            found.append(BaseChain(table, name, struct.unpack("!I", hook)[0], drops))
        return found

    def _batch(self, requests: list[Request]) -> None:
        head = struct.pack("!BBH", 0, 0, _SUBSYSTEM >> 8)
        begin = Request(_BATCH_BEGIN, 0, head, "begin")
        self._netlink.transact([begin, *requests, Request(_BATCH_END, 0, head, "end")])


def _request(kind: int, flags: int, body: bytes, what: str) -> Request:
    return Request(_SUBSYSTEM | kind, flags | netlink.ACK, struct.pack("!BBH", _INET, 0, 0) + body, what)


def _set(table: str, name: str, number: int) -> Request:
    body = string(1, table) + string(2, name) + _be32(3, _SET_DYNAMIC) + _be32(4, _IPV4_TYPE) + _be32(5, 4)
    body += _be32(10, number) + nest(9, _be32(1, 65535))
    return _request(_NEWSET, netlink.CREATE, body, f"set {name}")


def _chain(table: str, chain: Chain) -> Request:
    body = string(1, table) + string(3, chain.name)
    if chain.hook:
        body += nest(4, _be32(1, HOOKS[chain.hook]), _be32(2, chain.priority))
        body += _be32(5, _VERDICT_DROP if chain.drops else _VERDICT_ACCEPT) + string(7, chain.kind)
    return _request(_NEWCHAIN, netlink.CREATE, body, f"chain {chain.name}")


def rule_request(table: str, chain: str, rule: Sequence[Expression]) -> Request:
    body = string(1, table) + string(2, chain) + nest(4, *rule)
    return _request(_NEWRULE, netlink.CREATE | netlink.APPEND, body, f"rule of {chain}")
