"""What Terraform's AWS provider asks for, call by call: what it reads back is what it wrote, so a second plan has no changes.

Each resource here makes the provider's calls (terraform-provider-aws, internal/service/lambda and iam: Create, Read, Update, Delete) and
reads the attributes that the provider compares with the configuration. Where the provider overlooks a difference, so do we.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.support.deploy import invoke, zip_of
from tests.support.identities import ACCOUNT, trust
from tests.support.patience import seconds
from tests.support.server import Server

Attributes = dict[str, Any]
NAME, ROLE, LAYER, ALIAS = "tf-function", "tf-role", "tf-layer", "live"
BASIC = "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"


class Terraform:
    """One stack: `apply` makes what is missing and changes what differs, `plan` says what that is."""

    def __init__(self, server: Server) -> None:
        self.client = server.client()
        self.iam = server.client("iam")
        self.mapping = ""
        self.layer_arn = ""

    # ---- aws_iam_role, aws_iam_role_policy_attachment ----------------------------------------------------------------

    def create_role(self, wanted: Attributes) -> str:
        self.iam.create_role(
            RoleName=ROLE, Path="/", AssumeRolePolicyDocument=wanted["assume_role_policy"], MaxSessionDuration=3600
        )  # fmt: skip
        self.iam.attach_role_policy(RoleName=ROLE, PolicyArn=BASIC)
        return str(self.iam.get_role(RoleName=ROLE)["Role"]["Arn"])

    def read_role(self) -> Attributes:
        role = self.iam.get_role(RoleName=ROLE)["Role"]
        assert self.iam.list_role_policies(RoleName=ROLE)["PolicyNames"] == []
        attached = self.iam.list_attached_role_policies(RoleName=ROLE)["AttachedPolicies"]
        document = role["AssumeRolePolicyDocument"]  # boto3 has decoded it; the provider decodes it itself
        return {
            "assume_role_policy": json.dumps(document),
            "description": role.get("Description", ""),
            "max_session_duration": role["MaxSessionDuration"],
            "path": role["Path"],
            "attached": [policy["PolicyArn"] for policy in attached],
            "tags": {tag["Key"]: tag["Value"] for tag in role.get("Tags", ())},
        }

    def delete_role(self) -> None:
        self.iam.detach_role_policy(RoleName=ROLE, PolicyArn=BASIC)
        assert self.iam.list_instance_profiles_for_role(RoleName=ROLE)["InstanceProfiles"] == []
        self.iam.delete_role(RoleName=ROLE)

    # ---- aws_lambda_layer_version -------------------------------------------------------------------------------------

    def create_layer(self, wanted: Attributes, package: bytes) -> str:
        made = self.client.publish_layer_version(
            Content={"ZipFile": package}, LayerName=LAYER, Description=wanted["description"],
            LicenseInfo=wanted["license_info"], CompatibleRuntimes=wanted["compatible_runtimes"],
            CompatibleArchitectures=wanted["compatible_architectures"],
        )  # fmt: skip
        self.layer_arn = made["LayerVersionArn"]
        return self.layer_arn

    def read_layer(self) -> Attributes:
        _, number = self.layer_arn.rsplit(":", 1)
        found = self.client.get_layer_version(LayerName=LAYER, VersionNumber=int(number))
        assert found["LayerVersionArn"] == self.layer_arn
        assert found["LayerArn"] == f"arn:aws:lambda:us-east-1:{ACCOUNT}:layer:{LAYER}"
        return {
            "description": found.get("Description", ""),
            "license_info": found.get("LicenseInfo", ""),
            "compatible_runtimes": found.get("CompatibleRuntimes", []),
            "compatible_architectures": found.get("CompatibleArchitectures", []),
            "code_sha256": found["Content"]["CodeSha256"],
            "source_code_size": found["Content"]["CodeSize"],
        }

    # ---- aws_lambda_function ------------------------------------------------------------------------------------------

    def create_function(self, wanted: Attributes, package: bytes) -> None:
        self.client.create_function(
            Code={"ZipFile": package}, FunctionName=NAME, PackageType="Zip", Publish=wanted["publish"],
            Description=wanted["description"], Handler=wanted["handler"], MemorySize=wanted["memory_size"],
            Role=wanted["role"], Runtime=wanted["runtime"], Tags=wanted["tags"], Timeout=wanted["timeout"],
            Environment={"Variables": wanted["environment"]}, EphemeralStorage={"Size": wanted["ephemeral_storage"]},
            Layers=wanted["layers"], LoggingConfig=_logging(wanted["logging_config"]), TracingConfig={"Mode": "PassThrough"},
        )  # fmt: skip
        self._wait(lambda: self.client.get_function(FunctionName=NAME)["Configuration"]["State"], "Active")
        self.client.put_function_concurrency(
            FunctionName=NAME, ReservedConcurrentExecutions=wanted["reserved_concurrent_executions"]
        )

    def read_function(self) -> Attributes:
        output = self.client.get_function(FunctionName=NAME)
        found = output["Configuration"]
        versions = [
            version for page in self.client.get_paginator("list_versions_by_function").paginate(FunctionName=NAME)
            for version in page["Versions"]
        ]  # fmt: skip
        signing = self.client.get_function_code_signing_config(FunctionName=NAME)
        assert output["Code"]["Location"] and not signing.get("CodeSigningConfigArn")
        logging = found["LoggingConfig"]
        return {
            "architectures": found["Architectures"],
            "code_sha256": found["CodeSha256"],
            "dead_letter_config": found.get("DeadLetterConfig", {}).get("TargetArn"),
            "description": found.get("Description", ""),
            "environment": found.get("Environment", {}).get("Variables", {}),
            "ephemeral_storage": found["EphemeralStorage"]["Size"],
            "file_system_config": found.get("FileSystemConfigs", []),
            "handler": found["Handler"],
            "kms_key_arn": found.get("KMSKeyArn", ""),
            "layers": [layer["Arn"] for layer in found.get("Layers", ())],
            "logging_config": {
                "log_format": logging["LogFormat"],
                "log_group": logging["LogGroup"],
                "application_log_level": logging.get("ApplicationLogLevel"),
                "system_log_level": logging.get("SystemLogLevel"),
            },
            "memory_size": found["MemorySize"],
            "package_type": found["PackageType"],
            "reserved_concurrent_executions": output.get("Concurrency", {}).get(
                "ReservedConcurrentExecutions", -1
            ),
            "role": found["Role"],
            "runtime": found["Runtime"],
            "snap_start": found["SnapStart"]["ApplyOn"],
            "source_code_size": found["CodeSize"],
            "tags": output.get("Tags", {}),
            "timeout": found["Timeout"],
            "tracing_config": found["TracingConfig"]["Mode"],
            "version": versions[-1]["Version"],
            "qualified_arn": versions[-1]["FunctionArn"],
            "vpc_config": found.get("VpcConfig", {}).get("SubnetIds", []),
        }

    def update_function(self, package: bytes | None = None, **changes: Any) -> str:
        """As the provider orders it: configuration, code, concurrency, version. Returns that version."""
        if changes:
            self.client.update_function_configuration(FunctionName=NAME, **changes)
            self._wait_updated()
        if package is not None:
            self.client.update_function_code(FunctionName=NAME, ZipFile=package)
            self._wait_updated()
        made = self.client.publish_version(FunctionName=NAME)
        self._wait(
            lambda: self.client.get_function_configuration(FunctionName=made["FunctionArn"], Qualifier=made["Version"])[
                "LastUpdateStatus"
            ],
            "Successful",
        )  # fmt: skip
        return str(made["Version"])

    def _wait_updated(self) -> None:
        self._wait(
            lambda: self.client.get_function(FunctionName=NAME)["Configuration"]["LastUpdateStatus"], "Successful"
        )  # fmt: skip

    # ---- aws_lambda_alias, aws_lambda_function_url, aws_lambda_permission ---------------------------------------------

    def read_alias(self) -> Attributes:
        found = self.client.get_alias(FunctionName=NAME, Name=ALIAS)
        assert found["AliasArn"].endswith(f":function:{NAME}:{ALIAS}")
        return {
            "description": found.get("Description", ""),
            "function_version": found["FunctionVersion"],
            "routing_config": found.get("RoutingConfig", {}).get("AdditionalVersionWeights", {}),
        }

    def read_url(self) -> Attributes:
        found = self.client.get_function_url_config(FunctionName=NAME, Qualifier=ALIAS)
        assert found["FunctionArn"].endswith(f":function:{NAME}:{ALIAS}")
        assert urllib.parse.urlsplit(found["FunctionUrl"]).scheme in ("http", "https")
        cors = found.get("Cors", {})
        return {
            "authorization_type": found["AuthType"],
            "invoke_mode": found["InvokeMode"],
            "cors": {
                "allow_credentials": cors.get("AllowCredentials", False),
                "allow_headers": cors.get("AllowHeaders", []),
                "allow_methods": cors.get("AllowMethods", []),
                "allow_origins": cors.get("AllowOrigins", []),
                "expose_headers": cors.get("ExposeHeaders", []),
                "max_age": cors.get("MaxAge", 0),
            },
        }

    def read_permission(self, sid: str, qualifier: str) -> Attributes | None:
        try:
            policy = json.loads(self.client.get_policy(FunctionName=NAME, Qualifier=qualifier)["Policy"])
        except self.client.exceptions.ResourceNotFoundException:
            return None
        for statement in policy["Statement"]:
            if statement["Sid"] == sid:
                principal = statement["Principal"]
                condition = statement.get("Condition", {})
                return {
                    "qualifier": statement["Resource"].rsplit(":", 1)[1],
                    "function_name": statement["Resource"].split(":")[6],
                    "action": statement["Action"],
                    "principal": principal.get("AWS", principal.get("Service")),
                    "source_account": condition.get("StringEquals", {}).get("AWS:SourceAccount"),
                    "source_arn": condition.get("ArnLike", {}).get("AWS:SourceArn"),
                }
        return None

    # ---- aws_lambda_event_source_mapping, aws_lambda_provisioned_concurrency_config -----------------------------------

    def create_mapping(self, **wanted: Any) -> None:
        self.mapping = self.client.create_event_source_mapping(FunctionName=NAME, **wanted)["UUID"]
        self._wait_mapping("Enabled")

    def _wait_mapping(self, state: str) -> None:
        self._wait(lambda: self.client.get_event_source_mapping(UUID=self.mapping)["State"], state)

    def read_mapping(self) -> Attributes:
        found = self.client.get_event_source_mapping(UUID=self.mapping)
        assert found["UUID"] == self.mapping and found["LastModified"] and found["StateTransitionReason"]
        tags = self.client.list_tags(Resource=found["EventSourceMappingArn"])["Tags"]
        return {
            "batch_size": found["BatchSize"],
            "event_source_arn": found["EventSourceArn"],
            "filter_criteria": found.get("FilterCriteria", {}).get("Filters"),
            "function_arn": found["FunctionArn"],
            "function_response_types": found.get("FunctionResponseTypes", []),
            "maximum_batching_window_in_seconds": found.get("MaximumBatchingWindowInSeconds", 0),
            "scaling_config": found.get("ScalingConfig"),
            "enabled": found["State"] == "Enabled",
            "tags": tags,
        }

    def read_provisioned(self) -> int:
        found = self.client.get_provisioned_concurrency_config(FunctionName=NAME, Qualifier=ALIAS)
        assert found["Status"] == "READY"
        return int(found["AllocatedProvisionedConcurrentExecutions"])

    def wait_provisioned(self) -> None:
        self._wait(
            lambda: self.client.get_provisioned_concurrency_config(FunctionName=NAME, Qualifier=ALIAS)["Status"], "READY"
        )  # fmt: skip

    # ---- parts --------------------------------------------------------------------------------------------------------

    def _wait(self, state: Any, wanted: str) -> None:
        end = time.monotonic() + seconds(60)
        while (found := state()) != wanted:
            assert found not in ("Failed", "FAILED") and time.monotonic() < end, found
            time.sleep(0.05)

    def gone(self, operation: str, **names: Any) -> bool:
        try:
            getattr(self.client, operation)(**names)
        except ClientError as error:
            return error.response["Error"]["Code"] in (
                "ResourceNotFoundException", "ProvisionedConcurrencyConfigNotFoundException"
            )  # fmt: skip
        return False


def _logging(wanted: Attributes) -> Attributes:
    members = {
        "log_format": "LogFormat", "log_group": "LogGroup", "application_log_level": "ApplicationLogLevel",
        "system_log_level": "SystemLogLevel",
    }  # fmt: skip
    return {members[name]: value for name, value in wanted.items() if value is not None}


def _sha256(package: bytes) -> str:
    return base64.b64encode(hashlib.sha256(package).digest()).decode()


def _code(text: str) -> bytes:
    return zip_of(
        {"index.py": f"import shared\ndef handler(event, context): return [{text!r}, shared.VALUE]\n"}
    )


@pytest.fixture
def terraform(server: Server) -> Iterator[Terraform]:
    """What the test leaves, because it has failed, goes."""
    made = Terraform(server)
    yield made
    if made.mapping and not made.gone("get_event_source_mapping", UUID=made.mapping):
        made.client.delete_event_source_mapping(UUID=made.mapping)
    if not made.gone("get_function", FunctionName=NAME):
        made.client.delete_function(FunctionName=NAME)
    if made.layer_arn:
        made.client.delete_layer_version(LayerName=LAYER, VersionNumber=int(made.layer_arn.rsplit(":", 1)[1]))
    if any(role["RoleName"] == ROLE for role in made.iam.list_roles()["Roles"]):
        made.delete_role()


def test_a_stack_has_no_drift(server: Server, terraform: Terraform) -> None:
    t, client = terraform, terraform.client
    who = boto3.session.Session(server.access_key, server.secret_key).client(
        "sts", endpoint_url=server.url, region_name="us-east-1"
    )
    assert who.get_caller_identity()["Account"] == ACCOUNT  # how the provider begins

    role: Attributes = {
        "assume_role_policy": trust({"Service": "lambda.amazonaws.com"}), "description": "", "max_session_duration": 3600,
        "path": "/", "attached": [BASIC], "tags": {},
    }  # fmt: skip
    role_arn = t.create_role(role)
    layer_package = zip_of({"python/shared.py": "VALUE = 1\n"})
    architecture = "arm64" if _is_arm() else "x86_64"
    layer: Attributes = {
        "description": "what is shared", "license_info": "MIT", "compatible_runtimes": ["python3.11", "python3.12"],
        "compatible_architectures": [architecture], "code_sha256": _sha256(layer_package),
        "source_code_size": len(layer_package),
    }  # fmt: skip
    layer_arn = t.create_layer(layer, layer_package)
    package = _code("one")
    function: Attributes = {
        "description": "of Terraform", "environment": {"STAGE": "test"}, "ephemeral_storage": 512, "handler": "index.handler",
        "layers": [layer_arn], "memory_size": 256, "reserved_concurrent_executions": 5, "role": role_arn,
        "runtime": "python3.11", "tags": {"team": "core"}, "timeout": 30,
        "logging_config": {
            "log_format": "JSON", "log_group": "/terraform/own", "application_log_level": "DEBUG", "system_log_level": "WARN",
        },
    }  # fmt: skip
    t.create_function({**function, "publish": True}, package)
    computed = {
        "architectures": [architecture], "code_sha256": _sha256(package), "dead_letter_config": None, "file_system_config": [],
        "kms_key_arn": "", "package_type": "Zip", "snap_start": "None", "source_code_size": len(package),
        "tracing_config": "PassThrough", "vpc_config": [], "version": "1",
        "qualified_arn": f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:{NAME}:1",
    }  # fmt: skip
    alias: Attributes = {"description": "what is live", "function_version": "1", "routing_config": {}}
    client.create_alias(FunctionName=NAME, Name=ALIAS, FunctionVersion="1", Description=alias["description"])
    url: Attributes = {
        "authorization_type": "AWS_IAM", "invoke_mode": "BUFFERED",
        "cors": {
            "allow_credentials": True, "allow_headers": ["date"], "allow_methods": ["GET", "POST"],
            "allow_origins": ["https://example.com"], "expose_headers": ["date"], "max_age": 60,
        },
    }  # fmt: skip
    client.create_function_url_config(
        AuthType="AWS_IAM", FunctionName=NAME, Qualifier=ALIAS, InvokeMode="BUFFERED",
        Cors={
            "AllowCredentials": True, "AllowHeaders": ["date"], "AllowMethods": ["GET", "POST"],
            "AllowOrigins": ["https://example.com"], "ExposeHeaders": ["date"], "MaxAge": 60,
        },
    )  # fmt: skip
    rule = f"arn:aws:events:us-east-1:{ACCOUNT}:rule/daily"
    permission: Attributes = {
        "qualifier": ALIAS, "function_name": NAME, "action": "lambda:InvokeFunction", "principal": "events.amazonaws.com",
        "source_account": ACCOUNT, "source_arn": rule,
    }  # fmt: skip
    client.add_permission(
        Action=permission["action"], FunctionName=NAME, Principal=permission["principal"], StatementId="events",
        Qualifier=ALIAS, SourceAccount=ACCOUNT, SourceArn=rule,
    )  # fmt: skip
    queue = f"arn:aws:sqs:us-east-1:{ACCOUNT}:tf-queue"
    filters = [{"Pattern": json.dumps({"body": {"kind": ["order"]}})}]
    mapping: Attributes = {
        "batch_size": 5, "event_source_arn": queue, "filter_criteria": filters,
        "function_arn": f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:{NAME}", "enabled": True,
        "function_response_types": ["ReportBatchItemFailures"], "maximum_batching_window_in_seconds": 3,
        "scaling_config": {"MaximumConcurrency": 4}, "tags": {"team": "core"},
    }  # fmt: skip
    t.create_mapping(
        EventSourceArn=queue, Enabled=True, BatchSize=5, MaximumBatchingWindowInSeconds=3, Tags={"team": "core"},
        FilterCriteria={"Filters": filters}, FunctionResponseTypes=["ReportBatchItemFailures"],
        ScalingConfig={"MaximumConcurrency": 4},
    )  # fmt: skip
    client.put_provisioned_concurrency_config(
        FunctionName=NAME, Qualifier=ALIAS, ProvisionedConcurrentExecutions=1
    )
    t.wait_provisioned()

    def plan() -> Attributes:
        """What a second plan would change, by resource."""
        found = t.read_role()
        # The provider compares policies, not their text.
        found["assume_role_policy"] = json.loads(found["assume_role_policy"])
        wanted = {**role, "assume_role_policy": json.loads(role["assume_role_policy"])}
        pairs = {
            "role": (wanted, found), "layer": (layer, t.read_layer()),
            "function": ({**function, **computed}, t.read_function()), "alias": (alias, t.read_alias()),
            "url": (url, t.read_url()), "permission": (permission, t.read_permission("events", ALIAS)),
            "mapping": (mapping, t.read_mapping()), "provisioned": (1, t.read_provisioned()),
        }  # fmt: skip
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    assert plan() == {}
    assert invoke(client, NAME, Qualifier=ALIAS)[0] == ["one", 1]

    # A change of code and configuration, and what follows from the new version.
    package = _code("two")
    version = t.update_function(package, Description="changed", Timeout=20, Environment={"Variables": {}})
    assert version == "2"
    function |= {"description": "changed", "timeout": 20, "environment": {}}
    computed |= {
        "code_sha256": _sha256(package), "source_code_size": len(package), "version": "2",
        "qualified_arn": f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:{NAME}:2",
    }  # fmt: skip
    client.tag_resource(Resource=mapping["function_arn"], Tags={"team": "edge"})
    function["tags"] = {"team": "edge"}
    client.update_alias(
        FunctionName=NAME, Name=ALIAS, FunctionVersion="2", Description="",
        RoutingConfig={"AdditionalVersionWeights": {"1": 0.25}},
    )  # fmt: skip
    alias |= {"function_version": "2", "description": "", "routing_config": {"1": 0.25}}
    t.wait_provisioned()
    client.update_function_url_config(FunctionName=NAME, Qualifier=ALIAS, Cors={"AllowOrigins": ["*"]})
    empty: dict[str, Any] = {"allow_headers": [], "allow_methods": [], "expose_headers": [], "max_age": 0}
    url["cors"] = {"allow_credentials": False, "allow_origins": ["*"], **empty}
    client.update_event_source_mapping(
        UUID=t.mapping, BatchSize=7, Enabled=False, FilterCriteria={}, ScalingConfig={}
    )
    t._wait_mapping("Disabled")
    mapping |= {"batch_size": 7, "enabled": False, "filter_criteria": None, "scaling_config": None}
    assert plan() == {}
    client.update_alias(FunctionName=NAME, Name=ALIAS, RoutingConfig={"AdditionalVersionWeights": {}})
    alias["routing_config"] = {}
    assert plan() == {}
    assert invoke(client, NAME, Qualifier=ALIAS)[0] == ["two", 1]

    # Destroy, in the order of the dependencies; what is gone is told as the provider wants it.
    client.delete_provisioned_concurrency_config(FunctionName=NAME, Qualifier=ALIAS)
    assert t.gone("get_provisioned_concurrency_config", FunctionName=NAME, Qualifier=ALIAS)
    client.delete_event_source_mapping(UUID=t.mapping)
    t._wait(lambda: "gone" if t.gone("get_event_source_mapping", UUID=t.mapping) else "", "gone")
    client.remove_permission(FunctionName=NAME, StatementId="events", Qualifier=ALIAS)
    assert t.read_permission("events", ALIAS) is None
    client.delete_function_url_config(FunctionName=NAME, Qualifier=ALIAS)
    assert t.gone("get_function_url_config", FunctionName=NAME, Qualifier=ALIAS)
    client.delete_alias(FunctionName=NAME, Name=ALIAS)
    assert t.gone("get_alias", FunctionName=NAME, Name=ALIAS)
    client.delete_function(FunctionName=NAME)
    assert t.gone("get_function", FunctionName=NAME)
    client.delete_layer_version(LayerName=LAYER, VersionNumber=int(t.layer_arn.rsplit(":", 1)[1]))
    t.delete_role()


def _is_arm() -> bool:
    import platform

    return platform.machine() in ("aarch64", "arm64")
