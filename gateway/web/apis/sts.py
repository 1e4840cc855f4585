"""STS: who am I, and temporary credentials for roles and users. Nothing of them is stored: the token says what they are."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from gateway.control.identities import Document, check_document, default_version
from gateway.model.access_policy import parse
from gateway.model.arn import ACCOUNT_ID
from gateway.model.authority import access_denied
from gateway.model.errors import ApiError
from gateway.model.session_token import Session, TemporaryKey, issue
from gateway.web.apis import query
from gateway.web.apis.query import QueryCall, QueryHandlers
from gateway.web.apis.service_model import ServiceModel
from gateway.web.apis.wire import Params, Request

if TYPE_CHECKING:
    from gateway.control.server import ControlServer

_CHAINED_S = 3600  # a role's credentials give another role's for an hour at most
_USERS_S = 43_200
_MAX_POLICIES = 2048  # characters of session policies together


class StsApi:
    def __init__(self, server: ControlServer) -> None:
        self._identities = server.identities
        self._handlers: QueryHandlers = {
            "GetCallerIdentity": self._caller,
            "AssumeRole": self._assume,
            "GetSessionToken": self._session_token,
            "GetAccessKeyInfo": self._key_info,
        }

    async def handle(
        self, model: ServiceModel, request: Request, call: QueryCall
    ) -> tuple[int, dict[str, str], bytes]:
        """Raises ApiError."""
        return await query.answer("sts", model, self._handlers, request, call)

    async def _caller(self, call: QueryCall) -> Params:
        """Whoever can sign may know who he is."""
        return {"UserId": call.who.id, "Account": ACCOUNT_ID, "Arn": call.who.caller.arn}

    async def _assume(self, call: QueryCall) -> Params:
        params = call.params
        role = self._role(call)
        for member in ("Tags", "TransitiveTagKeys", "SerialNumber", "TokenCode", "SourceIdentity"):
            if params.get(member):
                raise ApiError("NotImplementedException", f"{member} is not implemented by this host.")
        longest = role["MaxSessionDuration"]
        seconds = params.get("DurationSeconds") or min(3600, longest)
        if seconds > longest:
            raise ApiError(
                "ValidationError",
                "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
                status=400,
            )
        if call.who.caller.kind == "role" and seconds > _CHAINED_S:
            raise ApiError(
                "ValidationError",
                "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining",
                status=400,
            )
        name, now = params["RoleSessionName"], int(time.time())
        key = issue(
            self._identities.seal,
            Session(role["Arn"], role["RoleId"], name, now, now + seconds, "", self._policies(params)),
        )
        arn = f"arn:aws:sts::{ACCOUNT_ID}:assumed-role/{role['RoleName']}/{name}"
        return {
            "Credentials": _credentials(key),
            "AssumedRoleUser": {"AssumedRoleId": f"{role['RoleId']}:{name}", "Arn": arn},
        }

    def _role(self, call: QueryCall) -> Document:
        """The role, if the caller may become it; one that is not there is not to be told from one that he may not."""
        arn = call.params["RoleArn"]
        authority = self._identities.authority
        name = arn.rpartition("/")[2]
        role = self._identities.find("role", name)
        principal = authority.principal(arn)
        if role is None or principal is None or role["Arn"] != arn:
            if call.who.is_root:
                raise ApiError("NoSuchEntity", f"The role {arn} cannot be found.", status=404)
            raise access_denied(
                f"User: {call.who.caller.arn} is not authorized to perform: sts:AssumeRole on resource: {arn}"
            )
        context: dict[str, Any] = dict(call.context)
        context["sts:rolesessionname"] = [call.params["RoleSessionName"]]
        if call.params.get("ExternalId"):
            context["sts:externalid"] = [call.params["ExternalId"]]
        trust = parse(role["AssumeRolePolicyDocument"], "trust")
        authority.check_trust(call.who, principal, trust, call.region, context)
        return role

    def _policies(self, params: Params) -> tuple[str, ...] | None:
        """What the session is limited to: the policy of the request and managed ones. Raises ApiError."""
        found = [check_document(params["Policy"])] if params.get("Policy") else []
        found += [
            default_version(self._identities.policy(item.get("arn") or ""))
            for item in params.get("PolicyArns") or ()
        ]
        if sum(map(len, found)) > _MAX_POLICIES:
            raise ApiError(
                "PackedPolicyTooLarge",
                f"The session policies are longer than {_MAX_POLICIES} characters together.",
                status=400,
            )
        return tuple(found) or None

    async def _session_token(self, call: QueryCall) -> Params:
        who = call.who
        if who.is_root or who.session is not None:
            raise access_denied(
                "Cannot call GetSessionToken with session credentials, or as the account's root"
            )
        user = self._identities.get("user", who.caller.arn.rpartition("/")[2])
        seconds, now = call.params.get("DurationSeconds") or _USERS_S, int(time.time())
        session = Session(user["Arn"], user["UserId"], user["UserName"], now, now + seconds, who.key)
        return {"Credentials": _credentials(issue(self._identities.seal, session))}

    async def _key_info(self, call: QueryCall) -> Params:
        return {"Account": ACCOUNT_ID}


def _credentials(key: TemporaryKey) -> Params:
    expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(key.session.expires))
    return {
        "AccessKeyId": key.key_id, "SecretAccessKey": key.secret, "SessionToken": key.token, "Expiration": expires
    }  # fmt: skip
