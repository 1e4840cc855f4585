"""AWS Signature Version 4, the verifying side: header-signed and presigned requests.

Canonical form as every service but S3 has it: the path as it arrived is normalised and percent-encoded once more,
the query is sorted, the payload's hash is always computed here.  Signing in itself cannot prevent a replay inside
the five minutes that a signature is good for; that is a property of the scheme.

On the hot path, so what repeats is remembered: everything of an Authorization header up to its signature (one
entry per client and day), and the canonical form of each request target.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from calendar import timegm
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import quote_from_bytes, unquote_to_bytes

from gateway.model.errors import ApiError

ALGORITHM = b"AWS4-HMAC-SHA256"
SKEW_S = 300
MAX_EXPIRES_S = 604800
_REMEMBERED = 4096  # entries of each memory; a client cannot make it grow beyond
_DATE = re.compile(rb"\d{8}T\d{6}Z")
_CREDENTIAL = re.compile(rb"Credential=([^/,\s]+)/\d{8}/([a-z0-9-]{1,32})/([a-z0-9-]{1,32})/aws4_request")
_PRESIGNED_KEY = re.compile(rb"[?&]X-Amz-Credential=([^/%&]+)(?:%2[Ff]|/)")
_PRESIGNED_TOKEN = re.compile(rb"[?&]X-Amz-Security-Token=([^&]+)")
_REGION = re.compile(r"[a-z0-9-]{1,32}")
_sha256 = hashlib.sha256
_digest = hmac.digest
_equal = hmac.compare_digest


@dataclass(frozen=True, slots=True)
class Identity:
    """Who signed, and for which region and service."""

    access_key: str
    region: str
    service: str
    session_token: str = ""  # of temporary credentials


@dataclass(frozen=True, slots=True)
class Target:
    """A request target with what the signature needs of it."""

    path: bytes  # as it arrived
    query: bytes  # as it arrived, without the question mark
    canonical_path: bytes
    canonical_query: bytes


@dataclass(frozen=True, slots=True)
class Scope:
    """An Authorization header without its signature."""

    identity: Identity
    date: bytes
    scope: bytes
    names: tuple[tuple[bytes, bytes], ...]  # of the signed headers: as it is looked up, and with its colon
    signed: bytes
    key: bytes  # the signing key of that day
    inner: hashlib._Hash  # HMAC by its definition: both halves begun with the key, to be copied
    outer: hashlib._Hash

    def sign(self, text: bytes) -> bytes:
        """The signature of a string to sign, in hexadecimal."""
        inner = self.inner.copy()
        inner.update(text)
        outer = self.outer.copy()
        outer.update(inner.digest())
        return outer.hexdigest().encode()


def claimed_identity(authorization: bytes) -> Identity | None:
    """Whom a header names; of its beginning: whom every header names that begins so, or None if that is open."""
    match = _CREDENTIAL.search(authorization)
    if match is None:
        return None
    return Identity(match[1].decode("latin-1"), match[2].decode(), match[3].decode())


def parse_target(raw: bytes) -> Target:
    """Split and canonicalise.  Absolute-form targets are reduced to their path."""
    if not raw.startswith(b"/") and b"://" in raw:
        raw = b"/" + raw.partition(b"://")[2].partition(b"/")[2]
    path, _, query = raw.partition(b"?")
    return Target(path, query, canonical_path(path), canonical_query(query))


def canonical_path(path: bytes) -> bytes:
    """Dot segments and empty segments removed, then encoded (so that a % becomes %25)."""
    kept: list[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            if kept:
                kept.pop()
        elif part and part != b".":
            kept.append(part)
    normal = b"/" + b"/".join(kept)
    if kept and path.endswith(b"/"):
        normal += b"/"
    return quote_from_bytes(normal, safe="/~").encode()


def canonical_query(query: bytes, without: bytes = b"") -> bytes:
    """Names and values encoded anew and sorted; the parameter ``without`` is left out."""
    if not query:
        return b""
    pairs = []
    for item in query.split(b"&"):
        name, _, value = item.partition(b"=")
        if not item or (without and name == without):
            continue
        pairs.append((_encode(name), _encode(value)))
    pairs.sort()
    return b"&".join([name + b"=" + value for name, value in pairs])


class Verifier:
    """Knows the access keys; ``verify`` raises ApiError in AWS's words.

    ``sessions(key id, session token)``: the secret of temporary credentials, None for those that are not ours; raises ApiError. What is
    made with them is remembered by nobody: they expire.
    """

    def __init__(self, sessions: Callable[[str, str], str | None] = lambda key, token: None) -> None:
        self._sessions = sessions
        self._secrets: dict[str, str] = {}
        self._scopes: dict[bytes, Scope] = {}
        self._last_date = b""
        self._last_epoch = 0.0

    def set_keys(self, keys: dict[str, str]) -> None:
        """Replace all access keys: id -> secret."""
        self._secrets = dict(keys)
        self._scopes.clear()

    def verify(self, method: bytes, target: Target, headers: dict[bytes, bytes], body: bytes) -> Identity:
        """Who signed this request.  Raises ApiError when nobody did, or not this request, or not now."""
        authorization = headers.get(b"authorization")
        if authorization is None:
            if b"X-Amz-Signature=" in target.query or b"X-Amz-Algorithm=" in target.query:
                return self._verify_presigned(method, target, headers, body)
            raise ApiError("MissingAuthenticationTokenException", "Missing Authentication Token")
        prefix, mark, signature = authorization.rpartition(b"Signature=")
        scope = self._scopes.get(prefix)
        if scope is None or not mark or not signature:
            scope, signature = self._parse(authorization, prefix, headers)
        stamp = headers.get(b"x-amz-date")
        now = time.time()
        if stamp is None or stamp != self._last_date or not 0 <= now - self._last_epoch < SKEW_S:
            stamp = self._check_date(stamp, headers, scope)
        elif not stamp.startswith(scope.date):
            raise _wrong_day(scope.date, stamp)
        payload_hash = _sha256(body).hexdigest().encode()
        claimed = headers.get(b"x-amz-content-sha256")
        if claimed is not None and claimed != payload_hash:
            raise _mismatch()
        canonical = b"%b\n%b\n%b\n%b\n%b\n%b" % (
            method,
            target.canonical_path,
            target.canonical_query,
            _header_lines(scope.names, headers),
            scope.signed,
            payload_hash,
        )
        text = b"%b\n%b\n%b\n%b" % (
            ALGORITHM,
            stamp,
            scope.scope,
            _sha256(canonical).hexdigest().encode(),
        )
        if not _equal(scope.sign(text), signature):
            raise _mismatch()
        return scope.identity

    def may_know(self, headers: dict[bytes, bytes], target: bytes) -> bool:
        """Whether a request names one of our access keys: looked at before its body is taken in.  It proves nothing."""
        authorization = headers.get(b"authorization")
        if authorization is None:
            named = _PRESIGNED_KEY.search(target)
            token = _PRESIGNED_TOKEN.search(target)
            return named is not None and self._knows(named[1], unquote_to_bytes(token[1]) if token else None)
        claimed = claimed_identity(authorization)
        return claimed is not None and self._knows(
            claimed.access_key.encode("latin-1"), headers.get(b"x-amz-security-token")
        )

    def _knows(self, key: bytes, token: bytes | None) -> bool:
        name = key.decode("latin-1")
        if name in self._secrets:
            return True
        try:
            return token is not None and self._sessions(name, token.decode("latin-1")) is not None
        except ApiError:
            return True  # it has expired, and is told so in its own words

    def scope_of(self, prefix: bytes) -> Scope | None:
        """What is remembered of Authorization headers that begin so."""
        return self._scopes.get(prefix)

    def identity(self, headers: dict[bytes, bytes]) -> Identity | None:
        """Whom a request names, unproved: for hosts that verify nothing and need only the region."""
        return claimed_identity(headers.get(b"authorization", b""))

    # ---- parts ---------------------------------------------------------------------------------------------

    def _check_date(self, stamp: bytes | None, headers: dict[bytes, bytes], scope: Scope) -> bytes:
        if stamp is None:
            stamp = _from_http_date(headers.get(b"date", b""))
        if stamp != self._last_date:
            self._last_epoch = _epoch(stamp)
            self._last_date = stamp
        now = time.time()
        if not -SKEW_S <= now - self._last_epoch <= SKEW_S:
            raise _wrong_time(stamp, self._last_epoch, now, SKEW_S)
        if not stamp.startswith(scope.date):
            raise _wrong_day(scope.date, stamp)
        return stamp

    def _parse(self, authorization: bytes, prefix: bytes, headers: dict[bytes, bytes]) -> tuple[Scope, bytes]:
        """A header that was not seen before.  Remembered when its signature is the last parameter."""
        scheme, _, rest = authorization.partition(b" ")
        if scheme != ALGORITHM:
            if scheme.startswith(b"AWS4-"):
                raise ApiError(
                    "IncompleteSignatureException", f"Unsupported AWS 'algorithm': '{_text(scheme)}'."
                )
            raise ApiError("MissingAuthenticationTokenException", "Missing Authentication Token")
        parameters: dict[bytes, bytes] = {}
        for item in rest.split(b","):
            name, _, value = item.strip().partition(b"=")
            if name in parameters:
                raise ApiError(
                    "IncompleteSignatureException", f"Authorization header has '{_text(name)}' twice. "
                )
            parameters[name] = value
        missing = [
            f"Authorization header requires '{name}' parameter."
            for name in ("Credential", "Signature", "SignedHeaders")
            if not parameters.get(name.encode())
        ]
        if b"x-amz-date" not in headers and b"date" not in headers:
            missing.append(
                "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header."
            )
        if missing:
            raise ApiError("IncompleteSignatureException", " ".join(missing))
        token = headers.get(b"x-amz-security-token", b"")
        scope = self._scope(parameters[b"Credential"], parameters[b"SignedHeaders"], headers, token)
        if not scope.identity.session_token and authorization.endswith(
            b"Signature=" + parameters[b"Signature"]
        ):
            if len(self._scopes) >= _REMEMBERED:
                self._scopes.clear()
            self._scopes[prefix] = scope
        return scope, parameters[b"Signature"]

    def _scope(
        self, credential: bytes, signed: bytes, headers: dict[bytes, bytes] | None, token: bytes
    ) -> Scope:
        parts = _text(credential).split("/")
        if len(parts) != 5:
            raise ApiError(
                "IncompleteSignatureException",
                "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, "
                f"got '{_text(credential)}'",
            )
        access_key, date, region, service, terminator = parts
        secret = self._secrets.get(access_key)
        session_token = ""
        if secret is None and token:
            session_token = token.decode("latin-1")
            secret = self._sessions(access_key, session_token)
        if secret is None:
            raise ApiError(
                "UnrecognizedClientException", "The security token included in the request is invalid."
            )
        if terminator != "aws4_request":
            raise _invalid(
                f"Credential should be scoped with a valid terminator: 'aws4_request', not '{terminator}'."
            )
        if not _REGION.fullmatch(region):
            raise _invalid(f"Credential should be scoped to a valid region, not '{region}'. ")
        names = tuple(signed.split(b";"))
        if b"host" not in names:
            raise _invalid("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")
        if headers is not None and b"x-amz-date" in headers and b"x-amz-date" not in names:
            raise _invalid("'X-Amz-Date' must be a 'SignedHeader' in the AWS Authorization.")
        if headers is not None and b"x-amz-date" not in headers and b"date" not in names:
            raise _invalid("'Date' must be a 'SignedHeader' in the AWS Authorization.")
        if headers is not None and session_token and b"x-amz-security-token" not in names:
            raise _invalid("'X-Amz-Security-Token' must be a 'SignedHeader' in the AWS Authorization.")
        key = b"AWS4" + secret.encode()
        for part in (date, region, service, terminator):
            key = _digest(key, part.encode(), "sha256")
        scope = f"{date}/{region}/{service}/{terminator}".encode()
        block = key.ljust(64, b"\0")
        inner = _sha256(bytes(byte ^ 0x36 for byte in block))
        outer = _sha256(bytes(byte ^ 0x5C for byte in block))
        pairs = tuple((name, name + b":") for name in names)
        return Scope(
            Identity(access_key, region, service, session_token),
            date.encode(),
            scope,
            pairs,
            signed,
            key,
            inner,
            outer,
        )

    def _verify_presigned(
        self, method: bytes, target: Target, headers: dict[bytes, bytes], body: bytes
    ) -> Identity:
        parameters: dict[bytes, bytes] = {}
        for item in target.query.split(b"&"):
            name, _, value = item.partition(b"=")
            if name.startswith(b"X-Amz-"):
                if name in parameters:
                    raise ApiError(
                        "IncompleteSignatureException", f"The query has '{_text(name)}' more than once."
                    )
                parameters[name] = unquote_to_bytes(value)
        required = (
            "X-Amz-Algorithm",
            "X-Amz-Credential",
            "X-Amz-Date",
            "X-Amz-SignedHeaders",
            "X-Amz-Signature",
        )
        missing = [
            f"AWS query-string parameters must include '{name}'."
            for name in (*required, "X-Amz-Expires")
            if not parameters.get(name.encode())
        ]
        if missing:
            raise ApiError(
                "IncompleteSignatureException", f"{' '.join(missing)} Re-examine the query-string parameters."
            )
        if parameters[b"X-Amz-Algorithm"] != ALGORITHM:
            raise ApiError(
                "IncompleteSignatureException",
                f"Unsupported AWS 'algorithm': '{_text(parameters[b'X-Amz-Algorithm'])}'.",
            )
        token = parameters.get(b"X-Amz-Security-Token", b"")
        scope = self._scope(parameters[b"X-Amz-Credential"], parameters[b"X-Amz-SignedHeaders"], None, token)
        stamp = parameters[b"X-Amz-Date"]
        signed_at = _epoch(stamp)
        expires = parameters[b"X-Amz-Expires"]
        if not expires.isdigit() or not 1 <= int(expires[:10]) <= MAX_EXPIRES_S:
            raise _invalid(f"X-Amz-Expires must be between 1 and {MAX_EXPIRES_S} seconds.")
        now = time.time()
        if not -SKEW_S <= now - signed_at <= int(expires):
            raise _wrong_time(stamp, signed_at, now, int(expires))
        if not stamp.startswith(scope.date):
            raise _wrong_day(scope.date, stamp)
        query = canonical_query(target.query, b"X-Amz-Signature")
        lines = _header_lines(scope.names, headers)
        # A presigned request may leave its payload unsigned; which it did is part of what was signed.
        for payload_hash in (_sha256(body).hexdigest().encode(), b"UNSIGNED-PAYLOAD"):
            canonical = b"\n".join((method, target.canonical_path, query, lines, scope.signed, payload_hash))
            text = b"\n".join((ALGORITHM, stamp, scope.scope, _sha256(canonical).hexdigest().encode()))
            if _equal(scope.sign(text), parameters[b"X-Amz-Signature"]):
                return scope.identity
        raise _mismatch()


def _header_lines(names: tuple[tuple[bytes, bytes], ...], headers: dict[bytes, bytes]) -> bytes:
    """All lines, each ended, values trimmed and with single spaces."""
    get = headers.get
    text = b"\n".join([label + get(name, b"") for name, label in names]) + b"\n"
    if b"  " in text or b"\t" in text or b" \n" in text:
        text = b"".join([label + b" ".join(get(name, b"").split()) + b"\n" for name, label in names])
    return text


def _encode(text: bytes) -> bytes:
    if text.isalnum():
        return text
    return quote_from_bytes(unquote_to_bytes(text.replace(b"+", b" ")), safe="~").encode()


def _epoch(stamp: bytes) -> float:
    if not _DATE.fullmatch(stamp):
        raise ApiError(
            "IncompleteSignatureException",
            f"Date must be in ISO-8601 'basic format'. Got '{_text(stamp)}'. "
            "See http://en.wikipedia.org/wiki/ISO_8601",
        )
    try:
        return float(timegm(time.strptime(stamp.decode(), "%Y%m%dT%H%M%SZ")))
    except ValueError:
        raise ApiError(
            "IncompleteSignatureException",
            f"Date must be in ISO-8601 'basic format'. Got '{_text(stamp)}'. "
            "See http://en.wikipedia.org/wiki/ISO_8601",
        ) from None


def _from_http_date(value: bytes) -> bytes:
    if _DATE.fullmatch(value):
        return value
    try:
        moment = parsedate_to_datetime(value.decode("latin-1"))
    except (ValueError, TypeError, IndexError):
        return value
    return moment.strftime("%Y%m%dT%H%M%SZ").encode()


def _stamp(epoch: float) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(epoch))


def _wrong_time(stamp: bytes, signed_at: float, now: float, validity: int) -> ApiError:
    if signed_at > now:
        limit = _stamp(now + SKEW_S)
        return _invalid(
            f"Signature not yet current: {_text(stamp)} is still later than {limit} ({_stamp(now)} + 5 min.)"
        )
    if validity == SKEW_S:
        limit = _stamp(now - SKEW_S)
        return _invalid(
            f"Signature expired: {_text(stamp)} is now earlier than {limit} ({_stamp(now)} - 5 min.)"
        )
    return _invalid(f"Signature expired: {_stamp(now)} is later than {_stamp(signed_at + validity)}")


def _wrong_day(date: bytes, stamp: bytes) -> ApiError:
    return _invalid(
        "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
        f"'{_text(date)}' != '{_text(stamp[:8])}', from '{_text(stamp)}'."
    )


def _mismatch() -> ApiError:
    return _invalid(
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access "
        "Key and signing method. Consult the service documentation for details."
    )


def _invalid(message: str) -> ApiError:
    return ApiError("InvalidSignatureException", message)


def _text(value: bytes) -> str:
    return value[:256].decode("latin-1")
