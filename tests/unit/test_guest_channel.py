"""Frames on a worker's channel, cut and joined in every way a stream can."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from sandbox.guests.python.channel import Channel

HEADER = struct.Struct("<IHHQ16s")
ANSWER = struct.Struct("<IHHQ16sQQQ")
NONCE = bytes.fromhex("00112233445566778899aabbccddeeff")
REQUEST_ID = "00112233-4455-6677-8899-aabbccddeeff"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, Channel]]:
    host, guest = socket.socketpair()
    with host, guest:
        yield host, Channel(guest.fileno())


def frame(body: bytes, meta: bytes = b"", kind: int = 2, aux: int = 5) -> bytes:
    return HEADER.pack(len(meta) + len(body), kind, len(meta), aux, NONCE) + meta + body


def test_one_frame(pair: tuple[socket.socket, Channel]) -> None:
    host, channel = pair
    host.sendall(frame(b"event", b"meta"))
    assert channel.receive() == (2, 5, REQUEST_ID, b"meta", b"event")


def test_frames_in_one_read(pair: tuple[socket.socket, Channel]) -> None:
    host, channel = pair
    host.sendall(frame(b"a") + frame(b"", b"m") + frame(b"c")[:40])
    assert [_body(channel), _body(channel)] == [b"a", b""]
    host.shutdown(socket.SHUT_WR)
    assert _body(channel) == b"c"
    assert channel.receive() is None


@pytest.mark.parametrize("cut", [1, 31, 32, 33, 36, 40])
def test_a_frame_in_two_pieces(pair: tuple[socket.socket, Channel], cut: int) -> None:
    host, channel = pair
    data = frame(b"0123456789", b"meta")
    host.sendall(data[:cut])
    sender = threading.Timer(0.01, host.sendall, (data[cut:],))
    sender.start()
    received = channel.receive()
    sender.join()
    assert received == (2, 5, REQUEST_ID, b"meta", b"0123456789")


@pytest.mark.parametrize("sent", [0, 10, 32, 100])
def test_the_end_in_the_middle_of_a_frame(pair: tuple[socket.socket, Channel], sent: int) -> None:
    host, channel = pair
    host.sendall(frame(bytes(1000))[:sent])
    host.shutdown(socket.SHUT_WR)
    assert channel.receive() is None


def test_a_large_frame_and_its_answer(pair: tuple[socket.socket, Channel]) -> None:
    host, channel = pair
    body = bytes(3_000_000)
    sender = threading.Thread(target=host.sendall, args=(frame(body, b"m") + frame(b"next"),))
    sender.start()
    assert channel.receive() == (2, 5, REQUEST_ID, b"m", body)
    assert _body(channel) == b"next"
    sender.join()

    answerer = threading.Thread(target=channel.answer, args=(18, body))
    answerer.start()
    whole = b""
    while len(whole) < 56 + len(body):
        whole += host.recv(1 << 20)
    answerer.join()
    assert ANSWER.unpack(whole[:56])[:5] == (24 + len(body), 18, 0, 0, NONCE)
    assert whole[56:] == body


@pytest.mark.parametrize("size", [65_503, 65_504, 65_505, 131_072])
def test_frames_as_large_as_what_is_read_at_once(pair: tuple[socket.socket, Channel], size: int) -> None:
    host, channel = pair
    body = bytes(range(256)) * 512
    sender = threading.Thread(target=host.sendall, args=(frame(body[:size]) + frame(b"next"),))
    sender.start()
    assert [_body(channel), _body(channel)] == [body[:size], b"next"]
    sender.join()


def test_a_frame_whose_parts_do_not_fit_is_refused(pair: tuple[socket.socket, Channel]) -> None:
    host, channel = pair
    host.sendall(HEADER.pack(1, 2, 2, 0, NONCE) + b"x")
    with pytest.raises(ValueError, match="longer than its body"):
        channel.receive()


def test_an_answer_tells_time_cpu_and_memory_since_its_frame(pair: tuple[socket.socket, Channel]) -> None:
    host, channel = pair
    channel.start_counting()
    seen = []
    for work_s in (0.03, 0.0):
        host.sendall(frame(b""))
        channel.receive()
        end, wall_end = time.process_time() + work_s, time.monotonic() + work_s
        while time.process_time() < end or time.monotonic() < wall_end:  # two clocks, each of its own pace
            pass
        channel.answer(18, b"payload")
        *_, handler_ns, cpu_ns, peak_kib = ANSWER.unpack_from(host.recv(100))
        seen.append((handler_ns, cpu_ns))
        assert 1_000 < peak_kib < 8_000_000
    assert seen[0][0] >= 30_000_000
    assert seen[0][1] >= 29_000_000
    assert max(seen[1]) < 20_000_000


def test_ready(pair: tuple[socket.socket, Channel]) -> None:
    host, channel = pair
    channel.send(16, 1234, b"")
    assert host.recv(100) == HEADER.pack(0, 16, 0, 1234, bytes(16))


def test_signal_handlers_run_while_it_waits(pair: tuple[socket.socket, Channel]) -> None:
    host, channel = pair
    before = signal.signal(signal.SIGALRM, lambda *_: host.sendall(frame(b"late")))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        assert _body(channel) == b"late"
    finally:
        signal.signal(signal.SIGALRM, before)


def test_errors_are_errors_of_the_system(pair: tuple[socket.socket, Channel]) -> None:
    host, channel = pair
    host.close()
    with pytest.raises(BrokenPipeError):
        channel.answer(18, b"")
    with pytest.raises(OSError, match="Bad file descriptor"):
        Channel(-1).receive()


def test_a_forked_copy_does_not_speak(pair: tuple[socket.socket, Channel]) -> None:
    host, channel = pair
    pid = os.fork()
    if pid == 0:
        try:
            channel.send(16, 1, b"child")
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    channel.send(16, 2, b"")
    assert host.recv(100) == HEADER.pack(0, 16, 0, 2, bytes(16))


def _body(channel: Channel) -> bytes:
    received = channel.receive()
    assert received is not None
    return received[-1]
