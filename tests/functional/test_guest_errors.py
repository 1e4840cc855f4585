"""Every way to fail, with the error JSON that Lambda's users and their alarms know."""

from __future__ import annotations

import json
import textwrap
import uuid
from pathlib import Path

import pytest

from tests.support.guest_fixtures import Function, function, harness, runtime_zygote
from tests.support.guest_harness import ERROR, INIT_FAILED, RESULT, GuestHarness, Reply, document

__all__ = ["function", "harness", "runtime_zygote"]


def failed_init(
    harness: GuestHarness, folder: Path, handler: str, source: str | None = None
) -> tuple[Reply, str]:
    if source is not None:
        (folder / "index.py").write_text(textwrap.dedent(source))
    worker = harness.fork(document(folder, handler))
    reply = worker.reply()
    assert reply.kind == INIT_FAILED
    return reply, worker.log()


def test_exception_of_the_handler(function: Function, tmp_path: Path) -> None:
    worker = function("def handler(event, context):\n    raise ValueError('no é')")
    request_id = uuid.uuid4()
    reply = worker.invoke(b"{}", request_id=request_id)
    assert reply.kind == ERROR
    assert reply.json == {
        "errorMessage": "no é",
        "errorType": "ValueError",
        "requestId": str(request_id),
        "stackTrace": [f"  File \"{tmp_path}/index.py\", line 2, in handler\n    raise ValueError('no é')\n"],
    }
    assert list(reply.json) == ["errorMessage", "errorType", "requestId", "stackTrace"]
    assert worker.log() == (
        "[ERROR] ValueError: no é\rTraceback (most recent call last):\r"
        f'\u00a0\u00a0File "{tmp_path}/index.py", line 2, in handler\r'
        "\u00a0\u00a0\u00a0\u00a0raise ValueError('no é')\n"
    )


def test_worker_is_well_after_an_exception(function: Function) -> None:
    worker = function("def handler(event, context): return 1 / event")
    assert [worker.invoke(event).kind for event in (b"0", b"1", b"0", b"2")] == [ERROR, RESULT, ERROR, RESULT]


def test_exception_with_an_empty_or_hostile_message(function: Function) -> None:
    worker = function(
        """
        class Hostile(Exception):
            def __str__(self): raise RuntimeError
        def handler(event, context):
            raise Hostile if event else KeyError
        """
    )
    assert worker.invoke(b"0").json["errorMessage"] == ""  # type: ignore[index]
    assert worker.invoke(b"1").json["errorMessage"] == "<unprintable Hostile object>"  # type: ignore[index]


def test_huge_message_and_deep_stack_stay_bounded(function: Function) -> None:
    worker = function(
        """
        def handler(event, context):
            if event:
                raise ValueError("x" * 7_000_000)
            handler(event, context)
        """
    )
    assert len(worker.invoke(b"1").json["errorMessage"]) == 256 * 1024  # type: ignore[index]
    assert worker.invoke(b"0").json["errorType"] == "RecursionError"  # type: ignore[index]


def test_lone_surrogate_in_a_message(function: Function) -> None:
    worker = function("def handler(event, context): raise ValueError('\\ud800')")
    assert worker.invoke(b"1").json["errorMessage"] == "\ud800"  # type: ignore[index]


def test_module_missing(harness: GuestHarness, tmp_path: Path) -> None:
    reply, log = failed_init(harness, tmp_path, "nowhere.handler")
    assert reply.payload == (
        b"{\"errorMessage\": \"Unable to import module 'nowhere': No module named 'nowhere'\", "
        b'"errorType": "Runtime.ImportModuleError", "requestId": "", "stackTrace": []}'
    )
    assert log == (
        "[ERROR] Runtime.ImportModuleError: Unable to import module 'nowhere': No module named 'nowhere'\r"
        "Traceback (most recent call last):\n"
    )


def test_import_inside_the_module_missing(harness: GuestHarness, tmp_path: Path) -> None:
    reply, _ = failed_init(harness, tmp_path, "index.handler", "import not_there")
    assert reply.json["errorMessage"] == "Unable to import module 'index': No module named 'not_there'"  # type: ignore[index]


def test_syntax_error(harness: GuestHarness, tmp_path: Path) -> None:
    reply, _ = failed_init(harness, tmp_path, "index.handler", "def handler(event, context)\n    pass\n")
    assert reply.json == {
        "errorMessage": "Syntax error in module 'index': expected ':' (index.py, line 1)",
        "errorType": "Runtime.UserCodeSyntaxError",
        "requestId": "",
        "stackTrace": [f'  File "{tmp_path}/index.py" Line 1\n    def handler(event, context)\n'],
    }


