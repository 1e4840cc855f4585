"""Drives the Python guest without a supervisor and without a sandbox: a real zygote, real workers, frames by hand.

    with GuestHarness.start("python3.11") as harness:
        worker = harness.fork(document(folder, "index.handler"))
        print(worker.invoke(b'{"a": 1}').payload)

Workers are children of the calling process (CLONE_PARENT) and die with the calling thread. Works as an ordinary user.
"""

from __future__ import annotations

import array
import base64
import glob
import json
import os
import select
import signal
import socket
import struct
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from tests.support.patience import seconds

GUEST = Path(__file__).resolve().parents[2] / "sandbox" / "guests" / "python"
HEADER = struct.Struct("<IHHQ16s")
INIT, INVOKE, REHEARSE, INVOKE_STREAM = 1, 2, 3, 4
READY, INIT_FAILED, RESULT, ERROR, CHUNK, SETUP_FAILED = 16, 17, 18, 19, 20, 22
PATIENCE_S = seconds(30)


def interpreters() -> dict[str, str]:
    """Runtime name -> a real interpreter (never a pyenv shim)."""
    found: dict[str, str] = {}
    for runtime in ("python3.10", "python3.11", "python3.12", "python3.13"):
        candidates = [
            *sorted(glob.glob(os.path.expanduser(f"~/.pyenv/versions/3.*/bin/{runtime}"))),
            f"/usr/local/bin/{runtime}",
            f"/usr/bin/{runtime}",
        ]
        for path in candidates:
            if os.access(path, os.X_OK):
                found[runtime] = os.path.realpath(path)
                break
    return found


def document(task_root: str | Path, handler: str, **changes: object) -> dict[str, object]:
    """An init document as the control process and the supervisor make it."""
    return {
        "handler": handler,
        "task_root": str(task_root),
        "env": {},
        "function_name": "f",
        "function_version": "$LATEST",
        "function_arn": "arn:aws:lambda:us-east-1:123456789012:function:f",
        "memory_limit_in_mb": 128,
        "log_group_name": "/aws/lambda/f",
        "log_format": "Text",
        "runtime": "python3.11",
        "region": "us-east-1",
        "init_type": "on-demand",
        "credentials": None,
        "instance": "0123456789abcdef" * 2,
        "born": 1_700_000_000,
        **changes,
    }


@dataclass(slots=True)
class Reply:
    """One frame of a worker. Times and memory are 0 unless it answers an invocation."""

    kind: int
    aux: int
    nonce: bytes
    payload: bytes
    handler_ns: int = 0
    cpu_ns: int = 0
    peak_kib: int = 0

    @property
    def json(self) -> object:
        return json.loads(self.payload)


