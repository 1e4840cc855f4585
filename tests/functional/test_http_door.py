"""The HTTP door over a dispatcher and a control process of the test's own: raw bytes in, raw bytes out."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from gateway.model.arn import ACCOUNT_ID
from gateway.model.invocation import Invocation, Result, ResultKind
from gateway.web.http_server import HttpServer, Limits
from gateway.web.router import Router
from tests.support.fake_door import FakeDispatcher

KEY, SECRET = "AKIDEXAMPLE", "secret"
INVOKE = "/2015-03-31/functions/{}/invocations"
TOKEN = "a-metrics-token"
THROTTLED = {"Reason": "ConcurrentInvocationLimitExceeded", "message": "Rate Exceeded.", "Type": "User"}


@dataclass
class Answer:
    """One parsed response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """One raw connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, *, head_only: bool = False) -> Answer:
        """The next response; interim ones are skipped."""
        while True:
            head = await self.reader.readuntil(b"\r\n\r\n")
            status = int(head[9:12])
            if status != 100:
                break
        lines = head.decode("latin-1").split("\r\n")[1:-2]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        assert len(headers) == len(lines), "a header comes twice"
        length = 0 if head_only else int(headers.get("content-length", "0"))
        return Answer(status, headers, await self.reader.readexactly(length))

    async def ended(self) -> bool:
        """Whether the server has closed; what it still sends is dropped."""
        try:
            await self.reader.read(-1)
        except ConnectionError:
            pass
        return True


@dataclass
class Door:
    """A serving door."""

    server: HttpServer
    dispatcher: FakeDispatcher
    router: Router
    port: int
    control: list[dict[str, Any]] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)

    async def connect(self) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24)
        self.clients.append(Client(reader, writer))
        return self.clients[-1]

    async def ask(self, data: bytes) -> Answer:
        client = await self.connect()
        await client.send(data)
        return await client.answer()


@asynccontextmanager
async def door(*, auth: bool = False, limits: Limits | None = None) -> AsyncIterator[Door]:
    loop = asyncio.get_running_loop()
    dispatcher = FakeDispatcher()
    dispatcher.add("echo", lambda call: Result(ResultKind.OK, call.payload, executed_version="$LATEST"))
    dispatcher.add("slow", lambda call: None)
    seen: list[dict[str, Any]] = []

    def control(*call: Any) -> None:
        names = ("service", "region", "method", "path", "query", "headers", "request_id", "body")
        seen.append(dict(zip(names, call, strict=False)))
        done = call[-1]
        loop.call_soon(done, 201, {"Content-Type": "application/json", "X-Extra": "1"}, b'{"from":"control"}')

    router = Router(dispatcher, control, region="us-east-1", auth_required=auth)
    router.verifier.set_keys({KEY: SECRET})
    router.set_tokens(frozenset({hashlib.sha256(TOKEN.encode()).hexdigest()}))
    server = HttpServer(loop, router, limits)
    address = await server.listen("127.0.0.1", 0)
    made = Door(server, dispatcher, router, int(address.rpartition(":")[2]), seen)
    try:
        yield made
    finally:
        for client in made.clients:
            client.writer.close()
        await asyncio.sleep(0)
        server.close()
        await asyncio.sleep(0.01)
        assert server.open_connections == 0
        assert server.body_bytes == 0


def go(test: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(30):
            await test

    uvloop.run(limited())


def post(
    name: str = "echo", body: bytes = b'{"a":1}', *headers: str, query: str = "", version: str = "1.1"
) -> bytes:
    lines = [
        f"POST {INVOKE.format(name)}{query} HTTP/{version}",
        "Host: h",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def get(target: str, *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: h", *headers, "", ""]).encode()


def sign(
    path: str, body: bytes = b"{}", method: str = "POST", service: str = "lambda", **headers: str
) -> bytes:
    request = AWSRequest(method, f"http://h{path}", data=body, headers={"Host": "h", **headers})
    SigV4Auth(Credentials(KEY, SECRET), service, "eu-north-1").add_auth(request)
    lines = [f"{name}: {value}" for name, value in request.headers.items()]
    head = "\r\n".join([f"{method} {path} HTTP/1.1", *lines, f"Content-Length: {len(body)}", "", ""])
    return head.encode() + body


# ---- Invoke ------------------------------------------------------------------------------------------------


def test_invoke() -> None:
    async def test() -> None:
        async with door() as d:
            answer = await d.ask(post())
            assert (answer.status, answer.body) == (200, b'{"a":1}')
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["x-amz-executed-version"] == "$LATEST"
            assert re.fullmatch(
                r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", answer.headers["x-amzn-requestid"]
            )
            assert answer.headers["x-amzn-requestid"] == d.dispatcher.invocations[0].request_id
            assert "date" in answer.headers
            assert "x-forklight-receipt" not in answer.headers

    go(test())


def test_empty_body_is_an_empty_object() -> None:
    async def test() -> None:
        async with door() as d:
            assert (await d.ask(post(body=b""))).body == b"{}"
            assert (
                await d.ask(f"POST {INVOKE.format('echo')} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            ).body == b"{}"

    go(test())


@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("echo", ""),
        ("echo/", ""),
        ("echo", "?Qualifier=%24LATEST"),
        ("echo%3A%24LATEST", ""),
        ("echo:$LATEST", "?Qualifier=$LATEST"),
        ("arn:aws:lambda:us-east-1:000000000000:function:echo", ""),
        ("arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Aecho%3A%24LATEST", ""),
        ("000000000000:function:echo", ""),
        ("function:echo", ""),
    ],
)
def test_spellings_of_a_name(name: str, query: str) -> None:
    async def test() -> None:
        async with door() as d:
            path = INVOKE.format(name) if not name.endswith("/") else INVOKE.format(name[:-1]) + "/"
            request = f"POST {path}{query} HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n[]"
            for _ in range(2):
                assert (await d.ask(request.encode())).body == b"[]"

    go(test())


@pytest.mark.parametrize(
    ("name", "query", "status", "code", "message"),
    [
        ("nobody", "", 404, "ResourceNotFoundException", f"Function not found: arn:aws:lambda:us-east-1:{ACCOUNT_ID}:function:nobody"),
        ("echo", "?Qualifier=7", 404, "ResourceNotFoundException", "function:echo:7"),
        ("echo:1", "?Qualifier=2", 400, "InvalidParameterValueException", "The derived qualifier from the function name"),
        ("bad%20name", "", 400, "ValidationException", "Value 'bad name' at 'functionName' failed to satisfy"),
        ("echo", "?Qualifier=a%20b", 400, "ValidationException", "at 'qualifier'"),
        ("arn:aws:lambda:eu-west-1:000000000000:function:echo", "", 404, "ResourceNotFoundException", "Functions from 'eu-west-1' are not"),
    ],
)  # fmt: skip
def test_names_that_are_refused(name: str, query: str, status: int, code: str, message: str) -> None:
    async def test() -> None:
        async with door() as d:
            answer = await d.ask(post(name, query=query))
            assert (answer.status, answer.headers["x-amzn-errortype"]) == (status, code)
            assert message in (answer.json.get("message") or answer.json["Message"])

    go(test())


def test_optional_headers_reach_the_invocation() -> None:
    async def test() -> None:
        async with door() as d:
            context = base64.b64encode(b'{"custom": {"a": 1}}').decode()
            trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1"
            answer = await d.ask(
                post(
                    "echo",
                    b"1",
                    f"X-Amz-Client-Context: {context}",
                    "X-Amz-Tenant-Id: t 1",
                    f"X-Amzn-Trace-Id: {trace}",
                    "X-Amz-Log-Type: Tail",
                )
            )
            call = d.dispatcher.invocations[0]
            assert call.client_context == b'{"custom":{"a":1}}'
            assert (call.tenant_id, call.trace_id, call.want_log_tail) == ("t 1", trace, True)
            assert answer.headers["x-amzn-trace-id"] == trace

    go(test())


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("X-Amz-Client-Context: !!!", "InvalidRequestContentException"),
        ("X-Amz-Client-Context: " + base64.b64encode(b"[1]").decode(), "InvalidRequestContentException"),
        ("X-Amz-Client-Context: " + "A" * 3584, "InvalidRequestContentException"),
        ("X-Amz-Tenant-Id: {}", "ValidationException"),
        ("X-Amz-Invocation-Type: Sometimes", "ValidationException"),
        ("X-Amz-Invocation-Type: Event", "InvalidParameterValueException"),
        ("X-Amz-Log-Type: All", "ValidationException"),
    ],
)
def test_optional_headers_that_are_refused(header: str, code: str) -> None:
    async def test() -> None:
        async with door() as d:
            answer = await d.ask(post("echo", b"1", header))
            assert (answer.status, answer.headers["x-amzn-errortype"]) == (400, code)
            assert not d.dispatcher.invocations

    go(test())


def test_dry_run() -> None:
    async def test() -> None:
        async with door() as d:
            client = await d.connect()
            await client.send(post("echo", b"1", "X-Amz-Invocation-Type: DryRun") + post("echo", b"2"))
            answer = await client.answer()
            assert (answer.status, answer.body) == (204, b"")
            assert "content-length" not in answer.headers
            assert (await client.answer()).body == b"2"
            assert len(d.dispatcher.invocations) == 1

    go(test())


@pytest.mark.parametrize(
    ("result", "status", "code", "members"),
    [
        (Result(ResultKind.THROTTLED), 429, "TooManyRequestsException", THROTTLED),
        (Result(ResultKind.UNAVAILABLE, error_message="no"), 503, "ServiceException", {"Message": "no", "Type": "Service"}),
        (Result(ResultKind.BAD_EVENT, error_message="bad"), 400, "InvalidRequestContentException", {"message": "bad", "Type": "User"}),
    ],
)  # fmt: skip
def test_results_that_are_no_answer(result: Result, status: int, code: str, members: dict[str, str]) -> None:
    async def test() -> None:
        async with door() as d:
            d.dispatcher.add("f", lambda call: result)
            answer = await d.ask(post("f"))
            assert (answer.status, answer.headers["x-amzn-errortype"]) == (status, code)
            assert answer.json == members
            assert ("retry-after" in answer.headers) == (status == 429)

    go(test())


def test_function_error_log_tail_and_receipt() -> None:
    async def test() -> None:
        async with door() as d:
            d.dispatcher.add(
                "f",
                lambda call: Result(
                    ResultKind.FUNCTION_ERROR, b'{"errorType":"E"}', "", "$LATEST", b"the tail"
                ),
            )
            answer = await d.ask(post("f", b"1", "X-Amz-Log-Type: Tail", "x-forklight-receipt: 1"))
            assert answer.status == 200
            assert answer.headers["x-amz-function-error"] == "Unhandled"
            assert base64.b64decode(answer.headers["x-amz-log-result"]) == b"the tail"
            assert json.loads(answer.headers["x-forklight-receipt"])["cold"] is False

    go(test())


# ---- signatures, routes ------------------------------------------------------------------------------------


def test_signed_invoke_and_its_region() -> None:
    async def test() -> None:
        async with door(auth=True) as d:
            d.dispatcher.add("echo", lambda call: Result(ResultKind.OK, b"there"), region="eu-north-1")
            for _ in range(3):
                assert (await d.ask(sign(INVOKE.format("echo")))).body == b"there"
            unsigned = await d.ask(post())
            assert (unsigned.status, unsigned.headers["x-amzn-errortype"]) == (
                403,
                "MissingAuthenticationTokenException",
            )
            assert unsigned.json == {"message": "Missing Authentication Token"}
            wrong = await d.ask(sign(INVOKE.format("echo"), service="logs"))
            assert "Credential should be scoped to correct service: 'lambda'" in wrong.json["message"]
            changed = await d.ask(sign(INVOKE.format("echo"), b"{1}").replace(b"{1}", b"{2}"))
            assert changed.headers["x-amzn-errortype"] == "InvalidSignatureException"

    go(test())


def test_region_of_a_signature_counts_without_verification() -> None:
    async def test() -> None:
        async with door() as d:
            d.dispatcher.add("only", lambda call: Result(ResultKind.OK, b"there"), region="eu-north-1")
            assert (
                await d.ask(sign(INVOKE.format("only")).replace(b"Signature=", b"Signature=0"))
            ).body == b"there"
            assert (await d.ask(post("only"))).status == 404

    go(test())


@pytest.mark.parametrize(
    ("request_bytes", "service"),
    [
        (sign("/2015-03-31/functions?MaxItems=1", b"", "GET"), "lambda"),
        (sign("/2015-03-31/functions", b'{"FunctionName":"f"}'), "lambda"),
        (sign("/", b"{}", service="logs", **{"X-Amz-Target": "Logs_20140328.GetLogEvents"}), "logs"),
        (sign("/forklight/v1/isolation", b"", "GET", service="forklight"), "forklight"),
        (sign("/forklight/v1/isolation", b"", "GET"), "forklight"),
    ],
)
def test_everything_else_goes_to_control(request_bytes: bytes, service: str) -> None:
    async def test() -> None:
        async with door(auth=True) as d:
            answer = await d.ask(request_bytes)
            assert (answer.status, answer.json) == (201, {"from": "control"})
            assert answer.headers["x-extra"] == "1"
            assert d.control[0]["service"] == service
            assert d.control[0]["region"] == "eu-north-1"
            assert "authorization" not in d.control[0]["headers"]

    go(test())


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (get("/nothing"), 404, "UnknownOperationException"),
        (get("/2015-03-31/functions", method="OPTIONS"), 405, "MethodNotAllowedException"),
        (get("/2015-03-31/functions", method="TRACE"), 405, "MethodNotAllowedException"),
        (get("h:80", method="CONNECT"), 405, "MethodNotAllowedException"),
        (get("/", method="BREW"), 501, "NotImplementedException"),
    ],
)
def test_routes_that_do_not_exist(data: bytes, status: int, code: str) -> None:
    async def test() -> None:
        async with door() as d:
            answer = await d.ask(data)
            assert (answer.status, answer.headers["x-amzn-errortype"]) == (status, code)

    go(test())


def test_health_ready_and_metrics() -> None:
    async def test() -> None:
        async with door(auth=True) as d:
            assert (await d.ask(get("/health"))).body == b"ok\n"
            assert (await d.ask(get("/ready"))).body == b"ready\n"
            assert (await d.ask(get("/metrics"))).status == 403
            assert (await d.ask(get("/metrics", "Authorization: Bearer wrong"))).status == 403
            assert (await d.ask(get("/metrics", f"Authorization: Bearer {TOKEN}"))).status == 201
            assert (await d.ask(sign("/metrics", b"", "GET", service="forklight"))).status == 201
            assert {seen["service"] for seen in d.control} == {"forklight"}

    go(test())


# ---- HTTP --------------------------------------------------------------------------------------------------


def test_keep_alive_and_pipelining_in_order() -> None:
    async def test() -> None:
        async with door() as d:
            client = await d.connect()
            await client.send(b"".join(post("echo", b"%d" % number) for number in range(2000)))
            for number in range(2000):
                assert (await client.answer()).body == b"%d" % number

    go(test())


def test_pipelined_requests_wait_for_a_slow_one() -> None:
    async def test() -> None:
        async with door() as d:
            client = await d.connect()
            await client.send(post("slow", b"1") + post("echo", b"2") + post("slow", b"3"))
            first = await d.dispatcher.waiting.get()
            await asyncio.sleep(0.05)
            assert len(d.dispatcher.invocations) == 1
            first.on_done(Result(ResultKind.OK, b"one"))
            assert (await client.answer()).body == b"one"
            assert (await client.answer()).body == b"2"
            (await d.dispatcher.waiting.get()).on_done(Result(ResultKind.OK, b"three"))
            assert (await client.answer()).body == b"three"

    go(test())


def test_flood_of_pipelined_requests_is_not_read_ahead() -> None:
    async def test() -> None:
        async with door() as d:
            client = await d.connect()
            await client.send(post("slow"))
            call = await d.dispatcher.waiting.get()
            sent = 0
            flood = post("echo", b"x" * 1000) * 1000
            try:
                async with asyncio.timeout(0.5):
                    for _ in range(200):
                        await client.send(flood)
                        sent += len(flood)
            except TimeoutError:
                pass
            # What was taken is bounded by socket buffers, not by what the client would send.
            assert sent < 100 * len(flood)
            call.on_done(Result(ResultKind.OK, b"1"))
            assert (await client.answer()).body == b"1"
            for _ in range(100):
                assert len((await client.answer()).body) == 1000

    go(test())


def test_client_that_does_not_read_stops_being_served() -> None:
    async def test() -> None:
        async with door() as d:
            d.dispatcher.add("big", lambda call: Result(ResultKind.OK, b"x" * 1_000_000))
            client = await d.connect()
            client.reader._limit = 1024  # type: ignore[attr-defined]
            await client.send(post("big") * 100)
            await asyncio.sleep(0.3)
            assert len(d.dispatcher.invocations) < 60
            for _ in range(100):
                assert len((await client.answer()).body) == 1_000_000

    go(test())


@pytest.mark.parametrize("size", [1, 16, 100])
def test_request_in_small_pieces(size: int) -> None:
    async def test() -> None:
        async with door() as d:
            client = await d.connect()
            data = post("echo", b'{"some":"thing"}', "X-Amz-Log-Type: Tail")
            for start in range(0, len(data), size):
                await client.send(data[start : start + size])
                await asyncio.sleep(0)
            assert (await client.answer()).body == b'{"some":"thing"}'

    go(test())


def test_chunked_body_and_trailers() -> None:
    async def test() -> None:
        async with door() as d:
            client = await d.connect()
            head = f"POST {INVOKE.format('echo')} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            await client.send(
                head + b"3\r\n[1,\r\n2;ext=1\r\n2]\r\n0\r\nX-Amz-Log-Type: Tail\r\n\r\n" + post("echo", b"2")
            )
            assert (await client.answer()).body == b"[1,2]"
            assert not d.dispatcher.invocations[0].want_log_tail
            assert (await client.answer()).body == b"2"
            await client.send(head + b"0\r\n\r\n")
            assert (await client.answer()).body == b"{}"

    go(test())


def test_expect_100_continue() -> None:
    async def test() -> None:
        async with door() as d:
            client = await d.connect()
            data = post("echo", b"x" * 2000, "Expect: 100-continue")
            await client.send(data[:-2000])
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            await client.send(data[-2000:])
            assert len((await client.answer()).body) == 2000
            refused = post("echo", b"", "Expect: 100-continue").replace(
                b"Content-Length: 0", b"Content-Length: 6291557"
            )
            await client.send(refused)
            assert (await client.answer()).status == 413

    go(test())


def test_largest_event_and_one_byte_more() -> None:
    async def test() -> None:
        async with door() as d:
            assert len((await d.ask(post("echo", b"x" * 6_291_556))).body) == 6_291_556
            answer = await d.ask(post("echo", b"x" * 6_291_557))
            assert (answer.status, answer.headers["x-amzn-errortype"]) == (413, "RequestTooLargeException")
            assert (
                answer.json["message"]
                == "Request must be smaller than 6291556 bytes for the InvokeFunction operation"
            )
            assert answer.headers["connection"] == "close"
            head = f"POST {INVOKE.format('echo')} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
            assert (await d.ask(head + chunk * 8)).status == 413

    go(test())


def test_control_request_may_be_larger_than_an_event() -> None:
    async def test() -> None:
        async with door() as d:
            head = "POST /2015-03-31/functions HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n"
            assert (await d.ask(head.format(7_000_000).encode() + b"x" * 7_000_000)).status == 201
            answer = await d.ask(head.format(70_167_212).encode())
            assert (answer.status, answer.headers["x-amzn-errortype"]) == (
                413,
                "RequestEntityTooLargeException",
            )

    go(test())


BAD_REQUESTS = {
    "length and chunked": b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "length twice": b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "length list": b"Content-Length: 3, 3\r\n\r\nabc",
    "length with sign": b"Content-Length: +3\r\n\r\nabc",
    "length hexadecimal": b"Content-Length: 0x3\r\n\r\nabc",
    "length empty": b"Content-Length:\r\n\r\nabc",
    "length negative": b"Content-Length: -1\r\n\r\nabc",
    "length huge": b"Content-Length: 99999999999999999999999\r\n\r\nabc",
    "coding unknown": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "coding twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunk size": b"Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n",
    "chunk line feed": b"Transfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n",
    "bare line feed": b"X: 1\n\r\n",
    "bare carriage return": b"X: 1\rY: 2\r\n\r\n",
    "folded": b"X: 1\r\n 2\r\n\r\n",
    "nul in value": b"X: a\x00b\r\n\r\n",
    "nul in name": b"X\x00: b\r\n\r\n",
    "space before colon": b"X : b\r\n\r\n",
    "no colon": b"nonsense\r\n\r\n",
    "host twice": b"Host: other\r\n\r\n",
    "authorization twice": b"Authorization: a\r\nAuthorization: b\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_malformed_request_is_refused_and_the_connection_closed(name: str) -> None:
    async def test() -> None:
        async with door() as d:
            client = await d.connect()
            head = f"POST {INVOKE.format('echo')} HTTP/1.1\r\nHost: h\r\n".encode()
            await client.send(post("echo", b"first") + head + BAD_REQUESTS[name] + post("echo", b"smuggled"))
            assert (await client.answer()).body == b"first"
            answer = await client.answer()
            assert answer.status == (501 if name == "coding unknown" else 400)
            assert answer.headers["connection"] == "close"
            assert await client.ended()
            assert len(d.dispatcher.invocations) == 1

    go(test())


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505),
        (b"GET /\r\n\r\n", 505),
        (b"GET / HTTP/1.2\r\nHost: h\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (b"POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nExpect: miracles\r\n\r\n", 417),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 400),
    ],
)
def test_other_protocols_and_versions(data: bytes, status: int) -> None:
    async def test() -> None:
        async with door() as d:
            client = await d.connect()
            await client.send(data)
            answer = await client.answer()
            assert answer.status in (status, 501) if status == 400 else answer.status == status
            assert await client.ended()

    go(test())


def test_head_is_limited_in_bytes_and_fields() -> None:
    async def test() -> None:
        async with door() as d:
            assert (await d.ask(get("/health", *[f"X-{number}: 1" for number in range(99)]))).status == 200
            assert (await d.ask(get("/health", *[f"X-{number}: 1" for number in range(100)]))).status == 431
            assert (await d.ask(get("/health", *["X: 1"] * 101))).status == 431
            assert (await d.ask(get("/health", "X: " + "a" * 60_000))).status == 200
            assert (await d.ask(get("/health", "X: " + "a" * 66_000))).status == 431
            assert (await d.ask(get("/" + "a" * 66_000))).status == 431
            client = await d.connect()
            await client.send(b"GET / HTTP/1.1\r\nHost: h\r\n")
            for _ in range(100):
                await client.send(b"X: " + b"a" * 1000)
                await asyncio.sleep(0)
                if client.reader.at_eof():
                    break
            assert (await client.answer()).status == 431

    go(test())


def test_head_request_has_no_body() -> None:
    async def test() -> None:
        async with door() as d:
            client = await d.connect()
            await client.send(get("/health", method="HEAD") + get("/health"))
            answer = await client.answer(head_only=True)
            assert (answer.status, answer.headers["content-length"]) == (200, "3")
            assert (await client.answer()).body == b"ok\n"

    go(test())


def test_http_1_0() -> None:
    async def test() -> None:
        async with door() as d:
            client = await d.connect()
            await client.send(post("echo", b"1", "Connection: keep-alive", version="1.0"))
            answer = await client.answer()
            assert answer.headers["connection"] == "keep-alive"
            await client.send(post("echo", b"2", version="1.0"))
            assert (await client.answer()).headers["connection"] == "close"
            assert await client.ended()

    go(test())


def test_connection_close_and_upgrade() -> None:
    async def test() -> None:
        async with door() as d:
            client = await d.connect()
            await client.send(post("echo", b"1", "Connection: close") + post("echo", b"2"))
            assert (await client.answer()).headers["connection"] == "close"
            assert await client.ended()
            client = await d.connect()
            await client.send(
                get("/health", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AA")
            )
            assert (await client.answer()).status == 200
            assert await client.ended()

    go(test())


def test_absolute_target() -> None:
    async def test() -> None:
        async with door() as d:
            request = post("echo", b"1").replace(b"POST /", b"POST http://h/", 1)
            assert (await d.ask(request)).body == b"1"

    go(test())


def test_half_closed_client_gets_its_answers() -> None:
    async def test() -> None:
        async with door() as d:
            client = await d.connect()
            await client.send(post("echo", b"1") + post("slow", b"2") + post("echo", b"3"))
            client.writer.write_eof()
            assert (await client.answer()).body == b"1"
            call = await d.dispatcher.waiting.get()
            await asyncio.sleep(0.3)
            call.on_done(Result(ResultKind.OK, b"two"))
            assert (await client.answer()).body == b"two"
            assert (await client.answer()).body == b"3"
            assert await client.ended()
            assert d.dispatcher.cancelled.empty()

    go(test())


def test_client_that_hangs_up_cancels() -> None:
    async def test() -> None:
        async with door() as d:
            client = await d.connect()
            await client.send(post("slow"))
            call: Invocation = await d.dispatcher.waiting.get()
            client.writer.close()
            assert await d.dispatcher.cancelled.get() is call
            client = await d.connect()
            await client.send(post("slow"))
            call = await d.dispatcher.waiting.get()
            client.writer.transport.abort()
            assert await d.dispatcher.cancelled.get() is call

    go(test())


def test_time_outs() -> None:
    limits = Limits(header_s=0.4, body_idle_s=0.4, keep_alive_s=0.4)

    async def test() -> None:
        async with door(limits=limits) as d:
            silent, slow_head, slow_body, kept, busy = [await d.connect() for _ in range(5)]
            await slow_head.send(b"GET / HTTP/1.1\r\nHost:")
            await slow_body.send(post()[:-1])
            await kept.send(post())
            assert (await kept.answer()).status == 200
            await busy.send(post("slow"))
            assert await silent.reader.read() == b""
            assert (await slow_head.answer()).status == 408
            assert (await slow_body.answer()).status == 408
            assert await kept.reader.read() == b""
            await asyncio.sleep(1)
            (await d.dispatcher.waiting.get()).on_done(Result(ResultKind.OK, b"late"))
            assert (await busy.answer()).body == b"late"

    go(test())


def test_body_that_trickles_in_for_too_long() -> None:
    async def test() -> None:
        async with door(limits=Limits(body_idle_s=5, body_total_s=0.6)) as d:
            client = await d.connect()
            await client.send(
                post("echo", b"")[:-2].replace(b"Content-Length: 0", b"Content-Length: 1000") + b"\r\n"
            )
            for _ in range(30):
                await client.send(b"x")
                await asyncio.sleep(0.05)
                if d.server.open_connections == 0:
                    break
            assert (await client.answer()).status == 408

    go(test())


def test_too_many_connections() -> None:
    async def test() -> None:
        async with door(limits=Limits(connections=2)) as d:
            first, second = await d.connect(), await d.connect()
            await first.send(get("/health"))
            assert (await first.answer()).status == 200
            assert (await d.ask(get("/health"))).status == 503
            await second.send(get("/health"))
            assert (await second.answer()).status == 200

    go(test())


def test_stopping_lets_what_runs_finish() -> None:
    async def test() -> None:
        async with door() as d:
            idle, busy = await d.connect(), await d.connect()
            await busy.send(post("slow"))
            call = await d.dispatcher.waiting.get()
            d.server.stop_listening()
            assert await idle.reader.read() == b""
            call.on_done(Result(ResultKind.OK, b"1"))
            answer = await busy.answer()
            assert (answer.body, answer.headers["connection"]) == (b"1", "close")
            with pytest.raises(OSError):
                await d.connect()

    go(test())
