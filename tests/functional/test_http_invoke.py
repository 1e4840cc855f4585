"""Invoke, signatures and routes of the HTTP door: raw bytes in, raw bytes out."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Callable

import pytest

from gateway.model.arn import ACCOUNT_ID
from gateway.model.errors import ApiError, too_many_requests
from gateway.model.event import MAX_EVENT_BYTES, Event
from gateway.model.invocation import Result, ResultKind
from tests.support.http_door import (
    INVOKE,
    THROTTLED,
    TOKEN,
    door,
    get,
    go,
    post,
    sign,
)


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


class Kept:
    """Answers as the process does that keeps events, when the test says so."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[tuple[Event, Callable[[ApiError | str], None]]] = asyncio.Queue()

    def accept(self, event: Event, answer: Callable[[ApiError | str], None]) -> None:
        self.events.put_nowait((event, answer))


def test_an_event_is_acknowledged_when_it_is_kept_and_not_before() -> None:
    async def test() -> None:
        kept = Kept()
        async with door(events=kept) as d:
            client = await d.connect()
            headers = ("X-Amz-Invocation-Type: Event", "X-Amz-Tenant-Id: t")
            await client.send(post("echo", b'{"a":1}', *headers, query="?Qualifier=$LATEST"))
            answered = asyncio.ensure_future(client.answer())
            event, answer = await kept.events.get()
            await asyncio.sleep(0.02)
            assert not answered.done()
            assert (event.name, event.qualifier, event.version) == ("echo", "$LATEST", "$LATEST")
            assert (event.payload, event.tenant_id) == (b'{"a":1}', "t")
            answer(event.request_id)
            found = await answered
            assert (found.status, found.body) == (202, b"")
            assert found.headers["x-amzn-requestid"] == event.request_id
            assert not d.dispatcher.invocations
            await client.send(post("echo", b"", "X-Amz-Invocation-Type: Event"))
            event, answer = await kept.events.get()
            assert event.payload == b"{}"
            answer(too_many_requests("FunctionInvocationRateLimitExceeded"))
            found = await client.answer()
            assert (found.status, found.headers["x-amzn-errortype"]) == (429, "TooManyRequestsException")

    go(test())


@pytest.mark.parametrize(
    ("body", "status", "code", "words"),
    [
        (b'{"a":', 400, "InvalidRequestContentException", b"Could not parse request body into json"),
        (
            b'"' + b"x" * (MAX_EVENT_BYTES - 1) + b'"',
            413,
            "RequestTooLargeException",
            b"1048577 byte payload",
        ),
        (b'"' + b"x" * (MAX_EVENT_BYTES - 2) + b'"', 503, "ServiceException", b"try again"),
    ],
)
def test_events_that_are_refused(body: bytes, status: int, code: str, words: bytes) -> None:
    """The last one is as large as it may be, and there is nobody who keeps it."""

    async def test() -> None:
        async with door() as d:
            answer = await d.ask(post("echo", body, "X-Amz-Invocation-Type: Event"))
            assert (answer.status, answer.headers["x-amzn-errortype"]) == (status, code)
            assert words in answer.body
            assert not d.dispatcher.invocations

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
    ("signed_now", "service"),
    [
        (lambda: sign("/2015-03-31/functions?MaxItems=1", b"", "GET"), "lambda"),
        (lambda: sign("/2015-03-31/functions", b'{"FunctionName":"f"}'), "lambda"),
        (lambda: sign("/", b"{}", service="logs", **{"X-Amz-Target": "Logs_20140328.GetLogEvents"}), "logs"),
        (lambda: sign("/forklight/v1/isolation", b"", "GET", service="forklight"), "forklight"),
        (lambda: sign("/forklight/v1/isolation", b"", "GET"), "forklight"),
    ],
)
def test_everything_else_goes_to_control(signed_now: Callable[[], bytes], service: str) -> None:
    async def test() -> None:
        async with door(auth=True) as d:
            answer = await d.ask(signed_now())
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
