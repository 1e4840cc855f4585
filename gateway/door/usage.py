"""What invocations used leaves the door, or stays for the next time."""

from __future__ import annotations

from gateway.dispatch.metrics import DoorMetrics
from gateway.door.control_client import ControlClient


def pass_usage_on(metrics: DoorMetrics, control: ControlClient) -> None:
    rows = metrics.take_usage()
    if rows and not control.send_usage(rows):
        metrics.return_usage(rows)
