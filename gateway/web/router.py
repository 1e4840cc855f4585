"""Which request goes where: Invoke to the dispatcher, health is answered here, everything else goes to control.

Routes of Invoke are remembered by raw target, so a warm call costs one dict look-up.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Callable
from typing import Any, Final

from gateway.model.authority import ROOT, Authority, Who
from gateway.model.errors import ApiError
from gateway.model.invocation import MAX_REQUEST_BYTES, Invocation
from gateway.model.registry_token import Holder, open_basic
from gateway.model.request_id import new_request_id
from gateway.web.fast_teacher import FastTeacher
from gateway.web.lambda_async import match_invoke_async
from gateway.web.lambda_invoke import TOO_LARGE, Dispatcher, Events, InvokeCall, InvokeRoute, match_invoke
from gateway.web.lambda_stream import match_stream
from gateway.web.put_events import TARGET as PUT_EVENTS
from gateway.web.put_events import EventSink, put_events
from gateway.web.request import Refusal, Request
from gateway.web.responses import respond_error
from gateway.web.seen import seen
from gateway.web.sigv4 import Identity, Target, Verifier, parse_target
from gateway.web.url_invoke import FunctionUrls

CONTROL_BODY: Final = 70_167_211  # bytes; Lambda's limit of CreateFunction and the like
STRANGERS_BODY: Final = 65536  # bytes; of a request that names no access key of ours
SERVICES: Final = frozenset(("lambda", "logs", "forklight", "iam", "sts", "ecr", "events", "scheduler"))
_METHODS: Final = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH"))
_REMEMBERED: Final = 4096
log = logging.getLogger("forklight.web")

# service, region, method, path, query, headers, request id, body, caller, on_answer(status, headers, body)
ControlApi = Callable[
    [
        str, str, str, str, str, dict[str, str], str, bytes, dict[str, Any],
        Callable[[int, dict[str, str], bytes], None],
    ],
    None,
]  # fmt: skip


class Router:
    """The application behind the HTTP server of one door."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        control_api: ControlApi,
        events: Events,
        *,
        region: str,
        auth_required: bool,
        secure: bool = False,
        ready: Callable[[], str] = lambda: "",
        teacher: FastTeacher | None = None,
        authority: Authority | None = None,
        bus: EventSink | None = None,
    ) -> None:
        self.authority = authority or Authority()
        self.authority.on_change = self.access_changed
        self.verifier = Verifier(self.authority.session_secret)
        self._dispatcher = dispatcher
        self._control_api = control_api
        self._events = events
        self._bus = bus  # None: PutEvents is unknown
        self._region = region
        self._auth_required = auth_required
        self._ready = ready  # empty when ready, else why not
        self._tokens: frozenset[str] = frozenset()
        self._routes: dict[bytes, InvokeRoute] = {}
        self.urls = FunctionUrls(
            dispatcher, events, self.verifier, self.authority, auth_required=auth_required, secure=secure
        )
        self._teacher = teacher  # None: there is no fast path

    def set_keys(self, keys: dict[str, str]) -> None:
        """The access keys that may do everything: id -> secret."""
        self.authority.set_roots(keys)

    def access_changed(self) -> None:
        """Somebody has other keys, or may do something else."""
        self.verifier.set_keys(self.authority.secrets())
        if self._teacher is not None:
            self._teacher.forget_callers()

    def set_tokens(self, tokens: frozenset[str]) -> None:
        """SHA-256 (hex) of the bearer tokens that may read /metrics."""
        self._tokens = tokens

    def handle(self, request: Request) -> None:
        """Answer a complete request, now or later."""
        request_id, nonce = new_request_id()
        route = self._routes.get(request.target)
        try:
            if route is not None and request.method == b"POST":
                self._invoke(request, route, request_id, nonce)
            else:
                self._handle_rare(request, request_id, nonce)
        except ApiError as error:
            respond_error(request, error, request_id)
        except Exception:
            log.exception("request %s failed", request_id)
            respond_error(request, ApiError("InternalFailure", "Internal failure."), request_id)

    def _invoke(self, request: Request, route: InvokeRoute, request_id: str, nonce: bytes) -> None:
        """Raises ApiError."""
        region, personal = self._region, ""
        if request.verified_region:
            region, _, personal = request.verified_region.partition("\n")
            if personal and not self._may_invoke(request, route, region, self.authority.who(personal)):
                personal = "?"
        elif self._auth_required:
            identity = self.verifier.verify(request.method, route.target, request.headers, request.body)
            if identity.service != "lambda":
                raise _wrong_service("lambda")
            region = identity.region
            if identity.access_key not in self.authority.roots:
                who = self.authority.who(identity.access_key, identity.session_token)
                stable = self._may_invoke(request, route, region, who)
                personal = who.key if stable and who.session is None else "?"
        elif b"authorization" in request.headers:
            claimed = self.verifier.identity(request.headers)
            region = claimed.region if claimed is not None else region
        route.call(self._dispatcher, self._events, request, request_id).start(route, region, nonce)
        if self._teacher is not None and personal != "?" and request.target in self._routes:
            verifier = self.verifier if self._auth_required else None
            self._teacher.teach(request, route, region, verifier, personal)

    def _may_invoke(self, request: Request, route: InvokeRoute, region: str, who: Who) -> bool:
        """Whether that is so until something changes. Raises ApiError."""
        name, qualifier, _ = route.names(region)
        return self.authority.check_invoke(who, region, name, qualifier, lambda: seen(request))

    def resume(self, request: Request, invocation: Invocation) -> None:
        """Answer a request whose invocation the fast path began."""
        InvokeCall(self._dispatcher, self._events, request, invocation.request_id).resume(invocation)

    def refuse(self, request: Request, refusal: Refusal) -> None:
        """What HTTP itself, or a limit, does not let through."""
        error = ApiError(refusal.code, refusal.message, status=refusal.status)
        respond_error(request, error, new_request_id()[0])

    def body_limit(self, method: bytes, target: bytes, headers: dict[bytes, bytes]) -> tuple[int, Refusal]:
        """Invoke takes an event, everything else at most a function's code; a stranger's request next to nothing."""
        if self._auth_required and not self._may_know(headers, target):
            found = self.urls.body_limit(headers.get(b"host", b""), known=False)
            return found or (STRANGERS_BODY, _STRANGER)
        if target in self._routes or b"invocations" in target or b"/invoke-async" in target:
            return MAX_REQUEST_BYTES, TOO_LARGE
        found = self.urls.body_limit(headers.get(b"host", b""), known=True)
        return found or (CONTROL_BODY, _CONTROL_TOO_LARGE)

    def _may_know(self, headers: dict[bytes, bytes], target: bytes) -> bool:
        if self.verifier.may_know(headers, target):
            return True
        return is_registry(target.partition(b"?")[0]) and self._registry_holder(headers) is not None

    # ---- all but a warm Invoke -----------------------------------------------------------------------------

    def _handle_rare(self, request: Request, request_id: str, nonce: bytes) -> None:
        target = parse_target(request.target)
        # Invoke is Invoke whatever the host is called: where it is remembered nobody looks at the host.
        route = match_invoke(target) if request.method == b"POST" else None
        if route is not None:
            self._remember(request.target, route)
        elif self.urls.handles(request, target, request_id, nonce):
            return
        elif request.method not in _METHODS:
            raise ApiError("MethodNotAllowedException", "Method not allowed.", headers={"Allow": _ALLOW})
        elif request.target in (b"/health", b"/ready"):
            self._answer_health(request)
            return
        elif request.method == b"POST":
            route = match_stream(target) or match_invoke_async(target)  # not remembered: no fast path
        if route is not None:
            self._invoke(request, route, request_id, nonce)
            return
        metrics = target.path == b"/metrics"
        caller: dict[str, Any] = {"root": True}
        if is_registry(target.path) and (b"authorization" not in request.headers or _is_basic(request)):
            self._to_registry(request, target, request_id, caller)
            return
        if metrics and self._may_read_metrics(request):
            identity = None
        else:
            identity = self._identify(request, target)
            if self._auth_required and identity is not None:
                caller = {
                    "key": identity.access_key, "token": identity.session_token, "seen": seen(request)
                }  # fmt: skip
                if identity.access_key in self.authority.roots:
                    caller = {"root": True, "key": identity.access_key}
        service = "forklight" if metrics else _service_of(request, target, identity)
        region = identity.region if identity is not None else self._region
        if (
            self._bus is not None
            and service == "events"
            and request.headers.get(b"x-amz-target") == PUT_EVENTS
        ):
            known = identity if "root" not in caller else None
            who = self.authority.who(known.access_key, known.session_token) if known is not None else ROOT
            put_events(self._bus, self.authority, request, request_id, region, who)
            return
        self._to_control(request, target, service, region, request_id, caller)

    def _to_registry(self, request: Request, target: Target, request_id: str, caller: dict[str, Any]) -> None:
        """Clients of registries sign nothing: they name a password of GetAuthorizationToken. Raises ApiError."""
        if self._auth_required:
            holder = self._registry_holder(request.headers)
            if holder is None:
                document = (
                    b'{"errors":[{"code":"UNAUTHORIZED","message":"log in with aws ecr get-login-password"}]}'
                )
                request.respond(401, _CHALLENGE, document)
                return
            if holder.key_id not in self.authority.roots:
                caller = {
                    "key": holder.key_id, "token": holder.session_token, "seen": seen(request)
                }  # fmt: skip
        self._to_control(request, target, "registry", self._region, request_id, caller)

    def _registry_holder(self, headers: dict[bytes, bytes]) -> Holder | None:
        return open_basic(headers.get(b"authorization", b"").decode("latin-1"), self._secret_of)

    def _secret_of(self, key_id: str, session_token: str) -> str | None:
        """Of an access key that is still good."""
        if not session_token:
            return self.authority.secrets().get(key_id)
        try:
            return self.authority.session_secret(key_id, session_token)
        except ApiError:
            return None

    def _remember(self, raw: bytes, route: InvokeRoute) -> None:
        if len(raw) <= 1024 and b"X-Amz-" not in raw:  # a presigned target never comes again
            if len(self._routes) >= _REMEMBERED:
                self._routes.clear()
            self._routes[raw] = route

    def _identify(self, request: Request, target: Target) -> Identity | None:
        if self._auth_required:
            return self.verifier.verify(request.method, target, request.headers, request.body)
        return self.verifier.identity(request.headers)

    def _may_read_metrics(self, request: Request) -> bool:
        """Prometheus signs nothing, but can bear a token."""
        if not self._auth_required:
            return True
        scheme, _, token = request.headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer":
            return False
        digest = hashlib.sha256(token.strip()).hexdigest()
        return any(hmac.compare_digest(digest, known) for known in self._tokens)

    def _answer_health(self, request: Request) -> None:
        why = "" if request.target == b"/health" else self._ready()
        status = 503 if why else 200
        text = why or ("ok" if request.target == b"/health" else "ready")
        request.respond(
            status, b"Content-Type: text/plain\r\nCache-Control: no-store\r\n", text.encode() + b"\n"
        )

    def _to_control(
        self,
        request: Request,
        target: Target,
        service: str,
        region: str,
        request_id: str,
        caller: dict[str, Any],
    ) -> None:
        headers = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in request.headers.items()
            if name != b"authorization"
        }

        def on_answer(status: int, extra: dict[str, str], body: bytes) -> None:
            head = f"x-amzn-RequestId: {request_id}\r\n"
            size = extra.pop(HEAD_LENGTH, None) if request.method == b"HEAD" else None
            for name, value in extra.items():
                if name.lower() not in _OURS:
                    head += f"{name}: {_one_line(value)}\r\n"
            if size is not None:  # of what GET would answer
                head += f"Content-Length: {size}\r\n"
            request.respond(status, head.encode("latin-1", "replace"), None if size is not None else body)

        self._control_api(
            service,
            region,
            request.method.decode("latin-1"),
            target.path.decode("latin-1"),
            target.query.decode("latin-1"),
            headers,
            request_id,
            request.body,
            caller,
            on_answer,
        )


