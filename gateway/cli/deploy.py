"""`forklight deploy`: a folder becomes a function, or what has changed of it is sent."""

from __future__ import annotations

import argparse
import base64
import hashlib
import re
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gateway.cli import output
from gateway.cli.client import FUNCTIONS, Client, function_path
from gateway.cli.credentials import find_credentials
from gateway.cli.errors import ApiFailure, CommandError, UsageError
from gateway.cli.package import make_package

ROLE = "arn:aws:iam::000000000000:role/forklight"  # the API wants one; it is kept, not used
SETTINGS = ("isolation", "snapshot", "network")
READY_LIMIT_S = 180.0  # longer than a snapshot may take
_POLL_S = (0.02, 0.05, 0.1, 0.2, 0.4)


def run(arguments: argparse.Namespace) -> int:
    """Raises CommandError."""
    folder = Path(arguments.folder)
    name = name_for(arguments)
    variables = variables_of(arguments.env)
    package = make_package(folder)
    if arguments.handler:
        check_handler(folder, arguments.handler)
    client = Client(find_credentials(arguments.state_dir))
    try:
        did = send(client, name, package, variables, arguments)
        function = ready(client, name)
    finally:
        client.close()
    if arguments.json:
        output.print_json({"name": name, "did": did, "function": function})
    else:
        report(name, did, function)
    return 0


def send(
    client: Client, name: str, package: bytes, variables: dict[str, str] | None, arguments: argparse.Namespace
) -> list[str]:
    """Make the function, or change what differs; what was done, in words. `ready` tells what came of it.  Raises CommandError."""
    known = client.function(name)
    if known is None:
        return _create(client, name, package, variables, arguments)
    return _update(client, name, package, variables, arguments, known)


def _create(
    client: Client, name: str, package: bytes, variables: dict[str, str] | None, arguments: argparse.Namespace
) -> list[str]:
    if not arguments.handler:
        raise UsageError(f"there is no function {name} yet: a new one needs --handler MODULE.FUNCTION")
    settings = _settings(arguments)
    settings.setdefault("forklight:snapshot", "auto")
    document: dict[str, Any] = {
        "FunctionName": name,
        "Runtime": arguments.runtime or _choose_runtime(client),
        "Handler": arguments.handler,
        "Role": ROLE,
        "Code": {"ZipFile": base64.b64encode(package).decode()},
        "Tags": settings,
        **_configuration(arguments, variables),
    }
    client.json("POST", FUNCTIONS, document)
    return ["created"]


def _update(
    client: Client,
    name: str,
    package: bytes,
    variables: dict[str, str] | None,
    arguments: argparse.Namespace,
    known: dict[str, Any],
) -> list[str]:
    """Settings, then configuration, then code, each only if it differs."""
    did = []
    current = known["Configuration"]
    tags = known.get("Tags") or {}
    settings = {key: value for key, value in _settings(arguments).items() if tags.get(key) != value}
    if settings:
        arn = current["FunctionArn"]
        client.json("POST", "/2017-03-31/tags/" + quote(arn, safe=""), {"Tags": settings})
        _settled(client, name)
        did.append("settings changed")
    wanted = _configuration(arguments, variables)
    if arguments.handler:
        wanted["Handler"] = arguments.handler
    if arguments.runtime:
        wanted["Runtime"] = arguments.runtime
    changed = {key: value for key, value in wanted.items() if _shown(current, key) != value}
    if changed:
        client.json("PUT", function_path(name, "/configuration"), changed)
        _settled(client, name)
        did.append("configuration changed")
    if current.get("CodeSha256") != base64.b64encode(hashlib.sha256(package).digest()).decode():
        document = {"ZipFile": base64.b64encode(package).decode()}
        client.json("PUT", function_path(name, "/code"), document)
        did.append("code changed")
    return did or ["unchanged"]


def ready(client: Client, name: str) -> dict[str, Any]:
    """The function once it can be invoked.  Raises CommandError if it cannot."""
    function = _settled(client, name)
    if function.get("State") == "Failed":
        raise CommandError(
            f"{name} was deployed but cannot run: {function.get('StateReason', 'no reason given')}"
        )
    if function.get("LastUpdateStatus") == "Failed":
        raise CommandError(
            f"{name}: the update failed: {function.get('LastUpdateStatusReason', 'no reason given')}"
        )
    return function


