"""rest-json: between bytes on the wire and members of an operation, by the tables of `service_model`.

Types are checked here (a wrong one is a SerializationException, as AWS calls it), constraints in `constraints`.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import orjson

from gateway.model.errors import ApiError
from gateway.web.apis.service_model import Operation, Shape

Params = dict[str, Any]
_MAX_DEPTH = 64


@dataclass(slots=True)
class Request:
    """What arrived. `path` and `query` are as on the wire, header names are lower case."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


def path_segments(path: str) -> list[str]:
    """Decoded after splitting: an encoded slash belongs to its segment. A trailing slash is ignored."""
    return [unquote(segment) for segment in path.strip("/").split("/")]


def parse_query(query: str) -> dict[str, list[str]]:
    """Every value of every name; '+' is a blank only in form bodies, and boto3 does not write it."""
    found: dict[str, list[str]] = {}
    for part in query.split("&"):
        if part:
            name, _, value = part.partition("=")
            found.setdefault(unquote(name), []).append(unquote(value))
    return found


def parse_input(
    operation: Operation, request: Request, labels: dict[str, str], query: dict[str, list[str]]
) -> Params:
    """Members of the operation's input; unknown ones are left out, as AWS does. Raises ApiError."""
    shape = operation.input
    if shape is None:
        return {}
    params: Params = {}
    in_body = [member for member in shape.members.values() if member.location == "body"]
    document = parse_document(request.body) if in_body and shape.payload is None else {}
    for name, member in shape.members.items():
        if member.location == "uri":
            params[name] = coerce_text(member.shape, labels[member.wire_name], name)
        elif member.location == "querystring":
            values = query.get(member.wire_name)
            if values is not None and member.shape.kind == "list":
                params[name] = values
            elif values:
                params[name] = coerce_text(member.shape, values[-1], name)
        elif member.location == "header":
            value = request.headers.get(member.wire_name.lower())
            if value is not None:
                params[name] = coerce_text(member.shape, value, name)
        elif shape.payload is None and document.get(member.wire_name) is not None:
            params[name] = coerce(member.shape, document[member.wire_name], name)
    return params


def parse_document(body: bytes) -> dict[str, Any]:
    """The JSON object of a request body; nothing is an empty one. Raises ApiError."""
    if not body.strip():
        return {}
    try:
        # Not json.loads: at its recursion limit whatever the collector finalizes meanwhile fails as well.
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ApiError("SerializationException", f"Could not parse request body into json: {error}") from None
    if not isinstance(document, dict):
        raise ApiError("SerializationException", "Could not parse request body into json: not an object")
    return document


def coerce(shape: Shape, value: Any, path: str, depth: int = 0) -> Any:
    """The value in its Python type: blobs as bytes, null members left out. Raises ApiError for a wrong type."""
    if depth > _MAX_DEPTH:
        raise ApiError("SerializationException", f"{path}: nested too deeply")
    kind = shape.kind
    if kind == "structure" and isinstance(value, dict):
        return {
            name: coerce(member.shape, value[member.wire_name], f"{path}.{name}", depth + 1)
            for name, member in shape.members.items()
            if value.get(member.wire_name) is not None
        }
    if kind == "list" and isinstance(value, list) and shape.item is not None:
        return [coerce(shape.item, item, path, depth + 1) for item in value]
    if kind == "map" and isinstance(value, dict) and shape.item is not None:
        return {str(key): coerce(shape.item, item, f"{path}.{key}", depth + 1) for key, item in value.items()}
    if kind == "blob" and isinstance(value, bytes):
        return value
    if kind == "blob" and isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise ApiError("SerializationException", f"{path}: not base64") from None
    if kind == "string" and isinstance(value, str):
        return value
    if kind == "boolean" and isinstance(value, bool):
        return value
    if kind in ("integer", "long") and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind in ("integer", "long") and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind == "double" and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind == "timestamp" and isinstance(value, int | float | str):
        return value
    raise ApiError("SerializationException", f"{path}: expected {_expected(kind)}, got {_json_type(value)}")


def coerce_text(shape: Shape, value: str, path: str) -> Any:
    """A value that came as text, in a path, query or header."""
    if shape.kind in ("integer", "long"):
        try:
            return int(value)
        except ValueError:
            raise ApiError("SerializationException", f"{path}: '{value[:100]}' is not a number") from None
    if shape.kind == "boolean":
        if value.lower() not in ("true", "false"):
            raise ApiError("SerializationException", f"{path}: '{value[:100]}' is not true or false")
        return value.lower() == "true"
    return value


def serialise(operation: Operation, result: Params, extra: frozenset[str] = frozenset()) -> tuple[int, bytes]:
    """Status and body of an answer: members the model knows, plus those named `extra` at any depth."""
    if operation.output is None or operation.status == 204:
        return operation.status, b""
    document = shaped(operation.output, result, extra)
    return operation.status, json.dumps(document, ensure_ascii=False).encode()


def shaped(shape: Shape, value: Any, extra: frozenset[str]) -> Any:
    if shape.kind == "structure":
        document = {
            member.wire_name: shaped(member.shape, value[name], extra)
            for name, member in shape.members.items()
            if member.location == "body" and value.get(name) is not None
        }
        document.update({name: value[name] for name in extra if value.get(name) is not None})
        return document
    if shape.kind == "list" and shape.item is not None:
        return [shaped(shape.item, item, extra) for item in value]
    if shape.kind == "blob":
        return base64.b64encode(value).decode()
    return value


def _expected(kind: str) -> str:
    return {
        "structure": "an object", "map": "an object", "list": "a list", "string": "a string", "blob": "base64 text",
        "boolean": "true or false", "integer": "a whole number", "long": "a whole number", "double": "a number",
        "timestamp": "a time",
    }[kind]  # fmt: skip


def _json_type(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
