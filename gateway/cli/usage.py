"""`forklight usage`."""

from __future__ import annotations

import argparse

from gateway.cli import output
from gateway.cli.client import Client
from gateway.cli.credentials import find_credentials


def run(arguments: argparse.Namespace) -> int:
    """Raises CommandError."""
    query = {name: value for name in ("function", "since") if (value := getattr(arguments, name))}
    client = Client(find_credentials(arguments.state_dir))
    try:
        found = client.json("GET", "/forklight/v1/usage", service="forklight", query=query)["usage"]
    finally:
        client.close()
    if arguments.json:
        output.print_json(found)
        return 0
    if not found:
        output.note("nothing was used")
        return 0
    rows = [
        [
            row["day"],
            row["function"],
            str(row["invocations"]),
            f"{row['billed_ms'] / 1000:.3f} s",
            f"{row['gb_s']:.6f}",
            f"{row['cpu_ns'] / 1e9:.3f} s",
            f"{row['peak_memory_kib'] / 1024:.1f} MB",
        ]
        for row in found
    ]
    output.print_table(["DAY (UTC)", "FUNCTION", "INVOCATIONS", "BILLED", "GB-S", "CPU", "PEAK MEMORY"], rows)
    return 0
