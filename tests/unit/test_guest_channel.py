"""Frames on a worker's channel, cut and joined in every way a stream can."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from sandbox.guests.python.channel import Channel

HEADER = struct.Struct("<IHHQ16s")
NONCE = bytes(range(16))


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
    assert channel.receive() == (2, 5, NONCE, b"meta", b"event")


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
    assert received is not None
    assert (bytes(received.meta), bytes(received.body)) == (b"meta", b"0123456789")


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
    received = channel.receive()
    assert received is not None
    assert (bytes(received.meta), bytes(received.body)) == (b"m", body)
    assert _body(channel) == b"next"
    sender.join()

    answerer = threading.Thread(target=channel.answer, args=(18, NONCE, 1, 2, 3, body))
    answerer.start()
    whole = b""
    while len(whole) < 56 + len(body):
        whole += host.recv(1 << 20)
    answerer.join()
    assert struct.unpack("<IHHQ16sQQQ", whole[:56]) == (24 + len(body), 18, 0, 0, NONCE, 1, 2, 3)


def test_ready(pair: tuple[socket.socket, Channel]) -> None:
    host, channel = pair
    channel.send(16, aux=1234)
    assert host.recv(100) == HEADER.pack(0, 16, 0, 1234, bytes(16))


def _body(channel: Channel) -> bytes:
    received = channel.receive()
    assert received is not None
    return bytes(received.body)
