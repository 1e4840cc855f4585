"""Functions that are made, changed and deleted while they are called."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import ours
from benchmarks.client import Connection
from tests.soak.tally import Tally
from tests.support.server import Server

# 409: its snapshot is being made, or somebody changes it.
EXPECTED = {200, 201, 202, 204, 409}
_FUNCTIONS = "/2015-03-31/functions"


class Changer:
    """One operator. Knows which of its functions exist; at the end none does."""

    def __init__(
        self, server: Server, names: Sequence[str], package: bytes, chance: random.Random, tally: Tally
    ) -> None:
        self._port = ours.port_of(server.http)
        self._sign = ours.signer(server)
        self._names = names
        self._package = base64.b64encode(package).decode()
        self._chance = chance
        self._tally = tally
        self._there: set[str] = set()

    async def run(self, until: float) -> None:
        while time.monotonic() < until:
            await asyncio.sleep(self._chance.uniform(0.2, 0.8))
            name = self._chance.choice(self._names)
            if name not in self._there:
                await self._do("create", name)
            else:
                await self._do(
                    self._chance.choice(["delete", "code", "configuration", "configuration", "tags"]), name
                )
        while self._there:
            await self._do("delete", min(self._there))
            await asyncio.sleep(0.05)

    async def _do(self, step: str, name: str) -> None:
        request = getattr(self, f"_{step}")(name)
        status, answer = await asyncio.to_thread(self._ask, request)
        self._tally.changes += 1
        self._tally.outcomes[f"control: {step} {status}"] += 1
        if status not in EXPECTED:
            self._tally.fault(f"control: {step} {name}: {status} {answer[:200]!r}")
        if step == "create" and status == 201:
            self._there.add(name)
        elif step == "delete" and status != 409:
            self._there.discard(name)

    def _ask(self, request: bytes) -> tuple[int, bytes]:
        with Connection(self._port, timeout_s=120) as connection:
            status, _, answer = connection.ask(request)
        return status, answer

    def _create(self, name: str) -> bytes:
        settings = {
            "forklight:isolation": self._chance.choice(["reuse", "request"]),
            "forklight:snapshot": self._chance.choice(["off", "auto", "on"]),
        }
        document: dict[str, Any] = {
            "FunctionName": name, "Runtime": ours.RUNTIME, "Handler": "index.handler", "MemorySize": 128, "Timeout": 10,
            "Role": "arn:aws:iam::123456789012:role/soak", "Tags": settings, "Code": {"ZipFile": self._package},
        }  # fmt: skip
        return self._sign.request(_FUNCTIONS, json.dumps(document).encode())

    def _delete(self, name: str) -> bytes:
        return self._sign.request(f"{_FUNCTIONS}/{name}", method="DELETE")

    def _code(self, name: str) -> bytes:
        body = json.dumps({"ZipFile": self._package}).encode()
        return self._sign.request(f"{_FUNCTIONS}/{name}/code", body, method="PUT")

    def _configuration(self, name: str) -> bytes:
        body = json.dumps({"Timeout": self._chance.randrange(5, 30)}).encode()
        return self._sign.request(f"{_FUNCTIONS}/{name}/configuration", body, method="PUT")

    def _tags(self, name: str) -> bytes:
        arn = f"arn:aws:lambda:{self._sign.region}:123456789012:function:{name}".replace(":", "%3A")
        body = json.dumps(
            {"Tags": {"forklight:isolation": self._chance.choice(["reuse", "request"])}}
        ).encode()
        return self._sign.request(f"/2017-03-31/tags/{arn}", body)
