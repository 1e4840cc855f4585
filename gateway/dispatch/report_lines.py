"""START, END and REPORT in AWS Lambda's exact words.  Written by the platform, so that a function cannot forge them.

Text form as recorded from AWS; JSON form (LogFormat JSON) are the Telemetry API's platform records.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime

from gateway.model.function import family_of


@dataclass(slots=True)
class Report:
    """The facts that the platform's own lines state.  Times: nanoseconds of duration, epoch ms of the clock."""

    request_id: str
    version: str
    started_ms: int
    ended_ms: int
    duration_ns: int
    billed_ms: int
    memory_mb: int
    peak_kib: int
    init_us: int | None  # None on a warm call
    status: str  # "success" | "error" | "timeout"
    error_type: str = ""
    note: str = ""  # a further line before END, such as the time-out's
    death: str = ""  # how its worker ended, two lines before END
    restore_us: int | None = None  # of the first call of a worker from a snapshot, instead of init_us


def start_line(report: Report) -> str:
    """Without a line end: one event."""
    return f"START RequestId: {report.request_id} Version: {report.version}"


def closing_lines(report: Report) -> list[str]:
    """What follows the function's output: the note if there is one, END, REPORT."""
    lines = []
    if report.note:
        lines.append(f"{iso_ms(report.ended_ms)} {report.request_id} {report.note}\n")
    if report.death:
        lines.append(report.death + "\n")
    lines.append(f"END RequestId: {report.request_id}")
    peak_mb = max(1, -(-report.peak_kib // 1024)) if report.peak_kib else 1
    line = (
        f"REPORT RequestId: {report.request_id}\tDuration: {report.duration_ns / 1e6:.2f} ms\t"
        f"Billed Duration: {report.billed_ms} ms\tMemory Size: {report.memory_mb} MB\t"
        f"Max Memory Used: {min(peak_mb, report.memory_mb)} MB\t"
    )
    if report.init_us is not None:
        line += f"Init Duration: {report.init_us / 1000:.2f} ms\t"
    if report.restore_us is not None:
        billed_ms = -(-report.restore_us // 1000)
        line += (
            f"Restore Duration: {report.restore_us / 1000:.2f} ms\tBilled Restore Duration: {billed_ms} ms\t"
        )
    if report.status == "timeout":
        line += "Status: timeout"
    elif report.error_type:
        line += f"Status: error\tError Type: {report.error_type}"
    lines.append(line)
    return lines


def start_record(report: Report) -> str:
    """The JSON form of START."""
    return _record(
        report.started_ms, "platform.start", {"requestId": report.request_id, "version": report.version}
    )


def closing_records(report: Report) -> list[str]:
    """The JSON form of END and REPORT."""
    metrics: dict[str, float | int] = {
        "durationMs": round(report.duration_ns / 1e6, 3),
        "billedDurationMs": report.billed_ms,
        "memorySizeMB": report.memory_mb,
        "maxMemoryUsedMB": min(max(1, -(-report.peak_kib // 1024)), report.memory_mb),
    }
    if report.init_us is not None:
        metrics["initDurationMs"] = round(report.init_us / 1000, 3)
    if report.restore_us is not None:
        metrics["restoreDurationMs"] = round(report.restore_us / 1000, 3)
    record: dict[str, object] = {
        "requestId": report.request_id,
        "metrics": metrics,
        "status": report.status,
    }
    if report.error_type:
        record["errorType"] = report.error_type
    done: dict[str, object] = {"requestId": report.request_id, "status": report.status}
    if report.death:
        done["errorType"] = report.error_type
    return [
        _record(report.ended_ms, "platform.runtimeDone", done),
        _record(report.ended_ms, "platform.report", record),
    ]


def init_start_line(runtime: str, region: str, restored: bool = False) -> str:
    """First line of a new worker's stream.  ``restored``: from a snapshot."""
    family = family_of(runtime)
    number = runtime.removeprefix(family).removeprefix(".").removesuffix(".x")
    return (
        f"{'RESTORE' if restored else 'INIT'}_START Runtime Version: {family}:{number}.forklight\t"
        f"Runtime Version ARN: arn:aws:lambda:{region}::runtime:{runtime}"
    )


def init_report_line(init_ms: float, phase: str, status: str, error_type: str = "") -> str:
    """Of an initialisation that did not end well. `phase`: "init", or "invoke" when it was done again within an invocation."""
    line = f"INIT_REPORT Init Duration: {init_ms:.2f} ms\tPhase: {phase}\tStatus: {status}"
    return f"{line}\tError Type: {error_type}" if error_type else line


def iso_ms(epoch_ms: int) -> str:
    """UTC, milliseconds, Z."""
    moment = datetime.fromtimestamp(epoch_ms / 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{epoch_ms % 1000:03d}Z"


def _record(epoch_ms: int, kind: str, record: dict[str, object]) -> str:
    return json.dumps({"time": iso_ms(epoch_ms), "type": kind, "record": record}, separators=(",", ":"))
