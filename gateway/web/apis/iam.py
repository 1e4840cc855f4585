"""IAM: users with their access keys, roles and managed policies, as Terraform, SAM and the AWS CLI make them.

What users and roles have in common (inline policies, attached policies, tags) is `iam_holders`, managed policies are `iam_policies`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from gateway.control.identities import Document, Identities, Kind, arn_of, check_document, new_key, no_such
from gateway.model.arn import ACCOUNT_ID
from gateway.model.errors import ApiError
from gateway.model.principal_ids import translated_document
from gateway.web.apis import query
from gateway.web.apis.access import check_entity
from gateway.web.apis.iam_holders import HolderOperations, conflict, keep_tags, listed
from gateway.web.apis.iam_policies import PolicyOperations
from gateway.web.apis.query import QueryCall, QueryHandlers
from gateway.web.apis.service_model import ServiceModel
from gateway.web.apis.wire import Params, Request

if TYPE_CHECKING:
    from gateway.control.server import ControlServer

MAX_KEYS = 2  # access keys of one user, as on AWS
DEFAULT_SESSION_S = 3600


class IamApi:
    def __init__(self, server: ControlServer) -> None:
        self._identities: Identities = server.identities
        own: QueryHandlers = {
            "CreateUser": self._create_user,
            "GetUser": self._get_user,
            "UpdateUser": self._not_renamed,
            "DeleteUser": self._delete_user,
            "ListUsers": self._list_users,
            "CreateAccessKey": self._create_key,
            "ListAccessKeys": self._list_keys,
            "UpdateAccessKey": self._update_key,
            "DeleteAccessKey": self._delete_key,
            "CreateRole": self._create_role,
            "GetRole": self._get_role,
            "UpdateRole": self._update_role,
            "UpdateRoleDescription": self._update_role,
            "UpdateAssumeRolePolicy": self._update_trust,
            "DeleteRole": self._delete_role,
            "ListRoles": self._list_roles,
            "ListInstanceProfilesForRole": self._no_profiles,
            "ListGroupsForUser": self._no_groups,
        }
        self._handlers: QueryHandlers = {
            **own,
            **HolderOperations(self._identities, "user").handlers(),
            **HolderOperations(self._identities, "role").handlers(),
            **PolicyOperations(self._identities).handlers(),
        }

    async def handle(
        self, model: ServiceModel, request: Request, call: QueryCall
    ) -> tuple[int, dict[str, str], bytes]:
        """Raises ApiError."""
        handlers = {name: self._permitted(handler) for name, handler in self._handlers.items()}
        return await query.answer("iam", model, handlers, request, call)

    def _permitted(self, handler: query.Handler) -> query.Handler:
        async def permitted(call: QueryCall) -> Params:
            if not call.who.is_root:
                arn, context = self._resource(call), call.context
                if "PolicyArn" in call.params:
                    context = {**context, "iam:policyarn": [call.params["PolicyArn"]]}
                check_entity(self._identities.authority, call.who, call.region, call.operation, arn, context)
            return await handler(call)

        return permitted

    def _resource(self, call: QueryCall) -> str:
        """What the operation is about: the user, role or policy that it names, a user himself where he names nobody."""
        params = call.params
        path = params.get("Path") or "/"
        for kind, member in (("role", "RoleName"), ("user", "UserName")):
            name = params.get(member)
            if name is not None:
                found = self._identities.find("role" if kind == "role" else "user", name)
                return str(found["Arn"]) if found else f"arn:aws:iam::{ACCOUNT_ID}:{kind}{path}{name}"
        if params.get("PolicyArn"):
            return str(params["PolicyArn"])
        if params.get("PolicyName"):
            return arn_of("policy", path, params["PolicyName"])
        own = call.operation in (
            "GetUser",
            "CreateAccessKey",
            "ListAccessKeys",
            "UpdateAccessKey",
            "DeleteAccessKey",
        )
        return call.who.caller.arn if own else "*"

    # ---- users -----------------------------------------------------------------------------------------------

    async def _create_user(self, call: QueryCall) -> Params:
        params = call.params
        _no_boundary(params)
        members: Document = {"Tags": [], "inline": {}, "attached": [], "keys": []}
        keep_tags(members, params.get("Tags") or [])
        user = await self._identities.create("user", params["UserName"], params.get("Path") or "/", members)
        return {"User": user}

    async def _get_user(self, call: QueryCall) -> Params:
        name = call.params.get("UserName")
        if name is None and call.who.is_root:
            arn = call.who.caller.arn
            root = {
                "Path": "/",
                "UserName": "root",
                "UserId": ACCOUNT_ID,
                "Arn": arn,
                "CreateDate": "1970-01-01T00:00:00Z",
            }
            return {"User": root}
        return {"User": self._identities.get("user", self._user_name(call))}

    async def _not_renamed(self, call: QueryCall) -> Params:
        """Terraform sends it when a path or name changes."""
        raise ApiError(
            "NotImplementedException", "Users cannot be renamed on this host: delete and create them."
        )

    async def _delete_user(self, call: QueryCall) -> Params:
        def check(user: Document) -> None:
            if user["keys"]:
                raise conflict("Cannot delete entity, must remove access keys first.")
            _check_bare(user)

        await self._identities.delete("user", call.params["UserName"], check)
        return {}

    async def _list_users(self, call: QueryCall) -> Params:
        return listed(self._of_path("user", call), "UserName", "Users", call.params)

    async def _create_key(self, call: QueryCall) -> Params:
        key = new_key()

        def add(user: Document) -> None:
            if len(user["keys"]) >= MAX_KEYS:
                raise ApiError(
                    "LimitExceeded", f"Cannot exceed quota for AccessKeysPerUser: {MAX_KEYS}", status=409
                )
            user["keys"].append(key)

        name = self._user_name(call)
        await self._identities.change("user", name, add)
        return {"AccessKey": {"UserName": name, **key}}

    async def _list_keys(self, call: QueryCall) -> Params:
        name = self._user_name(call)
        keys = [{"UserName": name, **key} for key in self._identities.get("user", name)["keys"]]
        return listed(keys, "AccessKeyId", "AccessKeyMetadata", call.params)

    async def _update_key(self, call: QueryCall) -> Params:
        def set_status(user: Document) -> None:
            _key_of(user, call.params["AccessKeyId"])["Status"] = call.params["Status"]

        await self._identities.change("user", self._user_name(call), set_status)
        return {}

    async def _delete_key(self, call: QueryCall) -> Params:
        def remove(user: Document) -> None:
            user["keys"].remove(_key_of(user, call.params["AccessKeyId"]))

        await self._identities.change("user", self._user_name(call), remove)
        return {}

    def _user_name(self, call: QueryCall) -> str:
        """Who is named, else who calls. Raises ApiError: root has no keys of this kind."""
        name = call.params.get("UserName")
        if name is not None:
            return str(name)
        if call.who.caller.kind != "user":
            raise ApiError(
                "ValidationError", "Must specify userName when calling with non-User credentials", status=400
            )
        return call.who.caller.arn.rpartition("/")[2]

    # ---- roles -----------------------------------------------------------------------------------------------

    async def _create_role(self, call: QueryCall) -> Params:
        params = call.params
        _no_boundary(params)
        members: Document = {
            "AssumeRolePolicyDocument": self._trust(params["AssumeRolePolicyDocument"]),
            "Description": params.get("Description"),
            "MaxSessionDuration": params.get("MaxSessionDuration") or DEFAULT_SESSION_S,
            "Tags": [], "inline": {}, "attached": [],
        }  # fmt: skip
        keep_tags(members, params.get("Tags") or [])
        role = await self._identities.create("role", params["RoleName"], params.get("Path") or "/", members)
        return {"Role": self._shown(role)}

    async def _get_role(self, call: QueryCall) -> Params:
        return {"Role": self._shown(self._identities.get("role", call.params["RoleName"]))}

    async def _update_role(self, call: QueryCall) -> Params:
        def edit(role: Document) -> None:
            for member in ("Description", "MaxSessionDuration"):
                if call.params.get(member) is not None:
                    role[member] = call.params[member]

        role = await self._identities.change("role", call.params["RoleName"], edit)
        return {"Role": self._shown(role)} if call.operation == "UpdateRoleDescription" else {}

    async def _update_trust(self, call: QueryCall) -> Params:
        text = self._trust(call.params["PolicyDocument"])

        def edit(role: Document) -> None:
            role["AssumeRolePolicyDocument"] = text

        await self._identities.change("role", call.params["RoleName"], edit)
        return {}

    async def _delete_role(self, call: QueryCall) -> Params:
        await self._identities.delete("role", call.params["RoleName"], _check_bare)
        return {}

    async def _list_roles(self, call: QueryCall) -> Params:
        return listed(
            [self._shown(role) for role in self._of_path("role", call)], "RoleName", "Roles", call.params
        )

    def _trust(self, text: str) -> str:
        """As it is kept: who is there is named by unique id. Raises ApiError for what is no policy."""
        return translated_document(check_document(text, "trust"), self._identities.id_of)

    def _shown(self, role: Document) -> Document:
        """With ARNs again, and percent-encoded."""
        text = translated_document(role["AssumeRolePolicyDocument"], self._identities.arn_of_id)
        return {**role, "AssumeRolePolicyDocument": quote(text, safe="")}

    async def _no_profiles(self, call: QueryCall) -> Params:
        """Nothing here runs on an instance."""
        self._identities.get("role", call.params["RoleName"])
        return {"InstanceProfiles": [], "IsTruncated": False}

    async def _no_groups(self, call: QueryCall) -> Params:
        self._identities.get("user", call.params["UserName"])
        return {"Groups": [], "IsTruncated": False}

    def _of_path(self, kind: Kind, call: QueryCall) -> list[Document]:
        prefix = call.params.get("PathPrefix") or "/"
        return [found for found in self._identities.every(kind) if found["Path"].startswith(prefix)]


def _key_of(user: Document, key_id: str) -> Document:
    for key in user["keys"]:
        if key["AccessKeyId"] == key_id:
            found: Document = key
            return found
    raise no_such(f"The Access Key with id {key_id} cannot be found.")


def _check_bare(holder: Document) -> None:
    if holder["attached"]:
        raise conflict("Cannot delete entity, must detach all policies first.")
    if holder["inline"]:
        raise conflict("Cannot delete entity, must delete policies first.")


def _no_boundary(params: Params) -> None:
    """A limit that is not kept would be worse than none."""
    if params.get("PermissionsBoundary"):
        raise ApiError("NotImplementedException", "Permissions boundaries are not implemented by this host.")
