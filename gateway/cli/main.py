"""The `forklight` command: its grammar, and the one place where errors become lines and exit statuses.

Exit status: 0 done, 1 the operation failed (for `invoke`: also when the function failed), 2 wrong usage, 130 interrupted.
Modules of commands are imported when they run: `forklight --help` costs a bare interpreter and argparse.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from gateway.cli.errors import CommandError

INTERRUPTED = 130

_DESCRIPTION = """\
Functions on your own machine, behind AWS Lambda's API.

  forklight serve                                    start a server
  forklight deploy hello --handler index.handler     make or change a function
  forklight invoke hello --payload '{"name": "you"}'
  eval "$(forklight env)"                            for boto3, the AWS CLI and gRPC clients
"""
_EPILOG = """\
Commands other than serve, env and doctor find their server by --state-dir; else by AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY and AWS_DEFAULT_REGION; else by the default state directory: $FORKLIGHT_STATE_DIR,
/var/lib/forklight for root, $XDG_STATE_HOME/forklight or ~/.local/state/forklight for others.
Exit status: 0 done, 1 the operation or the function failed, 2 wrong usage.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry of the console script; returns the exit status."""
    arguments = make_parser().parse_args(argv)
    module, _, function = arguments.run.partition(":")
    try:
        return int(getattr(importlib.import_module(f"gateway.cli.{module}"), function)(arguments))
    except CommandError as error:
        from gateway.cli import output

        output.fail(str(error))
        return error.status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has left, as `| head` does. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="forklight",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_serve(commands)
    _add_env(commands)
    _add_deploy(commands)
    _add_dev(commands)
    _add_invoke(commands)
    _add_list(commands)
    _add_logs(commands)
    _add_usage(commands)
    _add_delete(commands)
    _add_kill(commands)
    _add_keys(commands)
    _add_images(commands)
    _add_doctor(commands)
    _add_runtimes(commands)
    _add_systemd_unit(commands)
    return parser


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __init__(self, **options: Any) -> None:
        super().__init__(nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"forklight {version('forklight')}")
        except PackageNotFoundError:
            print("forklight (not installed)")
        parser.exit()


Commands = Any  # argparse's type for it is private


def _command(
    commands: Commands, name: str, run: str, summary: str, details: str = ""
) -> argparse.ArgumentParser:
    """A command whose code is gateway.cli.MODULE:FUNCTION."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.\n{details}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument("--state-dir", metavar="DIR", help="the server's state directory")
    return parser


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_serve(commands: Commands) -> None:
    parser = _command(
        commands, "serve", "host:serve", "run a server until SIGTERM or Ctrl-C",
        "Prints `forklight ready http=... grpc=...` when it serves; its log goes to stderr.\n"
        "On SIGTERM what runs may finish within the grace period; functions are there again at the next start.",
    )  # fmt: skip
    add = parser.add_argument
    add(
        "--http",
        metavar="ADDR",
        default="127.0.0.1:8080",
        help="Lambda HTTP API; port 0: a free one (%(default)s)",
    )
    add("--grpc", metavar="ADDR", default="127.0.0.1:8081", help="gRPC API; port 0: a free one (%(default)s)")
    add("--grpc-engine", choices=["native", "grpcio"], default="native",
        help="what carries gRPC: HTTP/2 in C, or grpcio's own server (%(default)s)")  # fmt: skip
    add("--doors", metavar="N", type=_positive, default=2, help="front-door processes (%(default)s)")
    add(
        "--auth",
        choices=["required", "none"],
        default="required",
        help="none: on loopback addresses only (%(default)s)",
    )
    add("--tls-cert", metavar="FILE", help="certificate chain, PEM: both ports speak TLS")
    add("--tls-key", metavar="FILE", help="private key, PEM")
    add("--region", metavar="NAME", default="us-east-1", help="the server's own region (%(default)s)")
    add("--url-domain", metavar="NAME", default="localhost",
        help="function URLs are ID.lambda-url.REGION.NAME; clients must resolve them to this host (%(default)s)")  # fmt: skip
    add("--concurrency", metavar="N", type=_positive, default=1000,
        help="invocations at a time; more are throttled (%(default)s)")  # fmt: skip
    add("--http-connections", metavar="N", type=_positive, default=10_000,
        help="of one front door; more are answered 503 (%(default)s)")  # fmt: skip
    add("--grpc-connections", metavar="N", type=_positive, default=4_096,
        help="of one front door; more are closed (%(default)s)")  # fmt: skip
    add("--connections-per-peer", metavar="N", type=_positive, default=2_048,
        help="of those, from one address (%(default)s)")  # fmt: skip
    add("--idle-timeout", metavar="S", type=_seconds, default=300.0,
        help="seconds for which a worker without work is kept (%(default)g)")  # fmt: skip
    add(
        "--grace",
        metavar="S",
        type=_seconds,
        default=30.0,
        help="grace period of SIGTERM, seconds (%(default)g)",
    )
    add("--log-level", choices=["debug", "info", "warning", "error"], default="info", help="(%(default)s)")
    add("--require-isolation", choices=["any", "full"],
        help="full: do not start on a host that cannot enforce everything; see doctor (full as root, else any)")  # fmt: skip

    add("--egress-allow", metavar="CIDR", action="append",
        help="an IPv4 network inside that functions with network egress may reach; repeat it")  # fmt: skip
    add("--egress-dns", metavar="ADDR", action="append",
        help="their name server; repeat it (those of the host)")  # fmt: skip
    add("--function-endpoint", metavar="URL",
        help="where functions reach this server: SDKs in them are told, and network egress lets them (they are told nothing)")  # fmt: skip
    add("--role-credentials", metavar="MIN", type=_minutes, default=360.0,
        help="minutes for which credentials of execution roles are valid (%(default)g)")  # fmt: skip
    add("--event-queue-depth", metavar="N", type=_positive, default=100_000,
        help="asynchronous events of one function that may wait; more are answered 429 (%(default)s)")  # fmt: skip
    add("--event-concurrency", metavar="N", type=_positive, default=64,
        help="asynchronous events that run at a time (%(default)s)")  # fmt: skip
    add("--event-retry-waits", metavar="S,S", type=_waits, default=(60.0, 120.0),
        help="seconds before an event that has failed runs again, and again (60,120)")  # fmt: skip
    add(
        "--sqs-endpoint",
        metavar="URL",
        help="where destinations that are SQS queues are; aws: at AWS (nowhere)",
    )
    add("--sns-endpoint", metavar="URL", help="the same for SNS topics")
    add("--destination-credentials", metavar="FILE",
        help="credentials for them, in the form of ~/.aws/credentials (those of the environment)")  # fmt: skip
    add("--s3-endpoint", metavar="URL",
        help="where code named by S3Bucket and S3Key is; aws: at AWS (code comes inline only)")  # fmt: skip
    add("--s3-credentials", metavar="FILE", help="credentials for it, likewise")
    add("--image-registry", metavar="URL", action="append",
        help="container images may come from this registry, too: https://HOST[:PORT]; repeat it (this host's own only)")  # fmt: skip
    add("--image-credentials", metavar="FILE",
        help="credentials for them, in the form of ~/.docker/config.json")  # fmt: skip
    add("--http-destination", metavar="URL", action="append",
        help="destinations may lie below this URL; repeat it (no URL may be one)")  # fmt: skip
    add("--allow-host-network", action="store_true", help="let functions have network host, which is weak")
    add("--io-rate", metavar="MIB", type=_count, default=200,
        help="MiB/s of each disk that a function of 1,769 MB may read, and write as much (%(default)s); 0: no limit")  # fmt: skip
    add("--io-operations", metavar="N", type=_count, default=10_000,
        help="operations a second, likewise (%(default)s)")  # fmt: skip


