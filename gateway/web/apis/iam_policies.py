"""Managed policies in IAM: those of the account, which have versions, and AWS's own, which can be read and attached."""

from __future__ import annotations

from urllib.parse import quote

from gateway.control.aws_policies import AWS_POLICIES
from gateway.control.identities import Document, Identities, check_document, no_such, now
from gateway.model.errors import ApiError
from gateway.web.apis.iam_holders import conflict, keep_tags, listed
from gateway.web.apis.query import QueryCall, QueryHandlers
from gateway.web.apis.wire import Params

MAX_VERSIONS = 5
MAX_DOCUMENT = 6144  # characters


class PolicyOperations:
    def __init__(self, identities: Identities) -> None:
        self._identities = identities

    def handlers(self) -> QueryHandlers:
        return {
            "CreatePolicy": self._create,
            "GetPolicy": self._get,
            "DeletePolicy": self._delete,
            "ListPolicies": self._list,
            "CreatePolicyVersion": self._create_version,
            "GetPolicyVersion": self._get_version,
            "ListPolicyVersions": self._list_versions,
            "SetDefaultPolicyVersion": self._set_default,
            "DeletePolicyVersion": self._delete_version,
            "ListEntitiesForPolicy": self._entities,
            "TagPolicy": self._tag,
            "UntagPolicy": self._untag,
            "ListPolicyTags": self._tags,
        }

    async def _create(self, call: QueryCall) -> Params:
        params = call.params
        version = {"Document": _checked(params["PolicyDocument"]), "CreateDate": now()}
        members: Document = {
            "UpdateDate": now(), "Description": params.get("Description"), "DefaultVersionId": "v1", "Tags": [],
            "versions": {"v1": version}, "last": 1,
        }  # fmt: skip
        keep_tags(members, params.get("Tags") or [])
        policy = await self._identities.create(
            "policy", params["PolicyName"], params.get("Path") or "/", members
        )
        return {"Policy": self._shown(policy)}

    async def _get(self, call: QueryCall) -> Params:
        return {"Policy": self._shown(self._policy(call))}

    async def _delete(self, call: QueryCall) -> Params:
        def check(policy: Document) -> None:
            if any(self._identities.attached_to(policy["Arn"])):
                raise conflict("Cannot delete a policy attached to entities.")
            if len(policy["versions"]) > 1:
                raise conflict(
                    "This policy has more than one version. Before you delete a policy, you must delete the policy's "
                    "versions."
                )

        self._policy(call)
        await self._identities.delete("policy", call.params["PolicyArn"], check)
        return {}

    async def _list(self, call: QueryCall) -> Params:
        scope, prefix = call.params.get("Scope") or "All", call.params.get("PathPrefix") or "/"
        found = [] if scope == "AWS" else self._identities.every("policy")
        if scope != "Local":
            found = [*found, *AWS_POLICIES.values()]
        shown = [self._shown(policy) for policy in found if policy["Path"].startswith(prefix)]
        if call.params.get("OnlyAttached"):
            shown = [policy for policy in shown if policy["AttachmentCount"]]
        return listed(shown, "Arn", "Policies", call.params)

    async def _create_version(self, call: QueryCall) -> Params:
        text = _checked(call.params["PolicyDocument"])
        made: Document = {}

        def edit(policy: Document) -> None:
            if len(policy["versions"]) >= MAX_VERSIONS:
                raise ApiError(
                    "LimitExceeded",
                    f"A managed policy can have up to {MAX_VERSIONS} versions. Before you create a new version, you must delete "
                    "an existing version.",
                    status=409,
                )
            policy["last"] += 1
            name = f"v{policy['last']}"
            policy["versions"][name] = {"Document": text, "CreateDate": now()}
            policy["UpdateDate"] = now()
            if call.params.get("SetAsDefault"):
                policy["DefaultVersionId"] = name
            made.update(_version(policy, name))
            del made["Document"]

        await self._identities.change("policy", call.params["PolicyArn"], edit)
        return {"PolicyVersion": made}

    async def _get_version(self, call: QueryCall) -> Params:
        return {"PolicyVersion": _version(self._policy(call), call.params["VersionId"])}

    async def _list_versions(self, call: QueryCall) -> Params:
        policy = self._policy(call)
        versions = [_version(policy, name) for name in reversed(policy["versions"])]
        return {"Versions": [{**version, "Document": None} for version in versions], "IsTruncated": False}

    async def _set_default(self, call: QueryCall) -> Params:
        def edit(policy: Document) -> None:
            _version(policy, call.params["VersionId"])
            policy["DefaultVersionId"] = call.params["VersionId"]
            policy["UpdateDate"] = now()

        await self._identities.change("policy", call.params["PolicyArn"], edit)
        return {}

    async def _delete_version(self, call: QueryCall) -> Params:
        name = call.params["VersionId"]

        def edit(policy: Document) -> None:
            _version(policy, name)
            if policy["DefaultVersionId"] == name:
                raise conflict("Cannot delete the default version of a policy.")
            del policy["versions"][name]

        await self._identities.change("policy", call.params["PolicyArn"], edit)
        return {}

    async def _entities(self, call: QueryCall) -> Params:
        found = list(self._identities.attached_to(self._policy(call)["Arn"]))
        return {
            "PolicyGroups": [], "IsTruncated": False,
            "PolicyUsers": [holder for kind, holder in found if kind == "user"],
            "PolicyRoles": [holder for kind, holder in found if kind == "role"],
        }  # fmt: skip

    async def _tag(self, call: QueryCall) -> Params:
        await self._identities.change(
            "policy", call.params["PolicyArn"], lambda policy: keep_tags(policy, call.params["Tags"])
        )
        return {}

    async def _untag(self, call: QueryCall) -> Params:
        def edit(policy: Document) -> None:
            policy["Tags"] = [tag for tag in policy["Tags"] if tag["Key"] not in call.params["TagKeys"]]

        await self._identities.change("policy", call.params["PolicyArn"], edit)
        return {}

    async def _tags(self, call: QueryCall) -> Params:
        return listed(self._policy(call)["Tags"], "Key", "Tags", call.params)

    def _policy(self, call: QueryCall) -> Document:
        arn = call.params["PolicyArn"]
        try:
            return self._identities.policy(arn)
        except ApiError:
            raise no_such(f"Policy {arn} was not found.") from None

    def _shown(self, policy: Document) -> Document:
        attached = sum(1 for _ in self._identities.attached_to(policy["Arn"]))
        return {
            **policy, "AttachmentCount": attached, "PermissionsBoundaryUsageCount": 0, "IsAttachable": True
        }  # fmt: skip


def _version(policy: Document, name: str) -> Document:
    version = policy["versions"].get(name)
    if version is None:
        raise no_such(f"Policy {policy['Arn']} version {name} does not exist or is not attachable.")
    return {
        "Document": quote(version["Document"], safe=""), "VersionId": name, "CreateDate": version["CreateDate"],
        "IsDefaultVersion": policy["DefaultVersionId"] == name,
    }  # fmt: skip


def _checked(text: str) -> str:
    if len(text) > MAX_DOCUMENT:
        raise ApiError("LimitExceeded", f"Cannot exceed quota for PolicySize: {MAX_DOCUMENT}", status=409)
    return check_document(text)
