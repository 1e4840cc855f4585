"""A small client of the HTTP API: one signed request, one answer.  botocore signs; nothing else of it is loaded."""

from __future__ import annotations

import http.client
import json
import os
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit
from xml.etree.ElementTree import Element, ParseError, fromstring

from gateway.cli.credentials import Credentials
from gateway.cli.errors import ApiFailure, CommandError, Unreachable

CONNECT_S = 10.0
ANSWER_S = 960.0  # the longest function runs 900 s
FUNCTIONS = "/2015-03-31/functions"


@dataclass(frozen=True, slots=True)
class Answer:
    """Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def document(self) -> dict[str, Any]:
        """The body as a JSON object; {} if it is empty.  Raises CommandError."""
        if not self.body:
            return {}
        try:
            value = json.loads(self.body)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise CommandError("the server's answer is not JSON: is this address a Forklight server's?")
        return value


class Client:
    """Requests to the server that the credentials name.  Keeps one connection; `close` it."""

    def __init__(self, credentials: Credentials) -> None:
        parts = urlsplit(credentials.http)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise CommandError(
                f"no server address: {credentials.http!r} is not http://HOST:PORT"
                if credentials.http
                else "the address of the server is unknown: is it still starting?"
            )
        self._credentials = credentials
        self._url = credentials.http
        self._host, self._port = parts.hostname, parts.port
        self._tls = parts.scheme == "https"
        self._connection: http.client.HTTPConnection | None = None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # ---- requests ----------------------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        service: str = "lambda",
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request, signed.  ``path`` is percent-encoded.  Raises ApiFailure for an error status."""
        target = path + ("?" + urlencode(query, quote_via=quote) if query else "")
        signed = self._sign(method, target, body, service, dict(headers or {}))
        answer = self._send(method, target, body, signed)
        if answer.status >= 300:
            raise _failure(answer)
        return answer

    def json(
        self, method: str, path: str, document: Mapping[str, Any] | None = None, **options: Any
    ) -> dict[str, Any]:
        """`request` with a JSON object each way."""
        body = b"" if document is None else json.dumps(document).encode()
        headers = {"content-type": "application/json"} if body else {}
        return self.request(method, path, body, headers=headers, **options).document()

    def logs(self, operation: str, document: Mapping[str, Any]) -> dict[str, Any]:
        """An operation of CloudWatch Logs."""
        headers = {
            "content-type": "application/x-amz-json-1.1",
            "x-amz-target": f"Logs_20140328.{operation}",
        }
        body = json.dumps(document).encode()
        return self.request("POST", "/", body, service="logs", headers=headers).document()

    def iam(self, action: str, **params: str) -> Element:
        """An operation of IAM: its result. Names in it have no namespace."""
        form = urlencode({"Action": action, "Version": "2010-05-08", **params}).encode()
        headers = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
        answer = self.request("POST", "/", form, service="iam", headers=headers)
        found = _xml(answer.body)
        result = found.find(f"{action}Result") if found is not None else None
        return result if result is not None else Element("nothing")

    # ---- functions ---------------------------------------------------------------------------------------------

    def function(self, name: str) -> dict[str, Any] | None:
        """GetFunction; None if there is no such function."""
        try:
            return self.json("GET", function_path(name))
        except ApiFailure as failure:
            if failure.code == "ResourceNotFoundException":
                return None
            raise

    def functions(self) -> Iterator[dict[str, Any]]:
        """ListFunctions, all pages."""
        marker = ""
        while True:
            page = self.json("GET", FUNCTIONS + "/", query={"Marker": marker} if marker else None)
            yield from page.get("Functions") or []
            marker = page.get("NextMarker") or ""
            if not marker:
                return

    # ---- wire --------------------------------------------------------------------------------------------------

    def _sign(
        self, method: str, target: str, body: bytes, service: str, headers: dict[str, str]
    ) -> dict[str, str]:
        credentials = self._credentials
        if not credentials.access_key_id:
            return headers  # a server without authentication
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials as Keys

        keys = Keys(
            credentials.access_key_id, credentials.secret_access_key, credentials.session_token or None
        )
        request = AWSRequest(method=method, url=self._url + target, data=body, headers=headers)
        SigV4Auth(keys, service, credentials.region).add_auth(request)
        return dict(request.headers.items())

    def _send(self, method: str, target: str, body: bytes, headers: dict[str, str]) -> Answer:
        reused = self._connection is not None
        connection = self._connection or self._connect()
        self._connection = connection
        try:
            connection.request(method, target, body=body or None, headers=headers)
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if reused and method in (
                "GET",
                "HEAD",
            ):  # the server may have closed the connection while it was idle
                return self._send(method, target, body, headers)
            raise Unreachable(f"{self._url}: {error or 'the connection was lost'}") from None
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, found, content)

    def _connect(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection
        try:
            if self._tls:
                context = ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE"))
                connection = http.client.HTTPSConnection(
                    self._host, self._port, timeout=CONNECT_S, context=context
                )
            else:
                connection = http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_S)
            connection.connect()
        except OSError as error:
            why = error.strerror or str(error)
            raise Unreachable(f"cannot reach {self._url}: {why} (is `forklight serve` running?)") from None
        connection.sock.settimeout(ANSWER_S)
        return connection


def function_path(name: str, suffix: str = "") -> str:
    """Path of a function's resource; ``name`` in any spelling."""
    return f"{FUNCTIONS}/{quote(name, safe='')}{suffix}"


def _failure(answer: Answer) -> ApiFailure:
    """The error that a refusal's header and body name."""
    try:
        document = json.loads(answer.body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        document = {}
    if answer.headers.get("content-type", "").startswith("text/xml"):
        found = _xml(answer.body)
        error = found.find("Error") if found is not None else None
        if error is not None:
            return ApiFailure(answer.status, error.findtext("Code", ""), error.findtext("Message", ""))
    errors = document.get("errors")  # of a registry
    if isinstance(errors, list) and errors and isinstance(errors[0], dict):
        document = errors[0]
    code = answer.headers.get("x-amzn-errortype") or str(document.get("__type") or "")
    message = document.get("message") or document.get("Message") or f"HTTP status {answer.status}"
    return ApiFailure(answer.status, code.partition(":")[0], str(message))


def _xml(body: bytes) -> Element | None:
    """Of our own server, without namespaces; None if it is no XML."""
    try:
        found = fromstring(body)
    except ParseError:
        return None
    for element in found.iter():
        element.tag = element.tag.rpartition("}")[2]
    return found
