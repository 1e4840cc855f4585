"""`forklight list`, `delete`, `kill` and `runtimes`."""

from __future__ import annotations

import argparse
import sys
from urllib.parse import quote

from gateway.cli import output
from gateway.cli.client import Client, function_path
from gateway.cli.credentials import find_credentials
from gateway.cli.errors import FAILED


def list_functions(arguments: argparse.Namespace) -> int:
    """Raises CommandError."""
    client = Client(find_credentials(arguments.state_dir))
    try:
        functions = list(client.functions())
    finally:
        client.close()
    if arguments.json:
        output.print_json(functions)
        return 0
    if not functions:
        output.note("no functions; make one with: forklight deploy DIR --handler MODULE.FUNCTION")
        return 0
    rows = []
    for function in functions:
        ours = function.get("Forklight") or {}
        rows.append(
            [
                str(function.get("FunctionName")),
                str(function.get("Runtime", "-")),
                f"{function.get('MemorySize', '-')} MB",
                f"{function.get('Timeout', '-')} s",
                str(ours.get("Isolation", "-")),
                str(ours.get("Snapshot", "-")),
                str(function.get("State", "-")),
                str(function.get("LastModified", "-"))[:19],
            ]
        )
    output.print_table(
        ["NAME", "RUNTIME", "MEMORY", "TIMEOUT", "ISOLATION", "SNAPSHOT", "STATE", "MODIFIED"], rows
    )
    return 0


def delete(arguments: argparse.Namespace) -> int:
    """Raises CommandError."""
    if not arguments.yes and sys.stdin.isatty():
        output.note(f"Delete {', '.join(arguments.names)}? [y/N] ")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            output.note("nothing deleted")
            return FAILED
    client = Client(find_credentials(arguments.state_dir))
    try:
        for name in arguments.names:
            client.request("DELETE", function_path(name))
            print(f"{output.paint(name, 'bold')} deleted")
    finally:
        client.close()
    return 0


def kill(arguments: argparse.Namespace) -> int:
    """Raises CommandError."""
    client = Client(find_credentials(arguments.state_dir))
    try:
        for name in arguments.names:
            path = f"/forklight/v1/workers/{quote(name, safe='')}"
            count = client.json("DELETE", path, service="forklight").get("killed")
            print(f"{output.paint(name, 'bold')}: {count} workers killed")
    finally:
        client.close()
    return 0


def runtimes(arguments: argparse.Namespace) -> int:
    """Raises CommandError."""
    client = Client(find_credentials(arguments.state_dir))
    try:
        answer = client.json("GET", "/forklight/v1/runtimes", service="forklight")
    finally:
        client.close()
    found, missing = answer.get("runtimes") or {}, answer.get("missing") or {}
    if arguments.json:
        output.print_json({"runtimes": found, "missing": missing})
        return 0
    rows = [[name, str(path)] for name, path in sorted(found.items())]
    output.print_table(["RUNTIME", "RUN BY"], rows)
    print()
    output.print_table(["MISSING", "WHY"], [[name, str(why)] for name, why in sorted(missing.items())])
    return 0
