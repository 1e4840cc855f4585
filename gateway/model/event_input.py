"""What a target of a rule is given of an event: all of it, a constant, a part, or a text with parts put in.

Paths are EventBridge's subset of JSONPath: `$`, names and places in arrays. What a transformer's template becomes follows EventBridge's
user guide ("Input transformation"). Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

MAX_PATHS: Final = 100
MAX_MADE: Final = 2 * 1024 * 1024  # characters; more than any target takes
_STEP: Final = re.compile(r"\.([^.\[\]\s'\"*?@()]+)|\[(\d{1,9})\]|\['([^']+)'\]|\[\"([^\"]+)\"\]")
_PLACEHOLDER: Final = re.compile(r"<([A-Za-z0-9_.\-]+)>")
_KEY: Final = re.compile(r"[A-Za-z0-9_\-]{1,256}", re.ASCII)
_RULE_ARN: Final = "aws.events.rule-arn"
_RULE_NAME: Final = "aws.events.rule-name"
_INGESTED: Final = "aws.events.event.ingestion-time"
_EVENT: Final = "aws.events.event"
_EVENT_JSON: Final = "aws.events.event.json"
_OURS: Final = frozenset((_RULE_ARN, _RULE_NAME, _INGESTED, _EVENT, _EVENT_JSON))
_MISSING: Final = object()

Steps = tuple[str | int, ...]


class BadInput(ValueError):
    """A path or template that is none. `why` is AWS's word for it without the target's id."""


@dataclass(frozen=True, slots=True)
class About:
    """What a template may ask besides the event. `ingested`: when the event was accepted, ISO 8601."""

    rule_arn: str
    rule_name: str
    ingested: str


def parse_path(text: str) -> Steps:
    """Raises BadInput."""
    if not text.startswith("$"):
        raise BadInput("a path begins with $")
    steps: list[str | int] = []
    place = 1
    while place < len(text):
        found = _STEP.match(text, place)
        if found is None:
            raise BadInput(f"not a path: {text}")
        name = found[1] or found[3] or found[4]
        steps.append(name if name is not None else int(found[2]))
        place = found.end()
    return tuple(steps)


def pick(event: Any, steps: Steps) -> Any:
    """What is there; `_MISSING` when nothing is."""
    for step in steps:
        if isinstance(step, int):
            if not isinstance(event, list) or step >= len(event):
                return _MISSING
            event = event[step]
        else:
            if not isinstance(event, dict) or step not in event:
                return _MISSING
            event = event[step]
    return event


class Transformer:
    """An InputTransformer, compiled. Raises BadInput."""

    def __init__(self, paths: Mapping[str, str], template: str) -> None:
        if len(paths) > MAX_PATHS:
            raise BadInput(f"more than {MAX_PATHS} paths")
        for name in paths:
            if name.startswith(("AWS.", "aws.")) or not _KEY.fullmatch(name):
                raise BadInput(f"not a name of a path: {name}")
        self._paths = {name: parse_path(path) for name, path in paths.items()}
        for name in _PLACEHOLDER.findall(template):
            if name not in self._paths and name not in _OURS:
                raise BadInput(f"the template uses <{name}>, which InputPathsMap does not have")
        self._template = template
        self._pieces = _pieces(template)

    def apply(self, event: dict[str, Any], raw: bytes, about: About) -> bytes:
        """The text that a target is given: mostly JSON; nothing makes it so. It ends where it is longer than any target takes: a template
        can name a large event hundreds of times."""

        def value(name: str) -> Any:
            if name in self._paths:
                return pick(event, self._paths[name])
            if name == _EVENT_JSON:
                return event
            if name == _EVENT:  # without its detail, as on AWS
                return {member: found for member, found in event.items() if member != "detail"}
            return {_RULE_ARN: about.rule_arn, _RULE_NAME: about.rule_name, _INGESTED: about.ingested}[name]

        made, size = [], 0
        for text, name, within in self._pieces:
            piece = text if name is None else (_quoted(value(name)) if within else _bare(value(name)))
            made.append(piece)
            size += len(piece)
            if size > MAX_MADE:
                break
        return "".join(made).encode("utf-8", "replace")


def _pieces(template: str) -> list[tuple[str, str | None, bool]]:
    """(text, None, -) and ("", placeholder, whether it stands within quotes), in order."""
    found: list[tuple[str, str | None, bool]] = []
    place, within = 0, False
    for match in _PLACEHOLDER.finditer(template):
        text = template[place : match.start()]
        within ^= _toggles(text)
        found += [(text, None, False), ("", match[1], within)]
        place = match.end()
    return [*found, (template[place:], None, False)]


def _toggles(text: str) -> bool:
    """Whether a text that begins outside of quotes ends within them, or the other way round."""
    odd, place = False, 0
    while place < len(text):
        if text[place] == "\\":
            place += 1
        elif text[place] == '"':
            odd = not odd
        place += 1
    return odd


def _bare(value: Any) -> str:
    """As JSON."""
    return '""' if value is _MISSING else orjson.dumps(value).decode()


def _quoted(value: Any) -> str:
    """Within quotes: a string without its own, anything else as JSON whose quotes are left out."""
    if value is _MISSING:
        return ""
    if isinstance(value, str):
        return orjson.dumps(value).decode()[1:-1]
    return orjson.dumps(value).decode().replace("\\", "").replace('"', "")


Make = Callable[[dict[str, Any], bytes, About], bytes]


def maker(target: Mapping[str, Any]) -> Make:
    """Of a target of a rule, with AWS's members: (event, the event as it is on the wire, about) -> what the target is given.
    Raises BadInput."""
    if target.get("Input") is not None:
        constant = str(target["Input"]).encode()
        return lambda event, raw, about: constant
    if target.get("InputPath") is not None:
        steps = parse_path(str(target["InputPath"]))
        if not steps:
            return lambda event, raw, about: raw

        def part(event: dict[str, Any], raw: bytes, about: About) -> bytes:
            found = pick(event, steps)
            return b"{}" if found is _MISSING else orjson.dumps(found)

        return part
    transformer = target.get("InputTransformer")
    if transformer is not None:
        return Transformer(transformer.get("InputPathsMap") or {}, transformer["InputTemplate"]).apply
    return lambda event, raw, about: raw
