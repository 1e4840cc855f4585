"""Who may call the operations that control answers: each is an action on a resource, as AWS's service authorization reference has it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from gateway.control.event_source_mappings import MAPPING, mapping_arn
from gateway.control.images import repository_arn
from gateway.control.layers import parse_version_arn, resolve_layer
from gateway.model.arn import ACCOUNT_ID, function_arn, parse_function_name, resolve_reference
from gateway.model.authority import ROOT, Authority, Who, access_denied
from gateway.model.errors import ApiError
from gateway.model.image import BadImage, Reference
from gateway.model.layer import layer_arn
from gateway.web.apis.log_params import group_name, text

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
    who = authority.who(str(caller.get("key") or ""), str(caller.get("token") or ""))
    return who, dict(caller.get("seen") or {})


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
    for used, resource in _used(region, params):
        authority.check(who, used, resource, region, None, lambda: context)


def check_logs(
    authority: Authority, who: Who, region: str, operation: str, params: Params, context: Context
) -> None:
    """Raises ApiError."""
    group, stream = group_name(params), text(params, "logStreamName")
    resource = f"arn:aws:logs:{region}:{ACCOUNT_ID}:log-group:{group}:log-stream:{stream}"
    authority.check(who, f"logs:{operation}", resource, region, None, lambda: context)


def check_events(
    authority: Authority, who: Who, region: str, operation: str, resource: str, context: Context
) -> None:
    """An operation of EventBridge on a bus, a rule or "*". Raises ApiError."""
    authority.check(who, f"events:{operation}", resource, region, None, lambda: context)


def check_scheduler(
    authority: Authority,
    who: Who,
    region: str,
    operation: str,
    resource: str,
    params: Params,
    context: Context,
) -> None:
    """An operation of Scheduler, and that the caller may hand its role on. Raises ApiError."""
    authority.check(who, f"scheduler:{operation}", resource, region, None, lambda: context)
    role = (params.get("Target") or {}).get("RoleArn")
    if role:
        passed = {**context, "iam:passedtoservice": ["scheduler.amazonaws.com"]}
        authority.check(who, "iam:PassRole", role, region, None, lambda: passed)


def check_own(
    authority: Authority, who: Who, region: str, method: str, segments: list[str], context: Context
) -> None:
    """Our own endpoints, action `forklight:` and a verb. Raises ApiError."""
    name = segments[0] if len(segments) == 1 else segments[2] if len(segments) > 2 else ""
    verb = "Get" if method in ("GET", "HEAD") else "Delete"
    resource = "*"
    if len(segments) > 3 and name == "layers":
        resource = layer_arn(region, segments[3])
    elif len(segments) > 3:
        resource = function_arn(region, resolve_reference(region, segments[3], None)[0])
    authority.check(who, f"forklight:{verb}{name.capitalize()}", resource, region, None, lambda: context)


def check_entity(
    authority: Authority, who: Who, region: str, operation: str, resource: str, context: Context
) -> None:
    """An operation of IAM. Raises ApiError."""
    authority.check(who, f"iam:{operation}", resource, region, None, lambda: context)


def _function_of(resource: Any) -> str | None:
    """The function that an ARN of tags means."""
    return resource if isinstance(resource, str) and ":function:" in resource else None


def _used(region: str, params: Params) -> Iterator[tuple[str, str]]:
    """Actions on what code and configuration are made of, as AWS asks for them: whoever runs it can read it."""
    for place in (params, params.get("Code"), params.get("Content")):
        if isinstance(place, dict) and place.get("S3Bucket") and place.get("S3Key"):
            action = "s3:GetObjectVersion" if place.get("S3ObjectVersion") else "s3:GetObject"
            yield action, f"arn:aws:s3:::{place['S3Bucket']}/{place['S3Key']}"
        if isinstance(place, dict) and place.get("ImageUri"):
            with suppress(BadImage):  # what is no name is refused as that
                image = repository_arn(region, Reference.parse(str(place["ImageUri"])).repository)
                yield "ecr:BatchGetImage", image
                yield "ecr:GetDownloadUrlForLayer", image
    for layer in params.get("Layers") or ():
        yield "lambda:GetLayerVersion", _version_arn(region, str(layer))


def _version_arn(region: str, arn: str) -> str:
    """As we write it: there are several ways to name one version of a layer, and a policy knows one. What names none stays."""
    try:
        name, number = parse_version_arn(region, arn)
    except ApiError:
        return arn
    return f"{layer_arn(region, name)}:{number}"


def _tagged(region: str, arn: str) -> str:
    """A mapping is looked for in the caller's region, whatever the ARN says of that."""
    parts = arn.split(":")
    return mapping_arn(region, parts[-1]) if len(parts) > 6 and parts[5] == MAPPING else arn


def _lambda_resource(region: str, params: Params) -> str:
    if params.get("Resource"):
        return _tagged(region, str(params["Resource"]))
    if params.get("LayerName"):
        arn = layer_arn(region, resolve_layer(region, str(params["LayerName"])))
        number = params.get("VersionNumber")
        return f"{arn}:{number}" if number is not None else arn
    if params.get("Arn"):
        return _version_arn(region, str(params["Arn"]))
    if params.get("UUID"):
        return mapping_arn(region, params["UUID"])
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
