"""Requests to function URLs: who may send them, the event they become, the response that comes of the answer."""

from __future__ import annotations

from typing import Final

from gateway.model.authority import ROOT, Authority, Who
from gateway.model.errors import ApiError
from gateway.model.function_url import UrlView
from gateway.model.invocation import (
    MAX_REQUEST_BYTES,
    Invocation,
    Result,
    ResultKind,
    Stream,
    check_tenant,
)
from gateway.web.lambda_invoke import Dispatcher, Events, InvokeCall
from gateway.web.request import Refusal, Request
from gateway.web.seen import seen
from gateway.web.sigv4 import Identity, Target, Verifier
from gateway.web.url_answer import Malformed, NeedsMore, UrlAnswer, read_answer, split_stream
from gateway.web.url_cors import is_preflight, preflight_fields, with_cors
from gateway.web.url_event import url_event
from gateway.web.url_table import UrlTable, is_for_urls

_FORBIDDEN: Final = (
    "Forbidden. For troubleshooting Function URL authorization issues, see: "
    "https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html"
)
_UNKNOWN_FIELDS: Final = b"Content-Type: application/json\r\nx-amzn-ErrorType: AccessDeniedException\r\n"
_FAILED: Final = UrlAnswer(502, b"Content-Type: text/plain\r\n", b"Internal Server Error")
_TOO_LARGE: Final = Refusal(
    413,
    "RequestEntityTooLargeException",
    f"Request must be smaller than {MAX_REQUEST_BYTES} bytes for the InvokeFunction operation",
)
_BODILESS: Final = frozenset((204, 304))
_ANSWERS: Final = (ResultKind.OK, ResultKind.FUNCTION_ERROR)


class FunctionUrls:
    """Of one door. `secure`: its port speaks TLS."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        events: Events,
        verifier: Verifier,
        authority: Authority,
        *,
        auth_required: bool,
        secure: bool,
    ) -> None:
        self.table = UrlTable()
        self._dispatcher = dispatcher
        self._events = events
        self._verifier = verifier
        self._authority = authority
        self._auth_required = auth_required
        self._secure = secure

    def handles(self, request: Request, target: Target, request_id: str, nonce: bytes) -> bool:
        """Answer a request that is for a function URL, now or later.  False: it is for none.  Raises ApiError."""
        host = request.headers.get(b"host", b"")
        if not is_for_urls(host):
            return False
        url = self.table.find(host)
        ours = f"x-amzn-RequestId: {request_id}\r\n".encode()
        if url is None:
            request.respond(403, ours + _UNKNOWN_FIELDS, b'{"Message":null}')
        elif url.cors is not None and is_preflight(request):
            request.respond(200, ours + preflight_fields(url.cors, request), b"")
        else:
            identity = self._identify(url, request, target)
            who = None
            if identity is not None:
                who = self._let_in(url, request, identity) if self._auth_required else ROOT
            event = url_event(url, request, target, request_id, identity, self._secure, who)
            call = StreamedUrlCall if url.streaming else UrlCall
            call(self._dispatcher, self._events, request, request_id, url).send(event, nonce)
        return True

    def body_limit(self, host: bytes, known: bool) -> tuple[int, Refusal] | None:
        """Of a request that may send a function URL an event.  `known`: it names an access key of ours."""
        if not is_for_urls(host):
            return None
        url = self.table.find(host)
        if url is None or not (known or (url.public and not url.signed)):
            return None
        return MAX_REQUEST_BYTES, _TOO_LARGE

    def _identify(self, url: UrlView, request: Request, target: Target) -> Identity | None:
        """Who signed, if that is asked for.  Raises ApiError for whom the function is not there."""
        if not url.signed:
            if not url.public:
                raise ApiError("AccessDeniedException", _FORBIDDEN)
            return None
        if not self._auth_required:
            return self._verifier.identity(request.headers)
        identity = self._verifier.verify(request.method, target, request.headers, request.body)
        if (identity.service, identity.region) != ("lambda", url.region):
            raise ApiError(
                "InvalidSignatureException",
                f"Credential should be scoped to correct service and region: 'lambda', '{url.region}'.",
            )
        return identity

    def _let_in(self, url: UrlView, request: Request, identity: Identity) -> Who:
        """Whose key it is.  Raises ApiError when he may not use this URL: his own policies or the function's have to say so."""
        who = self._authority.who(identity.access_key, identity.session_token)
        context = {
            "lambda:functionurlauthtype": ["AWS_IAM"], "lambda:invokedviafunctionurl": ["true"],
            **seen(request),
        }  # fmt: skip
        try:
            self._authority.check_invoke(
                who, url.region, url.name, url.qualifier, lambda: context, "lambda:InvokeFunctionUrl"
            )
        except ApiError:
            raise ApiError("AccessDeniedException", _FORBIDDEN) from None
        return who


