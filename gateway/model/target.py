"""What an event's outcome can be told to: an ARN, or an HTTP URL that the operator allows."""

from __future__ import annotations

import re
from typing import Final

AWS: Final = "aws"  # as an endpoint: AWS's own
_URL: Final = re.compile(
    r"https?://[A-Za-z0-9.\-\[\]:]+(/[A-Za-z0-9._~!$&'()*+,;=:%/\-]*)?(\?[A-Za-z0-9._~!$&'()*+,;=:%/?\-]*)?"
)


def service_of(target: str) -> str:
    """sqs, sns, lambda or http; else what the ARN says, or "" when it is neither."""
    if target.startswith(("http://", "https://")):
        return "http"
    parts = target.split(":", 5)
    return parts[2] if len(parts) == 6 and parts[0] == "arn" and parts[5] else ""


def allowed_url(url: str, prefixes: tuple[str, ...]) -> bool:
    """Whether it lies below one of them. A prefix ends where a path ends: http://a/b allows http://a/b/c, not http://a/bc."""
    if not _URL.fullmatch(url) or "/.." in url or "/%2e" in url.lower():
        return False
    return any(url == prefix or url.startswith(prefix.rstrip("/") + "/") for prefix in prefixes)