def _service_of(request: Request, target: Target, identity: Identity | None) -> str:
    """By the credential's scope, then X-Amz-Target, then the path.  Raises ApiError."""
    named = identity.service if identity is not None else ""
    if is_registry(target.path):
        if named in ("ecr", ""):
            return "registry"
        raise _wrong_service("ecr")
    by_path = _service_of_path(request, target)
    if named:
        if named not in SERVICES:
            raise _wrong_service(by_path or "lambda")
        if by_path == "forklight" and named == "lambda":
            return (
                by_path  # presigned links to packages are scoped to Lambda, as AWS's are to its own service
            )
        if by_path and by_path != named:
            raise _wrong_service(by_path)
        return named
    if by_path:
        return by_path
    raise ApiError("UnknownOperationException", "Unknown operation.")


def _service_of_path(request: Request, target: Target) -> str:
    operation = request.headers.get(b"x-amz-target", b"")
    if operation.startswith(b"Logs_"):
        return "logs"
    if operation.startswith(b"AmazonEC2ContainerRegistry_"):
        return "ecr"
    if operation.startswith(b"AWSEvents."):
        return "events"
    if target.path.startswith(b"/forklight/"):
        return "forklight"
    if target.path.startswith((b"/schedules", b"/schedule-groups")):
        return "scheduler"
    if target.path[1:5].isdigit() and target.path[5:6] == b"-":
        return "lambda"
    return ""


