"""The Lambda API but for Invoke, which front doors answer themselves: routing, checking, calling control, answering."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.model import quotas
from gateway.model.authority import Who
from gateway.model.errors import ApiError
from gateway.storage.objects import ObjectStore
from gateway.web.apis import lambda_documents as documents
from gateway.web.apis.access import Context, check_lambda
from gateway.web.apis.constraints import check
from gateway.web.apis.lambda_call import Call, Handlers, Params
from gateway.web.apis.lambda_code_signing import CodeSigningOperations
from gateway.web.apis.lambda_concurrency import ConcurrencyOperations
from gateway.web.apis.lambda_event_configs import EventConfigOperations
from gateway.web.apis.lambda_event_sources import EventSourceOperations
from gateway.web.apis.lambda_function_options import OptionOperations
from gateway.web.apis.lambda_layers import LayerOperations
from gateway.web.apis.lambda_packages import Packages
from gateway.web.apis.lambda_policies import PolicyOperations
from gateway.web.apis.lambda_requests import wanted
from gateway.web.apis.lambda_tags import TagOperations
from gateway.web.apis.lambda_urls import UrlOperations
from gateway.web.apis.lambda_versions import VersionOperations, version_order
from gateway.web.apis.paging import page
from gateway.web.apis.presigned import package_url
from gateway.web.apis.service_model import Operation, ServiceModel
from gateway.web.apis.wire import Request, parse_input, parse_query, path_segments, serialise, shaped

if TYPE_CHECKING:
    from gateway.control.server import ControlServer

# Members of ours in AWS structures; clients of AWS pass over them.
OURS = frozenset({"Forklight"})
# Parsing a package's base64 takes a tenth of a second: above this size it leaves the loop's thread.
_LARGE_BODY = 256 * 1024
# A package of 50 MB takes some 200 MB of memory on its way from base64 to disk.
_LARGE_AT_ONCE = 3


class LambdaApi:
    """Operations that are not here are answered by name: NotImplementedException, 501."""

    def __init__(self, server: ControlServer, model: ServiceModel, objects: ObjectStore | None) -> None:
        self._server = server
        self._functions = server.functions
        self._packages = Packages(objects)
        self._model = model
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)
        self._handlers: Handlers = {
            **VersionOperations(server).handlers(),
            **PolicyOperations(server).handlers(),
            **LayerOperations(server, self._packages).handlers(),
            **EventConfigOperations(server).handlers(),
            **ConcurrencyOperations(server).handlers(),
            **UrlOperations(server).handlers(),
            **EventSourceOperations(server).handlers(),
            **CodeSigningOperations(server).handlers(),
            **OptionOperations(server).handlers(),
            **TagOperations(server).handlers(),
            "CreateFunction": self._create,
            "GetFunction": self._get,
            "GetFunctionConfiguration": self._get_configuration,
            "ListFunctions": self._list,
            "UpdateFunctionCode": self._update_code,
            "UpdateFunctionConfiguration": self._update_configuration,
            "DeleteFunction": self._delete,
            "GetAccountSettings": self._account_settings,
        }

    async def handle(
        self, region: str, request: Request, base_url: str, who: Who, context: Context
    ) -> tuple[int, bytes]:
        """Status and body. Raises ApiError."""
        query = parse_query(request.query)
        found = self._model.route(request.method, path_segments(request.path), query)
        if found is None:
            raise ApiError(
                "UnknownOperationException",
                f"No operation of Lambda at {request.method} {request.path[:200]}",
            )
        operation, labels = found
        handler = self._handler(operation)
        if len(request.body) > quotas.MAX_REQUEST:
            raise ApiError(
                "RequestEntityTooLargeException",
                f"Request must be smaller than {quotas.MAX_REQUEST} bytes for the {operation.name} operation",
            )
        if len(request.body) > _LARGE_BODY:
            async with self._large:
                params = await asyncio.to_thread(parse_input, operation, request, labels, query)
                self._permit(who, region, operation, params, context)
                _check(operation, params)
                result = await handler(Call(region, params, base_url))
        else:
            params = parse_input(operation, request, labels, query)
            self._permit(who, region, operation, params, context)
            _check(operation, params)
            result = await handler(Call(region, params, base_url))
        # The newest model says 200 for DeleteFunction; AWS answers, and older clients expect, 204.
        if operation.name == "DeleteFunction":
            return 204, b""
        return serialise(operation, result, OURS)

    async def call(
        self, region: str, name: str, params: Params, base_url: str, who: Who, context: Context
    ) -> Params:
        """The same for a caller that has members instead of bytes; answers with members. Raises ApiError."""
        operation = self._model.operations.get(name)
        if operation is None:
            raise ApiError("UnknownOperationException", f"Lambda has no operation {name[:100]}")
        handler = self._handler(operation)
        self._permit(who, region, operation, params, context)
        _check(operation, params)
        result = await handler(Call(region, params, base_url))
        return {} if operation.output is None else shaped(operation.output, result, OURS)

    def _permit(self, who: Who, region: str, operation: Operation, params: Params, context: Context) -> None:
        """Raises ApiError."""
        check_lambda(self._server.identities.authority, who, region, operation.name, params, context)

    def operation(self, name: str) -> Operation | None:
        return self._model.operations.get(name)

    def _handler(self, operation: Operation) -> Callable[[Call], Awaitable[Params]]:
        handler = self._handlers.get(operation.name)
        if handler is None:
            raise ApiError(
                "NotImplementedException", f"Operation {operation.name} is not implemented by this host."
            )
        return handler

    # functions

    async def _create(self, call: Call) -> Params:
        name, qualifier = call.name()
        if qualifier is not None:
            raise _pattern_failure(call.params["FunctionName"])
        signing = call.params.get("CodeSigningConfigArn") or None
        self._server.code_signing.check_unsigned(call.region, signing)
        package = await self._packages.of(call.region, call.params["Code"])
        change = wanted(call.params, package, self._addresses(call))
        entry = await self._functions.create(call.region, name, change)
        if signing is not None:
            await self._server.code_signing.use(call.region, name, signing)
        return documents.just_created(entry)

    async def _get(self, call: Call) -> Params:
        name, qualifier = call.name()
        entry = self._functions.get(call.region, name, qualifier)
        function = entry.function
        if function.image is None:
            location = package_url(
                self._server.credentials.keys[0],
                call.region,
                call.base_url,
                function.name,
                function.code.sha256,
            )
            code: Params = {"RepositoryType": "S3", "Location": location}
        else:
            code = documents.image_code(function.image)
        document: Params = {"Configuration": documents.configuration(entry, qualifier), "Code": code}
        reserved = self._server.concurrency.reserved(call.region, name)
        if reserved is not None:
            document["Concurrency"] = {"ReservedConcurrentExecutions": reserved}
        if tags := self._functions.get(call.region, name).function.tags:
            document["Tags"] = tags
        return document

    async def _get_configuration(self, call: Call) -> Params:
        name, qualifier = call.name()
        return documents.configuration(self._functions.get(call.region, name, qualifier), qualifier)

    async def _list(self, call: Call) -> Params:
        every_version = call.params.get("FunctionVersion") == "ALL"
        entries, marker = page(
            (
                entry
                for family in self._functions.families(call.region)
                for entry in (family if every_version else (family.latest,))
            ),
            lambda entry: (entry.function.name, *version_order(entry)),
            call.params,
        )
        return {
            "Functions": [
                documents.configuration(entry, entry.function.version if every_version else None)
                for entry in entries
            ],
            "NextMarker": marker,
        }

    async def _update_code(self, call: Call) -> Params:
        package = await self._packages.of(call.region, call.params)
        change = wanted(call.params, package, self._addresses(call))
        dry_run = bool(call.params.get("DryRun"))
        signing = self._server.code_signing
        signing.check_unsigned(call.region, signing.of_function(call.region, call.whole()))
        entry = await self._functions.update_code(
            call.region, call.whole(), change, call.params.get("RevisionId"), dry_run
        )
        if change.publish and not dry_run:
            return documents.just_published(entry)
        return documents.just_updated(entry)

    def _addresses(self, call: Call) -> tuple[str, ...]:
        """Of this host, as names of images may begin: that which listens, and that which the caller has reached it by."""
        own = self._server.http or self._server.settings.http
        return tuple(address for address in (own, urlsplit(call.base_url).netloc) if address)

    async def _update_configuration(self, call: Call) -> Params:
        change = wanted(call.params, None)
        entry = await self._functions.update_configuration(
            call.region, call.whole(), change, call.params.get("RevisionId")
        )
        return documents.just_updated(entry)

    async def _delete(self, call: Call) -> Params:
        name, qualifier = call.name()
        await self._functions.delete(call.region, name, qualifier)
        return {"StatusCode": 204}

    async def _account_settings(self, call: Call) -> Params:
        count, size = self._functions.totals(call.region)
        size += self._server.layers.size(call.region)
        concurrency = self._server.settings.concurrency
        return {
            "AccountLimit": {
                "TotalCodeSize": quotas.MAX_CODE_STORAGE,
                "CodeSizeUnzipped": quotas.MAX_UNZIPPED,
                "CodeSizeZipped": quotas.MAX_ZIPPED,
                "ConcurrentExecutions": concurrency,
                "UnreservedConcurrentExecutions": self._server.concurrency.unreserved(),
            },
            "AccountUsage": {"TotalCodeSize": size, "FunctionCount": count},
        }


def _check(operation: Operation, params: Params) -> None:
    if operation.input is not None:
        check(operation.input, params)


def _pattern_failure(name: str) -> ApiError:
    return ApiError(
        "InvalidParameterValueException", f"A new function's name has no version or alias: {name[:200]}"
    )
