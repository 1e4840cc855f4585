"""`forklight serve`, `env` and `doctor`: the commands about a host instead of a function.

`serve` and a `doctor` without a server run code of this host. The command line imports nothing of the server, so
that it stays quick and honest: the two entries are looked up by name when they are needed.
"""

from __future__ import annotations

import argparse
import importlib
import shlex
import tempfile
from pathlib import Path
from typing import Any

from gateway.cli import output
from gateway.cli.client import Client
from gateway.cli.credentials import default_state_dir, find_credentials, read_credentials
from gateway.cli.errors import FAILED, CommandError, UsageError

_STATE_STYLE = {"enforced": "green", "degraded": "yellow", "absent": "red"}
_OVERALL_STYLE = {"full": "green", "degraded": "yellow", "none": "red"}


def serve(arguments: argparse.Namespace) -> int:
    """Runs until SIGTERM.  Raises CommandError when the server cannot start."""
    _check_serve(arguments)
    arguments.state_dir = str(Path(arguments.state_dir or default_state_dir()).absolute())
    app, start_error = (
        importlib.import_module("gateway.app"),
        importlib.import_module("gateway.serve").StartError,
    )
    try:
        return int(app.serve(arguments))
    except start_error as error:
        raise CommandError(str(error)) from None


def _check_serve(arguments: argparse.Namespace) -> None:
    """Raises UsageError."""
    from gateway.addresses import Address

    addresses = {}
    for option, default_port in (("http", 8080), ("grpc", 8081)):
        text = getattr(arguments, option)
        try:
            addresses[option] = Address.parse(text, default_port)
        except ValueError as error:
            raise UsageError(f"--{option} {error}") from None
        setattr(arguments, option, str(addresses[option]))
    if bool(arguments.tls_cert) != bool(arguments.tls_key):
        raise UsageError("--tls-cert and --tls-key go together")
    for option in ("tls_cert", "tls_key"):
        path = getattr(arguments, option)
        if path and not Path(path).is_file():
            raise UsageError(f"--{option.replace('_', '-')} {path}: no such file")
        if path:
            setattr(arguments, option, str(Path(path).absolute()))
    if arguments.auth == "none":
        for option, address in addresses.items():
            if not address.loopback:
                raise UsageError(
                    f"--auth none is for loopback addresses only, and --{option} {address} is reachable from elsewhere"
                )
        output.warn(
            "--auth none: every process and every browser page on this machine may deploy and run functions"
        )


def env(arguments: argparse.Namespace) -> int:
    """Raises CommandError."""
    state_dir = Path(arguments.state_dir) if arguments.state_dir else default_state_dir()
    credentials = read_credentials(state_dir)
    if not credentials.http:
        raise CommandError(
            f"the server of {state_dir} has not said yet where it listens: is it still starting?"
        )
    variables = {
        "AWS_ENDPOINT_URL": credentials.http,
        "AWS_ACCESS_KEY_ID": credentials.access_key_id,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_access_key,
        "AWS_DEFAULT_REGION": credentials.region,
        "FORKLIGHT_TOKEN": credentials.token,
        "FORKLIGHT_GRPC": credentials.grpc,
    }
    if arguments.json:
        output.print_json(variables)
        return 0
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def doctor(arguments: argparse.Namespace) -> int:
    """0 when functions can be isolated at all, else 1.  Raises CommandError."""
    report, source = _report(arguments)
    if arguments.json:
        output.print_json({"source": source, **report})
    else:
        _print_report(report, source)
    return FAILED if report.get("overall") == "none" else 0


def _report(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """The isolation report and where it comes from: "server", or "host" if no server answers and none was named."""
    try:
        client = Client(find_credentials(arguments.state_dir))
        try:
            return client.json("GET", "/forklight/v1/isolation", service="forklight"), "server"
        finally:
            client.close()
    except CommandError as error:
        if arguments.state_dir:
            raise
        output.note(f"no server answers ({error}); asking this host as the present user")
    return _probe(), "host"


def _probe() -> dict[str, Any]:
    """Make one sandbox here, for a trial."""
    host_module = importlib.import_module("sandbox.host")
    host_report = importlib.import_module("sandbox.host_report")
    errors = importlib.import_module("sandbox.errors")
    with tempfile.TemporaryDirectory(prefix="forklight-doctor-") as folder:
        try:
            host = host_module.Host.prepare(Path(folder), Path(folder))
        except errors.SandboxError as error:
            report: dict[str, Any] = host_report.refused(error).as_dict()
            return report
        try:
            report = host.report.as_dict()
        finally:
            host.close()
    return report


def _print_report(report: dict[str, Any], source: str) -> None:
    overall = str(report.get("overall"))
    where = "of the running server" if source == "server" else "of this host for the present user"
    print(f"isolation {where}: {output.paint(overall, _OVERALL_STYLE.get(overall, 'bold'))}")
    features = report.get("features") or {}
    width = max((len(name) for name in features), default=0)
    whys = {str(feature.get("why") or "") for feature in features.values()}
    # Where nothing can be made everything has one reason: said once, at the end.
    common = whys.pop() if len(whys) == 1 and overall == "none" else ""
    for name, feature in features.items():
        state = str(feature.get("state"))
        line = f"  {name.ljust(width)}  {output.paint(state.ljust(8), _STATE_STYLE.get(state, 'bold'))}"
        print(f"{line}  {'' if common else feature.get('why') or ''}".rstrip())
    if report.get("claim"):
        print(f"claim: {report['claim']}")
    if common:
        print(common)
