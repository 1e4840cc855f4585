"""What a function behind a URL is invoked with: payload format 2.0 (developer guide, "Invoking Lambda function URLs")."""

from __future__ import annotations

import base64
import time
from urllib.parse import parse_qsl

import orjson

from gateway.model.arn import ACCOUNT_ID
from gateway.model.authority import ROOT, Who
from gateway.model.function_url import UrlView
from gateway.web.request import Request
from gateway.web.sigv4 import Identity, Target

_TEXT = (b"text", b"json", b"xml", b"javascript")  # in a content type: the body is text, if it is UTF-8
# Of the signature of a request that has been checked: nobody else's business.
_SECRET = frozenset((b"authorization", b"x-amz-security-token"))
_HOPS = frozenset(
    (b"connection", b"keep-alive", b"transfer-encoding", b"te", b"upgrade", b"proxy-connection")
)


def url_event(
    url: UrlView,
    request: Request,
    target: Target,
    request_id: str,
    identity: Identity | None,
    secure: bool,
    who: Who | None = None,
) -> bytes:
    """The event, as JSON. `identity`: who signed, and `who` whose key that is; None for a URL without signatures. `secure`: it came
    by TLS."""
    now = time.time()
    host = request.headers.get(b"host", b"")
    name, _, port = host.partition(b":")
    address = request.source_ip
    path = _text(target.path) or "/"
    query = _text(target.query)
    event: dict[str, object] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
    }
    cookies = [cookie for part in _cookies(request) if (cookie := part.strip())]
    if cookies:
        event["cookies"] = cookies
    headers = _headers(request, identity is not None)
    before = headers.get("x-forwarded-for")
    headers["x-forwarded-for"] = f"{before}, {address}" if before else address
    headers["x-forwarded-proto"] = "https" if secure else "http"
    headers["x-forwarded-port"] = _text(port) or ("443" if secure else "80")
    event["headers"] = headers
    parameters: dict[str, str] = {}
    for key, value in parse_qsl(query, keep_blank_values=True, errors="replace"):
        parameters[key] = f"{parameters[key]},{value}" if key in parameters else value
    if parameters:
        event["queryStringParameters"] = parameters
    context: dict[str, object] = {
        "accountId": "anonymous" if identity is None else ACCOUNT_ID,
        "apiId": url.url_id,
        "domainName": _text(name),
        "domainPrefix": url.url_id,
        "http": {
            "method": _text(request.method),
            "path": path,
            "protocol": request.protocol,
            "sourceIp": address,
            "userAgent": headers.get("user-agent", ""),
        },
        "requestId": request_id,
        "routeKey": "$default",
        "stage": "$default",
        "time": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now)),
        "timeEpoch": int(now * 1000),
    }
    if identity is not None:
        context["authorizer"] = {"iam": _signer(identity.access_key, who or ROOT)}
    event["requestContext"] = context
    if request.body:
        event["body"], event["isBase64Encoded"] = _body(request)
    else:
        event["isBase64Encoded"] = False
    return orjson.dumps(event)


def _headers(request: Request, signed: bool) -> dict[str, str]:
    return {
        _text(name): _text(value)
        for name, value in request.headers.items()
        if name != b"cookie" and name not in _HOPS and not (signed and name in _SECRET)
    }


def _cookies(request: Request) -> list[str]:
    # Several fields are one by now, joined by a comma (HTTP/1.1, where no client may send several) or a semicolon.
    return _text(request.headers.get(b"cookie", b"")).split(";")


def _body(request: Request) -> tuple[str, bool]:
    kind = request.headers.get(b"content-type", b"").lower()
    if any(text in kind for text in _TEXT):
        try:
            return request.body.decode(), False
        except UnicodeDecodeError:
            pass  # it is not what it says
    return base64.b64encode(request.body).decode(), True


def _signer(access_key: str, who: Who) -> dict[str, str | None]:
    return {
        "accessKey": access_key,
        "accountId": ACCOUNT_ID,
        "callerId": who.id,
        "cognitoIdentity": None,
        "principalOrgId": None,
        "userArn": who.caller.arn,
        "userId": who.id,
    }


def _text(value: bytes) -> str:
    return value.decode("latin-1")
