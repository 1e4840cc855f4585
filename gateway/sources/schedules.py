"""Schedules of EventBridge Scheduler, as control tells them: a timer for each, and what its target is given when it is due."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable
from typing import Any, Final

import orjson

from gateway.model.arn import ACCOUNT_ID
from gateway.model.handover import MAX_AGE_S, MAX_RETRIES, Handover, Labels, Origin, Route
from gateway.model.schedule_expression import BadSchedule, find_zone, parse_schedule
from gateway.sources.clockwork import Timer

SERVICE: Final = "scheduler.amazonaws.com"
_ATTRIBUTE: Final = re.compile(r"<aws\.scheduler\.(schedule-arn|scheduled-time|execution-id|attempt-number)>")
log = logging.getLogger("forklight.schedules")

Count = Callable[[str, Labels, int], None]


def labels_of(item: dict[str, Any]) -> Labels:
    return (("region", item["region"]), ("group", item["group"]), ("schedule", item["name"]))


def timer_of(item: dict[str, Any], count: Count, completed: Callable[[str, str], None]) -> Timer | None:
    """As gateway.control.schedules says it; None of one that is disabled or cannot be understood. `completed(arn, mark)` is called for
    those that are to be deleted when they have run for the last time."""
    if not item["enabled"]:
        return None
    anchor, start = int(item["anchor_s"]), item["start_s"]
    begin = anchor if start is None else max(anchor, int(start))
    try:
        schedule = parse_schedule(item["schedule"], begin, find_zone(item["zone"]))
    except BadSchedule as error:
        log.error("schedule %s cannot be understood (%s): a later release has made it", item["arn"], error)
        return None
    labels, target = labels_of(item), item["target"]
    origin = Origin("schedule", item["arn"], item["name"], item["region"], SERVICE, labels)
    route = _route(target)

    def make(due_s: int) -> list[Handover]:
        count("forklight_schedule_runs_total", labels, 1)
        execution = uuid.uuid4()
        payload = _payload(origin, target.get("Input"), due_s, execution.hex[:16])
        more = {"EXECUTION_ID": execution.hex[:16], "SCHEDULED_TIME": _iso(due_s)}
        return [Handover(origin, route, payload, payload, str(execution), int(time.time() * 1000), more)]

    def done() -> None:
        completed(item["arn"], item["mark"])

    return Timer(
        item["arn"], item["mark"], schedule,
        # A rate begins with its first time. What was over before the schedule was there never happens.
        first_s=schedule.after((begin if schedule.recurs else anchor) - 1),
        make=make,
        end_s=None if item["end_s"] is None or not schedule.recurs else int(item["end_s"]),
        window_s=60 * int(item["window_min"] or 0),
        age_s=route.age_s,
        completed=done if item["delete"] else None,
        missed=lambda number: count("forklight_schedule_missed_total", labels, number),
    )  # fmt: skip


def _route(target: dict[str, Any]) -> Route:
    policy = target.get("RetryPolicy") or {}
    return Route(
        target["Arn"],
        role=target["RoleArn"],
        retries=policy.get("MaximumRetryAttempts", MAX_RETRIES),
        age_s=policy.get("MaximumEventAgeInSeconds", MAX_AGE_S),
        dead_letters=(target.get("DeadLetterConfig") or {}).get("Arn"),
        group=(target.get("SqsParameters") or {}).get("MessageGroupId"),
    )


def _payload(origin: Origin, text: str | None, due_s: int, execution: str) -> bytes:
    """The schedule's input with the context attributes put in; without one the event that Scheduler sends by itself."""
    if text is None:
        return orjson.dumps(
            {
                "version": "0",
                "id": str(uuid.uuid4()),
                "detail-type": "Scheduled Event",
                "source": "aws.scheduler",
                "account": ACCOUNT_ID,
                "time": _iso(due_s),
                "region": origin.region,
                "resources": [origin.arn],
                "detail": "{}",
            }
        )
    values = {
        "schedule-arn": origin.arn,
        "scheduled-time": _iso(due_s),
        "execution-id": execution,
        "attempt-number": "1",
    }
    return _ATTRIBUTE.sub(lambda found: values[found[1]], text).encode()


def _iso(time_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_s))