def is_registry(path: bytes) -> bool:
    """Of the OCI distribution specification."""
    return path.startswith(b"/v2/") or path == b"/v2"


def _is_basic(request: Request) -> bool:
    return request.headers[b"authorization"].partition(b" ")[0].lower() == b"basic"


def _wrong_service(service: str) -> ApiError:
    return ApiError(
        "InvalidSignatureException", f"Credential should be scoped to correct service: '{service}'. "
    )


def _one_line(value: str) -> str:
    return value.replace("\r", " ").replace("\n", " ")


# Headers by which control says how long the answer to a GET would be.
HEAD_LENGTH: Final = "X-Forklight-Length"
_CHALLENGE: Final = (
    b'WWW-Authenticate: Basic realm="forklight"\r\nDocker-Distribution-Api-Version: registry/2.0\r\n'
    b"Content-Type: application/json\r\n"
)
_OURS: Final = frozenset(("x-amzn-requestid", "content-length", "connection", "date", "transfer-encoding"))
_ALLOW: Final = "GET, HEAD, POST, PUT, DELETE, PATCH"
_STRANGER: Final = Refusal(
    403, "UnrecognizedClientException", "The security token included in the request is invalid."
)
_CONTROL_TOO_LARGE: Final = Refusal(
    413,
    "RequestEntityTooLargeException",
    f"Request must be smaller than {CONTROL_BODY} bytes for the CreateFunction operation",
)
