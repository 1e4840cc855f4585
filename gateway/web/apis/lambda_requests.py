"""From members of a Lambda request to what `gateway.control` is asked for, and a clear no to what is not there yet."""

from __future__ import annotations

from typing import Any

from gateway.control.functions import Wanted
from gateway.model.errors import ApiError

Params = dict[str, Any]

# Members that ask for something this host does not have. Empty values, which SDKs and templates like to send, are fine.
_NOT_YET = {
    "VpcConfig": "functions in a VPC are not implemented: the tag forklight:network=egress gives a way to the internet",
    "FileSystemConfigs": "file systems are not implemented",
    "KMSKeyArn": "customer managed keys are not implemented",
    "SourceKMSKeyArn": "customer managed keys are not implemented",
    "TenancyConfig": "use the tag forklight:isolation=tenant",
    "CapacityProviderConfig": "capacity providers are not implemented",
    "DurableConfig": "durable functions are not implemented",
    "AcceleratorConfig": "accelerators are not implemented",
    "PublishTo": "capacity providers are not implemented",
}


def wanted(params: Params, package: bytes | None, addresses: tuple[str, ...] = ()) -> Wanted:
    """What a creation or a change asks for; `addresses` are those of this host. Raises ApiError for what cannot be had."""
    _refuse_what_is_missing(params)
    environment = params.get("Environment")
    logging = params.get("LoggingConfig") or {}
    dead_letters = params.get("DeadLetterConfig")
    return Wanted(
        runtime=params.get("Runtime"),
        handler=params.get("Handler"),
        role=params.get("Role"),
        description=params.get("Description"),
        timeout_s=params.get("Timeout"),
        memory_mb=params.get("MemorySize"),
        tmp_mb=(params.get("EphemeralStorage") or {}).get("Size"),
        dead_letters=None if dead_letters is None else dead_letters.get("TargetArn") or "",
        environment=None if environment is None else environment.get("Variables") or {},
        architectures=tuple(params.get("Architectures") or ()),
        log_group=logging.get("LogGroup"),
        log_format=logging.get("LogFormat"),
        application_level=logging.get("ApplicationLogLevel"),
        system_level=logging.get("SystemLogLevel"),
        snap_start=(params.get("SnapStart") or {}).get("ApplyOn"),
        tags=params.get("Tags"),
        layers=None if params.get("Layers") is None else tuple(params["Layers"]),
        package=package,
        package_type=params.get("PackageType") or "Zip",
        image_uri=params.get("ImageUri") or (params.get("Code") or {}).get("ImageUri") or None,
        image_config=params.get("ImageConfig"),
        addresses=addresses,
        publish=bool(params.get("Publish")),
    )


def not_implemented(member: str, why: str) -> ApiError:
    return ApiError("InvalidParameterValueException", f"{member}: {why}.")


def _refuse_what_is_missing(params: Params) -> None:
    for member, why in _NOT_YET.items():
        if _says_something(params.get(member)):
            raise not_implemented(member, why)
    if (params.get("TracingConfig") or {}).get("Mode", "PassThrough") != "PassThrough":
        raise not_implemented("TracingConfig", "only Mode PassThrough is implemented")


def _says_something(value: Any) -> bool:
    """Not {"SubnetIds": [], "SecurityGroupIds": []}, which means "none"."""
    if isinstance(value, dict):
        return any(_says_something(item) for item in value.values())
    return bool(value)
