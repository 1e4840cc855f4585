"""Functions in the words of the Lambda API: the structures that operations answer with."""

from __future__ import annotations

import hashlib
from typing import Any

from gateway.control.function_rules import host_architecture
from gateway.control.registry import Entry
from gateway.model.arn import LATEST
from gateway.model.function import Function
from gateway.model.image import ImageUse

Document = dict[str, Any]

_CREATING = "The function is being created."


def configuration(entry: Entry, qualifier: str | None = None) -> Document:
    """FunctionConfiguration of the newest revision. `qualifier`, when the caller gave one, shows in the ARN."""
    function = entry.function
    document = _plain(function)
    if qualifier:
        document["FunctionArn"] = f"{function.arn}:{qualifier}"
    document["State"] = entry.state
    if entry.reason:
        document["StateReason"] = entry.reason
        document["StateReasonCode"] = entry.reason_code
    if entry.state == "Active" or entry.update != "Successful":
        document["LastUpdateStatus"] = entry.update
    if entry.update == "InProgress":
        document["LastUpdateStatusReason"] = _CREATING
        document["LastUpdateStatusReasonCode"] = "Creating"
    elif entry.update == "Failed":
        document["LastUpdateStatusReason"] = entry.reason
        document["LastUpdateStatusReasonCode"] = entry.reason_code
    if function.snap_start != "None" and function.version != LATEST and entry.snapshot in ("on", "idle"):
        document["SnapStart"]["OptimizationStatus"] = "On"
    settings = function.settings
    document["Forklight"] = {
        "Isolation": settings.isolation,
        "IsolationWhy": settings.weakness,
        "Snapshot": settings.snapshot,
        "SnapshotState": entry.snapshot,
        "SnapshotWhy": entry.snapshot_why,
        "Network": settings.network,
    }
    return document


def just_created(entry: Entry) -> Document:
    """What CreateFunction answers: Pending, as on Lambda, even though ours may already be called.

    With Publish it is the version, under the function's own ARN, as moto's and LocalStack's tests have it from AWS.
    """
    document = configuration(entry)
    if entry.state != "Failed":
        document.update(State="Pending", StateReason=_CREATING, StateReasonCode="Creating")
    document.pop("LastUpdateStatus", None)
    return document


def just_published(entry: Entry) -> Document:
    """What answers the publication of a version, a new one or the last one again."""
    document = configuration(entry, entry.function.version)
    document.pop("LastUpdateStatus", None)
    return document


def just_updated(entry: Entry) -> Document:
    """What an update answers: InProgress, as on Lambda; the next look-up says how it ended."""
    document = configuration(entry)
    if entry.update == "Successful":
        document.update(
            LastUpdateStatus="InProgress",
            LastUpdateStatusReason=_CREATING,
            LastUpdateStatusReasonCode="Creating",
        )
    return document


def _plain(function: Function) -> Document:
    logging: Document = {"LogFormat": function.logging.format, "LogGroup": function.logging.group}
    if function.logging.application_level:
        logging["ApplicationLogLevel"] = function.logging.application_level
    if function.logging.system_level:
        logging["SystemLogLevel"] = function.logging.system_level
    document: Document = {
        "FunctionName": function.name,
        "FunctionArn": function.arn,
        "Runtime": function.runtime,
        "Role": function.role,
        "Handler": function.handler,
        "CodeSize": function.code.size,
        "Description": function.description,
        "Timeout": function.timeout_s,
        "MemorySize": function.memory_mb,
        "LastModified": function.last_modified,
        "CodeSha256": function.code_sha256,
        "Version": function.version,
        "TracingConfig": {"Mode": "PassThrough"},
        "RevisionId": function.revision,
        "PackageType": "Zip",
        "Architectures": [host_architecture()],
        "EphemeralStorage": {"Size": function.tmp_mb},
        "SnapStart": {"ApplyOn": function.snap_start, "OptimizationStatus": "Off"},
        "RuntimeVersionConfig": {"RuntimeVersionArn": runtime_version_arn(function)},
        "LoggingConfig": logging,
    }
    if function.image is not None:
        for member in ("Runtime", "Handler", "RuntimeVersionConfig"):
            del document[member]
        document["PackageType"] = "Image"
        if config := _image_config(function.image):
            document["ImageConfigResponse"] = {"ImageConfig": config}
    if function.layers:
        document["Layers"] = [{"Arn": layer.arn, "CodeSize": layer.code.size} for layer in function.layers]
    if function.environment is not None:
        document["Environment"] = {"Variables": function.environment}
    if function.dead_letters:
        document["DeadLetterConfig"] = {"TargetArn": function.dead_letters}
    return document


def image_code(image: ImageUse) -> Document:
    """FunctionCodeLocation."""
    return {"RepositoryType": "ECR", "ImageUri": image.uri, "ResolvedImageUri": image.resolved}


def _image_config(image: ImageUse) -> Document:
    config: Document = {}
    if image.entry_point:
        config["EntryPoint"] = list(image.entry_point)
    if image.command:
        config["Command"] = list(image.command)
    if image.working_directory:
        config["WorkingDirectory"] = image.working_directory
    return config


def runtime_version_arn(function: Function) -> str:
    """Of the one build of its runtime that a host has."""
    digest = hashlib.sha256(function.runtime.encode()).hexdigest()
    return f"arn:aws:lambda:{function.region}::runtime:{digest}"
