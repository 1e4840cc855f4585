"""CloudWatch Logs: what `aws logs tail`, the consoles of IDEs and `forklight logs` read; log_changes.py is the other half.

JSON 1.1: POST / with the operation in X-Amz-Target. Positions in the log store are the continuation tokens.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.model.arn import ACCOUNT_ID
from gateway.model.authority import Who
from gateway.model.errors import ApiError
from gateway.telemetry.log_groups import Group, Position
from gateway.telemetry.log_segments import LogEvent
from gateway.telemetry.logs import LogStore
from gateway.web.apis.access import Context, check_logs
from gateway.web.apis.log_changes import LogChanges
from gateway.web.apis.log_params import find_group, invalid, number, required, text
from gateway.web.apis.log_patterns import message_filter
from gateway.web.apis.wire import Request, parse_document

if TYPE_CHECKING:
    from gateway.control.server import ControlServer

Params = dict[str, Any]
_TARGET = "Logs_20140328."
_MAX_EVENTS = 10_000
_MAX_BYTES = 1024 * 1024  # of messages in one answer
_CONTENT_TYPE = "application/x-amz-json-1.1"


class LogsApi:
    def __init__(self, server: ControlServer) -> None:
        self._store = server.logs
        self._authority = server.identities.authority
        self._operations: dict[str, Callable[[str, Params], Params]] = {
            "DescribeLogGroups": self._describe_groups,
            "DescribeLogStreams": self._describe_streams,
            "FilterLogEvents": self._filter,
            "GetLogEvents": self._get_events,
            **LogChanges(server.logs).operations(),
        }

    async def handle(
        self, region: str, request: Request, who: Who, context: Context
    ) -> tuple[int, dict[str, str], bytes]:
        """Raises ApiError. The disk is read in another thread."""
        target = request.headers.get("x-amz-target", "")
        operation = self._operations.get(target.removeprefix(_TARGET))
        if operation is None or not target.startswith(_TARGET):
            name = target.rpartition(".")[2][:100]
            raise ApiError("NotImplementedException", f"Operation {name} is not implemented by this host.")
        params = parse_document(request.body)
        check_logs(self._authority, who, region, target.removeprefix(_TARGET), params, context)
        document = await asyncio.to_thread(operation, region, params)
        answer = json.dumps(document, ensure_ascii=False).encode()
        return 200, {"Content-Type": _CONTENT_TYPE}, answer

    def _describe_groups(self, region: str, params: Params) -> Params:
        prefix, pattern = text(params, "logGroupNamePrefix"), text(params, "logGroupNamePattern")
        after, limit = _decode_name(params), _limit(params, 50)
        names = [
            group
            for group in self._store.groups(region)
            if group.name.startswith(prefix) and pattern.lower() in group.name.lower() and group.name > after
        ]
        document: Params = {"logGroups": [_group_document(group) for group in names[:limit]]}
        if len(names) > limit:
            document["nextToken"] = _encode_name(names[limit - 1].name)
        return document

    def _describe_streams(self, region: str, params: Params) -> Params:
        group = find_group(self._store, region, params)
        prefix, after, limit = text(params, "logStreamNamePrefix"), _decode_name(params), _limit(params, 50)
        by_time = params.get("orderBy") == "LastEventTime"
        streams = [item for item in self._store.streams(group).items() if item[0].startswith(prefix)]
        # The name makes the order total, so that a page can begin behind a stream by its place in it.
        streams.sort(
            key=lambda item: (item[1][1] if by_time else 0, item[0]), reverse=bool(params.get("descending"))
        )
        names = [name for name, _ in streams]
        begin = names.index(after) + 1 if after in names else 0
        page = streams[begin : begin + limit]
        document: Params = {"logStreams": [_stream_document(group, name, times) for name, times in page]}
        if begin + limit < len(streams):
            document["nextToken"] = _encode_name(page[-1][0])
        return document

    def _filter(self, region: str, params: Params) -> Params:
        group = find_group(self._store, region, params)
        if params.get("logStreamNames") and params.get("logStreamNamePrefix"):
            raise invalid("Only one of logStreamNames and logStreamNamePrefix can be given.")
        selection = _Selection.of(params)
        limit = _limit(params, _MAX_EVENTS)
        events, place = _collect(self._store, group, _position(params.get("nextToken")), selection, limit)
        events = _by_time(events)
        document: Params = {
            "events": [
                {**_event_document(event), "logStreamName": event.stream, "eventId": event.event_id}
                for event in events
            ],
            "searchedLogStreams": [],
        }
        if place is not None:
            document["nextToken"] = f"f/{place.segment}/{place.offset}"
        return document

    def _get_events(self, region: str, params: Params) -> Params:
        group = find_group(self._store, region, params)
        name = required(params, "logStreamName")
        selection = _Selection.of({**params, "logStreamNames": [name]})
        limit = _limit(params, _MAX_EVENTS)
        token = params.get("nextToken")
        if params.get("startFromHead") or token:
            events, place = _collect(self._store, group, _position(token), selection, limit)
            end = place or _end(self._store, group)
        else:
            events, _ = _collect(self._store, group, Position(), selection, None)
            events, end = events[-limit:], _end(self._store, group)
        if not events and not token and name not in self._store.streams(group):
            raise ApiError(
                "ResourceNotFoundException", "The specified log stream does not exist.", status=400
            )
        return {
            "events": [_event_document(event) for event in events],
            # A reader is at the end when it gets the token that it sent.
            "nextForwardToken": f"f/{end.segment}/{end.offset}",
            "nextBackwardToken": "b/0/0",
        }


@dataclass(slots=True)
class _Selection:
    """Which events of a group are wanted; times in epoch ms, both inclusive."""

    start: int
    end: int
    streams: frozenset[str] | None
    prefix: str
    matches: Callable[[str], bool]

    @classmethod
    def of(cls, params: Params) -> _Selection:
        names = params.get("logStreamNames")
        return cls(
            start=number(params, "startTime", 0),
            end=number(params, "endTime", 1 << 62),
            streams=frozenset(map(str, names)) if isinstance(names, list) and names else None,
            prefix=text(params, "logStreamNamePrefix"),
            matches=message_filter(text(params, "filterPattern")),
        )

    def wants(self, event: LogEvent) -> bool:
        return (
            self.start <= event.timestamp <= self.end
            and (self.streams is None or event.stream in self.streams)
            and event.stream.startswith(self.prefix)
            and self.matches(event.message)
        )


def _collect(
    store: LogStore, group: Group, place: Position | None, selection: _Selection, limit: int | None
) -> tuple[list[LogEvent], Position | None]:
    """At most `limit` events and about a megabyte from `place` on, and where to go on (None: nothing is left)."""
    found: list[LogEvent] = []
    size = 0
    while place is not None:
        events, place = store.read(group, place)
        for event in events:
            if not selection.wants(event):
                continue
            size += len(event.message)
            if limit is not None and (len(found) >= limit or (found and size > _MAX_BYTES)):
                return found, Position(event.segment, event.offset)
            found.append(event)
    return found, None


def _by_time(events: list[LogEvent]) -> list[LogEvent]:
    """Streams mixed by time, each in its own order: a worker's last line may be read after its invocation's end."""
    latest: dict[str, int] = {}
    times: list[int] = []
    for event in events:
        latest[event.stream] = max(event.timestamp, latest.get(event.stream, 0))
        times.append(latest[event.stream])
    order = sorted(range(len(events)), key=times.__getitem__)
    return [events[number] for number in order]


def _end(store: LogStore, group: Group) -> Position:
    return Position(group.segment, group.size)


def _group_document(group: Group) -> Params:
    arn = f"arn:aws:logs:{group.region}:{ACCOUNT_ID}:log-group:{group.name}"
    return {
        "logGroupName": group.name,
        "creationTime": group.created,
        "metricFilterCount": 0,
        "arn": f"{arn}:*",
        "logGroupArn": arn,
        "storedBytes": group.stored,
        "logGroupClass": "STANDARD",
        **({"retentionInDays": group.retention_days} if group.retention_days else {}),
    }


def _stream_document(group: Group, name: str, times: tuple[int, int, int]) -> Params:
    seen = {"firstEventTimestamp": times[0], "lastEventTimestamp": times[1], "lastIngestionTime": times[2]}
    return {
        "logStreamName": name,
        "creationTime": group.made.get(name, times[0]),
        **(seen if times[2] else {}),
        "arn": f"arn:aws:logs:{group.region}:{ACCOUNT_ID}:log-group:{group.name}:log-stream:{name}",
        "storedBytes": 0,
    }


def _event_document(event: LogEvent) -> Params:
    return {"timestamp": event.timestamp, "message": event.message, "ingestionTime": event.ingested}


def _position(token: object) -> Position:
    if not token:
        return Position()
    match = re.fullmatch(r"[fb]/(\d{1,15})/(\d{1,15})", str(token))
    if match is None:
        raise invalid("The specified nextToken is invalid.")
    return Position(int(match[1]), int(match[2]))


def _encode_name(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode()


def _decode_name(params: Params) -> str:
    token = params.get("nextToken")
    if not token:
        return ""
    try:
        return base64.urlsafe_b64decode(str(token)).decode()
    except ValueError:
        raise invalid("The specified nextToken is invalid.") from None


def _limit(params: Params, most: int) -> int:
    limit = number(params, "limit", most)
    if limit < 1:
        raise invalid("limit must be at least 1.")
    return min(limit, most)
