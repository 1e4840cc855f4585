"""Which frames a worker may send, and when. What it sends is hostile until this was asked; a plain answer is looked at elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.model.invocation import Invocation
from sandbox.channel import (
    CHUNK,
    ERROR,
    INIT_FAILED,
    LINGERS,
    MAX_BODY,
    MAX_CHUNK,
    MAX_PAYLOAD,
    MAX_STREAMED,
    MEASURES_BYTES,
    NO_NONCE,
    READY,
    RESULT,
    SETTLED,
    SETUP_FAILED,
)

if TYPE_CHECKING:
    from gateway.dispatch.lent_worker import Worker


def fault_of(worker: Worker, kind: int, length: int, meta: int, aux: int, nonce: bytes) -> str:
    """Why this header must not come now; empty when it may."""
    if meta:
        return "metadata"
    if not worker.ready:
        if kind not in (READY, INIT_FAILED, SETUP_FAILED) or nonce != NO_NONCE or length > MAX_BODY:
            return "no READY first"
        return ""
    bare = nonce == NO_NONCE and not length
    if kind == SETTLED and worker.lingering:
        return "" if bare else "wrong end"
    invocation = worker.invocation
    if invocation is None or not worker.sent or worker.is_sending:
        return "unsolicited frame"
    if kind == LINGERS and not worker.lingers and bare:
        return ""
    if kind == CHUNK and nonce == invocation.nonce:
        return _chunk_fault(invocation, length, aux)
    if kind not in (RESULT, ERROR) or nonce != invocation.nonce or length < MEASURES_BYTES:
        return "wrong answer"
    return "too large" if length > MAX_PAYLOAD + MEASURES_BYTES else ""


def _chunk_fault(invocation: Invocation, length: int, aux: int) -> str:
    stream = invocation.stream
    if stream is None or aux != stream.taken or not 0 < length <= MAX_CHUNK:
        return "wrong chunk"
    return "too long a stream" if aux + length > MAX_STREAMED else ""
