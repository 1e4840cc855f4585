"""Frames of a worker's channel, host side.  Pure codec: no sockets, no clock.

One frame is a 32-byte little-endian header (length of the body, kind, length of the meta part, aux, nonce) and the
body.  The guest's twin of this file is sandbox/guests/python/channel.py; neither may import the other.
Nothing that comes from a worker is trusted: the reader checks kind, length and nonce before it looks at a body.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import orjson

HEADER = struct.Struct("<IHHQ16s")
HEADER_BYTES = HEADER.size  # 32
MEASURES = struct.Struct("<QQQ")  # handler ns, cpu ns of this invocation, peak RSS in KiB
MEASURES_BYTES = MEASURES.size  # 24

# host -> guest
INIT = 1
INVOKE = 2  # aux: the deadline, epoch ms; of an event sent before READY, below 2**32: ms from READY on
REHEARSE = 3  # no event: the worker goes through its own part of an invocation, and says nothing
INVOKE_STREAM = 4  # as INVOKE, but the answer may come in pieces: CHUNKs, then RESULT with the rest, or ERROR
# guest -> host
READY = 16
INIT_FAILED = 17
RESULT = 18
ERROR = 19
CHUNK = 20  # aux: bytes of the answer in the chunks before it
SETUP_FAILED = 22
LINGERS = 23  # before an answer: its worker is not done when it has given that, and will say so
SETTLED = 24  # after that answer: now it is

MAX_PAYLOAD = 6 * 1024 * 1024 + 100  # an event or an answer; Lambda's hard cap
MAX_CHUNK = 64 * 1024 - HEADER_BYTES  # bytes, and at least one: a frame is one read at most
MAX_STREAMED = 200 * 1024 * 1024  # an answer in chunks; Lambda's limit
MAX_BODY = 7 * 1024 * 1024  # any body, whatever its kind
MAX_META = 0xFFFF
NO_NONCE = bytes(16)

# Header and measures of an answer in one go: most answers arrive in one read.
ANSWER_HEAD = struct.Struct("<IHHQ16sQQQ")
ANSWER_HEAD_BYTES = ANSWER_HEAD.size  # 56

_pack = HEADER.pack


def init_frame(document: dict[str, Any]) -> bytes:
    """The frame that every worker gets first."""
    body = orjson.dumps(document)
    return _pack(len(body), INIT, 0, 0, NO_NONCE) + body


def invoke_meta(
    arn: str,
    client_context: bytes | None = None,
    identity: dict[str, Any] | None = None,
    trace_id: str | None = None,
    tenant_id: str | None = None,
) -> bytes:
    """The meta part of an INVOKE frame; absent keys are left out; ``client_context`` is JSON already.

    Raises ValueError when it is too long for its header field.
    """
    meta = b'{"arn":' + json.dumps(arn).encode()
    if trace_id:
        meta += b',"trace_id":' + json.dumps(trace_id).encode()
    if tenant_id is not None:
        meta += b',"tenant_id":' + json.dumps(tenant_id).encode()
    if identity:
        meta += b',"identity":' + json.dumps(identity).encode()
    if client_context:
        meta += b',"client_context":' + client_context
    meta += b"}"
    if len(meta) > MAX_META:
        raise ValueError("invocation metadata is longer than 65535 bytes")
    return meta
