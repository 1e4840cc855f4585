"""Small parts of the guest that need no process of their own."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from sandbox.guests.python import environment, faults, import_path, messages, unforkable
from sandbox.guests.python.context import LambdaContext
from sandbox.guests.python.import_path import ImportPath
from tests.support.guest_harness import document


def test_log_stream_name() -> None:
    init = document("/var/task", "a.b", born=0, instance="ab", function_version="7")
    assert environment.log_stream_name(init) == "1970/01/01/[7]ab"


def test_text_format_leaves_no_trace_in_the_environment() -> None:
    assert "AWS_LAMBDA_LOG_FORMAT" not in environment.build(document("/t", "a.b"))
    variables = environment.build(
        document("/t", "a.b", log_format="JSON", log_level="DEBUG", runtime_api="h:1")
    )
    assert variables["AWS_LAMBDA_LOG_FORMAT"] == "JSON"
    assert variables["AWS_LAMBDA_LOG_LEVEL"] == "DEBUG"
    assert variables["AWS_LAMBDA_RUNTIME_API"] == "h:1"


@pytest.mark.parametrize(
    "names", [("access_key_id", "secret_access_key"), ("AccessKeyId", "SecretAccessKey")]
)
def test_credentials(names: tuple[str, str]) -> None:
    variables = environment.build(
        document("/t", "a.b", credentials=dict(zip(names, ("A", "S"), strict=True)))
    )
    assert (variables["AWS_ACCESS_KEY_ID"], variables["AWS_SECRET_ACCESS_KEY"]) == ("A", "S")
    assert "AWS_SESSION_TOKEN" not in variables


def test_import_path_of_a_sandbox_is_the_prepared_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["/lib", "/lib/dyn", ""])
    monkeypatch.delenv("PYTHONPATH", raising=False)
    path = ImportPath()
    path.prepare()
    expected = ["/var/task", *import_path.LAYERS, "/lib", "/lib/dyn", "/var/runtime"]
    assert sys.path == expected
    path.install("/var/task")
    assert sys.path == expected


def test_error_without_traceback_of_ours() -> None:
    error = faults.error_of(faults.Fault("Runtime.X", "m", ["t"]), "id")
    assert error == {"errorMessage": "m", "errorType": "Runtime.X", "requestId": "id", "stackTrace": ["t"]}
    assert faults.error_of(ValueError("v"))["stackTrace"] == []


def test_frames_of_the_guest_are_cut_at_the_front_only() -> None:
    guest_file = str(Path(faults.__file__).parent / "worker_loop.py")
    namespace: dict[str, object] = {}
    exec(compile("def inner(): raise KeyError", guest_file, "exec"), namespace)
    exec(compile("def user(): inner()", "/var/task/user.py", "exec"), namespace)
    exec(compile("def outer(): user()", guest_file, "exec"), namespace)
    outer = namespace["outer"]
    assert callable(outer)
    try:
        exec(compile("outer()", guest_file, "exec"), namespace)
    except KeyError as raised:
        trace = raised.__traceback__
        assert trace is not None
        raised.__traceback__ = trace.tb_next  # this test's own frame
        stack = faults.error_of(raised)["stackTrace"]
    assert [entry.split(",")[0] for entry in stack] == [
        '  File "/var/task/user.py"',
        f'  File "{guest_file}"',
    ]


def test_trace_context_moves_from_the_client_context_to_the_context() -> None:
    client_context: dict[str, object] = {
        "w3c": {"traceparent": "00", "tracestate": 1, "other": "x"},
        "custom": {},
    }
    context = LambdaContext("id", 0, client_context=client_context)
    assert context.w3c() == {"traceparent": "00"}
    assert "w3c" not in client_context


def test_messages_carry_descriptors() -> None:
    import _socket

    host, guest = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with host:
        ours = _socket.socket(fileno=guest.detach())
        read, write = os.pipe()
        socket.send_fds(host, [b'{"op": "x"}'], [read, write])
        received = messages.receive(ours)
        assert received is not None
        message, fds = received
        assert message == {"op": "x"}
        os.write(fds[1], b"!")
        assert os.read(read, 1) == b"!"
        messages.send(ours, {"op": "y"}, fds[0])
        data, back, _flags, _address = socket.recv_fds(host, 100, 1)
        assert data == b'{"op": "y"}'
        for fd in (read, write, *fds, *back):
            os.close(fd)
        host.shutdown(socket.SHUT_WR)
        assert messages.receive(ours) is None
        ours.close()


def test_obstacles_to_a_fork() -> None:
    with socket.socket() as sock:
        found = unforkable.obstacles(frozenset())
    assert f"socket fd {sock.fileno()}" not in unforkable.obstacles(frozenset())
    assert any(text.startswith("socket fd ") for text in found)
