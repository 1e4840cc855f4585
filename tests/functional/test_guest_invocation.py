"""What a handler is given and what becomes of what it returns."""

from __future__ import annotations

import json
import os
import uuid

import pytest

from tests.support.guest_fixtures import Function, function, harness, runtime_zygote
from tests.support.guest_harness import (
    ERROR,
    INIT,
    READY,
    REHEARSE,
    RESULT,
    GuestHarness,
    document,
)

__all__ = ["function", "harness", "runtime_zygote"]

MAX_RESPONSE = 6 * 1024 * 1024 + 100


def test_event_and_request_id_reach_the_handler(function: Function) -> None:
    worker = function("def handler(event, context): return [event, context.aws_request_id]")
    request_id = uuid.uuid4()
    reply = worker.invoke(b'{"a": [1, 2.5, null, true, "\\u00e9"]}', request_id=request_id)
    assert reply.kind == RESULT
    assert reply.nonce == request_id.bytes
    assert reply.json == [{"a": [1, 2.5, None, True, "é"]}, str(request_id)]


def test_context_says_what_lambda_says(function: Function) -> None:
    worker = function(
        """
        def handler(event, c):
            return [c.function_name, c.function_version, c.memory_limit_in_mb, c.log_group_name, c.log_stream_name,
                    c.invoked_function_arn, c.tenant_id, c.identity.cognito_identity_id,
                    c.client_context.custom, c.client_context.client.app_title, c.client_context.env,
                    c.get_remaining_time_in_millis()]
        """
    )
    reply = worker.invoke(
        b"{}",
        timeout_s=60,
        arn="arn:x:alias",
        tenant_id="t1",
        identity={"cognitoIdentityId": "id1"},
        client_context={"custom": {"k": "v"}, "client": {"app_title": "app"}, "env": {"e": 1}},
    )
    *said, remaining = reply.json
    assert said == [
        "f",
        "$LATEST",
        "128",
        "/aws/lambda/f",
        "2023/11/14/[$LATEST]" + "0123456789abcdef" * 2,
        "arn:x:alias",
        "t1",
        "id1",
        {"k": "v"},
        "app",
        {"e": 1},
    ]
    assert 0 < remaining <= 60_000


def test_context_without_extras_and_past_its_deadline(function: Function) -> None:
    worker = function(
        "def handler(e, c): return [c.client_context, c.tenant_id, c.identity.cognito_identity_id, "
        "c.get_remaining_time_in_millis(), 'aws_request_id=' in repr(c)]"
    )
    assert worker.invoke(b"{}", timeout_s=-1).json == [None, None, None, 0, True]


def test_a_client_context_is_not_shared_between_invocations(function: Function) -> None:
    worker = function(
        "def handler(e, c): c.client_context.custom['n'] += 1; return c.client_context.custom['n']"
    )
    for _ in range(2):
        assert worker.invoke(b"{}", client_context={"custom": {"n": 1}}).json == 2


def test_trace_id_is_that_of_the_invocation(function: Function) -> None:
    worker = function("import os\ndef handler(e, c): return os.environ.get('_X_AMZN_TRACE_ID')")
    said = [
        worker.invoke(b"1", **meta).json for meta in ({}, {"trace_id": "Root=1"}, {"trace_id": "Root=2"}, {})
    ]
    assert said == [None, "Root=1", "Root=2", None]


@pytest.mark.parametrize(
    ("expression", "payload"),
    [
        ("None", b"null"),
        ("'text'", b'"text"'),
        ("b'raw \\xff bytes'", b"raw \xff bytes"),
        ("(1, [2])", b"[1, [2]]"),
        ("{1: 'a', None: 2}", b'{"1": "a", "null": 2}'),
        ("float('nan')", b"NaN"),
        ("{'d': Decimal('1.10'), 'n': Decimal('NaN')}", b'{"d": 1.10, "n": NaN}'),
        ("[Point(1, b'x')]", b'[{"x": 1, "y": "x"}]'),
        ("{b'k': 1}", b'{"k": 1}'),
    ],
)
def test_results_as_the_aws_runtime_writes_them(function: Function, expression: str, payload: bytes) -> None:
    worker = function(
        f"""
        from collections import namedtuple
        from decimal import Decimal
        Point = namedtuple("Point", "x y")
        def handler(event, context): return {expression}
        """
    )
    reply = worker.invoke(b"{}")
    assert (reply.kind, reply.payload) == (RESULT, payload)


