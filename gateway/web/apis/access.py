"""Who may call the operations that control answers: each is an action on a resource, as AWS's service authorization reference has it."""

from __future__ import annotations

from typing import Any

from gateway.model.arn import ACCOUNT_ID, parse_function_name, resolve_reference
from gateway.model.authority import ROOT, Authority, Who, access_denied
from gateway.model.errors import ApiError

Context = dict[str, list[str]]
Params = dict[str, Any]

# Operations whose action has another name.
_ACTIONS = {
    "GetLayerVersionByArn": "GetLayerVersion",
    "InvokeWithResponseStream": "InvokeFunction",
    "Invoke": "InvokeFunction",
}
# Operations with this in their name are about the mapping, whatever function they name; that is a key of conditions.
_MAPPING = "EventSourceMapping"


def caller_of(authority: Authority, message: dict[str, Any]) -> tuple[Who, Context]:
    """Whom a front door has verified, and what it knows of the request. Raises ApiError when he is nobody (any more)."""
    caller = message.get("caller")
    if not isinstance(caller, dict) or not caller:
        raise access_denied("Nobody is known to have made this request")
    if caller.get("root") is True:
        return ROOT, {}
    address = caller.get("source_ip")
    who = authority.who(str(caller.get("key") or ""), str(caller.get("token") or ""))
    return who, {"aws:sourceip": [str(address)]} if address else {}


def check_lambda(
    authority: Authority, who: Who, region: str, operation: str, params: Params, context: Context
) -> None:
    """Raises ApiError."""
    if who.is_root:
        return
    action = "lambda:" + _ACTIONS.get(operation, operation)
    more = {**context, **_lambda_context(region, params)}
    named = params.get("FunctionName") or _function_of(params.get("Resource"))
    if named and _MAPPING not in operation:
        name, qualifier = resolve_reference(region, named, params.get("Qualifier"))
        authority.check_invoke(who, region, name, qualifier, lambda: more, action)
    else:
        authority.check(who, action, _lambda_resource(region, params), region, None, lambda: more)
    if params.get("Role"):
        passed = {**more, "iam:passedtoservice": ["lambda.amazonaws.com"]}
        authority.check(who, "iam:PassRole", params["Role"], region, None, lambda: passed)


def check_logs(
    authority: Authority, who: Who, region: str, operation: str, params: Params, context: Context
) -> None:
    """Raises ApiError."""
    group = str(params.get("logGroupName") or params.get("logGroupIdentifier") or "")
    group = group.partition(":log-group:")[2] or group
    stream = str(params.get("logStreamName") or "")
    resource = f"arn:aws:logs:{region}:{ACCOUNT_ID}:log-group:{group}:log-stream:{stream}"
    authority.check(who, f"logs:{operation}", resource, region, None, lambda: context)


def check_own(
    authority: Authority, who: Who, region: str, method: str, segments: list[str], context: Context
) -> None:
    """Our own endpoints, action `forklight:` and a verb. Raises ApiError."""
    name = segments[0] if len(segments) == 1 else segments[2] if len(segments) > 2 else ""
    verb = "Get" if method in ("GET", "HEAD") else "Delete"
    resource = "*"
    if len(segments) > 3:
        resource = f"arn:aws:lambda:{region}:{ACCOUNT_ID}:function:{segments[3]}"
    authority.check(who, f"forklight:{verb}{name.capitalize()}", resource, region, None, lambda: context)


def check_entity(
    authority: Authority, who: Who, region: str, operation: str, resource: str, context: Context
) -> None:
    """An operation of IAM. Raises ApiError."""
    authority.check(who, f"iam:{operation}", resource, region, None, lambda: context)


def _function_of(resource: Any) -> str | None:
    """The function that an ARN of tags means."""
    return resource if isinstance(resource, str) and ":function:" in resource else None


def _lambda_resource(region: str, params: Params) -> str:
    place = f"arn:aws:lambda:{region}:{ACCOUNT_ID}"
    if params.get("Resource"):
        return str(params["Resource"])
    if params.get("LayerName"):
        layer = str(params["LayerName"])
        arn = layer if layer.startswith("arn:") else f"{place}:layer:{layer}"
        number = params.get("VersionNumber")
        return f"{arn}:{number}" if number is not None else arn
    if params.get("Arn"):
        return str(params["Arn"])
    if params.get("UUID"):
        return f"{place}:event-source-mapping:{params['UUID']}"
    if params.get("CodeSigningConfigArn"):
        return str(params["CodeSigningConfigArn"])
    return "*"


def _lambda_context(region: str, params: Params) -> Context:
    """Keys of conditions that Lambda's operations have."""
    found: Context = {}
    if params.get("FunctionName"):
        try:
            reference = parse_function_name(params["FunctionName"])
        except ApiError:
            reference = None
        if reference is not None:
            arn = f"arn:aws:lambda:{region}:{ACCOUNT_ID}:function:{reference.name}"
            found["lambda:functionarn"] = [f"{arn}:{reference.qualifier}" if reference.qualifier else arn]
    for member, key in (
        ("Principal", "lambda:principal"),
        ("AuthType", "lambda:functionurlauthtype"),
        ("FunctionUrlAuthType", "lambda:functionurlauthtype"),
        ("CodeSigningConfigArn", "lambda:codesigningconfigarn"),
    ):
        if params.get(member):
            found[key] = [str(params[member])]
    if params.get("Layers"):
        found["lambda:layer"] = [str(layer) for layer in params["Layers"]]
    tags = params.get("Tags")
    if isinstance(tags, dict):
        found["aws:tagkeys"] = list(tags)
        found.update({f"aws:requesttag/{name.lower()}": [str(value)] for name, value in tags.items()})
    if params.get("TagKeys"):
        found["aws:tagkeys"] = [str(name) for name in params["TagKeys"]]
    return found
