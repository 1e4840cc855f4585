"""Rules of a function's configuration that the service model does not know: what this host can run, and Lambda's own.

The model's constraints (patterns, ranges, lengths) were checked before; these need more than one member, or the host.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping
from typing import Any

from gateway.model.arn import LATEST
from gateway.model.errors import ApiError, constraint_failure
from gateway.model.function import ISOLATION_TAG, NETWORK_TAG, SNAPSHOT_TAG, RunSettings, family_of
from gateway.model.quotas import MAX_ENVIRONMENT, MAX_NAME, MAX_TAGS, RESERVED_ENVIRONMENT

_ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}


def host_architecture() -> str:
    """In Lambda's words."""
    return _ARCHITECTURES.get(platform.machine().lower(), "x86_64")


def invalid(message: str) -> ApiError:
    return ApiError("InvalidParameterValueException", message)


def check_revision(wanted: str | None, current: str) -> None:
    """Raises ApiError when the caller has seen another revision."""
    if wanted and wanted != current:
        raise ApiError(
            "PreconditionFailedException",
            "The Revision Id provided does not match the latest Revision Id. "
            "Call the GetFunction/GetAlias API to retrieve the latest Revision Id",
        )


def check_unqualified(qualifier: str | None) -> None:
    """For operations on a function as a whole. Raises ApiError."""
    if qualifier is not None and qualifier != LATEST:
        raise invalid(
            "This operation is permitted on Lambda functions only. Aliases and versions do not support this operation. "
            "Please specify either a function name or an unqualified function ARN."
        )


def check_new_name(name: str) -> None:
    """The service model allows 140 characters, because the same member may hold an ARN."""
    if len(name) > MAX_NAME:
        raise constraint_failure(
            name, "functionName", f"Member must have length less than or equal to {MAX_NAME}"
        )


def check_runtime(runtime: str, available: Iterable[str]) -> None:
    if runtime not in (choices := sorted(available)):
        raise invalid(
            f"Value {runtime} at 'runtime' failed to satisfy constraint: "
            f"Member must satisfy enum value set: [{', '.join(choices)}] or be a valid ARN"
        )


def check_source(
    image: bool,
    image_uri: str | None,
    package: bool,
    image_config: Mapping[str, Any] | None,
    runtime: str | None,
    handler: str | None,
    layers: Iterable[str] | None,
) -> None:
    """Of a new function: what its package type needs, and nothing that is the other's. Raises ApiError."""
    if not image and image_uri:
        raise invalid("Please don't provide ImageUri when creating a function with packageType Zip.")
    if not image and not (runtime and handler):
        raise invalid(
            "Runtime and Handler are mandatory parameters for functions created with deployment packages."
        )
    if image and (package or not image_uri):
        raise invalid("Please provide ImageUri when creating a function with packageType Image.")
    check_for_package_type(image, image_config, runtime, handler, layers)
    if not image and not package:
        raise invalid("Please provide a source for function code.")


def check_new_source(image: bool, image_uri: str | None, package: bool) -> None:
    """Of a function that there is. Raises ApiError."""
    if image and (package or not image_uri):
        raise invalid("Please provide ImageUri when updating a function with packageType Image.")
    if not image and image_uri:
        raise invalid("Please don't provide ImageUri when updating a function with packageType Zip.")
    if not image and not package:
        raise invalid("Please provide a source for function code.")


def check_for_package_type(
    image: bool,
    image_config: Mapping[str, Any] | None,
    runtime: str | None,
    handler: str | None,
    layers: Iterable[str] | None,
) -> None:
    """Raises ApiError for what the other package type has."""
    if not image:
        if image_config:
            raise invalid("ImageConfig is not supported for functions created with deployment packages.")
        return
    for name, value in (("Runtime", runtime), ("Handler", handler), ("Layers", layers)):
        if value:
            raise invalid(f"{name} is not supported for functions created with container images.")
    directory = (image_config or {}).get("WorkingDirectory")
    if directory and not directory.startswith("/"):
        raise invalid(f"The working directory {directory[:200]} is no absolute path.")
    words = [*((image_config or {}).get("EntryPoint") or ()), *((image_config or {}).get("Command") or ())]
    if any("\0" in word for word in [*words, directory or ""]):
        raise invalid("ImageConfig contains a NUL character.")