@pytest.mark.parametrize(
    ("handler", "kind", "message"),
    [
        ("index.nope", "Runtime.HandlerNotFound", "Handler 'nope' missing on module 'index'"),
        (
            "nodots",
            "Runtime.MalformedHandlerName",
            "Bad handler 'nodots': not enough values to unpack (expected 2, got 1)",
        ),
        (
            "sys.handler",
            "Runtime.BuiltInModuleConflict",
            "Cannot use built-in module sys as a handler module",
        ),
    ],
)
def test_handler_name(harness: GuestHarness, tmp_path: Path, handler: str, kind: str, message: str) -> None:
    reply, _ = failed_init(harness, tmp_path, handler, "x = 1")
    assert reply.json == {"errorMessage": message, "errorType": kind, "requestId": "", "stackTrace": []}


def test_exception_at_import(harness: GuestHarness, tmp_path: Path) -> None:
    reply, log = failed_init(harness, tmp_path, "index.handler", "import json\njson.loads('{')\n")
    error = reply.json
    assert isinstance(error, dict)
    assert (error["errorType"], error["requestId"]) == ("JSONDecodeError", "")
    assert "importlib" in error["stackTrace"][0]
    assert any(f'File "{tmp_path}/index.py", line 2, in <module>' in entry for entry in error["stackTrace"])
    assert not any("guests" in entry for entry in error["stackTrace"])
    assert log.startswith("[ERROR] JSONDecodeError: Expecting property name")


def test_task_root_missing(harness: GuestHarness, tmp_path: Path) -> None:
    reply, _ = failed_init(harness, tmp_path / "gone", "index.handler")
    assert reply.json["errorType"] == "Runtime.InvalidWorkingDir"  # type: ignore[index]


@pytest.mark.parametrize("handler", ["pkg.mod.h", "pkg/mod.h", "pkg/sub/deep.h"])
def test_nested_handlers(harness: GuestHarness, tmp_path: Path, handler: str) -> None:
    (tmp_path / "pkg" / "sub").mkdir(parents=True)
    for path in ("pkg/mod.py", "pkg/sub/deep.py"):
        (tmp_path / path).write_text("def h(e, c): return e")
    assert harness.start_worker(document(tmp_path, handler)).invoke(b"7").json == 7


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def handler(e, c): return {1}", "Object of type set is not JSON serializable"),
        ("def handler(e, c): yield 1", "Object of type generator is not JSON serializable"),
        ("async def handler(e, c): return 1", "Object of type coroutine is not JSON serializable"),
        ("def handler(e, c): return {'a': object()}", "Object of type object is not JSON serializable"),
        ("def handler(e, c): a = []; a.append(a); return a", "Circular reference detected"),
        ("def handler(e, c): return {(1, 2): 3}", "keys must be str, int, float, bool or None, not tuple"),
    ],
)
def test_unserialisable_results(function: Function, source: str, message: str) -> None:
    reply = function(source).invoke(b"{}")
    assert reply.kind == ERROR
    assert reply.json["errorType"] == "Runtime.MarshalError"  # type: ignore[index]
    assert reply.json["errorMessage"] == f"Unable to marshal response: {message}"  # type: ignore[index]
    assert reply.json["stackTrace"] == []  # type: ignore[index]


@pytest.mark.parametrize("event", [b"", b"{", b"\xff", b"NaN", b'{"a": 1} x', b"[" * 100_000])
def test_event_that_is_not_json(function: Function, event: bytes) -> None:
    worker = function("def handler(e, c): return 1")
    reply = worker.invoke(event)
    assert reply.kind == ERROR
    assert reply.json["errorType"] == "Runtime.UnmarshalError"  # type: ignore[index]
    assert reply.json["errorMessage"].startswith("Unable to unmarshal input: ")  # type: ignore[index]
    assert worker.invoke(b"{}").json == 1


def test_fault_is_written_as_json_when_the_log_is(function: Function) -> None:
    worker = function("def handler(e, c): raise KeyError('k')", log_format="JSON")
    worker.invoke(b"{}")
    (line,) = worker.log().splitlines()
    record = json.loads(line)
    assert (record["level"], record["errorType"], record["errorMessage"]) == ("ERROR", "KeyError", "'k'")
