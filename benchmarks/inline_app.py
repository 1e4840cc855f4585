"""The handler of tests/functions/hello behind uvicorn, in the server's own process: no isolation, no authentication.

What a Python programmer would write without a function platform; the peer of the warm path.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

calls = 0


def handler(event: dict[str, Any], request: str) -> dict[str, Any]:
    global calls
    calls += 1
    return {"greeting": f"hello {event.get('name', 'world')}", "calls": calls, "request": request}


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    answer = json.dumps(handler(json.loads(body), "-")).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
