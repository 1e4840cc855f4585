"""START, END and REPORT in AWS Lambda's exact words.  Written by the platform, so that a function cannot forge them.

Text form as recorded from AWS; JSON form (LogFormat JSON) are the Telemetry API's platform records, as many of them as the
function's SystemLogLevel lets through: levels as in AWS's table of system log events.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gateway.model.function import family_of

if TYPE_CHECKING:
    from gateway.model.invocation import FunctionView


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


def start_records(report: Report, level: str) -> list[str]:
    """The JSON form of START, if the level lets it through."""
    if level == "WARN":
        return []
    record: dict[str, object] = {"requestId": report.request_id, "version": report.version}
    return [_record(report.started_ms, "platform.start", record)]


def closing_records(report: Report, level: str) -> list[str]:
    """The JSON form of END and REPORT, if the level lets them through."""
    if level == "WARN" and report.status == "success":
        return []
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
    last = _record(report.ended_ms, "platform.report", record)
    if level != "DEBUG" and report.status == "success":
        return [last]
    return [_record(report.ended_ms, "platform.runtimeDone", done), last]


def init_start_line(runtime: str, region: str, restored: bool = False) -> str:
    """First line of a new worker's stream.  ``restored``: from a snapshot."""
    version, arn = _runtime_version(runtime, region)
    return f"{'RESTORE' if restored else 'INIT'}_START Runtime Version: {version}\tRuntime Version ARN: {arn}"


def init_start_records(view: FunctionView, epoch_ms: int, restored: bool) -> list[str]:
    """Its JSON form."""
    if view.system_level == "WARN":
        return []
    version, arn = _runtime_version(view.runtime, view.region)
    record: dict[str, object] = {} if restored else {"initializationType": "on-demand", "phase": "init"}
    record |= {"runtimeVersion": version, "runtimeVersionArn": arn}
    record |= {"functionName": view.name, "functionVersion": view.version}
    return [_record(epoch_ms, f"platform.{'restore' if restored else 'init'}Start", record)]


def init_report_record(epoch_ms: int, init_ms: float, phase: str, status: str, error_type: str) -> str:
    """The JSON form of `init_report_line`: at every level."""
    record: dict[str, object] = {
        "initializationType": "on-demand",
        "phase": phase,
        "status": status,
        "metrics": {"durationMs": round(init_ms, 3)},
    }
    if error_type:
        record["errorType"] = error_type
    return _record(epoch_ms, "platform.initReport", record)


def _runtime_version(runtime: str, region: str) -> tuple[str, str]:
    family = family_of(runtime)
    number = runtime.removeprefix(family).removeprefix(".").removesuffix(".x")
    return f"{family}:{number}.forklight", f"arn:aws:lambda:{region}::runtime:{runtime}"


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
