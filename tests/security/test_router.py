"""The router and the host's rules, tried with more rights than a worker has: forged senders, neighbours, callers from outside."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import tempfile
import textwrap
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from sandbox import native
from sandbox.egress import nftables as nft
from sandbox.egress import rules
from sandbox.egress.addresses import worker_address
from sandbox.egress.forwarding import switch_on
from sandbox.egress.netlink import NETLINK_NETFILTER
from sandbox.host import Host
from sandbox.shells import Shell
from tests.support import inside as box
from tests.support import outside
from tests.support.outside import ECHO_PORT, HOST_PRIVATE, INTERNET, PRIVATE, Outside, inside

pytestmark = [
    pytest.mark.security,
    pytest.mark.root("network namespaces, and a link between them"),
]

# Datagrams that are answered come back at once; what is dropped is waited for that long.
SILENCE_S = 1.0


@pytest.fixture(scope="module")
def world() -> Iterator[Outside]:
    with Outside() as world:
        yield world


@pytest.fixture
def own_world() -> Iterator[Outside]:
    """For a test that changes the host."""
    with Outside() as world:
        yield world


@contextlib.contextmanager
def prepared(world: Outside) -> Iterator[Host]:
    with tempfile.TemporaryDirectory(prefix="forklight-router-") as folder, inside(world.host):
        host = Host.prepare(Path(folder) / "run", Path(folder))
        try:
            yield host
        finally:
            host.close()


@pytest.fixture(scope="module")
def host(world: Outside) -> Iterator[Host]:
    with prepared(world) as host:
        yield host


def python(shell: Shell, program: str, *, as_root: bool = False) -> str:
    """The last line that a program prints which runs inside, or its error's last line."""
    script = "import socket, time\n" + textwrap.dedent(program)
    done = box.run(shell, f"exec python3 -c '{script}' 2>&1", as_root=as_root, timeout_s=60)
    assert done.stdout or done.returncode == 0, done  # nsenter's own failure, say
    return (done.stdout.splitlines() or [""])[-1]


def asked_by_tcp(address: str, port: int = ECHO_PORT) -> str:
    return f"print(socket.create_connection(({address!r}, {port}), 8).recv(100).decode())".replace("'", '"')


