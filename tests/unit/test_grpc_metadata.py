"""Metadata, status messages and compressed messages of gRPC, as bytes."""

from __future__ import annotations

import gzip
import zlib

import pytest

from gateway.rpc.compression import TooLarge, decompress
from gateway.rpc.metadata import read_metadata, write_trailers


def block(*fields: tuple[str, str]) -> bytes:
    return b"".join(f"{name}\0{value}\0".encode() for name, value in fields)


def test_metadata_is_read_without_what_belongs_to_the_transport() -> None:
    head = block(
        (":path", "/a/b"), ("te", "trailers"), ("content-type", "application/grpc"), ("authorization", "x"),
        ("a-bin", "AAE"), ("a-bin", "Ag==,Aw"), ("grpc-timeout", "1S"), ("empty", ""),
    )  # fmt: skip
    assert read_metadata(head) == (
        ("authorization", "x"), ("a-bin", b"\0\1"), ("a-bin", b"\2"), ("a-bin", b"\3"), ("empty", ""),
    )  # fmt: skip
    assert read_metadata(b"") == ()


def test_malformed_binary_value_is_an_error() -> None:
    with pytest.raises(ValueError, match="base64"):
        read_metadata(block(("a-bin", "???")))


@pytest.mark.parametrize(
    ("details", "written"),
    [
        ("", b""),
        ("plain text, ~!", b"grpc-message\0plain text, ~!\0"),
        ("100 %", b"grpc-message\x00100 %25\0"),
        ("Zürich\n", b"grpc-message\0Z%C3%BCrich%0A\0"),
        ("\ud800", b"grpc-message\0?\0"),
    ],
)
def test_status_message_is_percent_encoded(details: str, written: bytes) -> None:
    assert write_trailers(details, ()) == written


def test_trailers_hold_only_what_a_header_field_can() -> None:
    fields = write_trailers("", (("X-Name", "a\r\nb\0c "), ("x-bin", b"\xff\xfe\xfd\xfc")))
    assert fields == b"x-name\0a??b?c\0x-bin\0//79/A\0"


def test_messages_are_decompressed_within_the_limit() -> None:
    data = b"x" * 100_000
    assert decompress(zlib.compress(data), 1, 100_000) == data
    assert decompress(gzip.compress(data), 2, 100_000) == data
    with pytest.raises(TooLarge):
        decompress(gzip.compress(data), 2, 99_999)
    for broken in (b"", b"x", gzip.compress(data)[:-1], gzip.compress(data) + b"x"):
        with pytest.raises(ValueError):
            decompress(broken, 2, 100_000)
