"""Deploys small functions from source text, as a test needs them."""

from __future__ import annotations

import io
import json
import uuid
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.support.patience import handler_timeout

# boto3's own waiters look once a second.
OFTEN = {"Delay": 0.05, "MaxAttempts": 2400}
ROLE = "arn:aws:iam::123456789012:role/test"


def zip_of(files: Mapping[str, str | bytes], executable: Collection[str] = ()) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            # A fixed date (ZipInfo's default): the same files are the same bytes, whenever they are packed.
            entry = zipfile.ZipInfo(name)
            if name in executable:
                entry.external_attr = 0o100755 << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


@contextmanager
def function(
    client: Any,
    source: str,
    *,
    name: str | None = None,
    isolation: str = "reuse",
    snapshot: str = "off",
    network: str = "none",
    files: Mapping[str, str | bytes] | None = None,
    executable: Collection[str] = (),
    **configuration: Any,
) -> Iterator[str]:
    """A function whose module `index` is `source` and whose handler is `index.handler`; deleted at the end. Yields its name."""
    name = name or f"t-{uuid.uuid4().hex[:12]}"
    client.create_function(
        FunctionName=name,
        Code={"ZipFile": zip_of({"index.py": source, **(files or {})}, executable)},
        Tags={
            "forklight:isolation": isolation,
            "forklight:snapshot": snapshot,
            "forklight:network": network,
        },
        **{
            "Role": ROLE,
            "Runtime": "python3.11",
            "Handler": "index.handler",
            "Timeout": handler_timeout(10),
            **configuration,
        },
    )
    try:
        client.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig=OFTEN)
        yield name
    finally:
        client.delete_function(FunctionName=name)


def invoke(client: Any, name: str, event: Any = None, **options: Any) -> tuple[Any, dict[str, Any]]:
    """The decoded answer and the whole response."""
    response = client.invoke(FunctionName=name, Payload=json.dumps(event).encode(), **options)
    body = response["Payload"].read()
    return (json.loads(body) if body else None), response


def log_events(logs: Any, name: str, **options: Any) -> list[dict[str, Any]]:
    """A function's log so far, in order; nothing while the group does not exist: lines arrive a moment after the answer."""
    found: list[dict[str, Any]] = []
    while True:
        try:
            page = logs.filter_log_events(logGroupName=f"/aws/lambda/{name}", **options)
        except logs.exceptions.ResourceNotFoundException:
            return []
        found += page["events"]
        if "nextToken" not in page:
            return found
        options["nextToken"] = page["nextToken"]