def test_text_is_escaped_up_to_3_11_only(function: Function, harness: GuestHarness) -> None:
    worker = function("def handler(event, context): return 'é'")
    expected = b'"\\u00e9"' if harness.runtime in ("python3.10", "python3.11") else '"é"'.encode()
    assert worker.invoke(b"{}").payload == expected


def test_handler_may_be_any_callable(function: Function) -> None:
    worker = function("class H:\n    def __call__(self, e, c): return e\nhandler = H()")
    assert worker.invoke(b"[1]").json == [1]


def test_globals_persist_between_invocations(function: Function) -> None:
    worker = function("n = 0\ndef handler(e, c):\n    global n\n    n += 1\n    return n")
    assert [worker.invoke(b"{}").json for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize("size", [65_500, 65_536, 70_000, 6 * 1024 * 1024])
def test_large_events_and_results_pass_whole(function: Function, size: int) -> None:
    worker = function("def handler(event, context): return event")
    event = b'"' + os.urandom((size - 2) // 2).hex().encode() + b'"'
    assert worker.invoke(event, arn="a").payload == event


def test_result_at_the_limit_and_above(function: Function) -> None:
    worker = function("def handler(event, context): return 'x' * event")
    assert len(worker.invoke(str(MAX_RESPONSE - 2).encode()).payload) == MAX_RESPONSE
    reply = worker.invoke(str(MAX_RESPONSE - 1).encode())
    assert reply.kind == ERROR
    assert reply.payload == (
        b'{"errorType": "Function.ResponseSizeTooLarge", "errorMessage": '
        b'"Response payload size exceeded maximum allowed payload size (6291556 bytes)."}'
    )
    assert worker.invoke(b"1").json == "x"


def test_invocation_may_be_sent_right_behind_init(harness: GuestHarness, tmp_path: os.PathLike[str]) -> None:
    with open(os.path.join(tmp_path, "m.py"), "w") as file:
        file.write("def h(e, c): return e")
    worker = harness.fork()
    worker.send(INIT, json.dumps(document(tmp_path, "m.h")).encode())  # type: ignore[arg-type]
    worker.post(b"5")
    assert worker.reply().kind == READY
    assert worker.reply().json == 5


def test_an_invocation_is_measured(function: Function) -> None:
    worker = function(
        "import time\ndef handler(e, c):\n    end = time.process_time() + 0.02\n"
        "    while time.process_time() < end: pass"
    )
    reply = worker.invoke(b"{}")
    assert reply.handler_ns >= 20_000_000
    assert reply.cpu_ns >= 19_000_000
    assert 1_000 < reply.peak_kib < 200_000


def test_a_rehearsal_runs_nothing_of_the_users_and_answers_nothing(function: Function) -> None:
    worker = function(
        """
        import os
        calls = 0

        def handler(event, context):
            global calls
            calls += 1
            print("called")
            return [calls, event, context.invoked_function_arn, os.environ.get("_X_AMZN_TRACE_ID")]
        """
    )
    for _ in range(300):
        worker.send(REHEARSE)
    reply = worker.invoke(b'"e"', arn="a", trace_id="t")
    assert (reply.kind, reply.json) == (RESULT, [1, "e", "a", "t"])
    assert worker.log() == "called\n"
    calm = min(worker.invoke(b"1").cpu_ns for _ in range(5))
    for _ in range(300):
        worker.send(REHEARSE)
    # Three hundred rehearsals take thirty times as long; none of it is an invocation's.
    assert worker.invoke(b"1", arn="b").cpu_ns < 20 * calm + 5_000_000
