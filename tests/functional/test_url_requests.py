"""Requests to function URLs at the door, over HTTP/1.1 and HTTP/2; the functions are the test's own."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections.abc import Callable
from typing import Any

import h2.errors
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from gateway.model.function_url import UrlView
from gateway.model.invocation import MAX_REQUEST_BYTES, Invocation, Result, ResultKind
from tests.support.http2_door import Reset
from tests.support.http2_door import door as http2_door
from tests.support.http_door import INVOKE, KEY, SECRET, THROTTLED, Answer, Client, Door, door, go

ID = "abcdefghijklmnopqrstuvwxyz012345"
HOST = f"{ID}.lambda-url.us-east-1.localhost"
CORS = {
    "AllowOrigins": ["https://page.example"], "AllowMethods": ["GET", "PUT"], "AllowHeaders": ["x-one", "x-two"],
    "ExposeHeaders": ["x-three"], "AllowCredentials": True, "MaxAge": 60,
}  # fmt: skip


def serve(d: Door, function: Callable[[Invocation], Result | None] | bytes, **options: Any) -> None:
    """`function` behind the URL; bytes: what it always answers."""
    answer = function if callable(function) else lambda call: Result(ResultKind.OK, function)
    d.dispatcher.add("web", answer)
    item = {
        "url_id": ID, "region": "us-east-1", "name": "web", "qualifier": "$LATEST", "auth_type": "NONE",
        "streaming": False, "public": True, "cors": None, **options,
    }  # fmt: skip
    d.router.urls.table.put(UrlView.from_json(item))


def request(
    target: str = "/", *headers: str, method: str = "GET", body: bytes = b"", host: str = HOST
) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def event_of(d: Door) -> Any:
    return json.loads(d.dispatcher.invocations[-1].payload)


def test_the_event_is_payload_format_2() -> None:
    async def test() -> None:
        async with door() as d:
            serve(d, b"1")
            answer = await d.ask(
                request(
                    "/a%20b/c?x=1&y=2&x=%C3%A9+z&empty", "Cookie: one=1; two=2", "User-Agent: test", "X-Weird-Case: V",
                    "Content-Type: application/json; charset=utf-8", "X-Forwarded-For: 10.9.8.7", "Connection: keep-alive",
                    method="PATCH", body='{"ä": 1}'.encode(), host=f"{HOST}:8080",
                )
            )  # fmt: skip
            event = event_of(d)
            context = event["requestContext"]
            assert uuid.UUID(answer.headers["x-amzn-requestid"]).version == 4
            assert context.pop("timeEpoch") > 1_700_000_000_000 and context.pop("time").endswith(" +0000")
            assert event == {
                "version": "2.0",
                "routeKey": "$default",
                "rawPath": "/a%20b/c",
                "rawQueryString": "x=1&y=2&x=%C3%A9+z&empty",
                "cookies": ["one=1", "two=2"],
                "headers": {
                    "host": f"{HOST}:8080",
                    "user-agent": "test",
                    "x-weird-case": "V",
                    "content-type": "application/json; charset=utf-8",
                    "content-length": "9",
                    "x-forwarded-for": "10.9.8.7, 127.0.0.1",
                    "x-forwarded-proto": "http",
                    "x-forwarded-port": "8080",
                },
                "queryStringParameters": {"x": "1,é z", "y": "2", "empty": ""},
                "requestContext": {
                    "accountId": "anonymous",
                    "apiId": ID,
                    "domainName": HOST,
                    "domainPrefix": ID,
                    "http": {
                        "method": "PATCH",
                        "path": "/a%20b/c",
                        "protocol": "HTTP/1.1",
                        "sourceIp": "127.0.0.1",
                        "userAgent": "test",
                    },
                    "requestId": answer.headers["x-amzn-requestid"],
                    "routeKey": "$default",
                    "stage": "$default",
                },
                "body": '{"ä": 1}',
                "isBase64Encoded": False,
            }

    go(test())


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        ("text/plain", b"words", "words"),
        ("text/plain", b"\xff\xfe", None),
        ("application/octet-stream", b"words", None),
        ("application/x-www-form-urlencoded", b"a=b", None),
        ("", b"words", None),
        ("application/xml", b"<a/>", "<a/>"),
    ],
)
def test_bodies_that_are_no_text_come_as_base64(content_type: str, body: bytes, text: str | None) -> None:
    async def test() -> None:
        async with door() as d:
            serve(d, b"1")
            typed = [f"Content-Type: {content_type}"] if content_type else []
            assert (await d.ask(request("/", *typed, method="POST", body=body))).status == 200
            event = event_of(d)
            expected = text if text is not None else base64.b64encode(body).decode()
            assert (event["body"], event["isBase64Encoded"]) == (expected, text is None)

    go(test())


@pytest.mark.parametrize(
    ("said", "status", "content_type", "body"),
    [
        ({"a": [1]}, 200, "application/json", b'{"a": [1]}'),
        ("hello", 200, "application/json", b"hello"),
        (None, 200, "application/json", b"null"),
        ({"statusCode": 201, "body": "made", "headers": {"content-type": "text/plain"}}, 201, "text/plain", b"made"),
        ({"statusCode": "404"}, 404, "application/json", b""),
        ({"statusCode": 200, "body": "/w==", "isBase64Encoded": True}, 200, "application/json", b"\xff"),
        ({"statusCode": 200, "body": {"b": 1}}, 200, "application/json", b'{"b":1}'),
        ({"statusCode": 299, "headers": {"X-N": 5, "X-T": True, "Transfer-Encoding": "x"}}, 299, "application/json", b""),
    ],
)  # fmt: skip
def test_answers_become_responses(said: Any, status: int, content_type: str, body: bytes) -> None:
    async def test() -> None:
        async with door() as d:
            serve(d, json.dumps(said).encode())
            answer = await d.ask(request())
            found = (answer.status, answer.headers["content-type"], answer.body)
            assert found == (status, content_type, body)
            if status == 299:
                assert (answer.headers["x-n"], answer.headers["x-t"]) == ("5", "true")
                assert "transfer-encoding" not in answer.headers

    go(test())


@pytest.mark.parametrize(
    "said",
    [
        {"statusCode": 42}, {"statusCode": "abc"}, {"statusCode": 100}, {"statusCode": True},
        {"statusCode": 200, "headers": {"a b": "c"}}, {"statusCode": 200, "headers": {"a": "b\r\nSet-Cookie: c"}},
        {"statusCode": 200, "headers": {"a": "b\0c"}}, {"statusCode": 200, "headers": {"a": ["b"]}},
        {"statusCode": 200, "headers": ["a"]}, {"statusCode": 200, "cookies": ["a\nb"]}, {"statusCode": 200, "cookies": "a"},
        {"statusCode": 200, "headers": {f"x-{n}": "1" for n in range(51)}},
        {"statusCode": 200, "body": "no base64!", "isBase64Encoded": True},
    ],
)  # fmt: skip
def test_what_is_no_response_is_answered_502(said: Any) -> None:
    async def test() -> None:
        async with door() as d:
            serve(d, json.dumps(said).encode())
            answer = await d.ask(request())
            assert (answer.status, answer.body) == (502, b"Internal Server Error")

    go(test())


def test_errors_are_502_and_throttling_is_429() -> None:
    async def test() -> None:
        async with door() as d:
            results = [
                Result(ResultKind.FUNCTION_ERROR, b'{"errorMessage":"no"}'),
                Result(ResultKind.THROTTLED),
                Result(ResultKind.UNAVAILABLE, error_message="gone"),
            ]
            serve(d, lambda call: results.pop(0))
            answer = await d.ask(request())
            assert (answer.status, answer.body) == (502, b"Internal Server Error")
            answer = await d.ask(request())
            assert (answer.status, answer.json) == (429, THROTTLED)
            assert (await d.ask(request())).status == 503

    go(test())


def test_who_may_call() -> None:
    async def test() -> None:
        async with door(auth=True) as d:
            serve(d, b"1")
            assert (await d.ask(request())).status == 200
            unknown = await d.ask(request(host=HOST.replace("abc", "xyz")))
            assert (unknown.status, unknown.body) == (403, b'{"Message":null}')
            elsewhere = await d.ask(request(host=HOST.replace("us-east-1", "eu-west-1")))
            assert elsewhere.status == 403
            serve(d, b"1", public=False)
            closed = await d.ask(request())
            assert (closed.status, closed.headers["x-amzn-errortype"]) == (403, "AccessDeniedException")
            assert closed.json["Message"].startswith("Forbidden. ")
            d.router.urls.table.function_deleted("us-east-1", "web")
            assert (await d.ask(request())).status == 403
            assert len(d.dispatcher.invocations) == 1

    go(test())


def signed(service: str = "lambda", region: str = "us-east-1", secret: str = SECRET, **headers: str) -> bytes:
    made = AWSRequest("POST", f"http://{HOST}/p?q=1", data=b"body", headers={"Host": HOST, **headers})
    SigV4Auth(Credentials(KEY, secret), service, region).add_auth(made)
    return request("/p?q=1", *[f"{k}: {v}" for k, v in made.headers.items() if k != "Host"], method="POST", body=b"body")  # fmt: skip


def test_signatures() -> None:
    async def test() -> None:
        async with door(auth=True) as d:
            serve(d, b"1", auth_type="AWS_IAM", public=False)
            assert (await d.ask(signed())).status == 200
            event = event_of(d)
            assert event["requestContext"]["accountId"] == "123456789012"
            assert event["requestContext"]["authorizer"]["iam"]["accessKey"] == KEY
            assert "authorization" not in event["headers"] and event["headers"]["x-amz-date"]
            for refused in (request("/p"), signed("s3"), signed(region="eu-west-1"), signed(secret="other")):
                answer = await d.ask(refused)
                assert answer.status == 403 and answer.headers["x-amzn-errortype"]
            assert len(d.dispatcher.invocations) == 1

    go(test())


def test_strangers_may_send_six_megabytes_where_everybody_may_call() -> None:
    async def test() -> None:
        async with door(auth=True) as d:
            large = b"x" * 3_000_000
            serve(d, b"1")
            text = "Content-Type: text/plain"
            assert (await d.ask(request("/", text, method="POST", body=large))).status == 200
            assert (
                await d.ask(request("/", text, method="POST", body=b"x" * (MAX_REQUEST_BYTES - 100)))
            ).status == 413
            assert (
                await d.ask(request("/", method="POST", body=b"x" * 5_000_000))
            ).status == 413  # as base64
            assert (
                await d.ask(request("/", method="POST", body=b"x" * (MAX_REQUEST_BYTES + 1)))
            ).status == 413
            for closed in ({"public": False}, {"auth_type": "AWS_IAM"}):
                serve(d, b"1", **closed)
                assert (await d.ask(request("/", method="POST", body=large))).status == 403
            assert len(d.dispatcher.invocations) == 1

    go(test())


def test_cors() -> None:
    async def test() -> None:
        async with door() as d:
            said = {"statusCode": 200, "headers": {"Access-Control-Allow-Origin": "*", "X-Three": "3"}}
            serve(d, json.dumps(said).encode(), cors=CORS, public=False)
            asked = ("Origin: https://page.example", "Access-Control-Request-Method: PUT")
            answer = await d.ask(request("/x", *asked, method="OPTIONS"))
            found = {name: value for name, value in answer.headers.items() if name.startswith("access-")}
            assert (answer.status, answer.body, answer.headers["vary"]) == (200, b"", "Origin")
            assert found == {
                "access-control-allow-origin": "https://page.example", "access-control-allow-methods": "GET,PUT",
                "access-control-allow-headers": "x-one,x-two", "access-control-allow-credentials": "true",
                "access-control-max-age": "60",
            }  # fmt: skip
            asked = ("Origin: https://other.example", "Access-Control-Request-Method: PUT")
            answer = await d.ask(request("/x", *asked, method="OPTIONS"))
            assert not any(name.startswith("access-") for name in answer.headers)
            assert not d.dispatcher.invocations

            serve(d, json.dumps(said).encode(), cors=CORS)
            answer = await d.ask(request("/x", "Origin: https://page.example"))
            assert answer.headers["access-control-allow-origin"] == "https://page.example"
            assert (
                answer.headers["access-control-expose-headers"] == "x-three"
                and answer.headers["x-three"] == "3"
            )
            answer = await d.ask(request("/x", "Origin: https://other.example"))
            assert "access-control-allow-origin" not in answer.headers
            serve(d, json.dumps(said).encode(), cors={"AllowOrigins": ["*"]})
            answer = await d.ask(request("/x", "Origin: https://other.example"))
            assert answer.headers["access-control-allow-origin"] == "*"
            serve(d, json.dumps(said).encode())
            answer = await d.ask(request("/x", "Origin: https://other.example", method="OPTIONS"))
            assert answer.headers["access-control-allow-origin"] == "*"  # the function's own

    go(test())


def test_other_paths_and_hosts_are_as_before() -> None:
    async def test() -> None:
        async with door() as d:
            serve(d, b'"web"')
            for path in ("/health", "/metrics", "/2015-03-31/functions", "*"):
                assert (await d.ask(request(path))).body == b"web"
            for _ in range(2):  # remembered or not
                answer = await d.ask(request(INVOKE.format("echo"), method="POST", body=b"[7]"))
                assert answer.body == b"[7]"
            assert (await d.ask(request("/health", host="localhost"))).body == b"ok\n"
            assert (await d.ask(request("/health", host="lambda-url.us-east-1"))).body == b"ok\n"
            assert (await d.ask(request("/x", method="OPTIONS", host="localhost"))).status == 405

    go(test())


# ---- streams -----------------------------------------------------------------------------------------------


def give(invocation: Invocation, *pieces: bytes) -> None:
    assert invocation.stream is not None
    for piece in pieces:
        invocation.stream.on_piece(piece)


HEAD = b'{"statusCode": 418, "headers": {"Content-Type": "text/tea"}, "cookies": ["a=b"]}' + b"\0" * 8


@pytest.mark.parametrize(
    ("pieces", "rest", "status", "content_type", "body"),
    [
        ([b"one ", b"two"], b"", 200, "application/octet-stream", b"one two"),
        ([HEAD + b"one ", b"two"], b"!", 418, "text/tea", b"one two!"),
        ([HEAD[n : n + 1] for n in range(len(HEAD))], b"end", 418, "text/tea", b"end"),
        ([b'{"id": 1}', b'{"id": 2}'], b"", 200, "application/octet-stream", b'{"id": 1}{"id": 2}'),
        ([b'{"statusCode": 1'], b"", 200, "application/octet-stream", b'{"statusCode": 1'),
        ([b"{}" + b"\0" * 8 + b"x"], b"", 200, "application/octet-stream", b"x"),
        ([], b'{"statusCode": 201, "body": "whole"}', 201, "application/json", b"whole"),
    ],
)
def test_streams(pieces: list[bytes], rest: bytes, status: int, content_type: str, body: bytes) -> None:
    async def test() -> None:
        async with door() as d, http2_door() as d2:
            for at in (d, d2.http):
                serve(at, lambda call: None, streaming=True)
            client = await d.connect()
            await client.send(request())
            invocation = await d.dispatcher.waiting.get()
            give(invocation, *pieces)
            invocation.on_done(Result(ResultKind.OK, rest))
            answer = await (client.answer() if not pieces else chunked(client.reader))
            assert (answer.status, answer.headers["content-type"], answer.body) == (
                status,
                content_type,
                body,
            )
            assert answer.headers.get("set-cookie") == ("a=b" if status == 418 else None)

            async with d2.client() as other:
                stream = other.ask("GET", "/", authority=HOST)
                invocation = await d2.http.dispatcher.waiting.get()
                give(invocation, *pieces)
                invocation.on_done(Result(ResultKind.OK, rest))
                answer = await other.answer(stream)
                assert (answer.status, answer.headers["content-type"], answer.body) == (
                    status,
                    content_type,
                    body,
                )
                assert json.loads(invocation.payload)["requestContext"]["http"]["protocol"] == "HTTP/2.0"
                assert json.loads(invocation.payload)["requestContext"]["http"]["sourceIp"] == "127.0.0.1"

    go(test())


async def chunked(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
    assert headers["transfer-encoding"] == "chunked"
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    return Answer(int(head[0][9:12]), headers, body)


def test_a_stream_that_fails_is_seen_to() -> None:
    async def test() -> None:
        async with door() as d, http2_door() as d2:
            for at in (d, d2.http):
                serve(at, lambda call: None, streaming=True)
            client = await d.connect()
            await client.send(request())
            invocation = await d.dispatcher.waiting.get()
            give(invocation, b"a part")
            invocation.on_done(Result(ResultKind.FUNCTION_ERROR, b"{}"))
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await chunked(client.reader)

            async with d2.client() as other:
                stream = other.ask("GET", "/", authority=HOST)
                invocation = await d2.http.dispatcher.waiting.get()
                give(invocation, b"a part")
                while not other.streams[stream].body:
                    await other.hear()
                invocation.on_done(Result(ResultKind.FUNCTION_ERROR, b"{}"))
                with pytest.raises(Reset) as caught:
                    await other.answer(stream)
                assert caught.value.error == h2.errors.ErrorCodes.INTERNAL_ERROR
                await d2.settled()

            for early in ([], [b'{"statusCode": 2']):
                client = await d.connect()
                await client.send(request())
                invocation = await d.dispatcher.waiting.get()
                give(invocation, *early)
                invocation.on_done(Result(ResultKind.FUNCTION_ERROR, b"{}"))
                assert (await client.answer()).status == 502

    go(test())


@pytest.mark.parametrize(
    ("method", "head", "status"),
    [("HEAD", HEAD, 418), ("GET", b'{"statusCode": 204}' + b"\0" * 8, 204), ("GET", b'{"statusCode": 9}' + b"\0" * 8, 502)],
)  # fmt: skip
def test_streams_that_have_no_body(method: str, head: bytes, status: int) -> None:
    async def test() -> None:
        async with door() as d:
            serve(d, lambda call: None, streaming=True)
            client = await d.connect()
            for _ in range(2):  # the connection goes on
                await client.send(request(method=method))
                invocation = await d.dispatcher.waiting.get()
                give(invocation, head, b"pieces", b"that nobody sees")
                invocation.on_done(Result(ResultKind.OK))
                answer = await client.answer(head_only=method == "HEAD")
                assert (answer.status, answer.body) == (
                    status,
                    b"Internal Server Error" if status == 502 else b"",
                )

    go(test())


def test_a_stream_waits_for_its_reader() -> None:
    async def test() -> None:
        async with door() as d:
            serve(d, lambda call: None, streaming=True)
            # A reader that takes little ahead.
            reader, writer = await asyncio.open_connection("127.0.0.1", d.port, limit=65536)
            client = Client(reader, writer)
            d.clients.append(client)
            await client.send(request())
            invocation = await d.dispatcher.waiting.get()
            sent = 0
            while invocation.request_id not in d.dispatcher.paused:
                give(invocation, b"x" * 65536)
                sent += 65536
                await asyncio.sleep(0)
            reading = asyncio.create_task(chunked(client.reader))
            while invocation.request_id in d.dispatcher.paused:  # noqa: ASYNC110 - a state of the dispatcher
                await asyncio.sleep(0.001)
            invocation.on_done(Result(ResultKind.OK))
            assert len((await reading).body) == sent

    go(test())
