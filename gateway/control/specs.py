"""A stored function as the two parties see it that run it: the supervisor (spec) and the front doors (view)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.model.arn import function_arn
from gateway.model.function import Function
from gateway.model.image import ImageConfig
from gateway.model.quotas import PIDS


@dataclass(frozen=True, slots=True)
class Credential:
    """AWS credentials in the environment of a function without a role of ours; they are nobody's, so that SDK clients can be made."""

    access_key_id: str
    secret_access_key: str
    session_token: str


# By which SDKs find the services that this server speaks for, and no others (SDKs and tools reference guide, "Service-specific
# endpoints"): a function that uses S3 as well is not sent here for it.
_ENDPOINTS = (
    "AWS_ENDPOINT_URL_LAMBDA",
    "AWS_ENDPOINT_URL_STS",
    "AWS_ENDPOINT_URL_IAM",
    "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS",
)
NO_CREDENTIAL = Credential("FORKLIGHTFUNCTION000", "none", "none")


def spec(
    function: Function,
    code: Path,
    layers: Sequence[Path],
    runtime_layer: Path | None,
    endpoint: str | None = None,
    image: ImageConfig | None = None,
) -> dict[str, Any]:
    """What the supervisor needs to make workers. `code`, `runtime_layer` and the one of `layers` are absolute folders; `endpoint` is
    where functions reach this server; `image` is what the image says of itself whose files `code` has. Looks for extensions in both."""
    settings = function.settings
    return {
        "key": function.key,
        "runtime": function.runs_on,
        "code": str(code),
        "layers": [str(layer) for layer in layers],
        "runtime_layer": None if runtime_layer is None else str(runtime_layer),
        "limits": {"memory_mb": function.memory_mb, "tmp_mb": function.tmp_mb, "pids": PIDS},
        "network": settings.network,
        "isolation": settings.isolation,
        "snapshot": settings.snapshot,
        "init": _init_document(function, endpoint) | _image_document(function, image),
        "extensions": any(
            has_extensions(place) for place in (*layers, *([] if image is None else [code / "opt"]))
        ),
    }


def has_extensions(layers: Path) -> bool:
    """Whether what layers make together brings external extensions. The guest finds the same (runtime_api/extensions.py)."""
    try:
        with os.scandir(layers / "extensions") as entries:
            return any(not entry.is_dir() for entry in entries)
    except OSError:
        return False


def _image_document(function: Function, config: ImageConfig | None) -> dict[str, Any]:
    """What starts an image: each of the three as the function says, or else as the image does."""
    if config is None or function.image is None:
        return {}
    start = {
        "command": [
            *(function.image.entry_point or config.entry_point),
            *(function.image.command or config.command),
        ],
        "env": config.environment,
        "workdir": function.image.working_directory or config.working_directory,
    }
    return {"image": start}


def _init_document(function: Function, endpoint: str | None) -> dict[str, Any]:
    """What the guest needs before the function's own code runs."""
    given = function.environment or {}
    endpoints = {} if endpoint is None else dict.fromkeys(_ENDPOINTS, endpoint)
    return {
        "handler": function.handler,
        "task_root": "/var/task",
        "env": {**endpoints, **given},
        "function_name": function.name,
        "function_version": function.version,
        "function_arn": function_arn(function.region, function.name),
        "memory_limit_in_mb": function.memory_mb,
        "log_group_name": function.logging.group,
        "log_format": function.logging.format,
        "log_level": function.logging.application_level,
        "runtime": function.runs_on,
        "region": function.region,
        "init_type": "on-demand",
        "credentials": {
            "access_key_id": NO_CREDENTIAL.access_key_id,
            "secret_access_key": NO_CREDENTIAL.secret_access_key,
            "session_token": NO_CREDENTIAL.session_token,
        },
    }


def view(function: Function, state: str, state_reason: str, reserved: int | None) -> dict[str, Any]:
    """What a front door needs to admit, dispatch and account for a call. `reserved`: its function's concurrency."""
    return {
        "region": function.region,
        "name": function.name,
        "arn": function.arn,
        "version": function.version,
        "key": function.key,
        "timeout_s": function.timeout_s,
        "memory_mb": function.memory_mb,
        "isolation": function.settings.isolation,
        "runtime": function.runs_on,
        "handler": function.handler,
        "log_group": function.logging.group,
        "log_format": function.logging.format,
        "system_level": function.logging.system_level,
        "state": state,
        "state_reason": state_reason,
        "max_concurrency": reserved,
        "dead_letters": function.dead_letters,
    }
