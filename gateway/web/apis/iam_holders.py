"""What users and roles have in common in IAM: inline policies, attached managed policies, tags."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from gateway.control.identities import Document, Identities, Kind, check_document, no_such
from gateway.model.errors import ApiError
from gateway.web.apis.query import QueryCall, QueryHandlers
from gateway.web.apis.wire import Params

MAX_ATTACHED = 20
MAX_INLINE = 10_240  # characters of all inline policies of a role; AWS allows a user fewer
MAX_TAGS = 50


class HolderOperations:
    """Of one of the two kinds."""

    def __init__(self, identities: Identities, kind: Kind) -> None:
        self._identities = identities
        self._kind = kind
        self._member = f"{kind.capitalize()}Name"

    def handlers(self) -> QueryHandlers:
        noun = self._kind.capitalize()
        return {
            f"Put{noun}Policy": self._put,
            f"Get{noun}Policy": self._get,
            f"Delete{noun}Policy": self._delete,
            f"List{noun}Policies": self._list,
            f"Attach{noun}Policy": self._attach,
            f"Detach{noun}Policy": self._detach,
            f"ListAttached{noun}Policies": self._attached,
            f"Tag{noun}": self._tag,
            f"Untag{noun}": self._untag,
            f"List{noun}Tags": self._tags,
        }

    async def _put(self, call: QueryCall) -> Params:
        text = check_document(call.params["PolicyDocument"])

        def edit(holder: Document) -> None:
            holder["inline"][call.params["PolicyName"]] = text
            size = sum(map(len, holder["inline"].values()))
            if size > MAX_INLINE:
                message = (
                    f"Maximum policy size of {MAX_INLINE} bytes exceeded for {self._kind} {self._name(call)}"
                )
                raise ApiError("LimitExceeded", message, status=409)

        await self._identities.change(self._kind, self._name(call), edit)
        return {}

    async def _get(self, call: QueryCall) -> Params:
        name = call.params["PolicyName"]
        text = self._holder(call)["inline"].get(name)
        if text is None:
            raise self._no_policy(name)
        return {self._member: self._name(call), "PolicyName": name, "PolicyDocument": quote(text, safe="")}

    async def _delete(self, call: QueryCall) -> Params:
        name = call.params["PolicyName"]

        def edit(holder: Document) -> None:
            if holder["inline"].pop(name, None) is None:
                raise self._no_policy(name)

        await self._identities.change(self._kind, self._name(call), edit)
        return {}

    async def _list(self, call: QueryCall) -> Params:
        names = [{"name": name} for name in sorted(self._holder(call)["inline"])]
        found = listed(names, "name", "PolicyNames", call.params)
        return {**found, "PolicyNames": [item["name"] for item in found["PolicyNames"]]}

    async def _attach(self, call: QueryCall) -> Params:
        arn = call.params["PolicyArn"]

        def edit(holder: Document) -> None:
            self._identities.policy(arn)
            if arn not in holder["attached"]:
                if len(holder["attached"]) >= MAX_ATTACHED:
                    quota = f"PoliciesPer{self._kind.capitalize()}: {MAX_ATTACHED}"
                    raise ApiError("LimitExceeded", f"Cannot exceed quota for {quota}", status=409)
                holder["attached"].append(arn)

        await self._identities.change(self._kind, self._name(call), edit)
        return {}

    async def _detach(self, call: QueryCall) -> Params:
        arn = call.params["PolicyArn"]

        def edit(holder: Document) -> None:
            if arn not in holder["attached"]:
                raise no_such(f"Policy {arn} was not found.")
            holder["attached"].remove(arn)

        await self._identities.change(self._kind, self._name(call), edit)
        return {}

    async def _attached(self, call: QueryCall) -> Params:
        prefix = call.params.get("PathPrefix") or "/"
        policies = [self._identities.policy(arn) for arn in self._holder(call)["attached"]]
        shown = [
            {"PolicyName": policy["PolicyName"], "PolicyArn": policy["Arn"]}
            for policy in policies
            if policy["Path"].startswith(prefix)
        ]
        return listed(shown, "PolicyArn", "AttachedPolicies", call.params)

    async def _tag(self, call: QueryCall) -> Params:
        await self._identities.change(
            self._kind, self._name(call), lambda holder: keep_tags(holder, call.params["Tags"])
        )
        return {}

    async def _untag(self, call: QueryCall) -> Params:
        def edit(holder: Document) -> None:
            holder["Tags"] = [tag for tag in holder["Tags"] if tag["Key"] not in call.params["TagKeys"]]

        await self._identities.change(self._kind, self._name(call), edit)
        return {}

    async def _tags(self, call: QueryCall) -> Params:
        return listed(self._holder(call)["Tags"], "Key", "Tags", call.params)

    def _name(self, call: QueryCall) -> str:
        return str(call.params[self._member])

    def _holder(self, call: QueryCall) -> Document:
        return self._identities.get(self._kind, self._name(call))

    def _no_policy(self, name: str) -> ApiError:
        return no_such(f"The {self._kind} policy with name {name} cannot be found.")


def keep_tags(document: Document, tags: Sequence[Document]) -> None:
    """Add tags, or replace those of the same key. Raises ApiError."""
    found = {tag["Key"]: tag for tag in (*document["Tags"], *tags)}
    if len(found) > MAX_TAGS:
        raise ApiError(
            "LimitExceeded", f"The number of tags has reached the maximum limit of {MAX_TAGS}.", status=409
        )
    document["Tags"] = list(found.values())


def listed(items: Sequence[Document], key: str, member: str, params: Params) -> Params:
    """One page of a list, ordered by a member that is unique; the marker is that of the last item before it."""
    after, most = params.get("Marker") or "", params.get("MaxItems") or 100
    left = sorted((item for item in items if item[key] > after), key=lambda item: str(item[key]))
    if len(left) <= most:
        return {member: left, "IsTruncated": False}
    return {member: left[:most], "IsTruncated": True, "Marker": left[most - 1][key]}


def conflict(message: str) -> ApiError:
    return ApiError("DeleteConflict", message, status=409)