@dataclass(slots=True)
class GuestWorker:
    """A forked worker; owns channel, log_fd and pidfd."""

    channel: socket.socket
    log_fd: int
    pidfd: int
    _buffer: bytearray = field(default_factory=bytearray)
    _log: bytearray = field(default_factory=bytearray)

    def send(
        self, kind: int, body: bytes = b"", *, meta: bytes = b"", aux: int = 0, nonce: bytes = bytes(16)
    ) -> None:
        self.channel.sendall(HEADER.pack(len(meta) + len(body), kind, len(meta), aux, nonce) + meta + body)

    def init(self, init_document: dict[str, object]) -> Reply:
        self.send(INIT, json.dumps(init_document).encode())
        return self.reply()

    def post(
        self,
        event: bytes,
        *,
        request_id: uuid.UUID | None = None,
        timeout_s: float = 3,
        kind: int = INVOKE,
        **meta: object,
    ) -> None:
        """Sends an invocation and does not wait."""
        nonce = (request_id or uuid.uuid4()).bytes
        deadline_ms = int((time.time() + timeout_s) * 1000)
        meta_json = json.dumps(meta).encode() if meta else b""
        self.send(kind, event, meta=meta_json, aux=deadline_ms, nonce=nonce)

    def invoke(self, event: bytes, **options: object) -> Reply:
        self.post(event, **options)  # type: ignore[arg-type]
        return self.reply()

    def stream(self, event: bytes, **options: object) -> tuple[list[bytes], Reply]:
        """The chunks of a streamed answer, in order, and the frame that ends it."""
        self.post(event, kind=INVOKE_STREAM, **options)  # type: ignore[arg-type]
        chunks: list[bytes] = []
        while (reply := self.reply()).kind == CHUNK:
            assert reply.aux == sum(map(len, chunks))
            chunks.append(reply.payload)
        return chunks, reply

    def reply(self) -> Reply:
        """The next frame. Raises EOFError when the worker has gone, TimeoutError when it says nothing."""
        length, kind, _meta, aux, nonce = HEADER.unpack(self._take(HEADER.size))
        body = self._take(length)
        if kind in (RESULT, ERROR):
            handler_ns, cpu_ns, peak_kib = struct.unpack_from("<QQQ", body)
            return Reply(kind, aux, nonce, body[24:], handler_ns, cpu_ns, peak_kib)
        return Reply(kind, aux, nonce, body)

    def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            # Both: a worker whose log pipe is full does not get as far as its answer.
            ready = select.select([self.channel, self.log_fd], [], [], PATIENCE_S)[0]
            if not ready:
                raise TimeoutError("the worker says nothing")
            if self.log_fd in ready and self._read_log() and self.channel not in ready:
                continue
            data = self.channel.recv(1 << 20)
            if not data:
                raise EOFError("the worker closed its channel")
            self._buffer += data
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def log(self) -> str:
        """What is in the log pipe now. A worker flushes before it answers, so after a reply nothing is missing."""
        while select.select([self.log_fd], [], [], 0)[0] and self._read_log():
            pass
        text = self._log.decode()
        self._log.clear()
        return text

    def _read_log(self) -> int:
        data = os.read(self.log_fd, 1 << 16)
        self._log += data
        return len(data)

    def wait(self) -> int:
        """Exit status as waitstatus_to_exitcode has it: negative for a signal. Reaps."""
        if not select.select([self.pidfd], [], [], PATIENCE_S)[0]:
            raise TimeoutError("the worker does not end")
        info = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        assert info is not None
        return info.si_status if info.si_code == os.CLD_EXITED else -info.si_status

    def close(self) -> None:
        """Kills, reaps, closes. May be called twice."""
        if self.pidfd < 0:
            return
        try:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        except (ProcessLookupError, ChildProcessError):
            pass
        self.channel.close()
        os.close(self.log_fd)
        os.close(self.pidfd)
        self.pidfd = -1


class _Forking:
    """A zygote's control socket, seen from the host."""

    def __init__(self, control: socket.socket) -> None:
        control.settimeout(PATIENCE_S)
        self.control = control
        self._ids = 0

    def send(self, message: dict[str, object], fds: list[int] | None = None) -> None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.control.sendmsg([json.dumps(message).encode()], ancillary)

    def receive(self) -> tuple[dict[str, object], list[int]]:
        data, fds, _flags, _address = socket.recv_fds(self.control, 1 << 18, 8)
        if not data:
            raise EOFError("the zygote closed its control socket")
        return json.loads(data), fds

    def order(self, role: str, fds: dict[str, int], **options: object) -> int:
        """Forks and returns the pidfd. Raises OSError with the guest's step as filename."""
        self._ids += 1
        message: dict[str, object] = {
            "op": "fork",
            "id": self._ids,
            "role": role,
            "fds": list(fds),
            "drop": False,
        }
        self.send({**message, **options}, list(fds.values()))
        answer, received = self.receive()
        if answer["op"] == "failed":
            raise OSError(answer["errno"], answer["detail"], answer["step"])
        assert answer == {"op": "forked", "id": self._ids}, answer
        (pidfd,) = received
        return pidfd

    def fork(
        self,
        init_document: dict[str, object] | None = None,
        fds: dict[str, int] | None = None,
        **options: object,
    ) -> GuestWorker:
        """A new worker; with a document it has been sent INIT and the reply is still to be read by `reply()`."""
        channel, theirs = socket.socketpair()
        log_read, log_write = os.pipe2(os.O_CLOEXEC)
        try:
            passed = {"channel": theirs.fileno(), "log": log_write, **(fds or {})}
            pidfd = self.order("worker", passed, **options)
        except BaseException:
            channel.close()
            os.close(log_read)
            raise
        finally:
            theirs.close()
            os.close(log_write)
        channel.settimeout(PATIENCE_S)
        worker = GuestWorker(channel, log_read, pidfd)
        if init_document is not None:
            worker.send(INIT, json.dumps(init_document).encode())
        return worker

    def start_worker(self, init_document: dict[str, object], **options: object) -> GuestWorker:
        """A worker that is READY."""
        worker = self.fork(init_document, **options)  # type: ignore[arg-type]
        reply = worker.reply()
        if reply.kind != READY:
            worker.close()
            raise AssertionError(f"not READY but {reply}")
        return worker


