"""`forklight invoke`: run a function once; what it returns goes to stdout, all about it to stderr."""

from __future__ import annotations

import argparse
import base64
import sys
from pathlib import Path

from gateway.cli import output
from gateway.cli.client import Answer, Client, function_path
from gateway.cli.credentials import find_credentials
from gateway.cli.errors import FAILED, CommandError


def run(arguments: argparse.Namespace) -> int:
    """1 when the function failed.  Raises CommandError."""
    payload = payload_of(arguments.payload)
    headers = {"content-type": "application/json"}
    if arguments.asynchronous:
        headers["x-amz-invocation-type"] = "Event"
    elif arguments.log:
        headers["x-amz-log-type"] = "Tail"
    if arguments.tenant:
        headers["x-amz-tenant-id"] = arguments.tenant
    query = {"Qualifier": arguments.qualifier} if arguments.qualifier else None
    client = Client(find_credentials(arguments.state_dir))
    try:
        path = function_path(arguments.name, "/invocations")
        answer = client.request("POST", path, payload, headers=headers, query=query)
    finally:
        client.close()
    if arguments.asynchronous:
        output.note(f"accepted: {answer.headers.get('x-amzn-requestid', '')}")
        return 0
    return show(answer)


def show(answer: Answer) -> int:
    """Print what the function returned; 1 when it failed."""
    log = answer.headers.get("x-amz-log-result")
    if log:
        sys.stderr.write(base64.b64decode(log).decode("utf-8", "replace"))
        sys.stderr.flush()
    sys.stdout.buffer.write(answer.body)
    if not answer.body.endswith(b"\n"):
        sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()
    error = answer.headers.get("x-amz-function-error")
    if error:
        output.fail(f"the function failed ({error})")
        return FAILED
    return 0


def payload_of(text: str | None) -> bytes:
    """JSON text, @FILE, or - for standard input.  Raises CommandError."""
    if text is None:
        return b""
    if text == "-":
        return sys.stdin.buffer.read()
    if not text.startswith("@"):
        return text.encode("utf-8", "surrogateescape")
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise CommandError(f"--payload {text}: {error.strerror}") from None
