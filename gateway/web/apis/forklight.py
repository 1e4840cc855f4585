"""Our own endpoints: what the host isolates, which runtimes it has, packages for GetFunction, metrics; and the one that is no
reading, which ends a function's workers."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING

from gateway.control.failures import as_service_errors
from gateway.model.arn import not_found, resolve_reference
from gateway.model.authority import Who
from gateway.model.errors import ApiError
from gateway.model.usage import Usage
from gateway.telemetry.metrics import CONTENT_TYPE
from gateway.web.apis.access import Context, check_own
from gateway.web.apis.wire import Request, parse_query, path_segments

if TYPE_CHECKING:
    from gateway.control.server import ControlServer

Answer = tuple[int, dict[str, str], bytes]


class ForklightApi:
    def __init__(self, server: ControlServer) -> None:
        self._server = server

    async def handle(self, region: str, request: Request, who: Who, context: Context) -> Answer:
        """Raises ApiError."""
        segments = path_segments(request.path)
        check_own(self._server.identities.authority, who, region, request.method, segments, context)
        if segments[:3] == ["forklight", "v1", "workers"] and len(segments) == 4:
            return await self._workers(region, segments[3], request.method)
        if segments == ["forklight", "v1", "usage"] and request.method == "GET":
            return await self._usage(region, parse_query(request.query))
        known = segments in (["metrics"], ["forklight", "v1", "isolation"], ["forklight", "v1", "runtimes"])
        is_package = (
            segments[:2] == ["forklight", "v1"]
            and segments[2:3] in (["code"], ["layers"])
            and len(segments) == 5
        )
        if not known and not is_package:
            raise ApiError("UnknownOperationException", f"Nothing at {request.path[:200]}")
        if request.method not in ("GET", "HEAD"):
            raise ApiError("MethodNotAllowedException", f"{request.path[:200]} can only be read")
        if is_package and segments[2] == "layers":
            return await self._layer(region, segments[3], segments[4])
        if is_package:
            return await self._package(region, segments[3], segments[4])
        if segments == ["metrics"]:
            return 200, {"Content-Type": CONTENT_TYPE}, await self._server.metrics.read()
        with as_service_errors():
            if segments[-1] == "isolation":
                return _json(await self._server.isolation())
            found = await self._server.runtimes()
            return _json({"runtimes": found, "missing": self._server.missing_runtimes()})

    async def _workers(self, region: str, name: str, method: str) -> Answer:
        """DELETE: end all workers of a function, those that run something too."""
        if method != "DELETE":
            raise ApiError("MethodNotAllowedException", "A function's workers can only be deleted")
        entry = self._server.functions.get(region, *resolve_reference(region, name, None))
        with as_service_errors():
            return _json({"killed": await self._server.kill_workers(entry.function)})

    async def _usage(self, region: str, query: dict[str, list[str]]) -> Answer:
        """What functions of the region used, by day (UTC). `function`: only that one; `since`: from that day on."""
        since = query.get("since", [""])[0]
        if since and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", since):
            raise ApiError("InvalidParameterValueException", "since: not a day such as 2026-01-31")
        function: str | None = query.get("function", [""])[0]
        if function:
            function = resolve_reference(region, function, None)[0]
        with as_service_errors():
            rows = await asyncio.to_thread(self._server.usage.read, region, function or None, since)
        return _json({"usage": [_used(*row) for row in rows]})

    async def _package(self, region: str, name: str, file: str) -> Answer:
        for entry in self._server.registry.family(region, name):
            if file == f"{entry.function.code.sha256}.zip":
                data = await self._server.functions.package(entry.function)
                return 200, {"Content-Type": "application/zip"}, data
        raise not_found(region, name)

    async def _layer(self, region: str, name: str, file: str) -> Answer:
        number = file.removesuffix(".zip")
        layers = self._server.layers
        version = layers.get(region, name, int(number) if number.isdecimal() and len(number) < 18 else 0)
        return 200, {"Content-Type": "application/zip"}, await layers.package(version.code)


def _used(function: str, day: str, usage: Usage) -> dict[str, object]:
    return {
        "function": function,
        "day": day,
        "invocations": usage.invocations,
        "billed_ms": usage.billed_ms,
        "gb_s": usage.mb_ms / 1024 / 1000,
        "cpu_ns": usage.cpu_ns,
        "peak_memory_kib": usage.peak_kib,
    }


def _json(document: object) -> Answer:
    return 200, {"Content-Type": "application/json"}, json.dumps(document).encode()
