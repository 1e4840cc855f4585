"""Everything the control process answers, by service: Lambda, logs, our own; and the same for gRPC, without bytes.

The one place where ApiError becomes an answer, and where what nobody foresaw becomes InternalFailure.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gateway.control.runtime_layer import ensure_layers, layer_folders
from gateway.model.errors import ApiError
from gateway.settings import Settings
from gateway.storage import registry_client
from gateway.storage.aws_credentials import credentials_in, read_credentials
from gateway.storage.objects import ObjectStore
from gateway.storage.registry_client import RegistryClient
from gateway.web.apis import registry, service_model
from gateway.web.apis.access import caller_of
from gateway.web.apis.ecr import EcrApi
from gateway.web.apis.events import EventsApi
from gateway.web.apis.forklight import ForklightApi
from gateway.web.apis.iam import IamApi
from gateway.web.apis.lambda_functions import LambdaApi
from gateway.web.apis.logs import LogsApi
from gateway.web.apis.query import QueryCall
from gateway.web.apis.scheduler import SchedulerApi
from gateway.web.apis.service_model import ServiceModel
from gateway.web.apis.sts import StsApi
from gateway.web.apis.wire import Request, coerce
from gateway.web.responses import JSON_11, JSON_SERVICES, QUERY_NAMESPACES, json_error, query_error

if TYPE_CHECKING:
    from gateway.control.server import ControlServer

_HOST = re.compile(r"(?:[\w.-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?", re.ASCII)
_log = logging.getLogger(__name__)

Message = dict[str, Any]
JSON = "application/json"


def prepare(
    settings: Settings, interpreters: Sequence[str] = (), javac: Path | None = None
) -> tuple[Callable[[ControlServer], ControlApi], dict[str, Path]]:
    """What the control process reads from outside the state directory, so before it gives up its rights.

    `interpreters` are the Pythons that functions run on, `javac` compiles what Java functions run. Returns the `api` and the
    `runtime_layers` of a ControlServer.
    Blocks. Without room for boto3 functions run without it. Raises OSError when botocore is not installed.
    """
    model = service_model.load()
    others = {service: service_model.described(service) for service in ("iam", "sts", "events", "scheduler")}
    objects = None
    if settings.s3_endpoint:
        credentials = read_credentials(settings.s3_credentials) or credentials_in(os.environ)
        objects = ObjectStore(settings.s3_endpoint, credentials)
    guests = Path(__file__).parents[3] / "sandbox" / "guests"
    layers = ensure_layers(layer_folders(settings.state_dir), guests, interpreters, javac)
    logins = registry_client.read_credentials(settings.image_credentials)
    remotes = {
        registry_client.check_registry(url): RegistryClient(url, settings.image_registries, logins)
        for url in settings.image_registries
    }
    return lambda server: ControlApi(server, model, objects, others, remotes), layers


class ControlApi:
    """One for each control process."""

    def __init__(
        self,
        server: ControlServer,
        model: ServiceModel,
        objects: ObjectStore | None = None,
        others: Mapping[str, bytes] | None = None,
        remotes: Mapping[str, RegistryClient] = MappingProxyType({}),
    ) -> None:
        """`others`: botocore's descriptions of the other services, packed. Few callers need them, and the first of those waits for them.
        `remotes`: registries that images may come from, by host."""
        server.images.remotes = remotes
        self._server = server
        self._others = others or {}
        self._models: dict[str, ServiceModel] = {}
        self._iam = IamApi(server)
        self._sts = StsApi(server)
        self._lambda = LambdaApi(server, model, objects)
        self._logs = LogsApi(server)
        self._events = EventsApi(server)
        self._scheduler = SchedulerApi(server)
        self._forklight = ForklightApi(server)
        self._registry = registry.RegistryApi(server)
        self._ecr = EcrApi(server)

    async def handle(self, header: Message, body: bytes) -> tuple[Message, bytes]:
        """An HTTP request as a door passes it on -> {"status", "headers"} and body."""
        try:
            status, headers, answer = await self._dispatch(header, body)
        except Exception as error:
            return self.refuse(header, _as_api_error(error, header))
        headers["x-amzn-RequestId"] = str(header.get("request_id") or "")
        return {"status": status, "headers": headers}, answer

    async def call(self, header: Message, body: bytes) -> Message:
        """An operation with AWS's member names as JSON -> {"result"} or {"error"}."""
        try:
            name = str(header.get("operation"))
            params = self._params(
                name, header.get("params") or {}, body if header.get("zip_in_body") else None
            )
            who, context = caller_of(self._server.identities.authority, header)
            region = str(header.get("region"))
            result = await self._lambda.call(region, name, params, self._base_url({}), who, context)
            return {"result": result}
        except Exception as error:
            return self.refuse(header, _as_api_error(error, header))[0]

    def refuse(self, header: Message, error: ApiError) -> tuple[Message, bytes]:
        """An error as the answer to either kind of request."""
        if header.get("op") == "call":
            return {"error": {"status": error.status, "code": error.code, "message": error.message}}, b""
        headers = {
            "Content-Type": JSON,
            "x-amzn-ErrorType": error.code,
            "x-amzn-RequestId": str(header.get("request_id") or ""),
            **error.headers,
        }
        if header.get("service") == "registry":
            status, described, body = registry.refused(error)
            return {"status": status, "headers": headers | described}, body
        if header.get("service") in QUERY_NAMESPACES:
            headers["Content-Type"] = "text/xml"
            return (
                {"status": error.status, "headers": headers},
                query_error(str(header["service"]), error, headers["x-amzn-RequestId"]),
            )
        if header.get("service") in JSON_SERVICES:
            headers["Content-Type"] = JSON_11
            return {"status": error.status, "headers": headers}, json_error(error)
        return {"status": error.status, "headers": headers}, error.body()

    async def _dispatch(self, header: Message, body: bytes) -> tuple[int, dict[str, str], bytes]:
        request = Request(
            method=str(header["method"]),
            path=str(header["path"]),
            query=str(header.get("query") or ""),
            headers=header.get("headers") or {},
            body=body,
        )
        region, service = str(header["region"]), header.get("service")
        who, context = caller_of(self._server.identities.authority, header)
        if service == "lambda":
            base_url = self._base_url(request.headers)
            status, answer = await self._lambda.handle(region, request, base_url, who, context)
            return status, {"Content-Type": JSON} if answer else {}, answer
        if service == "logs":
            return await self._logs.handle(region, request, who, context)
        if service == "forklight":
            return await self._forklight.handle(region, request, who, context)
        if service == "registry":
            return await self._registry.handle(region, request, who, context)
        if service == "ecr":
            host = urlsplit(self._base_url(request.headers)).netloc
            return await self._ecr.handle(region, request, who, context, host, header.get("caller") or {})
        if service == "events":
            return await self._events.handle(self._model("events"), region, request, who, context)
        if service == "scheduler":
            status, answer = await self._scheduler.handle(
                self._model("scheduler"), region, request, who, context
            )
            return status, {"Content-Type": JSON}, answer
        call = QueryCall(who, region, "", {}, context, str(header.get("request_id") or ""))
        if service == "iam":
            return await self._iam.handle(self._model("iam"), request, call)
        if service == "sts":
            return await self._sts.handle(self._model("sts"), request, call)
        raise ApiError("UnknownOperationException", f"There is no service {service!r} here")

    def _model(self, service: str) -> ServiceModel:
        found = self._models.get(service)
        if found is None:
            packed = self._others.get(service) or service_model.described(service)
            found = self._models[service] = service_model.unpacked(packed)
        return found

    def _params(self, name: str, params: Message, package: bytes | None) -> Message:
        """JSON values in their Python types; the package takes its place. Raises ApiError."""
        operation = self._lambda.operation(name)
        if operation is None or operation.input is None:
            return params
        shape = operation.input
        if package is not None:
            if "Code" in shape.members:
                params = {**params, "Code": {**(params.get("Code") or {}), "ZipFile": package}}
            else:
                params = {**params, "ZipFile": package}
        return {
            member: coerce(shape.members[member].shape, value, member)
            for member, value in params.items()
            if member in shape.members and value is not None
        }

    def _base_url(self, headers: dict[str, str]) -> str:
        """This host as the caller addressed it, for URLs in answers; by its own name where that was no address."""
        settings = self._server.settings
        scheme = "https" if settings.tls_cert else "http"
        host = headers.get("host") or ""
        return f"{scheme}://{host if _is_address(host) else self._server.http or settings.http}"


def _is_address(host: str) -> bool:
    """Whether a Host header can stand in a URL."""
    try:
        return _HOST.fullmatch(host) is not None and urlsplit(f"//{host}").port != 0
    except ValueError:  # a port above the highest, brackets around no address
        return False


def _as_api_error(error: Exception, header: Message) -> ApiError:
    if isinstance(error, ApiError):
        return error
    _log.error("%s %s failed", header.get("method", header.get("op")), header.get("path", ""), exc_info=error)
    return ApiError(
        "InternalFailure", "The request failed because of an error of this host; its log says more."
    )
