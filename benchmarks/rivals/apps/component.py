"""The handler as a WebAssembly component."""

from __future__ import annotations

import json

import wit_world

calls = 0


class WitWorld(wit_world.WitWorld):
    def handle(self, event):
        global calls
        calls += 1
        name = json.loads(event).get("name", "world")
        return json.dumps({"greeting": f"hello {name}", "calls": calls, "request": "-"})
