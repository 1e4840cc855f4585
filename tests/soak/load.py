"""The soak's callers: ordinary calls that must be answered with their own event, hostile ones, and functions that come and go."""

from __future__ import annotations

import asyncio
import json
import random
import time
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from benchmarks import ours
from benchmarks.signing import Signer
from benchmarks.storm import read_answer
from gateway.rpc import invocations_pb2_grpc
from gateway.rpc.invocations_pb2 import InvokeRequest
from tests.soak.changes import Changer
from tests.soak.hostile import ACTS
from tests.soak.tally import Tally
from tests.support.server import Server

ANSWER_TIMEOUT_S = 60.0
TENANTS = 4
# What a busy host may say; anything else but the caller's own event is a fault of an ordinary call.
BUSY_STATUS = {429}
BUSY_CODE = {grpc.StatusCode.RESOURCE_EXHAUSTED}
LARGE_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Plan:
    """`ordinary`, `hostile` and `changing` are names of functions; `rate` is calls a second of all callers together."""

    server: Server
    ordinary: tuple[str, ...]
    hostile: tuple[str, ...]
    changing: tuple[str, ...]
    package: bytes
    callers: int
    rate: float
    hostile_share: float


Answer = tuple[str, bool, bytes]  # outcome for the tally, whether the handler returned, what it returned


class HttpCaller:
    """One keep-alive connection to the HTTP door."""

    def __init__(self, server: Server, signer: Signer) -> None:
        self._server = server
        self._signer = signer
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self, name: str, body: bytes, tenant: str) -> Answer:
        headers = {"x-amz-tenant-id": tenant} if tenant else {}
        if self._streams is None:
            host = self._server.http.rpartition(":")[0]
            self._streams = await asyncio.open_connection(host, ours.port_of(self._server.http))
        reader, writer = self._streams
        writer.write(self._signer.invoke(name, body, headers))
        status, answer_headers, answer = await read_answer(reader)
        if answer_headers.get("connection") == "close":
            self.close()
        if status != 200:
            return f"http {status} {answer_headers.get('x-amzn-errortype', '?')}", False, answer
        failed = "x-amz-function-error" in answer_headers
        return f"http {_kind(answer) if failed else 'returned'}", not failed, answer

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class GrpcCaller:
    """One channel to the gRPC door."""

    def __init__(self, server: Server) -> None:
        self._channel = grpc.aio.insecure_channel(
            server.grpc,
            options=[("grpc.max_receive_message_length", 16 << 20), ("grpc.use_local_subchannel_pool", 1)],
        )
        self._stub = invocations_pb2_grpc.InvocationsStub(self._channel)  # type: ignore[no-untyped-call]
        self._metadata = (("authorization", f"Bearer {server.token}"),)

    async def call(self, name: str, body: bytes, tenant: str) -> Answer:
        request = InvokeRequest(function=name, payload=body, tenant_id=tenant)
        try:
            answer = await self._stub.Invoke(request, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            trailers = dict(error.trailing_metadata() or ())
            return (
                f"grpc {error.code().name} {trailers.get('x-amzn-errortype', '?')}",
                False,
                (error.details() or "").encode(),
            )
        if answer.function_error:
            return f"grpc {_kind(answer.payload)}", False, answer.payload
        return "grpc returned", True, answer.payload

    async def end(self) -> None:
        await self._channel.close()


def _kind(error: bytes) -> str:
    try:
        return str(json.loads(error).get("errorType"))
    except (ValueError, AttributeError):
        return "unclear error"


async def run(plan: Plan, seconds: float, chance: random.Random) -> Tally:
    """Call for so long; returns when the last answer is there."""
    tally = Tally()
    until = time.monotonic() + seconds
    signer = ours.signer(plan.server)
    tasks = [
        _caller(plan, number, signer, random.Random(chance.getrandbits(64)), until, tally)
        for number in range(plan.callers)
    ]
    changer = Changer(plan.server, plan.changing, plan.package, random.Random(chance.getrandbits(64)), tally)
    tasks.append(changer.run(until))
    await asyncio.gather(*tasks)
    return tally


async def _caller(
    plan: Plan, number: int, signer: Signer, chance: random.Random, until: float, tally: Tally
) -> None:
    http = HttpCaller(plan.server, signer)
    rpc = GrpcCaller(plan.server) if number % 2 else None
    mean_pause_s = plan.callers / plan.rate
    count = 0
    try:
        while time.monotonic() < until:
            count += 1
            await asyncio.sleep(min(chance.expovariate(1 / mean_pause_s), 10 * mean_pause_s))
            name, event = _next_call(plan, chance, f"{number}:{count}:{chance.getrandbits(64)}")
            tenant = f"t{chance.randrange(TENANTS)}" if "tenant" in name else ""
            caller: Any = rpc or http
            began = time.monotonic()
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    answer = await caller.call(name, json.dumps(event).encode(), tenant)
            except (OSError, TimeoutError, EOFError) as error:
                http.close()
                tally.fault(f"{name}: no answer to {str(event)[:80]}: {type(error).__name__} {error}")
                continue
            _judge(tally, plan, name, event, answer, (time.monotonic() - began) * 1000)
    finally:
        http.close()
        if rpc is not None:
            await rpc.end()


def _next_call(plan: Plan, chance: random.Random, salt: str) -> tuple[str, dict[str, Any]]:
    event: dict[str, Any] = {"salt": salt}
    if chance.random() < plan.hostile_share:
        event["do"] = chance.choice(list(ACTS))
        return chance.choice(plan.hostile), event
    if chance.random() < 0.3:
        event["sleep"] = round(chance.expovariate(1 / 0.01), 4)
    if chance.random() < LARGE_SHARE:
        event["filling"] = "f" * chance.randrange(100_000, 1_000_000)
    group = chance.random()
    if group < 0.1 and plan.changing:
        return chance.choice(plan.changing), event
    return chance.choice(plan.hostile if group < 0.2 else plan.ordinary), event


def _judge(
    tally: Tally, plan: Plan, name: str, event: dict[str, Any], answer: Answer, milliseconds: float
) -> None:
    outcome, returned, body = answer
    tally.calls += 1
    if "do" in event:
        tally.outcomes[f"hostile: {outcome}"] += 1
        if not returned and not body:
            tally.fault(f"{name}: {event['do']}: an empty answer ({outcome})")
        return
    tally.slowest_ms = max(tally.slowest_ms, milliseconds)
    own = returned and json.loads(body) == event
    if name in plan.ordinary:
        tally.outcomes[f"ordinary: {outcome}"] += 1
        busy = any(str(code) in outcome for code in BUSY_STATUS) or any(
            code.name in outcome for code in BUSY_CODE
        )
        if not own and not busy:
            tally.fault(f"{name}: {str(event)[:80]}: {outcome} {body[:200]!r}")
    else:
        tally.outcomes[f"{'changing' if name in plan.changing else 'abused'}: {outcome}"] += 1
        if returned and not own:
            tally.fault(f"{name}: another's answer to {str(event)[:80]}: {body[:80]!r}")
        elif name in plan.changing and "Runtime." in outcome:
            tally.fault(f"{name}: a change ended a call: {outcome} {body[:200]!r}")
