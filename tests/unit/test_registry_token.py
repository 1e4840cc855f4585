"""Passwords for the registry that nobody made."""

from __future__ import annotations

import base64
import time

import pytest

from gateway.model import registry_token


def header(password: bytes) -> str:
    return "Basic " + base64.b64encode(b"AWS:" + base64.urlsafe_b64encode(password)).decode()


def test_one_that_was_made() -> None:
    password = registry_token.make("AKIA1", "secret", "session", time.time())
    authorization = "Basic " + base64.b64encode(f"AWS:{password}".encode()).decode()
    assert registry_token.open_basic(authorization, lambda *_: "secret") == registry_token.Holder(
        "AKIA1", "session"
    )


@pytest.mark.parametrize(
    "payload", [b"[" * 13_000, b'{"k":' * 2_600, b"[]", b"1", b"{}", b'{"k":1,"t":"","e":9}', b"\xff", b""]
)
def test_what_a_stranger_sends_is_nobodys(payload: bytes) -> None:
    """The front door opens these before it has read the body, so nothing may be raised."""
    assert registry_token.open_basic(header(bytes(32) + payload), lambda *_: "secret") is None
