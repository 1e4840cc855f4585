"""CloudWatch Logs, the changing half: groups and streams made and deleted, retention, tags, events of the caller's own.

Function logs need none of it: their groups and streams are there when something is written.
"""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Callable
from typing import Any

from gateway.model.errors import ApiError
from gateway.telemetry.log_groups import TooManyStreams
from gateway.telemetry.logs import LogStore
from gateway.web.apis.log_params import Params, find_group, invalid, missing, number, required, strings

# Days, as CloudWatch Logs' API reference lists them.
RETENTIONS = (
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653,
)  # fmt: skip
_GROUP_NAME = re.compile(r"[.\-_/#A-Za-z0-9]{1,512}")
_STREAM_NAME = re.compile(r"[^:*]{1,512}")
_MOST_EVENTS, _MOST_BYTES, _EVENT_BYTES = (
    10_000,
    1_048_576,
    26,
)  # of one PutLogEvents; of an event beside its text
_OLDEST_MS, _NEWEST_MS = 14 * 24 * 3600 * 1000, 2 * 3600 * 1000


class LogChanges:
    def __init__(self, store: LogStore) -> None:
        self._store = store

    def operations(self) -> dict[str, Callable[[str, Params], Params]]:
        return {
            "CreateLogGroup": self._create_group,
            "DeleteLogGroup": self._delete_group,
            "CreateLogStream": self._create_stream,
            "DeleteLogStream": self._delete_stream,
            "PutRetentionPolicy": self._put_retention,
            "DeleteRetentionPolicy": self._delete_retention,
            "PutLogEvents": self._put_events,
            "TagResource": self._tag,
            "UntagResource": self._untag,
            "ListTagsForResource": self._tags,
            "ListTagsLogGroup": self._tags,
        }

    def _create_group(self, region: str, params: Params) -> Params:
        name = required(params, "logGroupName")
        if _GROUP_NAME.fullmatch(name) is None:
            raise _pattern(name, "logGroupName", _GROUP_NAME)
        if not self._store.create_group(region, name, strings(params, "tags")):
            raise _exists("group")
        return {}

    def _delete_group(self, region: str, params: Params) -> Params:
        self._store.delete_group(find_group(self._store, region, params))
        return {}

    def _create_stream(self, region: str, params: Params) -> Params:
        group, name = find_group(self._store, region, params), required(params, "logStreamName")
        if _STREAM_NAME.fullmatch(name) is None:
            raise _pattern(name, "logStreamName", _STREAM_NAME)
        try:
            new = self._store.create_stream(group, name)
        except TooManyStreams:
            raise ApiError("LimitExceededException", "Resource limit exceeded.", status=400) from None
        if not new:
            raise _exists("stream")
        return {}

    def _delete_stream(self, region: str, params: Params) -> Params:
        group, name = find_group(self._store, region, params), required(params, "logStreamName")
        if name not in self._store.streams(group):
            raise missing("log stream")
        self._store.delete_stream(group, name)
        return {}

    def _put_retention(self, region: str, params: Params) -> Params:
        days = number(params, "retentionInDays", 0)
        if days not in RETENTIONS:
            raise invalid(
                f"1 validation error detected: Value '{days}' at 'retentionInDays' failed to satisfy constraint: "
                f"Member must satisfy enum value set: [{', '.join(map(str, RETENTIONS))}]"
            )
        self._store.set_retention(find_group(self._store, region, params), days)
        return {}

    def _delete_retention(self, region: str, params: Params) -> Params:
        self._store.set_retention(find_group(self._store, region, params), None)
        return {}

    def _put_events(self, region: str, params: Params) -> Params:
        group, name = find_group(self._store, region, params), required(params, "logStreamName")
        if name not in self._store.streams(group):
            raise missing("log stream")
        events = _events(params)
        now = int(time.time() * 1000)
        expired = [stamp < group.expired_before() for stamp, _ in events].count(True)
        old = [stamp < now - _OLDEST_MS for stamp, _ in events].count(True)
        new = [stamp > now + _NEWEST_MS for stamp, _ in events].count(True)
        taken = events[max(expired, old) : len(events) - new]
        rows = [[region, group.name, name, stamp, message] for stamp, message in taken]
        if rows:
            if not self._store.append("\n".join(map(json.dumps, rows)).encode()):
                raise ApiError("ServiceUnavailableException", "Too much is waiting to be written.")
            self._store.flush()
        rejected = {
            **({"expiredLogEventEndIndex": expired} if expired else {}),
            **({"tooOldLogEventEndIndex": old} if old else {}),
            **({"tooNewLogEventStartIndex": len(events) - new} if new else {}),
        }
        answer: Params = {"nextSequenceToken": str(now)}
        return {**answer, "rejectedLogEventsInfo": rejected} if rejected else answer

    def _tag(self, region: str, params: Params) -> Params:
        group = find_group(self._store, region, params)
        self._store.set_tags(group, {**group.tags, **strings(params, "tags")})
        return {}

    def _untag(self, region: str, params: Params) -> Params:
        group = find_group(self._store, region, params)
        gone = params.get("tagKeys") or []
        if not isinstance(gone, list):
            raise invalid("tagKeys is not a list.")
        self._store.set_tags(group, {key: value for key, value in group.tags.items() if key not in gone})
        return {}

    def _tags(self, region: str, params: Params) -> Params:
        return {"tags": find_group(self._store, region, params).tags}


def _events(params: Params) -> list[tuple[int, str]]:
    """Time and text of each. Raises ApiError."""
    given: Any = params.get("logEvents")
    if not isinstance(given, list) or not given or not all(isinstance(event, dict) for event in given):
        raise invalid("logEvents is not a list of events.")
    events = [(number(event, "timestamp", -1), required(event, "message")) for event in given]
    if any(stamp < 0 for stamp, _ in events):
        raise invalid("timestamp is required.")
    if len(events) > _MOST_EVENTS:
        raise invalid(f"Upload too large: {len(events)} events exceed the limit of {_MOST_EVENTS}")
    size = sum(len(message.encode("utf-8", "replace")) + _EVENT_BYTES for _, message in events)
    if size > _MOST_BYTES:
        raise invalid(f"Upload too large: {size} bytes exceeds limit of {_MOST_BYTES}")
    if any(later[0] < earlier[0] for earlier, later in itertools.pairwise(events)):
        raise invalid("Log events in a single PutLogEvents request must be in chronological order.")
    return events


def _exists(what: str) -> ApiError:
    return ApiError("ResourceAlreadyExistsException", f"The specified log {what} already exists", status=400)


def _pattern(value: str, member: str, pattern: re.Pattern[str]) -> ApiError:
    return invalid(
        f"1 validation error detected: Value '{value[:600]}' at '{member}' failed to satisfy constraint: "
        f"Member must satisfy regular expression pattern: {pattern.pattern}"
    )
