"""The C half of the fast path by itself: its hash, and what it remembers of what it was taught."""

from __future__ import annotations

import hashlib
import random
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from gateway._native import ffi, lib

from gateway.dispatch.fast_path import DONE, MAX_KNOWN, PYTHON, FastPath, owned
from gateway.dispatch.metrics import FunctionStats
from gateway.dispatch.worker_pool import WorkerPool
from sandbox.channel import HEADER, HEADER_BYTES, INVOKE, MEASURES, RESULT
from tests.support.lending import view

SIZES = [*range(130), 183, 184, 191, 192, 255, 256, 1000, 4095, 4096, 4097, 65536, 1_000_003]


@pytest.mark.parametrize("portable", [False, True], ids=["processor", "portable"])
def test_sha256_is_hashlibs(portable: bool) -> None:
    dice = random.Random(1)
    digest = ffi.new("unsigned char[32]")
    for size in SIZES:
        for data in (bytes(size), b"\xff" * size, dice.randbytes(size)):
            lib.fl_sha256(data, len(data), digest, portable)
            assert bytes(ffi.buffer(digest)) == hashlib.sha256(data).digest(), size


class Asker:
    """A door with one idle worker per pool; `knows` sees whether a request takes the fast path."""

    def __init__(self) -> None:
        self.fast = FastPath()
        self.fast.set_open_region("r")
        self.client, self._far = socket.socketpair()
        self._sockets = [self.client, self._far]
        self._http = owned(lib.fl_http_new(1, self.client.fileno()), lib.fl_http_free)
        self._workers: list[tuple[Any, socket.socket]] = []

    def pool(self) -> WorkerPool:
        pool = WorkerPool(view(), None, FunctionStats("r", "f", {}, {}), self.fast)
        near, far = socket.socketpair()
        log, other = socket.socketpair()
        self._sockets += [near, far, log, other]
        worker = owned(lib.fl_worker_new(7, pool.c, near.fileno(), log.fileno()), lib.fl_worker_free)
        worker.plain = 1
        lib.fl_pool_rest(pool.c, worker, 1)
        self._workers.append((worker, far))
        return pool

    def add(self, pool: WorkerPool, target: str) -> None:
        self.fast.add_route(f"r\n{target}".encode(), pool, target)

    def knows(self, target: str, authorization: str = "") -> str:
        """What the worker was told to run, or nothing."""
        lines = [f"POST {target} HTTP/1.1", "Host: h", "Content-Length: 2"]
        if authorization:
            lines.append(f"Authorization: {authorization}")
        data = "\r\n".join([*lines, "", "{}"]).encode()
        verdict = lib.fl_http_received(self.fast.door, self._http, data, len(data))
        assert verdict in (DONE, PYTHON)
        for worker, far in self._workers:
            if worker.call != ffi.NULL:
                assert verdict == DONE
                return self._answer(worker, far)
        assert verdict == PYTHON
        return ""

    def _answer(self, worker: Any, far: socket.socket) -> str:
        frame = far.recv(65536)
        length, kind, meta, _, nonce = HEADER.unpack_from(frame)
        assert (kind, length, frame[-2:]) == (INVOKE, meta + 2, b"{}")
        far.send(HEADER.pack(MEASURES.size + 2, RESULT, 0, 0, nonce) + MEASURES.pack(1, 1, 1) + b"{}")
        assert lib.fl_worker_readable(self.fast.door, worker) == DONE
        assert self._far.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
        return frame[HEADER_BYTES : HEADER_BYTES + meta].decode()

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()


@pytest.fixture
def asker() -> Iterator[Asker]:
    with closing(Asker()) as made:
        yield made


def test_a_route_leads_to_its_function_until_it_is_forgotten(asker: Asker) -> None:
    pool = asker.pool()
    asker.add(pool, "/a")
    asker.add(pool, "/b")
    assert asker.knows("/a") == '{"arn":"/a"}'
    assert asker.knows("/b") == '{"arn":"/b"}'
    assert asker.knows("/c") == asker.knows("/a?x=1") == asker.knows("/A") == asker.knows("/") == ""
    asker.fast.forget_routes()
    assert asker.knows("/a") == asker.knows("/b") == ""
    assert not asker.fast.knows_route(b"r\n/a")
    asker.add(pool, "/a")
    assert asker.knows("/a") == '{"arn":"/a"}'


def test_a_route_is_of_one_region(asker: Asker) -> None:
    asker.add(asker.pool(), "/a")
    asker.fast.set_open_region("other")
    assert asker.knows("/a") == ""
    asker.fast.set_open_region(None)
    assert asker.knows("/a") == ""
    asker.fast.set_open_region("r")
    assert asker.knows("/a")