def _add_env(commands: Commands) -> None:
    parser = _command(
        commands, "env", "host:env", "print the variables that clients need, as export lines",
        'For boto3, the AWS CLI, curl and gRPC clients: eval "$(forklight env)"',
    )  # fmt: skip
    _add_json(parser)


def _add_deploy(commands: Commands) -> None:
    parser = _command(
        commands, "deploy", "deploy:run", "make a function from a folder, or send what has changed of it",
        "Returns when the function can be invoked. Files that a .forklightignore in the folder names (lines as in\n"
        ".gitignore) stay out, and so do .git, __pycache__, *.pyc and .venv. Options that are not given leave an\n"
        "existing function as it is.",
    )  # fmt: skip
    _add_deploying(parser)
    _add_json(parser)


def _add_dev(commands: Commands) -> None:
    parser = _command(
        commands, "dev", "dev:run", "deploy a folder, again whenever a file of it changes, and print its log",
        "Takes what deploy takes. Ends with Ctrl-C; the function stays. What a change breaks is said, and the next one mends it.",
    )  # fmt: skip
    _add_deploying(parser)
    parser.add_argument("--invoke", metavar="JSON|@FILE", help="also run it with this event, each time")


def _add_deploying(parser: argparse.ArgumentParser) -> None:
    """What `deploy` and `dev` take."""
    add = parser.add_argument
    add("folder", metavar="DIR", help="its contents become the code")
    add("--handler", metavar="MODULE.FUNCTION", help="what to call; needed for a new function")
    add("--name", help="name of the function (the folder's name)")
    add(
        "--runtime",
        metavar="NAME",
        help="python3.11 and so on; see runtimes (that of this command, or the newest)",
    )
    add("--memory", metavar="MB", type=int, help="memory; CPU time goes with it (128)")
    add("--timeout", metavar="S", type=int, help="seconds that an invocation may take (3)")
    add("--tmp", metavar="MB", type=int, help="size of /tmp (512)")
    add("--env", metavar="KEY=VALUE", action="append",
        help="environment variable; repeat it; given once, the function has these and no others")  # fmt: skip
    add("--isolation", choices=["reuse", "tenant", "request"],
        help="what a worker serves: one invocation after another, those of one tenant, exactly one (reuse)")  # fmt: skip
    add("--snapshot", choices=["off", "on", "auto"],
        help="fork workers from a process that has run the module code; auto: where that can be done (auto)")  # fmt: skip
    add("--network", choices=["none", "egress", "host"],
        help="what a worker can reach: nothing, the public internet, whatever the host can (none)")  # fmt: skip


