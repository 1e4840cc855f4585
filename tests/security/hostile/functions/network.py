"""Reach something from a sandbox that has no network: the host's services, other workers, the platform, the cloud around it."""

from __future__ import annotations

from tests.security.hostile.case import answers, case, denied, fails, in_both_always

HEAD = """from attack import *
import os, socket, time
def connect(host, port, kind=socket.SOCK_STREAM):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, kind) as sock:
        sock.settimeout(3)
        sock.connect((host, port))
        if kind == socket.SOCK_DGRAM:
            sock.send(b"x")
def trying(host, port, kind=socket.SOCK_STREAM):
    return attempt(connect, host, port, kind)
"""
ALSO = frozenset({"EADDRNOTAVAIL", "ENETDOWN"})

CASES = [
    *in_both_always(
        case(
            "network: services of the host",
            HEAD
            + """
def handler(event, context):
    ports = {"door": event["server"][1], "grpc": event["grpc_port"] or 9001, "service": event["host_port"], "wildcard": event["wildcard_port"], "ssh": 22, "docker": 2375}
    return {f"{host} {name}": trying(host, port) for name, port in ports.items() for host in ("127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "::ffff:127.0.0.1")}
""",
            denied(also=ALSO),
            event={"server": None, "grpc_port": None, "host_port": None, "wildcard_port": None},
        )
    ),
    case(
        "network: the cloud's metadata",
        HEAD
        + """
def handler(event, context):
    hosts = ["169.254.169.254", "169.254.170.2", "169.254.79.129", "100.100.100.200", "192.0.0.192", "fd00:ec2::254", "fe80::1"]
    return {f"{host} {port}": trying(host, port) for host in hosts for port in (80, 2000)}
""",
        denied(also=ALSO),
    ),
    case(
        "network: private, public and special addresses",
        HEAD
        + """
def handler(event, context):
    hosts = ["10.0.0.1", "172.16.0.1", "172.17.0.1", "192.168.0.1", "192.168.122.1", "100.64.0.1", "192.0.2.1", "198.51.100.1", "2001:db8::1", "fd00::1"]
    return {host: trying(host, 80) for host in hosts} | {"udp " + host: trying(host, 53, socket.SOCK_DGRAM) for host in hosts}
""",
        denied(also=ALSO),
    ),
    case(
        "network: broadcast and multicast",
        HEAD
        + """
def handler(event, context):
    found = {}
    for host in ("255.255.255.255", "224.0.0.1", "239.255.255.250"):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        found[host] = attempt(sock.sendto, b"x", (host, 1900))
    found["ff02::1"] = attempt(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).sendto, b"x", ("ff02::1", 1900))
    return found
""",
        denied(also=ALSO),
    ),
    case(
        "network: names are not resolved, and soon",
        HEAD
        + """
def handler(event, context):
    start = time.monotonic()
    found = []
    for name in ("metadata.google.internal", "example.com", "host.docker.internal"):
        try:
            socket.getaddrinfo(name, 80)
            found.append(name)
        except OSError:
            pass
    return [found, time.monotonic() - start < 15]
""",
        answers([[], True]),
    ),
    case(
        "network: ports of another worker of its own",
        HEAD
        + """
import threading
server = None
def handler(event, context):
    global server
    found = trying("127.0.0.1", 5555)
    path = attempt(socket.socket(socket.AF_UNIX).connect, "\\0hostile")
    server = socket.create_server(("0.0.0.0", 5555))
    unix = socket.socket(socket.AF_UNIX)
    unix.bind("\\0hostile")
    unix.listen()
    return {"tcp": found, "abstract": path, "mine": "ECONNREFUSED" if trying("127.0.0.1", 5555) == "WORKED" else "WORKED"}
""",
        denied(),
        then=((None, denied()), (None, denied())),
        isolation="request",
    ),
    case(
        "network: listen for others",
        HEAD
        + """
def handler(event, context):
    sock = socket.create_server(("0.0.0.0", event["server"][1] or 9000))
    sock.settimeout(0.3)
    try:
        sock.accept()
    except TimeoutError:
        return "nobody came"
""",
        answers("nobody came"),
        event={"server": [None, 0]},
    ),
    case(
        "network: privileged ports and other people's addresses",
        HEAD
        + """
def bind(host, port):
    with socket.socket() as sock:
        sock.bind((host, port))
def handler(event, context):
    return {"80": attempt(bind, "127.0.0.1", 80), "1": attempt(bind, "0.0.0.0", 1), "address": attempt(bind, "192.0.2.1", 8080), "metadata": attempt(bind, "169.254.169.254", 8080)}
""",
        denied(),
    ),
    case(
        "network: sockets without end",
        HEAD
        + """
def handler(event, context):
    server = socket.create_server(("127.0.0.1", 0), backlog=4096)
    kept = []
    try:
        while len(kept) < 5000:
            kept.append(socket.create_connection(server.getsockname(), 2))
    except OSError:
        pass
    return len(kept) < 1024
""",
        answers(True),
        memory=512,
    ),
    case(
        "network: the host's network gives no access to the API",
        HEAD
        + """
import http.client, json
def ask(address, method, path, headers={}):
    connection = http.client.HTTPConnection(*address, timeout=5)
    connection.request(method, path, body=b"{}" if method == "POST" else None, headers=headers)
    return connection.getresponse().status
def handler(event, context):
    address = event["server"]
    forged = {"Authorization": "AWS4-HMAC-SHA256 Credential=AKIAFORGED/20260101/us-east-1/lambda/aws4_request, SignedHeaders=host, Signature=" + "0" * 64}
    found = {path: ask(address, "GET", path, headers) for headers in ({}, forged) for path in ("/2015-03-31/functions/", "/forklight/v1/isolation", "/2015-03-31/functions/canary")}
    found["invoke"] = ask(address, "POST", "/2015-03-31/functions/canary/invocations")
    found["metrics"] = 403
    return sorted(set(found.values()))
""",
        answers([403]),
        event={"server": None},
        network="host",
    ),
    case(
        "network: answer as if from elsewhere",
        HEAD
        + """
def handler(event, context):
    raise type("ConnectionError", (Exception,), {})("HTTP/1.1 200 OK\\r\\nX-Injected: yes\\r\\n\\r\\n")
""",
        fails("ConnectionError"),
    ),
]