def test_the_same_route_again_replaces_it(asker: Asker) -> None:
    pool = asker.pool()
    for _ in range(3):
        asker.add(pool, "/a")
    asker.fast.add_route(b"r\n/a", pool, "newer")
    assert asker.knows("/a") == '{"arn":"newer"}'
    asker.fast.leave_pool(pool._number)
    assert asker.knows("/a") == ""


def test_a_pool_that_is_left_takes_its_routes_along_and_no_others(asker: Asker) -> None:
    kept, left = asker.pool(), asker.pool()
    targets = [f"/{number}" for number in range(MAX_KNOWN)]  # full: half of all places are taken
    mine = random.Random(2).sample(targets, MAX_KNOWN // 2)
    for target in targets:
        asker.add(left if target in set(mine) else kept, target)
    left.close()
    left.close()
    gone = set(mine)
    for target in targets:
        assert bool(asker.knows(target)) == (target not in gone), target


def test_one_route_too_many_empties_the_table(asker: Asker) -> None:
    pool = asker.pool()
    for number in range(MAX_KNOWN):
        asker.add(pool, f"/{number}")
    assert all(asker.knows(f"/{number}") for number in range(0, MAX_KNOWN, 97))
    asker.add(pool, "/more")
    assert asker.knows("/more")
    assert not any(asker.knows(f"/{number}") for number in range(0, MAX_KNOWN, 97))
    assert not asker.fast.knows_route(b"r\n/1")


def test_routes_come_and_go(asker: Asker) -> None:
    """Removals close the gaps they leave: whatever is still there is still found."""
    dice = random.Random(3)
    pool = asker.pool()
    known: set[str] = set()
    for step in range(30_000):
        target = f"/{dice.randrange(3000)}"
        name = f"r\n{target}".encode()
        if target in known and dice.random() < 0.7:
            lib.fl_forget_route(asker.fast.door, name, len(name))
            del asker.fast._routes[name]
            known.discard(target)
        else:
            asker.add(pool, target)
            known.add(target)
        if step % 20 == 0:
            target = f"/{dice.randrange(3000)}"
            assert bool(asker.knows(target)) == (target in known)
    assert len(known) > 500
    for target in known:
        assert asker.knows(target)


def test_a_route_that_is_too_large_is_nobodys(asker: Asker) -> None:
    pool = asker.pool()
    asker.fast.add_route(b"r\n/a", pool, "x" * 5000)
    assert asker.knows("/a") == ""
    asker.add(pool, "/" + "a" * 2000)
    assert asker.knows("/" + "a" * 2000) == ""


def test_scopes_are_forgotten(asker: Asker) -> None:
    asker.add(asker.pool(), "/a")
    asker.fast.add_scope(b"X ", None, b"", b"00000000", b"", b"r")
    asker.fast.add_scope(b"Y ", None, b"", b"00000000", b"", b"elsewhere")
    assert asker.knows("/a", "X Signature=1") and asker.knows("/a", "X Signature=")
    for other in (
        "Y Signature=1",
        "X  Signature=1",
        "X signature=1",
        "X Signature=Signature=",
        "X",
        "Signature=",
        "Z",
    ):
        assert asker.knows("/a", other) == "", other
    asker.fast.forget_scopes()
    assert asker.knows("/a", "X Signature=1") == ""
    assert not asker.fast.knows_scope(b"X ")
    for number in range(MAX_KNOWN + 1):
        asker.fast.add_scope(b"X%d " % number, None, b"", b"00000000", b"", b"r")
    assert asker.knows("/a", f"X{MAX_KNOWN} Signature=1")
    assert asker.knows("/a", "X1 Signature=1") == ""


def test_a_scope_with_a_key_needs_a_signature(asker: Asker) -> None:
    asker.add(asker.pool(), "/a")
    asker.fast.add_scope(b"X ", bytes(32), b"host", b"20260131", b"20260131/r/lambda/aws4_request", b"r")
    for signature in ("", "0" * 64, "0" * 63, "0" * 65, "x" * 64):
        assert asker.knows("/a", f"X Signature={signature}") == ""
    # A date that is not one is not remembered at all.
    asker.fast.add_scope(b"Y ", None, b"host", b"2026", b"", b"r")
    assert asker.knows("/a", "Y Signature=1") == ""


def test_what_nobody_made_is_an_error() -> None:
    with pytest.raises(MemoryError):
        owned(ffi.NULL, lambda pointer: None)
    policy = ffi.new("struct fl_policy *")
    assert lib.fl_door_new(ffi.NULL, 32, policy) == ffi.NULL  # more bounds than there is room for