class UrlCall(InvokeCall):
    """One request on its way."""

    __slots__ = ("_url",)

    def __init__(
        self, dispatcher: Dispatcher, events: Events, request: Request, request_id: str, url: UrlView
    ) -> None:
        super().__init__(dispatcher, events, request, request_id)
        self._url = url

    def send(self, event: bytes, nonce: bytes) -> None:
        """Invoke the function with it.  Raises ApiError."""
        if len(event) > MAX_REQUEST_BYTES:
            raise ApiError(_TOO_LARGE.code, _TOO_LARGE.message, status=_TOO_LARGE.status)
        url = self._url
        view = self._dispatcher.directory.resolve(url.region, url.name, url.qualifier)
        check_tenant(view, None)
        arn = view.arn if url.qualifier is None else f"{view.arn}:{url.qualifier}"
        invocation = Invocation(view, event, self._request_id, nonce, arn, self.done)
        trace = self._request.headers.get(b"x-amzn-trace-id")
        if trace is not None and len(trace) <= 512:
            self._trace_id = trace
            invocation.trace_id = trace.decode("latin-1")
        self._set_out(invocation)
        self._invocation = invocation
        self._request.on_abandon = self._abandoned
        self._dispatcher.invoke(invocation)

    def _set_out(self, invocation: Invocation) -> None:
        """Before it is sent."""

    def done(self, result: Result) -> None:
        """The dispatcher's answer."""
        if result.kind not in _ANSWERS:
            super().done(result)
            return
        self._invocation = None
        answer = _FAILED
        if result.kind is ResultKind.OK:
            try:
                answer = read_answer(result.payload)
            except Malformed:
                pass  # AWS, too, says no more than that it failed
        self._request.respond(answer.status, self._head(answer), answer.body)

    def _head(self, answer: UrlAnswer) -> bytes:
        head = b"x-amzn-RequestId: %b\r\n" % self._request_id.encode()
        if self._trace_id is not None:
            head += b"X-Amzn-Trace-Id: %b\r\n" % self._trace_id
        return head + with_cors(self._url.cors, self._request, answer.fields)


class StreamedUrlCall(UrlCall):
    """One whose answer goes out as the function makes it."""

    __slots__ = ("_begun", "_held", "_silent")

    def _set_out(self, invocation: Invocation) -> None:
        self._begun = False
        self._held = b""  # the beginning, while it may be that of a head
        self._silent: UrlAnswer | None = None  # all that will be said, whatever is streamed
        invocation.stream = Stream(self._piece)

    def _piece(self, piece: bytes) -> None:
        """Of the answer, while it comes."""
        invocation = self._invocation
        if invocation is None or self._silent is not None:
            return
        if not self._begun:
            piece = self._begin(self._held + piece, ended=False)
            self._request.on_writable = self._go_on
        if piece and not self._request.push(piece):
            self._dispatcher.pause(invocation)

    def _go_on(self) -> None:
        if self._invocation is not None:
            self._dispatcher.pause(self._invocation, False)

    def _begin(self, held: bytes, ended: bool) -> bytes:
        """Send the head, if it is there.  Returns what is body of this."""
        try:
            answer, body = split_stream(held, ended)
        except NeedsMore:
            self._held = held
            return b""
        except Malformed:
            self._silent = _FAILED
            return b""
        if self._request.method == b"HEAD" or answer.status in _BODILESS:
            self._silent = answer
            return b""
        self._begun = True
        self._held = b""
        self._request.begin(answer.status, self._head(answer))
        return body

    def done(self, result: Result) -> None:
        """The dispatcher's answer: what is left of the function's, and how it ended."""
        is_ok = result.kind is ResultKind.OK
        if is_ok and self._held and self._silent is None:
            rest = self._begin(self._held + result.payload, ended=True)
        else:
            rest = result.payload
        if self._silent is not None and result.kind in _ANSWERS:
            self._invocation = None
            answer = self._silent if is_ok else _FAILED
            self._request.respond(answer.status, self._head(answer), answer.body)
        elif not self._begun:
            # Nothing has been streamed: a whole answer, or an error.
            super().done(result)
        elif is_ok:
            self._invocation = None
            if rest:
                self._request.push(rest)
            self._request.end()
        else:
            self._invocation = None
            self._request.cut()  # whoever reads it must not take it for whole
