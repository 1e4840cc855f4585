"""Teaches the fast path the requests that Python has just let through, so that it lets the next ones through itself.

Only what was verified and resolved is taught: a request target with the function that it named, and, where requests are signed,
the beginning of an Authorization header with the key that its signature was made with.
"""

from __future__ import annotations

from typing import Protocol

from gateway.dispatch.fast_path import FastPath
from gateway.dispatch.worker_pool import WorkerPool
from gateway.model.invocation import FunctionView
from gateway.web.lambda_invoke import InvokeRoute
from gateway.web.request import Request
from gateway.web.sigv4 import Verifier, claimed_identity


class Directory(Protocol):
    """The functions this door knows."""

    def resolve(self, region: str, name: str, qualifier: str | None) -> FunctionView: ...

    def is_split(self, region: str, name: str, qualifier: str | None) -> bool: ...


class Dispatcher(Protocol):
    """See gateway.dispatch.dispatcher."""

    @property
    def fast(self) -> FastPath: ...

    @property
    def directory(self) -> Directory: ...

    @property
    def pools(self) -> dict[object, WorkerPool]: ...


class FastTeacher:
    """One per door."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._fast = dispatcher.fast
        self._personal = False  # a caller has routes of his own

    def teach(
        self, request: Request, route: InvokeRoute, region: str, verifier: Verifier | None, key: str = ""
    ) -> None:
        """After a request was let through.  ``verifier``: who knows its key; None where nothing is verified.  ``key``: the access key of
        a caller who may do only what he is allowed: he has routes of his own, each of which says that he may."""
        place = f"{region}\n{key}" if key else region
        name = place.encode() + b"\n" + request.target
        if not self._fast.knows_route(name):
            self._teach_route(name, route, region)
        authorization = request.headers.get(b"authorization")
        if authorization is None:
            return
        prefix, mark, _ = authorization.rpartition(b"Signature=")
        if mark and not self._fast.knows_scope(prefix):
            self._teach_scope(prefix, place, verifier)
        self._personal = self._personal or bool(key)

    def forget_callers(self) -> None:
        """The access keys changed, or what somebody may do."""
        self._fast.forget_scopes()
        if self._personal:
            self._fast.forget_routes()
            self._personal = False

    def _teach_route(self, name: bytes, route: InvokeRoute, region: str) -> None:
        function, qualifier, arn = route.names(region)
        if self._dispatcher.directory.is_split(region, function, qualifier):
            return
        view = self._dispatcher.directory.resolve(region, function, qualifier)
        pool = self._dispatcher.pools.get(view.key)
        if pool is None or pool.view.isolation == "tenant":
            return
        target = route.target
        self._fast.add_route(name, pool, arn, target.canonical_path, target.canonical_query)

    def _teach_scope(self, prefix: bytes, place: str, verifier: Verifier | None) -> None:
        if verifier is None:
            if claimed_identity(prefix) is not None:  # else what follows it may name another region
                self._fast.add_scope(prefix, None, b"", b"00000000", b"", place.encode())
            return
        scope = verifier.scope_of(prefix)
        if scope is not None:
            self._fast.add_scope(prefix, scope.key, scope.signed, scope.date, scope.scope, place.encode())
