"""HTTP and gRPC that is malformed, oversized, slow, or not HTTP at all."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack

import grpc
import pytest

from tests.security.hostile.arena import Arena
from tests.security.hostile.clients.wire import Signed, connect, exchange, invoke_path, refused
from tests.support import grpc_frames as h2

CONNECTIONS = 200


def _invoke(arena: Arena, body: bytes = b'"x"', head: str = "") -> bytes:
    """A well-signed invocation with more header lines in front of its own."""
    request = Signed(arena.target, invoke_path(arena.canary), body).request()
    start, rest = request.split(b"\r\n", 1)
    return start + b"\r\n" + head.encode("latin-1") + rest


def a_length_and_chunks(arena: Arena) -> None:
    smuggled = b"0\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    refused(arena.target, _invoke(arena, smuggled, "Transfer-Encoding: chunked\r\n"), 400)


def two_lengths(arena: Arena) -> None:
    refused(arena.target, _invoke(arena, b'"x"', "Content-Length: 30\r\n"), 400)
    refused(arena.target, _invoke(arena, b'"x"', "Content-Length: 3, 3\r\n"), 400)


def odd_lengths(arena: Arena) -> None:
    for length in ("-1", "+3", "0x3", "3 3", "99999999999999999999999", "3;", "١٢", "1e3", ""):
        request = (
            f"POST {invoke_path(arena.canary)} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\nabc"
        )
        refused(arena.target, request.encode())


def odd_transfer_encodings(arena: Arena) -> None:
    for coding in (
        "chunked, identity",
        "xchunked",
        "chunked\r\nTransfer-Encoding: identity",
        "identity, chunked, chunked",
        "\x0bchunked",
    ):
        request = f"POST {invoke_path(arena.canary)} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: {coding}\r\n\r\n0\r\n\r\n"
        refused(arena.target, request.encode("latin-1"))


def odd_chunks(arena: Arena) -> None:
    head = (
        f"POST {invoke_path(arena.canary)} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    )
    for chunks in (
        b"-1\r\n",
        b"ffffffffffffffff\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3;" + b"x" * 100000 + b"\r\nabc\r\n0\r\n\r\n",
        b"zz\r\n",
    ):
        refused(arena.target, head + chunks)


def odd_line_ends(arena: Arena) -> None:
    for request in (
        b"GET /health HTTP/1.1\nHost: x\nX: y\n\nGET /health HTTP/1.1\n\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nA: b\r\n folded: c\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nA\x00: b\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\rX: y\r\n\r\n",
    ):
        refused(arena.target, request)


def a_header_of_megabytes(arena: Arena) -> None:
    refused(arena.target, b"GET /health HTTP/1.1\r\nHost: x\r\nA: " + b"x" * (4 << 20) + b"\r\n\r\n")


def a_hundred_thousand_headers(arena: Arena) -> None:
    refused(arena.target, b"GET /health HTTP/1.1\r\n" + b"A: b\r\n" * 100_000 + b"\r\n")


def a_request_line_of_megabytes(arena: Arena) -> None:
    refused(arena.target, b"GET /" + b"x" * (4 << 20) + b" HTTP/1.1\r\nHost: x\r\n\r\n")


def methods_and_versions_nobody_knows(arena: Arena) -> None:
    for line in ("BREW / HTTP/1.1", "GET / HTTP/9.9", "CONNECT 169.254.169.254:80 HTTP/1.1", "TRACE / HTTP/1.1", "get / HTTP/1.1",
                 "GET http://169.254.169.254/ HTTP/1.1", "GET * HTTP/1.1", "OPTIONS * HTTP/1.1", " / HTTP/1.1"):  # fmt: skip
        refused(arena.target, f"{line}\r\nHost: x\r\n\r\n".encode())


def what_is_not_http(arena: Arena) -> None:
    hello = bytes.fromhex("16030100a5010000a10303") + os.urandom(154)
    for data in (
        hello,
        b"SSH-2.0-OpenSSH_9.2\r\n",
        os.urandom(4096),
        b"\x00" * 4096,
        b"\r\n" * 50000,
        b"EHLO x\r\n",
        b"PUT",
    ):
        with connect(arena.target) as sock:
            try:
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                answer = b""
                while chunk := sock.recv(65536):
                    answer += chunk
            except OSError:
                continue
            assert b" 200 " not in answer


def http2_on_the_http_port(arena: Arena) -> None:
    got = exchange(arena.target, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))
    assert 200 not in got.statuses


def http2_without_a_signature(arena: Arena) -> None:
    head = {":method": "GET", ":scheme": "http", ":path": "/2015-03-31/functions/", ":authority": "x"}
    block = b"".join(h2.field(*pair) for pair in head.items())
    with connect(arena.target) as sock:
        sock.settimeout(30)
        sock.sendall(
            h2.PREFACE + h2.settings() + h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 1, block)
        )
        received = b""
        while b"Missing Authentication Token" not in received:
            chunk = sock.recv(65536)
            assert chunk and b"FunctionArn" not in received, received
            received += chunk


def upgrades(arena: Arena) -> None:
    for protocol in ("h2c", "websocket", "TLS/1.0"):
        request = f"GET /health HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
        assert 101 not in exchange(arena.target, request.encode()).statuses


def slow_heads(arena: Arena) -> None:
    """Many clients that never finish a head: others are served meanwhile."""
    with ExitStack() as cleanup:
        socks = [cleanup.enter_context(connect(arena.target)) for _ in range(CONNECTIONS)]
        for number in range(3):
            for sock in socks:
                try:
                    sock.send(b"GET /health HTTP/1.1\r\nX: " if number == 0 else b"y")
                except OSError:
                    pass
            arena.check_canary()


def bodies_that_never_come(arena: Arena) -> None:
    """Much is announced, nothing sent: nothing may be kept ready for it."""
    with ExitStack() as cleanup:
        for _ in range(CONNECTIONS):
            sock = cleanup.enter_context(connect(arena.target))
            path = "/2015-03-31/functions"
            head = (
                Signed(arena.target, path)
                .request(body=b"")
                .replace(b"content-length: 0", b"content-length: 70000000")
            )
            sock.sendall(head)
        arena.check_canary()


def answers_that_nobody_reads(arena: Arena) -> None:
    """A hundred pipelined invocations, each with a large answer."""
    request = Signed(arena.target, invoke_path(arena.canary), b'"' + b"x" * 100_000 + b'"').request()
    with connect(arena.target) as sock:
        sock.settimeout(1)
        try:
            sock.sendall(request * 100)
        except OSError:
            pass
        arena.check_canary()


def hang_up_in_the_middle(arena: Arena) -> None:
    request = Signed(arena.target, invoke_path(arena.canary), b'"x"').request()
    for length in range(1, len(request) + 1, 7):
        with connect(arena.target) as sock:
            sock.sendall(request[:length])
    arena.check_canary()


def events_that_are_no_json(arena: Arena) -> None:
    for body in (
        b"{",
        b"\xff\xfe",
        b"NaN",
        b"[1,]",
        b"{'a': 1}",
        b"\x00",
        b'"' + b"\\ud800" * 10,
        b"nul",
        b"[" * 100000,
    ):
        got = exchange(arena.target, Signed(arena.target, invoke_path(arena.canary), body).request())
        assert got.statuses in ([400], [200]), got
        assert (
            got.statuses != [200]
            or b"X-Amz-Function-Error" in got.data
            or b"x-amz-function-error" in got.data
        ), got


def an_event_nested_too_deep(arena: Arena) -> None:
    body = b"[" * 200_000 + b"]" * 200_000
    got = exchange(arena.target, Signed(arena.target, invoke_path(arena.canary), body).request())
    assert got.statuses in ([400], [200]), got


def an_event_that_is_too_large(arena: Arena) -> None:
    refused(
        arena.target,
        Signed(arena.target, invoke_path(arena.canary), b"1" + b" " * (6 << 20) + b" " * 200).request(),
        413,
    )


def documents_nested_too_deep(arena: Arena) -> None:
    for body in (
        b'{"FunctionName":' + b"[" * 500_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b"[" * 900 + b"]" * 900,
        b'{"FunctionName":' + b"9" * 1_000_000 + b"}",
    ):
        refused(arena.target, Signed(arena.target, "/2015-03-31/functions", body).request())


def headers_with_a_meaning(arena: Arena) -> None:
    """Each is signed, so it is really looked at."""
    path = invoke_path(arena.canary)
    for name, value in (
        ("x-amz-client-context", "x" * 5000), ("x-amz-client-context", "!!!"), ("x-amz-client-context", "bm90IGpzb24="), ("x-amz-invocation-type", "Sideways"),
        ("x-amz-log-type", "Everything"), ("x-amz-tenant-id", "../" * 100), ("x-amzn-trace-id", "x" * 5000), ("x-amz-tenant-id", "\x7f"),
    ):  # fmt: skip
        signed = Signed(arena.target, path, b'"x"')
        got = exchange(arena.target, signed.request(signed.head({name: value})))
        assert len(got.statuses) == 1 and got.statuses[0] < 500, (name, value[:40], got)


def names_that_are_paths(arena: Arena) -> None:
    for name in (
        "..",
        ".",
        "%2e%2e",
        "..%2f..%2fetc",
        "%00",
        "a%00b",
        "%2e%2e%2f%2e%2e",
        "a/../../b",
        "%5c..%5c",
        "x" * 200,
        "%F0%9F%92%A9",
        "-" * 65,
        "%0d%0aX:%20y",
        ";reboot",
        "$(id)",
        "a b",
        "%25%32%65",
    ):
        if " " in name:
            continue
        for suffix, method in (
            ("/invocations", "POST"),
            ("", "GET"),
            ("", "DELETE"),
            ("/configuration", "GET"),
            ("/code", "PUT"),
        ):
            path = f"/2015-03-31/functions/{name}{suffix}"
            refused(
                arena.target, Signed(arena.target, path, b"{}" if method != "GET" else b"", method).request()
            )


def qualifiers_that_are_paths(arena: Arena) -> None:
    for qualifier in ("..", "%2e%2e%2f", "%24LATEST%00", "x" * 500, "-1", "99999999999999999999"):
        path = f"{invoke_path(arena.canary)}?Qualifier={qualifier}"
        refused(arena.target, Signed(arena.target, path, b"{}").request())


def ten_thousand_functions_that_do_not_exist(arena: Arena) -> None:
    """Nothing is kept of names that strangers ask for."""
    with connect(arena.target) as sock:
        sock.settimeout(30)
        for number in range(0, 1000, 100):
            batch = [
                Signed(arena.target, invoke_path(f"nobody-{number + i}"), b"{}").request() for i in range(100)
            ]
            sock.sendall(b"".join(batch))
            received = b""
            while received.count(b"HTTP/1.1 404 ") < 100:
                chunk = sock.recv(65536)
                assert chunk, received[-500:]
                received += chunk


def grpc_without_a_token(arena: Arena) -> None:
    target = _grpc(arena)
    with grpc.insecure_channel(target) as channel:
        for metadata in (
            (),
            (("authorization", "Bearer x"),),
            (("authorization", "Basic eDp4"),),
            (("authorization", f"Bearer {arena.target.token}x"),),
        ):
            for method in (
                "/forklight.v1.Invocations/Invoke",
                "/forklight.v1.Functions/ListFunctions",
                "/grpc.reflection.v1.ServerReflection/Nothing",
            ):
                with pytest.raises(grpc.RpcError) as refusal:
                    channel.unary_unary(method)(b"", metadata=metadata, timeout=30)
                assert refusal.value.code() in (
                    grpc.StatusCode.UNAUTHENTICATED,
                    grpc.StatusCode.UNIMPLEMENTED,
                ), refusal.value


def garbage_on_the_grpc_port(arena: Arena) -> None:
    host, port = _grpc(arena).rsplit(":", 1)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    for data in (
        os.urandom(10000),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        preface + os.urandom(10000),
        preface + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01" + bytes(70000),
        preface + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" * 5000,
    ):
        with socket.create_connection((host, int(port)), 30) as sock:
            try:
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65536):
                    pass
            except OSError:
                pass
    arena.check_canary()


def _grpc(arena: Arena) -> str:
    if not arena.target.grpc:
        pytest.skip("FORKLIGHT_GRPC is not set")
    return arena.target.grpc


ALL = [
    a_length_and_chunks, two_lengths, odd_lengths, odd_transfer_encodings, odd_chunks, odd_line_ends, a_header_of_megabytes,
    a_hundred_thousand_headers, a_request_line_of_megabytes, methods_and_versions_nobody_knows, what_is_not_http,
    http2_on_the_http_port, http2_without_a_signature, upgrades, slow_heads, bodies_that_never_come, answers_that_nobody_reads, hang_up_in_the_middle,
    events_that_are_no_json, an_event_nested_too_deep, an_event_that_is_too_large, documents_nested_too_deep,
    headers_with_a_meaning, names_that_are_paths, qualifiers_that_are_paths, ten_thousand_functions_that_do_not_exist,
    grpc_without_a_token, garbage_on_the_grpc_port,
]  # fmt: skip
