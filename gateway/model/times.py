"""Moments as Lambda writes them."""

from __future__ import annotations

from datetime import UTC, datetime


def lambda_time() -> str:
    """Now, in ISO 8601 with milliseconds and "+0000"."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "+0000"
