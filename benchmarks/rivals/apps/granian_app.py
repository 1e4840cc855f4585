"""The handler for granian's own interface, RSGI."""

from __future__ import annotations

import json

calls = 0


async def app(scope, protocol):
    global calls
    calls += 1
    event = json.loads(await protocol())
    answer = {"greeting": f"hello {event.get('name', 'world')}", "calls": calls, "request": "-"}
    protocol.response_bytes(200, [("content-type", "application/json")], json.dumps(answer).encode())
