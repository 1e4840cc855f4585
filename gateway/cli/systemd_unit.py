"""`forklight systemd-unit`: what starts a server at boot, and again when its supervisor dies.

The supervisor starts everything else again by itself; nothing on the host does that for the supervisor but the init system.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from gateway.cli.credentials import default_state_dir

# Longer than the grace period of SIGTERM (--grace, 30 s by default), after which serve ends what still runs by itself.
_STOP_MARGIN_S = 15

_UNIT = """\
[Unit]
Description=Forklight: functions behind AWS Lambda's API
After=network.target
# Start again whatever happens, however often: a supervisor that cannot start says why in its log.
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={command}
Restart=always
RestartSec=200ms
# The supervisor alone gets SIGTERM: it drains the doors and ends the others in order. What is left after it is killed.
KillMode=mixed
TimeoutStopSec={stop_s}
# Each worker costs the supervisor three descriptors, each connection one of a door's.
LimitNOFILE=1048576
TasksMax=infinity
# Sandboxes get cgroups of their own below this one.
Delegate=yes
# When memory is short workers go first, by their own limits.
OOMScoreAdjust=-500
OOMPolicy=continue

[Install]
WantedBy=multi-user.target
"""


def run(arguments: argparse.Namespace) -> int:
    """Prints the unit for this installation; what follows `--` becomes arguments of `serve`."""
    print(unit(arguments.state_dir, arguments.serve_arguments, arguments.grace), end="")
    return 0


def unit(state_dir: str | None, serve_arguments: list[str], grace_s: float) -> str:
    place = str(Path(state_dir or default_state_dir()).absolute())
    program = Path(sys.executable).parent / "forklight"
    command = [str(program), "serve", "--state-dir", place, "--grace", f"{grace_s:g}", *serve_arguments]
    # systemd expands % and $ itself.
    text = shlex.join(command).replace("%", "%%").replace("$", "$$")
    return _UNIT.format(command=text, stop_s=int(grace_s) + _STOP_MARGIN_S)
