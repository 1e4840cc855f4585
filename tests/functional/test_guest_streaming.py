"""Answers that leave while the handler runs, seen on the worker's channel: generators, iterators, `context.response_stream`."""

from __future__ import annotations

import json

import pytest

from tests.support.guest_fixtures import Function, function, harness, runtime_zygote  # noqa: F401
from tests.support.guest_harness import CHUNK, ERROR, INVOKE_STREAM, RESULT

GENERATOR = """
def handler(event, context):
    yield "snow: \\u2603"
    yield b"\\x00\\xff"
    yield bytearray(b"array")
    yield memoryview(b"view")
"""
ITERATOR = """
def handler(event, context):
    return map(str.encode, ["snow: \\u2603", "", "more"])
"""
WRITER = """
import csv, io, shutil
def handler(event, context):
    with context.response_stream as stream:
        assert stream is context.response_stream and stream.writable()
        assert stream.write("text") == 4
        csv.writer(stream).writerow([1, "a b"])
        shutil.copyfileobj(io.BytesIO(b"copied"), stream)
    return {"this": "counts no more"}
"""
BOTH = """
def handler(event, context):
    context.response_stream.write("head ")
    return iter(["body ", "foot"])
"""
PLAIN = "def handler(event, context): return {'plain': event}"
CASES = [
    (GENERATOR, "snow: \u2603".encode() + b"\x00\xffarrayview"),
    (ITERATOR, "snow: \u2603more".encode()),
    (WRITER, b"text1,a b\r\ncopied"),
    (BOTH, b"head body foot"),
    ("def handler(event, context): return iter(())", b""),
    (PLAIN, b'{"plain": {}}'),
    ("def handler(event, context): context.response_stream", b""),
]


@pytest.mark.parametrize(("source", "body"), CASES)
def test_what_is_streamed(function: Function, source: str, body: bytes) -> None:  # noqa: F811
    worker = function(source)
    for _ in range(2):
        chunks, end = worker.stream(b"{}")
        assert end.kind == RESULT
        assert b"".join(chunks) + end.payload == body
        if source != PLAIN:
            assert end.payload == b""


@pytest.mark.parametrize(("source", "body"), CASES)
def test_a_caller_that_wants_no_stream_gets_all_of_it(function: Function, source: str, body: bytes) -> None:  # noqa: F811
    worker = function(source)
    for _ in range(2):
        reply = worker.invoke(b"{}")
        assert (reply.kind, reply.payload) == (RESULT, body)


def test_a_piece_leaves_before_the_next_is_made(function: Function, tmp_path: object) -> None:  # noqa: F811
    source = """
import os, time
def handler(event, context):
    yield b"first"
    while not os.path.exists(event):
        time.sleep(0.01)
    yield b"second"
"""
    worker = function(source)
    go = f"{tmp_path}/go"
    worker.post(json.dumps(go).encode(), kind=INVOKE_STREAM)
    first = worker.reply()
    assert (first.kind, first.payload) == (CHUNK, b"first")
    open(go, "w").close()
    assert worker.reply().payload == b"second"
    assert worker.reply().kind == RESULT


def test_a_large_piece_is_several_chunks(function: Function) -> None:  # noqa: F811
    worker = function("def handler(event, context): yield bytes(range(250)) * 1200")
    chunks, end = worker.stream(b"{}")
    assert b"".join(chunks) == bytes(range(250)) * 1200
    assert max(map(len, chunks)) == 64 * 1024 - 32
    assert end.kind == RESULT and end.handler_ns > 0 and end.peak_kib > 0


def test_an_error_after_the_first_piece(function: Function) -> None:  # noqa: F811
    source = """
def handler(event, context):
    yield b"a part"
    raise ValueError("in the middle")
"""
    worker = function(source)
    chunks, end = worker.stream(b"{}")
    assert chunks == [b"a part"]
    assert end.kind == ERROR
    assert (end.json["errorType"], end.json["errorMessage"]) == ("ValueError", "in the middle")  # type: ignore[index]
    assert "[ERROR] ValueError: in the middle" in worker.log()
    assert worker.invoke(b"{}").kind == ERROR
    assert worker.stream(b"{}")[0] == [b"a part"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def handler(e, c): yield 1", "Object of type generator is not JSON serializable"),
        ("def handler(e, c): return map(int, '12')", "Object of type map is not JSON serializable"),
        ("def handler(e, c):\n yield b'1'\n yield {}", "a stream is made of bytes and str, and this is dict"),
    ],
)
def test_what_is_no_stream(function: Function, source: str, message: str) -> None:  # noqa: F811
    worker = function(source)
    for end in (worker.invoke(b"{}"), worker.stream(b"{}")[1]):
        assert end.kind == ERROR
        assert end.json["errorType"] == "Runtime.MarshalError"  # type: ignore[index]
        assert end.json["errorMessage"] == f"Unable to marshal response: {message}"  # type: ignore[index]


def test_limits(function: Function) -> None:  # noqa: F811
    source = """
def handler(event, context):
    for _ in range(event):
        try:
            context.response_stream.write(bytes(1 << 20))
        except Exception:
            pass  # of no use: more was written than may be
"""
    worker = function(source)
    assert len(worker.invoke(b"6").payload) == 6 << 20
    reply = worker.invoke(b"7")
    assert reply.json["errorType"] == "Function.ResponseSizeTooLarge"  # type: ignore[index]
    assert "6291556 bytes" in reply.json["errorMessage"]  # type: ignore[index]
    worker.post(b"201", kind=INVOKE_STREAM, timeout_s=60)
    received = 0
    while (reply := worker.reply()).kind == CHUNK:
        received += len(reply.payload)
    assert received == 200 << 20
    assert reply.kind == ERROR
    assert reply.json["errorType"] == "Function.ResponseSizeTooLarge"  # type: ignore[index]
    assert "209715200 bytes" in reply.json["errorMessage"]  # type: ignore[index]


def test_nothing_is_written_for_an_invocation_that_is_over(function: Function) -> None:  # noqa: F811
    source = """
kept = []
def handler(event, context):
    if event == "keep":
        kept.append((context, context.response_stream))
        kept[0][1].write("mine")
        return
    found = []
    for use in (lambda: kept[0][1].write("late"), lambda: kept[0][0].response_stream):
        try:
            use()
        except (ValueError, RuntimeError) as error:
            found.append(type(error).__name__)
    return found
"""
    worker = function(source)
    assert worker.stream(b'"keep"')[0] == [b"mine"]
    for _ in range(2):
        chunks, end = worker.stream(b'"look"')
        assert (chunks, end.json) == ([], ["ValueError", "RuntimeError"])


def test_threads_write_whole_pieces(function: Function) -> None:  # noqa: F811
    source = """
import threading
def handler(event, context):
    stream = context.response_stream
    def write(letter):
        for _ in range(20):
            stream.write(letter * 50_000)
    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""
    chunks, end = function(source).stream(b"{}")
    body = b"".join(chunks)
    assert end.kind == RESULT and len(body) == 3 * 20 * 50_000
    assert {body[at : at + 50_000] for at in range(0, len(body), 50_000)} == {
        letter * 50_000 for letter in (b"a", b"b", b"c")
    }