class FunctionZygote(_Forking):
    """A zygote that has loaded a function; owns its sockets, pidfd and log."""

    def __init__(self, control: socket.socket, pidfd: int, log_fd: int) -> None:
        super().__init__(control)
        self.pidfd = pidfd
        self.log_fd = log_fd
        self.state: dict[str, object] = {}

    def close(self) -> None:
        GuestWorker(self.control, self.log_fd, self.pidfd).close()


class GuestHarness(_Forking):
    """A runtime zygote without sandbox. A context manager."""

    def __init__(self, control: socket.socket, pid: int) -> None:
        super().__init__(control)
        self.pid = pid
        self.runtime = ""
        self._closing: list[GuestWorker | FunctionZygote] = []

    @classmethod
    def start(cls, runtime: str = "python3.11", seccomp: bytes = b"") -> GuestHarness:
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        executable = interpreters()[runtime]
        pid = os.posix_spawn(
            executable,
            [executable, "-I", "-S", str(GUEST / "start.py")],
            {},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, null, 0),
                (os.POSIX_SPAWN_DUP2, 2, 1),
                (os.POSIX_SPAWN_DUP2, theirs.fileno(), 3),
            ],
        )
        os.close(null)
        theirs.close()
        harness = cls(control, pid)
        harness.runtime = runtime
        program = base64.b64encode(seccomp).decode()
        harness.send({"op": "hello", "seccomp": {"worker": program, "zygote": program}})
        return harness

    def fork(
        self,
        init_document: dict[str, object] | None = None,
        fds: dict[str, int] | None = None,
        **options: object,
    ) -> GuestWorker:
        worker = super().fork(init_document, fds, **options)
        self._closing.append(worker)
        return worker

    def fork_zygote(
        self, init_document: dict[str, object], fds: dict[str, int] | None = None, **options: object
    ) -> FunctionZygote:
        """A function zygote; `state` is what it said after the function's init."""
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        log_read, log_write = os.pipe2(os.O_CLOEXEC)
        pidfd = self.order("zygote", {"control": theirs.fileno(), "log": log_write, **(fds or {})}, **options)
        theirs.close()
        os.close(log_write)
        zygote = FunctionZygote(control, pidfd, log_read)
        self._closing.append(zygote)
        zygote.send({"op": "init", "document": init_document})
        try:
            zygote.state, _ = zygote.receive()
        except EOFError:
            raise AssertionError(os.read(zygote.log_fd, 1 << 16).decode()) from None
        return zygote

    def close_workers(self) -> None:
        for process in reversed(self._closing):
            process.close()
        self._closing.clear()

    def close(self) -> None:
        self.close_workers()
        self.control.close()
        if self.pid:
            os.waitpid(self.pid, 0)
            self.pid = 0

    def __enter__(self) -> GuestHarness:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
