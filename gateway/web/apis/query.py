"""The query protocol of IAM and STS: a form in, XML out, by the tables of `service_model`.

Lists are `Tags.member.1.Key=a`, answers `<CreateRoleResponse><CreateRoleResult>...`. Times are strings already.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from gateway.model.authority import Who
from gateway.model.errors import ApiError
from gateway.web.apis.constraints import check
from gateway.web.apis.service_model import Operation, ServiceModel, Shape
from gateway.web.apis.wire import Params, Request, coerce_text
from gateway.web.responses import QUERY_NAMESPACES

MAX_FORM = 512 * 1024  # bytes; the largest policy is a quarter of it
_MAX_FIELDS = 2000
_ENTRY = re.compile(r"member\.([1-9]\d{0,3})(?:\.(.+))?")
# What XML cannot contain at all.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")


@dataclass(slots=True)
class QueryCall:
    """One request to one operation. `params` are of the right types and keep to the model's constraints."""

    who: Who
    region: str
    operation: str
    params: Params
    context: dict[str, list[str]]  # of the request, for conditions
    request_id: str


Handler = Callable[[QueryCall], Awaitable[Params]]
QueryHandlers = Mapping[str, Handler]


async def answer(
    service: str,
    model: ServiceModel,
    handlers: QueryHandlers,
    request: Request,
    call: QueryCall,
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body. `call` without operation and params. Raises ApiError."""
    form = parse_form(request)
    name = form.pop("Action", "")
    form.pop("Version", None)
    operation = model.operations.get(name)
    if operation is None:
        raise ApiError("InvalidAction", f"Could not find operation {name[:100]}", status=400)
    handler = handlers.get(name)
    if handler is None:
        raise ApiError("NotImplementedException", f"Operation {name} is not implemented by this host.")
    call.operation = name
    if operation.input is not None:
        call.params = structure(operation.input, form)
        check(operation.input, call.params)
    result = await handler(call)
    body = response(service, operation, result, call.request_id)
    return 200, {"Content-Type": "text/xml"}, body


def parse_form(request: Request) -> dict[str, str]:
    """Of the body, or of the query. Raises ApiError."""
    if len(request.body) > MAX_FORM:
        raise ApiError("RequestEntityTooLargeException", f"Request must be smaller than {MAX_FORM} bytes")
    try:
        text = request.body.decode() or request.query
        return dict(
            parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text), max_num_fields=_MAX_FIELDS)
        )
    except ValueError:
        raise ApiError("MalformedQueryString", "The query string is malformed.", status=400) from None


def structure(shape: Shape, form: Mapping[str, str]) -> Params:
    """Members of a structure whose fields are the form's, names without prefix. Unknown ones are left out. Raises ApiError."""
    groups: dict[str, dict[str, str]] = {}
    for name, value in form.items():
        first, _, rest = name.partition(".")
        groups.setdefault(first, {})[rest] = value
    return {
        name: _value(member.shape, groups[member.wire_name], name)
        for name, member in shape.members.items()
        if member.wire_name in groups
    }


def _value(shape: Shape, fields: dict[str, str], path: str) -> Any:
    if shape.kind == "structure":
        return structure(shape, fields)
    if shape.kind == "list" and shape.item is not None:
        entries: dict[int, dict[str, str]] = {}
        for name, value in fields.items():
            if not name and not value:
                continue  # an empty list is written so
            match = _ENTRY.fullmatch(name)
            if match is None:
                raise _malformed(path)
            entries.setdefault(int(match[1]), {})[match[2] or ""] = value
        return [_value(shape.item, entry, path) for _, entry in sorted(entries.items())]
    if set(fields) != {""}:
        raise _malformed(path)
    return coerce_text(shape, fields[""], path)


def response(service: str, operation: Operation, result: Params, request_id: str) -> bytes:
    inner = ""
    if operation.output is not None:
        inner = f"<{operation.name}Result>{_members(operation.output, result)}</{operation.name}Result>"
    return (
        f'<{operation.name}Response xmlns="{QUERY_NAMESPACES[service]}">{inner}<ResponseMetadata><RequestId>'
        f"{escape(request_id)}</RequestId></ResponseMetadata></{operation.name}Response>"
    ).encode()


def _members(shape: Shape, value: Params) -> str:
    return "".join(
        f"<{member.wire_name}>{_content(member.shape, value[name])}</{member.wire_name}>"
        for name, member in shape.members.items()
        if value.get(name) is not None
    )


def _content(shape: Shape, value: Any) -> str:
    if shape.kind == "structure":
        return _members(shape, value)
    if shape.kind == "list" and shape.item is not None:
        item = shape.item
        return "".join(f"<member>{_content(item, entry)}</member>" for entry in value)
    if shape.kind == "boolean":
        return "true" if value else "false"
    return escape(_FORBIDDEN.sub("\ufffd", str(value)))


def _malformed(path: str) -> ApiError:
    return ApiError("MalformedInput", f"Unexpected list element or value at {path}", status=400)