def answered(world: Outside, network: int, address: str, port: int, source: str = "") -> bool:
    """Whether a caller in this namespace gets a TCP connection."""
    with outside.socket_in(network, socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.settimeout(SILENCE_S)
        if source:
            sock.bind((source, 0))
        try:
            sock.connect((address, port))
        except OSError:
            return False
        return True


def test_a_forged_sender_gets_nowhere(world: Outside, host: Host) -> None:
    with (
        box.running(host, 1, network="egress") as shell,
        box.running(host, 2, network="egress"),
        world.listening(INTERNET, 9009) as seen,
    ):
        for forged in (str(worker_address(2)), "203.0.113.77", HOST_PRIVATE, "198.18.0.1", PRIVATE):
            python(
                shell,
                f"""
                import subprocess
                subprocess.run(["ip", "addr", "add", "{forged}/32", "dev", "eth0"], check=True)
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                    sock.bind(("{forged}", 0))
                    sock.sendto(b"forged", ("{INTERNET}", 9009))
                """,
                as_root=True,
            )
        # What is sent last arrives last: then nothing before it has.
        honest = python(
            shell,
            f"""
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.bind(("{worker_address(1)}", 0))
                sock.sendto(b"honest", ("{INTERNET}", 9009))
            """,
        )
        assert honest == ""
        assert seen.recv(100) == b"honest"


def test_neighbours_do_not_see_each_other(world: Outside, host: Host) -> None:
    with (
        box.running(host, 1, network="egress") as one,
        box.running(host, 2, network="egress") as two,
    ):
        listener = network_of(two)
        try:
            world.serve(listener, "0.0.0.0", ECHO_PORT)
        finally:
            os.close(listener)
        address = str(worker_address(2))
        assert python(two, asked_by_tcp(address)) == f"{address} {address}"
        assert python(one, asked_by_tcp(address)).startswith("ConnectionRefusedError")
        # Nor does anybody call them: not the host, not the outside, not even over a route that leads there.
        for caller in (world.host, world.outer):
            add_route(caller, "198.18.0.0/16", world)
            assert not answered(world, caller, address, ECHO_PORT)


def network_of(shell: Shell) -> int:
    return os.open(f"/proc/{box.pid_of(shell.pidfd)}/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def add_route(network: int, destination: str, world: Outside) -> None:
    """As somebody would who wants to call workers: from the host by the link, from outside by the host."""
    with inside(network):
        link = next((name for _, name in socket.if_nameindex() if name.startswith("fl")), None)
        way = ["dev", link] if link else ["via", HOST_PRIVATE]
        subprocess.run(["ip", "route", "replace", destination, *way], check=True, timeout=20)


def test_the_link_accepts_no_calls(world: Outside, host: Host) -> None:
    with box.running(host, 1, network="egress"):
        links = outside.links_of(world.host)
        (link,) = [each for each in links.networks() if each.prefixlen == 30]
        links.close()
        # The name server is for workers; this side of the router has none.
        assert not answered(world, world.host, str(link[2]), 53)
        assert not answered(world, world.host, "198.18.0.1", 53)


def test_one_worker_cannot_use_up_the_connections(host: Host) -> None:
    many = f"""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout({SILENCE_S})
            # One socket, many destinations: each is a connection to the filter.
            refused = 0
            for i in range({rules.MAX_CONNECTIONS + 200}):
                try:
                    sock.sendto(b"?", ("{INTERNET}", 10000 + i))
                except OSError:
                    refused += 1
                    if refused == 20:  # each may take its time
                        break
        try:
            socket.create_connection(("{INTERNET}", {ECHO_PORT}), 8)
            print("more")
        except OSError as error:
            print(type(error).__name__)
        """
    with (
        box.running(host, 1, network="egress") as greedy,
        box.running(host, 2, network="egress") as other,
    ):
        assert python(greedy, asked_by_tcp(INTERNET)) == f"{HOST_PRIVATE} {INTERNET}"
        assert python(greedy, many) == "ConnectionRefusedError"
        assert python(other, asked_by_tcp(INTERNET)) == f"{HOST_PRIVATE} {INTERNET}"


def test_a_port_that_the_host_redirects_to_a_private_address_stays_closed(world: Outside, host: Host) -> None:
    """As a container engine publishes a port: the router sees a public address, the host's rules make a private one of it."""
    target = "203.0.113.200"
    with box.running(host, 1, network="egress") as shell:
        packet_filter = nft.PacketFilter(
            outside.socket_in(world.host, socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        )
        redirect = [nft.to_address(IPv4Address(target)), redirect_to(IPv4Address(PRIVATE))]
        chain = nft.Chain("prerouting", [redirect], hook="prerouting", kind="nat", priority=-100)
        output = nft.Chain("output", [redirect], hook="output", kind="nat", priority=-100)
        packet_filter.load(nft.Table("publishes", [chain, output]))
        try:
            assert answered(
                world, world.host, target, ECHO_PORT
            )  # the redirection works, for the host itself
            assert python(shell, asked_by_tcp(target)).startswith("ConnectionRefusedError")
        finally:
            packet_filter.remove("publishes")
            packet_filter.close()


def redirect_to(address: IPv4Address) -> nft.Expression:
    """nft's `dnat to ADDRESS`, for packets of IPv4."""
    from sandbox.egress.netlink import attribute, nest, string

    def be32(kind: int, value: int) -> bytes:
        return attribute(kind, struct.pack("!I", value))

    load = nest(1, string(1, "immediate"), nest(2, be32(1, 1), nest(2, attribute(1, address.packed))))
    nat = nest(1, string(1, "nat"), nest(2, be32(1, 1), be32(2, socket.AF_INET), be32(3, 1)))
    return load + nat


def arrives(caller: int, called: int, address: str, patience_s: float) -> bool:
    """Whether a datagram from one namespace gets to another; an answer could be lost for other reasons."""
    with (
        outside.socket_in(called, socket.AF_INET, socket.SOCK_DGRAM) as there,
        outside.socket_in(caller, socket.AF_INET, socket.SOCK_DGRAM) as here,
    ):
        there.bind((address, 0))
        there.settimeout(0.2)
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            here.sendto(b"?", there.getsockname())
            with contextlib.suppress(TimeoutError):
                return there.recv(10) == b"?"
        return False


@pytest.mark.parametrize("router_before", [False, True])
def test_the_host_does_not_become_a_router_for_others(own_world: Outside, router_before: bool) -> None:
    """A third network behind the host: the outside reaches it only if the host was a router without us."""
    world, third = own_world, native.new_network()
    patience_s = box.PATIENCE_S if router_before else SILENCE_S
    try:
        host_links, third_links, outer_links = (outside.links_of(n) for n in (world.host, third, world.outer))
        host_links.make_pair("lan1", "eth0", third, 1400)
        host_links.add_address("lan1", IPv4Address("192.168.88.2"), 24)
        host_links.bring_up("lan1")
        third_links.add_address("eth0", IPv4Address("192.168.88.3"), 24)
        third_links.bring_up("eth0")
        third_links.add_default_route(IPv4Address("192.168.88.2"))
        world.serve(third, "0.0.0.0", ECHO_PORT)
        with inside(world.outer):
            subprocess.run(
                ["ip", "route", "add", "192.168.88.0/24", "via", HOST_PRIVATE], check=True, timeout=20
            )
        if router_before:
            with inside(world.host):
                for name in ("lan0", "lan1"):
                    switch_on(name)
        assert arrives(world.outer, third, "192.168.88.3", patience_s) == router_before
        with prepared(world) as host, box.running(host, 1, network="egress") as shell:
            assert python(shell, asked_by_tcp(INTERNET)) == f"{HOST_PRIVATE} {INTERNET}"
            assert arrives(world.outer, third, "192.168.88.3", patience_s) == router_before
        assert arrives(world.outer, third, "192.168.88.3", patience_s) == router_before
        for links in (host_links, third_links, outer_links):
            links.close()
    finally:
        os.close(third)


def test_a_sandbox_takes_its_interface_with_it(world: Outside, host: Host) -> None:
    for sock in host.open_egress():
        sock.close()
    assert host._router is not None
    inner = host._router.descriptor
    before = names_in(inner)
    seen = set(before)
    for _ in range(3):
        with box.running(host, 1, network="egress"), box.running(host, 2, network="egress"):
            new = set(names_in(inner)) - seen  # those of the last ones may still be there
            assert len(new) == 2
            seen |= new
    deadline = time.monotonic() + box.PATIENCE_S
    while names_in(inner) != before:  # the kernel takes namespaces down in the background
        assert time.monotonic() < deadline
        time.sleep(0.02)


def names_in(network: int) -> list[str]:
    with inside(network):
        return sorted(name for _, name in socket.if_nameindex())


def test_another_packet_filter_that_drops_is_reported(own_world: Outside) -> None:
    packet_filter = nft.PacketFilter(
        outside.socket_in(own_world.host, socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    )
    packet_filter.load(nft.Table("strict", [nft.Chain("FORWARD", [], hook="forward", drops=True)]))
    packet_filter.close()
    with prepared(own_world) as host:
        feature = host.report.features["network-egress"]
    assert feature.state == "degraded"
    assert "strict FORWARD" in feature.why
