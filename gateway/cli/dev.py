"""`forklight dev`: a folder is a function while it is being written."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import NoReturn

from gateway.cli import output
from gateway.cli.client import Client, function_path
from gateway.cli.credentials import find_credentials
from gateway.cli.deploy import check_handler, name_for, ready, report, send, variables_of
from gateway.cli.errors import CommandError, Unreachable, UsageError
from gateway.cli.invoke import payload_of, show
from gateway.cli.logs import Tail
from gateway.cli.package import fingerprint, make_package

LOOK_S = 0.1  # at the files; an editor's save is often several changes, so it must also be quiet for as long
TAIL_S = 0.5


def run(arguments: argparse.Namespace) -> int:
    """Until it is interrupted.  Raises CommandError only for what is wrong from the beginning."""
    folder = Path(arguments.folder)
    name = name_for(arguments)
    if arguments.handler:
        check_handler(folder, arguments.handler)
    began_ms = int(time.time() * 1000)
    client = Client(find_credentials(arguments.state_dir))
    try:
        seen = fingerprint(folder)
        try:
            _deploy(client, name, folder, arguments)
        except UsageError:
            raise
        except CommandError as error:
            if client.function(name) is None:
                raise  # it could not even be made; what was made may be mended by the next change
            output.fail(str(error))
        output.note(f"watching {folder}; Ctrl-C ends")
        _watch(client, name, folder, arguments, seen, Tail(client, name, began_ms))
    finally:
        client.close()


def _watch(
    client: Client,
    name: str,
    folder: Path,
    arguments: argparse.Namespace,
    seen: frozenset[tuple[str, int, int, int]],
    tail: Tail,
) -> NoReturn:
    deployed, looked_at_log, trouble = seen, 0.0, ""
    while True:
        time.sleep(LOOK_S)
        try:
            now = fingerprint(folder)
            quiet, seen = now == seen, now
            if quiet and now != deployed:
                _try_to_deploy(client, name, folder, arguments)
                deployed = now
            if time.monotonic() - looked_at_log >= TAIL_S:
                looked_at_log = time.monotonic()
                tail.show()
            trouble = ""
        except (
            CommandError
        ) as error:  # no server, or no folder: when it is there again, what has changed is sent
            if str(error) != trouble:
                output.fail(str(error))
            trouble = str(error)
            time.sleep(TAIL_S)


def _try_to_deploy(client: Client, name: str, folder: Path, arguments: argparse.Namespace) -> None:
    """Raises Unreachable."""
    try:
        _deploy(client, name, folder, arguments)
    except Unreachable:
        raise
    except CommandError as error:  # a module that does not compile, say: the next change may mend it
        output.fail(str(error))


def _deploy(client: Client, name: str, folder: Path, arguments: argparse.Namespace) -> None:
    began = time.monotonic()
    did = send(client, name, make_package(folder), variables_of(arguments.env), arguments)
    report(name, did, ready(client, name))
    sys.stdout.flush()
    output.note(f"in {time.monotonic() - began:.2f} s")
    if arguments.invoke is not None:
        headers = {"content-type": "application/json"}
        path = function_path(name, "/invocations")
        show(client.request("POST", path, payload_of(arguments.invoke), headers=headers))
