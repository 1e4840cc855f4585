"""Functions with network "egress": what they reach and what they do not, in a world of our own (tests/support/outside.py)."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address
from typing import Any

import pytest

from sandbox.egress.netlink import NETLINK_NETFILTER
from sandbox.egress.nftables import PacketFilter
from tests.conftest import fresh_state_dir
from tests.support import outside
from tests.support.deploy import ROLE, function, invoke, zip_of
from tests.support.outside import Outside, inside
from tests.support.server import Server

pytestmark = [
    pytest.mark.security,
    pytest.mark.root("network namespaces, and a link between them"),
]

PROBE = """
import json, os, socket, subprocess, time

def tcp(address, port):
    with socket.create_connection((address, port), timeout=8) as sock:
        return sock.recv(100).decode()

def udp(address, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(8)
        sock.connect((address, port))
        for _ in range(2):  # the refusal of the first arrives with the second
            sock.send(b"?")
            try:
                return sock.recv(100).decode()
            except ConnectionError:
                raise

def six(address, port):
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
        sock.settimeout(8)
        sock.connect((address, port))
        return "connected"

def name(host, _):
    return sorted({found[4][0] for found in socket.getaddrinfo(host, 80, proto=socket.IPPROTO_TCP)})

def name_over_tcp(host, _):
    with socket.create_connection((open("/etc/resolv.conf").read().split()[1], 53), timeout=8) as sock:
        question = b"".join(bytes([len(part)]) + part.encode() for part in host.split(".")) + bytes(1)
        query = b"\\x12\\x34\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0" + question + b"\\0\\1\\0\\1"
        sock.sendall(len(query).to_bytes(2, "big") + query)
        size = int.from_bytes(sock.recv(2, socket.MSG_WAITALL), "big")
        answer = sock.recv(size, socket.MSG_WAITALL)
        return [answer[:2].hex(), socket.inet_ntoa(answer[-4:])]

def gather(address, port):
    with socket.create_connection((address, port), timeout=250) as sock:
        return [sock.getsockname()[0], sock.recv(100).decode()]

def handler(event, context):
    what, address, port = event
    try:
        return globals()[what](address, port)
    except OSError as error:
        return type(error).__name__ + " " + str(error.errno)
"""


def interfaces(world: Outside) -> list[str]:
    with inside(world.host):
        return sorted(name for _, name in socket.if_nameindex())


def chains(world: Outside) -> int:
    """Base chains that drop, of any table in the host's namespace; none are there but ours."""
    packet_filter = PacketFilter(
        outside.socket_in(world.host, socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    )
    try:
        return len(packet_filter.chains())
    finally:
        packet_filter.close()


def forwarding(world: Outside) -> dict[str, str]:
    found = {}
    with inside(world.host):
        for name in ("all", *interfaces(world)):
            with open(f"/proc/sys/net/ipv4/conf/{name}/forwarding") as setting:
                found[name] = setting.read().strip()
    return found


@pytest.fixture(scope="module")
def world() -> Iterator[Outside]:
    with Outside() as world:
        # As systemd-resolved: a name server that only this host itself can reach.
        world.serve_names(world.host, "127.0.0.53")
        yield world


@pytest.fixture(scope="module")
def server(world: Outside) -> Iterator[Server]:
    with (
        fresh_state_dir() as state_dir,
        inside(world.host),
        Server.start(
            state_dir, "--http", "0.0.0.0:0", "--egress-dns", "127.0.0.53", "--idle-timeout", "2"
        ) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Any:
    return server.client(max_pool_connections=220, read_timeout=290)


@pytest.fixture(scope="module")
def ask(client: Any) -> Iterator[Callable[..., Any]]:
    with function(client, PROBE, network="egress", Timeout=30) as name:
        yield lambda *event: invoke(client, name, event)[0]


def test_the_internet_is_reached_and_sees_the_host(ask: Callable[..., Any]) -> None:
    seen = f"{outside.HOST_PRIVATE} {outside.INTERNET}"
    assert ask("tcp", outside.INTERNET, outside.ECHO_PORT) == seen
    assert ask("udp", outside.INTERNET, outside.ECHO_PORT) == seen


@pytest.mark.parametrize(
    "address",
    [
        outside.PRIVATE,
        outside.METADATA,
        outside.SHARED,
        outside.HOST_PRIVATE,
        outside.HOST_PUBLIC,
        outside.GATEWAY,
        "172.17.0.1",
        "192.0.0.192",
        "198.18.0.1",
        "198.19.0.1",
        "127.0.0.1",
        "240.0.0.1",
    ],
)
@pytest.mark.parametrize("how", ["tcp", "udp"])
def test_what_is_inside_is_refused(world: Outside, ask: Callable[..., Any], how: str, address: str) -> None:
    answer = ask(how, address, outside.ECHO_PORT)
    # 111 refused, 113 no route to host (administratively prohibited), 101 no route at all
    assert answer.split()[-1] in ("111", "113", "101"), answer


def test_what_listens_on_the_host_is_not_reached(
    world: Outside, server: Server, ask: Callable[..., Any]
) -> None:
    with inside(world.host):
        link = next(name for name in interfaces(world) if name.startswith("fl"))
        addresses = [str(network[1]) for network in link_networks(world, link)]
    port = int(server.http.rpartition(":")[2])
    for address in (outside.HOST_PRIVATE, outside.HOST_PUBLIC, *addresses):
        assert ask("tcp", address, port) == "ConnectionRefusedError 111"


def link_networks(world: Outside, link: str) -> list[Any]:
    links = outside.links_of(world.host)
    try:
        return [network for network in links.networks() if network.prefixlen == 30]
    finally:
        links.close()


def test_ipv6_leads_nowhere(ask: Callable[..., Any]) -> None:
    assert ask("six", "2001:db8::1", 80) == "OSError 101"


@pytest.mark.parametrize("how", ["name", "name_over_tcp"])
def test_names_are_resolved_by_the_hosts_name_server(ask: Callable[..., Any], how: str) -> None:
    answer = ask(how, "example.org", 0)
    assert answer == ([outside.ANSWER] if how == "name" else ["1234", outside.ANSWER])


def test_a_function_without_a_way_out_resolves_nothing(client: Any) -> None:
    with function(client, PROBE) as name:
        assert invoke(client, name, ["name", "example.org", 0])[0].startswith("gaierror")
        assert invoke(client, name, ["tcp", outside.INTERNET, outside.ECHO_PORT])[0] == "OSError 101"


def test_a_snapshots_workers_have_the_way_out(client: Any) -> None:
    with function(client, PROBE, network="egress", snapshot="on") as name:
        answer = invoke(client, name, ["tcp", outside.INTERNET, outside.ECHO_PORT])[0]
    assert answer == f"{outside.HOST_PRIVATE} {outside.INTERNET}"


def patiently(client: Any, name: str, event: list[Any]) -> Any:
    """As a client does whom a busy host turns away: it asks again."""
    deadline = time.monotonic() + 240
    while True:
        try:
            return invoke(client, name, event)[0]
        except client.exceptions.ServiceException:
            if time.monotonic() > deadline:
                raise


def test_200_workers_at_once_have_an_address_each(
    world: Outside, client: Any, ask: Callable[..., Any]
) -> None:
    ask("tcp", outside.INTERNET, outside.ECHO_PORT)  # the way out is open
    before = interfaces(world)
    with function(client, PROBE, network="egress", Timeout=260) as name, inside(world.host):
        with world.gathering(200, 9100), ThreadPoolExecutor(200) as pool:
            answers = list(
                pool.map(lambda _: patiently(client, name, ["gather", outside.INTERNET, 9100]), range(200))
            )
        assert {said for _, said in answers} == {"all are here"}
        assert len({address for address, _ in answers}) == 200
        assert {IPv4Address(address) in outside.WORKERS for address, _ in answers} == {True}
        seen = invoke(client, name, ["tcp", outside.INTERNET, outside.ECHO_PORT])[0]
        assert seen == f"{outside.HOST_PRIVATE} {outside.INTERNET}"
    # Not one interface on the host for any of them.
    assert interfaces(world) == before


def test_the_name_relay_comes_back(world: Outside, server: Server, ask: Callable[..., Any]) -> None:
    assert ask("name", "example.org", 0) == [outside.ANSWER]
    for pid in name_relays(server):
        os.kill(pid, 9)
    deadline = time.monotonic() + 30
    while ask("name", "again.example.org", 0) != [outside.ANSWER]:
        assert time.monotonic() < deadline


def name_relays(server: Server) -> list[int]:
    found = []
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    words = file.read().split(b"\0")
                with open(f"/proc/{pid}/stat") as file:
                    parent = int(file.read().rpartition(")")[2].split()[1])
            except OSError:
                continue  # gone meanwhile
            if b"gateway.name_relay" in words and parent == server.pid:
                found.append(int(pid))
    assert found
    return found


def test_the_report_says_what_can_be_had(server: Server, client: Any) -> None:
    features = forklight_get(server, client, "/forklight/v1/isolation")["features"]
    assert features["network-egress"]["state"] == "enforced"
    assert features["network-host"]["state"] == "absent"
    assert "--allow-host-network" in features["network-host"]["why"]


def forklight_get(server: Server, client: Any, path: str) -> Any:
    from tests.functional.test_runtimes import get

    return get(server, path)


def test_the_hosts_network_is_refused_unless_the_operator_allows_it(client: Any) -> None:
    tags = {"forklight:network": "host"}
    with pytest.raises(client.exceptions.InvalidParameterValueException, match="--allow-host-network"):
        client.create_function(
            FunctionName="wants-host",
            Role=ROLE,
            Code={"ZipFile": zip_of({"index.py": PROBE})},
            Runtime="python3.11",
            Handler="index.handler",
            Tags=tags,
        )
    with function(client, PROBE) as name:
        arn = client.get_function(FunctionName=name)["Configuration"]["FunctionArn"]
        with pytest.raises(client.exceptions.InvalidParameterValueException, match="--allow-host-network"):
            client.tag_resource(Resource=arn, Tags=tags)
        client.tag_resource(Resource=arn, Tags={"forklight:network": "egress"})
        client.get_waiter("function_updated_v2").wait(FunctionName=name)
        answer = invoke(client, name, ["tcp", outside.INTERNET, outside.ECHO_PORT])[0]
        assert answer == f"{outside.HOST_PRIVATE} {outside.INTERNET}"


# ---- servers of their own --------------------------------------------------------------------------------------------


@pytest.fixture
def own_world() -> Iterator[Outside]:
    with Outside() as world:
        yield world


def out_and_in(client: Any) -> dict[str, str]:
    with function(client, PROBE, network="egress", Timeout=30) as name:
        return {
            address: invoke(client, name, ["tcp", address, outside.ECHO_PORT])[0]
            for address in (outside.INTERNET, outside.PRIVATE, outside.METADATA)
        }


def test_the_operator_may_open_a_network(own_world: Outside) -> None:
    with (
        fresh_state_dir() as state_dir,
        inside(own_world.host),
        Server.start(state_dir, "--egress-allow", "10.9.8.0/24") as server,
    ):
        found = out_and_in(server.client())
    assert found[outside.INTERNET] == f"{outside.HOST_PRIVATE} {outside.INTERNET}"
    assert found[outside.PRIVATE] == f"{outside.HOST_PRIVATE} {outside.PRIVATE}"
    assert found[outside.METADATA] == "ConnectionRefusedError 111"


def test_nothing_is_left_on_the_host(own_world: Outside) -> None:
    before = (interfaces(own_world), chains(own_world), forwarding(own_world))
    with fresh_state_dir() as state_dir, inside(own_world.host):
        with Server.start(state_dir) as server:
            # Nothing before somebody wants it.
            assert (interfaces(own_world), chains(own_world), forwarding(own_world)) == before
            out_and_in(server.client())
            assert forwarding(own_world)["lan0"] == "1"
            assert forwarding(own_world)["all"] == "0"
            assert chains(own_world) > before[1]
        assert (interfaces(own_world), chains(own_world), forwarding(own_world)) == before
        # Killed: what the kernel does not take back the next start does.
        server = Server.start(state_dir)
        try:
            out_and_in(server.client())
        finally:
            server.kill()
        deadline = time.monotonic() + 30
        while interfaces(own_world) != before[0]:
            assert time.monotonic() < deadline, interfaces(own_world)
            time.sleep(0.02)
        assert chains(own_world) > before[1]  # still guards the interface that forwards
        with Server.start(state_dir):
            assert (interfaces(own_world), chains(own_world), forwarding(own_world)) == before


def test_a_way_out_cannot_be_opened_to_what_is_never_outside() -> None:
    import subprocess

    from tests.support.server import forklight_command

    for network in ("127.0.0.0/8", "198.18.0.0/16", "10.0.0.1/8", "fd00::/8", "all"):
        done = subprocess.run(
            [*forklight_command(), "serve", "--egress-allow", network],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 1
        assert network in done.stderr
        assert len(done.stderr.splitlines()) == 1, json.dumps(done.stderr)