def _add_invoke(commands: Commands) -> None:
    parser = _command(
        commands, "invoke", "invoke:run", "run a function and print what it returns",
        "The answer goes to stdout, the log (with --log) to stderr. Exit status 1 when the function failed.",
    )  # fmt: skip
    add = parser.add_argument
    add("name", metavar="NAME", help="name or ARN")
    add("--payload", metavar="JSON|@FILE|-", help="the event: JSON, a file, or standard input ({})")
    add("--async", dest="asynchronous", action="store_true", help="queue the event and do not wait")
    add("--log", action="store_true", help="print the end of the invocation's log")
    add("--qualifier", metavar="NAME", help="version or alias")
    add("--tenant", metavar="ID", help="whose call it is, for functions with isolation tenant")


def _add_list(commands: Commands) -> None:
    _add_json(_command(commands, "list", "functions:list_functions", "list the functions"))


def _add_logs(commands: Commands) -> None:
    parser = _command(commands, "logs", "logs:run", "print what a function has written")
    add = parser.add_argument
    add("name", metavar="NAME", help="name or ARN")
    add("--follow", "-f", action="store_true", help="go on as more comes, until Ctrl-C")
    add("--since", metavar="TIME", help="10m, 2h, 3d, or a time like 2026-01-31T12:00:00Z (everything kept)")
    add("--json", action="store_true", help="print one JSON object per event")


def _add_usage(commands: Commands) -> None:
    parser = _command(
        commands, "usage", "usage:run", "print what functions have used, by day",
        "Billed time is the host's measure of each invocation, rounded up to a millisecond; GB-s is that times the function's\n"
        "memory. CPU time and peak private memory are what its workers said. Days are UTC; deleted functions are in it, too.",
    )  # fmt: skip
    parser.add_argument("--function", metavar="NAME", help="only of this one: name or ARN")
    parser.add_argument("--since", metavar="DATE", help="from this day on, such as 2026-01-31")
    _add_json(parser)


def _add_delete(commands: Commands) -> None:
    parser = _command(commands, "delete", "functions:delete", "delete functions", "Asks first on a terminal.")
    parser.add_argument("names", metavar="NAME", nargs="+", help="name or ARN")
    parser.add_argument("--yes", "-y", action="store_true", help="do not ask")


def _add_kill(commands: Commands) -> None:
    parser = _command(
        commands, "kill", "functions:kill", "end all workers of functions, whatever they do",
        "Their callers get an error of type Sandbox.Killed. The next call starts a new worker.",
    )  # fmt: skip
    parser.add_argument("names", metavar="NAME", nargs="+", help="name or ARN")


