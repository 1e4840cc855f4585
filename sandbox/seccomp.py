"""Placeholder until the policies are here."""

from __future__ import annotations


def compile_program(machine: str) -> bytes:
    return b""
