"""Functions that stream, and clients of InvokeWithResponseStream: boto3's and a bare one."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.eventstream import EventStreamBuffer

STREAM = "/2021-11-15/functions/{}/response-streaming-invocations"

# Does what its event says. `go` and `at` name files: a handler waits for the one and says by the other how far it has come.
CODE = """
import hashlib, os, struct, time

HEAD = struct.Struct("<IHHQ16s")
RESULT, CHUNK = 18, 20


def wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.005)


def handler(event, context):
    do = event.get("do", "plain") if isinstance(event, dict) else "plain"
    if do == "plain":
        return {"plain": event}
    if do == "raise":
        raise ValueError("at once")
    if do == "forge":
        return forge(event, context)
    return globals()["do_" + do](event, context)


def do_pieces(event, context):
    print("about to stream")
    yield from event["pieces"]


def do_wait(event, context):
    yield b"first"
    wait_for(event["go"])
    yield b"second"


def do_write(event, context):
    context.response_stream.write("first")
    wait_for(event["go"])
    context.response_stream.write(b"second")


def do_raise_late(event, context):
    yield b"a part"
    raise ValueError("in the middle")


def do_exit_late(event, context):
    yield b"a part"
    os._exit(3)


def do_sleep_late(event, context):
    yield b"a part"
    time.sleep(60)


def do_endless(event, context):
    yield str(os.getpid())
    while True:
        time.sleep(0.01)


def do_much(event, context):
    block = hashlib.sha256(b"forklight").digest() * 2048  # 64 KiB
    for number in range(event["blocks"]):
        yield struct.pack("<Q", number) + block[8:]


# ---- frames by hand: not a handler's business ----

def frame(nonce, body, kind=CHUNK, aux=0, meta=0, length=None):
    return HEAD.pack(len(body) if length is None else length, kind, meta, aux, nonce) + body


def forge(event, context):
    import uuid
    nonce = uuid.UUID(context.aws_request_id).bytes
    os.write(3, {
        "own": lambda: frame(nonce, b"mine", aux=0),
        "nonce": lambda: frame(uuid.uuid4().bytes, b"forged"),
        "nobody's": lambda: frame(bytes(16), b"forged"),
        "gap": lambda: frame(nonce, b"one") + frame(nonce, b"two", aux=4),
        "again": lambda: frame(nonce, b"one") + frame(nonce, b"one"),
        "empty": lambda: frame(nonce, b""),
        "large": lambda: frame(nonce, b"x" * 1000, length=65536),
        "huge": lambda: frame(nonce, b"x" * 1000, length=0xFFFFFFFF),
        "far": lambda: frame(nonce, b"x", aux=1 << 63),
        "meta": lambda: frame(nonce, b"meta", meta=2),
        "end of another": lambda: frame(nonce, b"one") + frame(uuid.uuid4().bytes, bytes(24), kind=RESULT),
        "after the end": lambda: frame(nonce, bytes(24) + b'"end"', kind=RESULT) + frame(nonce, b"late"),
        "flood": lambda: b"".join(frame(nonce, b"x", aux=at) for at in range(2000)),
    }[event["what"]]())
    time.sleep(event.get("s", 30))
"""


@dataclass
class Streamed:
    """What came of one call."""

    response: dict[str, Any]
    pieces: list[bytes] = field(default_factory=list)
    complete: dict[str, Any] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def error(self) -> dict[str, Any]:
        assert self.complete["ErrorCode"] == "Unhandled", self.complete
        document = json.loads(self.complete["ErrorDetails"])
        assert isinstance(document, dict)
        return document


def begin(client: Any, name: str, event: object, **options: Any) -> tuple[Streamed, Any]:
    """The response and its events, which are still to be read."""
    payload = json.dumps(event).encode()
    response = client.invoke_with_response_stream(FunctionName=name, Payload=payload, **options)
    return Streamed(response), iter(response["EventStream"])


def read(streamed: Streamed, events: Iterable[dict[str, Any]]) -> Streamed:
    """All that is left of them; nothing may follow InvokeComplete."""
    for event in events:
        assert not streamed.complete, "an event after the last one"
        if "PayloadChunk" in event:
            streamed.pieces.append(event["PayloadChunk"]["Payload"])
        else:
            streamed.complete = event["InvokeComplete"]
            streamed.response["ended"] = True
    assert streamed.response.get("ended"), "no InvokeComplete"
    streamed.response["EventStream"].close()
    return streamed


def stream(client: Any, name: str, event: object, **options: Any) -> Streamed:
    """A whole call with boto3."""
    return read(*begin(client, name, event, **options))


def request(
    name: str, event: object, key: str, secret: str, region: str, *, version: str = "1.1", **headers: str
) -> bytes:
    """The bytes of a signed one."""
    body, path = json.dumps(event).encode(), STREAM.format(name)
    made = AWSRequest("POST", f"http://h{path}", data=body, headers={"Host": "h", **headers})
    SigV4Auth(Credentials(key, secret), "lambda", region).add_auth(made)
    lines = [f"{name}: {value}" for name, value in made.headers.items()]
    head = [f"POST {path} HTTP/{version}", *lines, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(head).encode() + body


class Events:
    """Of a chunked response, on a bare connection."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._buffer = EventStreamBuffer()
        self.size = 0
        self.ended = False

    async def head(self) -> bytes:
        return await self._reader.readuntil(b"\r\n\r\n")

    async def chunk(self) -> list[Any]:
        """The events of the next chunk; none: it was the last."""
        size = int(await self._reader.readuntil(b"\r\n"), 16)
        data = (await self._reader.readexactly(size + 2))[:-2]
        self.size += size
        self.ended = size == 0
        self._buffer.add_data(data)
        return list(self._buffer)

    async def digest(self) -> tuple[str, int, dict[str, Any]]:
        """SHA-256 of all payloads that are left, their size, and what InvokeComplete says."""
        digest, size, complete = hashlib.sha256(), 0, {}
        while not self.ended:
            for event in await self.chunk():
                if event.headers[":event-type"] == "PayloadChunk":
                    digest.update(event.payload)
                    size += len(event.payload)
                else:
                    complete = json.loads(event.payload)
        return digest.hexdigest(), size, complete


def digest_of_much(blocks: int) -> str:
    """SHA-256 of what `do_much` sends."""
    block = hashlib.sha256(b"forklight").digest() * 2048
    digest = hashlib.sha256()
    for number in range(blocks):
        digest.update(number.to_bytes(8, "little") + block[8:])
    return digest.hexdigest()