def check_architectures(architectures: Iterable[str]) -> None:
    host = host_architecture()
    for architecture in architectures:
        if architecture != host:
            raise invalid(
                f"Architecture {architecture} is not that of this host: only [{host}] is supported."
            )


def check_environment(variables: Mapping[str, str]) -> None:
    reserved = sorted(RESERVED_ENVIRONMENT & variables.keys())
    if reserved:
        raise invalid(
            "Lambda was unable to configure your environment variables because the environment variables you have "
            "provided contains reserved keys that are currently not supported for modification. "
            f"Reserved keys used in this request: {', '.join(reserved)}"
        )
    measured = json.dumps(dict(variables), separators=(",", ":"), ensure_ascii=False)
    if len(measured.encode()) > MAX_ENVIRONMENT:
        raise invalid(
            "Lambda was unable to configure your environment variables because the environment variables you have "
            f"provided exceeded the 4KB limit. String measured: {measured}"
        )
    if any("\0" in value for value in variables.values()):
        raise invalid("An environment variable's value contains a NUL character.")


def check_tags(tags: Mapping[str, str]) -> None:
    if len(tags) > MAX_TAGS:
        raise invalid("Number of tags exceeds resource tag limit.")
    if any(key.lower().startswith("aws:") for key in tags):
        raise invalid("Tag keys that begin with 'aws:' are reserved.")


def check_settings(settings: RunSettings) -> None:
    """As on Lambda, where tenant isolation excludes SnapStart: tenants are kept apart by their sandboxes, and workers of one
    snapshot have one in common."""
    if settings.isolation == "tenant" and settings.snapshot == "on":
        raise invalid(
            f"Tag '{SNAPSHOT_TAG}' cannot be 'on' where '{ISOLATION_TAG}' is 'tenant': "
            "workers forked from one snapshot share a sandbox."
        )


def check_runs(runtime: str, settings: RunSettings) -> None:
    """What runtimes that are no Python of ours cannot have. Raises ApiError."""
    if family_of(runtime) == "python":
        return
    if settings.snapshot == "on" and runtime == "image":
        raise invalid(
            f"Container images are not supported for SnapStart enabled functions: tag '{SNAPSHOT_TAG}' cannot be 'on'."
        )
    if settings.snapshot == "on":
        raise invalid(
            f"{runtime} is not supported for SnapStart enabled functions: tag '{SNAPSHOT_TAG}' cannot be 'on'."
        )
    if settings.network == "host":
        raise invalid(
            f"Tag '{NETWORK_TAG}' cannot be 'host' with the runtime {runtime}: its Runtime API would be open to the whole host."
        )


def check_extended(settings: RunSettings) -> None:
    """What functions with external extensions cannot have, whatever their runtime. Raises ApiError."""
    if settings.snapshot == "on":
        raise invalid(
            f"Tag '{SNAPSHOT_TAG}' cannot be 'on' with extensions: they are processes, which a snapshot does not hold."
        )
    if settings.network == "host":
        raise invalid(
            f"Tag '{NETWORK_TAG}' cannot be 'host' with extensions: their API would be open to the whole host."
        )


def check_network(network: str, refused: Mapping[str, str]) -> None:
    """`refused`: network modes that cannot be had on this host -> why."""
    if network in refused:
        raise invalid(f"Network '{network}' cannot be had on this host: {refused[network]}.")


def check_log_levels(log_format: str, application: str | None, system: str | None) -> None:
    if log_format == "Text" and (application or system):
        raise invalid(
            "To specify a log level, you must set your function's log format to JSON (LoggingConfig.LogFormat)."
        )