def _settled(client: Client, name: str) -> dict[str, Any]:
    """The function once nothing is under way, even if it failed.  Raises CommandError if that takes too long."""
    deadline = time.monotonic() + READY_LIMIT_S
    attempt = 0
    while True:
        found = client.json("GET", function_path(name))
        function: dict[str, Any] = found["Configuration"]
        function["Tags"] = found.get("Tags") or {}
        state, update = function.get("State"), function.get("LastUpdateStatus")
        if state != "Pending" and update != "InProgress":
            return function
        if time.monotonic() > deadline:
            raise CommandError(f"{name} is still {state} after {READY_LIMIT_S:.0f} s; see `forklight list`")
        time.sleep(_POLL_S[min(attempt, len(_POLL_S) - 1)])
        attempt += 1


def report(name: str, did: list[str], function: dict[str, Any]) -> None:
    """A line on what was done, and notes on what is weaker than was wanted."""
    details = [
        function.get("Runtime", ""),
        f"{function.get('MemorySize')} MB",
        f"{function.get('Timeout')} s",
        f"{function.get('CodeSize', 0) / 1024:.1f} KiB",
    ]
    ours = function.get("Forklight") or {}
    if ours:
        details += [f"isolation {ours.get('Isolation')}", f"snapshot {_snapshot(ours)}"]
    print(f"{output.paint(name, 'bold')} {', '.join(did)}: {', '.join(details)}")
    if ours.get("Snapshot") == "auto" and ours.get("SnapshotState") == "off" and ours.get("SnapshotWhy"):
        output.note(f"no snapshot: {ours['SnapshotWhy']}")
    if ours.get("IsolationWhy"):
        output.warn(
            f"isolation {ours['Isolation']} is weaker than without a snapshot: {ours['IsolationWhy']}"
        )


def _snapshot(ours: dict[str, Any]) -> str:
    wanted, state = str(ours.get("Snapshot")), str(ours.get("SnapshotState"))
    return wanted if wanted == state else f"{wanted} ({state})"


def _choose_runtime(client: Client) -> str:
    """The version this command runs on if the server has it, else the server's newest."""
    own = f"python{sys.version_info.major}.{sys.version_info.minor}"
    try:
        found = client.json("GET", "/forklight/v1/runtimes", service="forklight").get("runtimes") or {}
    except ApiFailure:
        return own
    pythons = [name for name in found if name.startswith("python")]
    if own in found or not pythons:
        return own
    return str(max(pythons, key=lambda name: [int(part) for part in re.findall(r"\d+", name)]))


def name_for(arguments: argparse.Namespace) -> str:
    """As given, or the folder's name, with what a function's name cannot have as "-".  Raises UsageError."""
    if arguments.name:
        return str(arguments.name)
    folder = Path(arguments.folder)
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", folder.resolve().name).strip("-")[:64]
    if not name:
        raise UsageError(f"{folder} gives no name for the function: use --name")
    return name


def variables_of(items: list[str] | None) -> dict[str, str] | None:
    """Of --env.  Raises UsageError."""
    if items is None:
        return None
    variables = {}
    for item in items:
        key, separator, value = item.partition("=")
        if not separator or not key:
            raise UsageError(f"--env {item}: not KEY=VALUE")
        variables[key] = value
    return variables


def _settings(arguments: argparse.Namespace) -> dict[str, str]:
    """What the Lambda API carries as tags."""
    return {
        f"forklight:{name}": getattr(arguments, name)
        for name in SETTINGS
        if getattr(arguments, name) is not None
    }


def _configuration(arguments: argparse.Namespace, variables: dict[str, str] | None) -> dict[str, Any]:
    wanted: dict[str, Any] = {}
    if arguments.memory is not None:
        wanted["MemorySize"] = arguments.memory
    if arguments.timeout is not None:
        wanted["Timeout"] = arguments.timeout
    if arguments.tmp is not None:
        wanted["EphemeralStorage"] = {"Size": arguments.tmp}
    if variables is not None:
        wanted["Environment"] = {"Variables": variables}
    return wanted


def _shown(current: dict[str, Any], key: str) -> Any:
    """How GetFunction shows what `_configuration` wants; no variables are shown as nothing."""
    value = current.get(key)
    return {"Variables": {}} if key == "Environment" and value is None else value


def check_handler(folder: Path, handler: str) -> None:
    """Warn about a handler whose module is not in the folder: a layer may have it, but mostly it is a slip."""
    module, dot, _ = handler.rpartition(".")
    if not dot:
        raise UsageError(f"--handler {handler}: not MODULE.FUNCTION")
    path = folder / module.replace(".", "/")
    if not path.with_name(path.name + ".py").is_file() and not path.is_dir():
        output.warn(f"--handler {handler}: there is no {module.replace('.', '/')}.py in {folder}")