def _add_keys(commands: Commands) -> None:
    keys = commands.add_parser("keys", help="access keys of users: create, list, revoke")
    actions = keys.add_subparsers(title="actions", metavar="ACTION", required=True)
    parser = _command(
        actions, "create", "keys:create", "make an access key, and its user if there is none",
        "Prints the key, its secret and its token for gRPC as export lines; nobody can ask for them again.\n"
        "A user may do nothing but what his policies allow.",
    )  # fmt: skip
    parser.add_argument("user", metavar="USER")
    parser.add_argument("--policy", metavar="NAME|ARN|@FILE",
        help="what he may do: AWSLambda_FullAccess or another policy of AWS, a managed policy's ARN, or a document")  # fmt: skip
    _add_json(parser)
    _add_json(_command(actions, "list", "keys:list_keys", "list the access keys of users"))
    parser = _command(
        actions, "revoke", "keys:revoke", "delete access keys",
        "No front door accepts them, nor what was made with them, when this returns.",
    )  # fmt: skip
    parser.add_argument("keys", metavar="KEY", nargs="+", help="id of an access key")
    parser.add_argument("--yes", "-y", action="store_true", help="do not ask")


def _add_images(commands: Commands) -> None:
    images = commands.add_parser("images", help="container images: import, list, remove")
    actions = images.add_subparsers(title="actions", metavar="ACTION", required=True)
    parser = _command(
        actions, "import", "images:import_image", "bring an image from a file or folder into the server's registry",
        "PATH is an OCI layout, an archive of one, or what `docker save` and its kin write.",
    )  # fmt: skip
    parser.add_argument("path", metavar="PATH")
    parser.add_argument("--name", metavar="NAME:TAG", required=True,
        help="as functions will name it: 123456789012.dkr.ecr.REGION.amazonaws.com/my-function:latest")  # fmt: skip
    parser.add_argument("--platform", metavar="ARCH", help="amd64 or arm64, of several (this machine's)")
    _add_json(parser)
    _add_json(_command(actions, "list", "images:list_images", "list the images of the server's registry"))
    parser = _command(
        actions, "remove", "images:remove", "remove images, tags or whole repositories",
        "Functions keep the image that they were made with.",
    )  # fmt: skip
    parser.add_argument("names", metavar="REPOSITORY[:TAG|@DIGEST]", nargs="+")
    parser.add_argument("--yes", "-y", action="store_true", help="do not ask")


def _add_doctor(commands: Commands) -> None:
    parser = _command(
        commands, "doctor", "host:doctor", "say what can and cannot be isolated here",
        "Asks the running server; without one, makes one sandbox for a trial as the present user.\n"
        "Exit status 1 when functions cannot be isolated at all.",
    )  # fmt: skip
    _add_json(parser)


def _add_runtimes(commands: Commands) -> None:
    _add_json(_command(commands, "runtimes", "functions:runtimes", "list the runtimes of the server"))


def _add_systemd_unit(commands: Commands) -> None:
    parser = _command(
        commands, "systemd-unit", "systemd_unit:run", "print a systemd unit that keeps a server running",
        "As root: forklight systemd-unit -- --http 0.0.0.0:8080 >/etc/systemd/system/forklight.service\n"
        "         systemctl daemon-reload && systemctl enable --now forklight\n"
        "What follows -- becomes arguments of serve.",
    )  # fmt: skip
    parser.add_argument("--grace", metavar="S", type=_seconds, default=30.0,
        help="grace period of a stop, seconds (%(default)g)")  # fmt: skip
    parser.add_argument("serve_arguments", metavar="ARGUMENT", nargs="*", help="of serve")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return value


def _minutes(text: str) -> float:
    value = float(text)
    if not 0.01 <= value <= 60 * 24 * 7:
        raise argparse.ArgumentTypeError(f"{text}: must be minutes of a week at most")
    return value


def _count(text: str) -> int:
    value = int(text)
    if not 0 <= value < 1 << 40:
        raise argparse.ArgumentTypeError(f"{text}: must not be negative")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text}: must be a number of seconds, not negative")
    return value


def _waits(text: str) -> tuple[float, ...]:
    return tuple(_seconds(part) for part in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
