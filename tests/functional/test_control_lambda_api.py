"""The Lambda API of the control process as boto3 sees it."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from botocore.exceptions import ClientError

from gateway.control.function_rules import host_architecture
from gateway.model.arn import function_arn
from tests.support.control import REPORT, ControlHarness
from tests.support.lambda_client import ROLE, create, refused
from tests.support.packages import HELLO, package


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlHarness]:
    with ControlHarness(tmp_path / "state") as harness:
        yield harness


@pytest.fixture
def client(control: ControlHarness) -> Any:
    return control.client()


def test_create_answers_like_lambda(client: Any) -> None:
    answer = create(client)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 201
    assert answer["ResponseMetadata"]["HTTPHeaders"]["x-amzn-requestid"]
    digest = b64encode(hashlib.sha256(package()).digest()).decode()
    expected = {
        "Architectures": [host_architecture()],
        "CodeSha256": digest,
        "CodeSize": len(package()),
        "Description": "",
        "EphemeralStorage": {"Size": 512},
        "FunctionArn": function_arn("us-east-1", "hello"),
        "FunctionName": "hello",
        "Handler": "index.handler",
        "LoggingConfig": {"LogFormat": "Text", "LogGroup": "/aws/lambda/hello"},
        "MemorySize": 128,
        "PackageType": "Zip",
        "Role": ROLE,
        "Runtime": "python3.11",
        "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
        "State": "Pending",
        "StateReason": "The function is being created.",
        "StateReasonCode": "Creating",
        "Timeout": 3,
        "TracingConfig": {"Mode": "PassThrough"},
        "Version": "$LATEST",
    }
    assert {name: answer[name] for name in expected} == expected
    assert "Environment" not in answer
    assert "LastUpdateStatus" not in answer
    assert answer["LastModified"].endswith("+0000")


def test_waiters_end_and_get_shows_configuration_code_and_tags(client: Any) -> None:
    create(client, Tags={"team": "blue"}, Environment={"Variables": {"STAGE": "test"}})
    client.get_waiter("function_exists").wait(FunctionName="hello")
    client.get_waiter("function_active_v2").wait(FunctionName="hello")
    client.get_waiter("function_updated_v2").wait(FunctionName="hello")
    got = client.get_function(FunctionName="hello")
    assert got["Configuration"]["State"] == "Active"
    assert got["Configuration"]["LastUpdateStatus"] == "Successful"
    assert "StateReason" not in got["Configuration"]
    assert got["Configuration"]["Environment"] == {"Variables": {"STAGE": "test"}}
    assert got["Tags"] == {"team": "blue"}
    assert got["Code"]["RepositoryType"] == "S3"
    with urlopen(got["Code"]["Location"]) as response:
        assert response.read() == package()


def test_every_spelling_of_a_name_finds_the_function(client: Any) -> None:
    arn = create(client)["FunctionArn"]
    account = arn.split(":")[4]
    for name in ("hello", arn, f"{account}:function:hello", f"{arn}:$LATEST", "hello:$LATEST"):
        assert client.get_function_configuration(FunctionName=name)["FunctionName"] == "hello"
    qualified = client.get_function_configuration(FunctionName="hello", Qualifier="$LATEST")
    assert qualified["FunctionArn"] == f"{arn}:$LATEST"
    status, code, message = refused(client.get_function, FunctionName="hello", Qualifier="7")
    assert (status, code) == (404, "ResourceNotFoundException")
    assert message == f"Function not found: {arn}:7"
    status, _, message = refused(client.get_function, FunctionName="hello:prod", Qualifier="test")
    assert status == 400
    assert "derived qualifier" in message


def test_regions_are_namespaces(control: ControlHarness, client: Any) -> None:
    arn = create(client)["FunctionArn"]
    other = control.client(region="eu-west-1")
    assert refused(other.get_function, FunctionName="hello")[0] == 404
    create(other)
    assert other.get_function_configuration(FunctionName="hello")["FunctionArn"] == function_arn(
        "eu-west-1", "hello"
    )
    assert refused(other.get_function, FunctionName=arn)[2] == (
        "Functions from 'us-east-1' are not reachable in this region ('eu-west-1')"
    )
    client.delete_function(FunctionName="hello")
    assert other.get_function(FunctionName="hello")


def test_update_code_and_configuration(control: ControlHarness, client: Any) -> None:
    first = create(client)
    changed = client.update_function_configuration(
        FunctionName="hello", Handler="other.handler", Timeout=10, MemorySize=256, Description="new",
        Environment={"Variables": {"LEVEL": "1"}}, EphemeralStorage={"Size": 1024}, Runtime="python3.12",
    )  # fmt: skip
    assert changed["LastUpdateStatus"] == "InProgress"
    assert changed["State"] == "Active"
    assert changed["RevisionId"] != first["RevisionId"]
    assert changed["CodeSha256"] == first["CodeSha256"]
    code = client.update_function_code(FunctionName="hello", ZipFile=package({"other.py": HELLO}))
    assert code["CodeSha256"] != first["CodeSha256"]
    now = client.get_function_configuration(FunctionName="hello")
    assert (now["Handler"], now["Timeout"], now["MemorySize"]) == ("other.handler", 10, 256)
    assert (now["Description"], now["Runtime"], now["EphemeralStorage"]) == (
        "new",
        "python3.12",
        {"Size": 1024},
    )
    assert now["LastUpdateStatus"] == "Successful"
    assert now["RevisionId"] == code["RevisionId"]
    defined = control.call(lambda: dict(control.supervisor.defined))
    (spec,) = defined.values()
    assert spec["limits"] == {"memory_mb": 256, "tmp_mb": 1024, "pids": 1024}
    assert (Path(spec["code"]) / "other.py").read_text() == HELLO
    assert spec["init"]["handler"] == "other.handler"
    assert spec["init"]["env"] == {"LEVEL": "1"}


def test_dry_run_and_revision_guards(client: Any) -> None:
    first = create(client)
    other = package({"x.py": "x = 1\n"})
    dry = client.update_function_code(FunctionName="hello", ZipFile=other, DryRun=True)
    assert dry["CodeSize"] == len(other)
    assert client.get_function_configuration(FunctionName="hello")["CodeSha256"] == first["CodeSha256"]
    for call in (client.update_function_code, client.update_function_configuration):
        arguments = {"ZipFile": other} if call == client.update_function_code else {"Timeout": 4}
        wrong = refused(call, FunctionName="hello", RevisionId="0" * 8, **arguments)
        assert wrong == (
            412, "PreconditionFailedException",
            ("The Revision Id provided does not match the latest Revision Id. "
            "Call the GetFunction/GetAlias API to retrieve the latest Revision Id"),
        )  # fmt: skip
    client.update_function_code(FunctionName="hello", ZipFile=other, RevisionId=first["RevisionId"])


def test_list_functions_in_pages(client: Any) -> None:
    for number in range(5):
        create(client, f"f{number}")
    page = client.list_functions(MaxItems=2)
    assert [item["FunctionName"] for item in page["Functions"]] == ["f0", "f1"]
    names = [
        item["FunctionName"]
        for page in client.get_paginator("list_functions").paginate(PaginationConfig={"PageSize": 2})
        for item in page["Functions"]
    ]
    assert names == [f"f{number}" for number in range(5)]
    assert client.list_functions(FunctionVersion="ALL")["Functions"][0]["FunctionArn"].endswith(":$LATEST")
    assert refused(client.list_functions, Marker="%%%")[1] == "InvalidParameterValueException"


def test_delete_removes_it_everywhere(control: ControlHarness, client: Any) -> None:
    arn = create(client)["FunctionArn"]
    assert control.call(lambda: len(control.supervisor.defined)) == 1
    answer = client.delete_function(FunctionName="hello")
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert control.call(lambda: (control.supervisor.defined, control.door.views)) == ({}, {})
    for call in (client.get_function, client.delete_function):
        assert refused(call, FunctionName="hello") == (
            404, "ResourceNotFoundException", f"Function not found: {arn}",
        )  # fmt: skip
    create(client)


def test_tags_and_settings(control: ControlHarness, client: Any) -> None:
    arn = create(client, Tags={"a": "1", "forklight:isolation": "request"})["FunctionArn"]
    before = client.get_function_configuration(FunctionName="hello")["RevisionId"]
    client.tag_resource(Resource=arn, Tags={"b": "2 with blanks / and +"})
    assert client.get_function_configuration(FunctionName="hello")["RevisionId"] == before
    client.untag_resource(Resource=arn, TagKeys=["a"])
    assert client.list_tags(Resource=arn)["Tags"] == {
        "forklight:isolation": "request", "b": "2 with blanks / and +",
    }  # fmt: skip
    assert control.call(lambda: control.door.views["us-east-1", "hello"]["isolation"]) == "request"
    client.tag_resource(Resource=arn, Tags={"forklight:isolation": "tenant", "forklight:network": "host"})
    view = control.call(lambda: control.door.views["us-east-1", "hello"])
    assert view["isolation"] == "tenant"
    assert view["key"] in control.call(lambda: control.supervisor.defined)
    assert control.call(lambda: control.supervisor.defined[view["key"]]["network"]) == "host"
    assert control.call(lambda: len(control.supervisor.defined)) == 1
    client.untag_resource(Resource=arn, TagKeys=["forklight:isolation"])
    assert control.call(lambda: control.door.views["us-east-1", "hello"]["isolation"]) == "reuse"
    status, code, message = refused(client.tag_resource, Resource=arn, Tags={"forklight:isolation": "none"})
    assert (status, code) == (400, "InvalidParameterValueException")
    assert "reuse, tenant, request" in message
    assert "forklight:speed" in refused(client.tag_resource, Resource=arn, Tags={"forklight:speed": "9"})[2]
    assert refused(client.tag_resource, Resource=arn, Tags={f"t{n}": "" for n in range(51)})[2] == (
        "Number of tags exceeds resource tag limit."
    )
    assert refused(client.list_tags, Resource=arn.replace(":hello", ":other"))[0] == 404


def test_tenants_have_no_snapshot_in_common(control: ControlHarness, client: Any) -> None:
    """On Lambda, too, tenant isolation excludes SnapStart. For `request` it is said what is weaker."""
    both = {"forklight:isolation": "tenant", "forklight:snapshot": "on"}
    with pytest.raises(ClientError, match="share a sandbox") as caught:
        create(client, Tags=both)
    assert caught.value.response["Error"]["Code"] == "InvalidParameterValueException"
    arn = create(client, Tags={"forklight:isolation": "tenant"})["FunctionArn"]
    assert refused(client.tag_resource, Resource=arn, Tags={"forklight:snapshot": "on"})[:2] == (
        400, "InvalidParameterValueException",
    )  # fmt: skip
    client.tag_resource(Resource=arn, Tags={**both, "forklight:isolation": "request"})
    ours = json.loads(control.api("GET", "/2015-03-31/functions/hello/configuration")[2])["Forklight"]
    assert (ours["Isolation"], ours["Snapshot"]) == ("request", "on")
    assert "share a sandbox" in ours["IsolationWhy"]


def test_a_network_that_the_host_refuses_is_refused_at_once(control: ControlHarness, client: Any) -> None:
    arn = create(client)["FunctionArn"]
    tags = {"forklight:network": "egress"}
    for attempt in (
        lambda: client.tag_resource(Resource=arn, Tags=tags),
        lambda: create(client, FunctionName="other", Tags=tags),
    ):
        status, code, message = refused(attempt)
        assert (status, code) == (400, "InvalidParameterValueException")
        assert message == "Network 'egress' cannot be had on this host: nobody wants it."
    assert client.list_tags(Resource=arn)["Tags"] == {}
    assert [found["FunctionName"] for found in client.list_functions()["Functions"]] == ["hello"]


def test_our_own_member_of_the_configuration(control: ControlHarness, client: Any) -> None:
    create(client, Tags={"forklight:network": "host"})
    status, _, body = control.api("GET", "/2015-03-31/functions/hello/configuration")
    assert status == 200
    assert json.loads(body)["Forklight"] == {
        "Isolation": "reuse", "IsolationWhy": "", "Snapshot": "off", "SnapshotState": "off", "SnapshotWhy": "",
        "Network": "host",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"Timeout": 901}, ("Value '901' at 'timeout' failed to satisfy constraint: "
                           "Member must have value less than or equal to 900")),
        ({"MemorySize": 127}, ("Value '127' at 'memorySize' failed to satisfy constraint: "
                              "Member must have value greater than or equal to 128")),
        ({"MemorySize": 10241}, "less than or equal to 10240"),
        ({"EphemeralStorage": {"Size": 511}}, "Value '511' at 'ephemeralStorage.size' failed to satisfy constraint"),
        ({"Handler": "a b"}, r"Member must satisfy regular expression pattern: [^\s]+"),
        ({"Handler": "h" * 129}, "'handler' failed to satisfy constraint: Member must have length less than or equal"),
        ({"Role": "admin"}, "Value 'admin' at 'role' failed to satisfy constraint"),
        ({"Description": "d" * 257}, "at 'description' failed to satisfy constraint"),
        ({"FunctionName": "../../etc"}, "Value '../../etc' at 'functionName' failed to satisfy constraint"),
        ({"FunctionName": ".."}, "Value '..' at 'functionName' failed to satisfy constraint"),
        ({"FunctionName": "n" * 65}, "Member must have length less than or equal to 64"),
        ({"Architectures": ["sparc"]}, ("at 'architectures' failed to satisfy constraint: Member must satisfy "
                                       "constraint: [Member must satisfy enum value set: [x86_64, arm64]")),
        ({"Environment": {"Variables": {"1A": "x"}}}, "Map keys must satisfy constraint"),
        ({"PackageType": "Tar"}, "Member must satisfy enum value set: [Zip, Image]"),
        ({"LoggingConfig": {"LogGroup": "a b"}}, "Value 'a b' at 'loggingConfig.logGroup'"),
    ],
)  # fmt: skip
def test_model_constraints_are_named_as_by_aws(client: Any, change: dict[str, Any], expected: str) -> None:
    name = change.pop("FunctionName", "hello")
    status, code, message = refused(create, client, name, **change)
    assert (status, code) == (400, "ValidationException")
    assert message.startswith("1 validation error detected: ")
    assert expected in message
    assert client.list_functions()["Functions"] == []


def test_several_failures_are_reported_together(control: ControlHarness) -> None:
    body = b'{"FunctionName":"x y","Timeout":0,"Role":"r","Code":{}}'
    status, headers, answer = control.api("POST", "/2015-03-31/functions", body)
    assert status == 400
    assert headers["x-amzn-ErrorType"] == "ValidationException"
    assert answer.startswith(b'{"message": "3 validation errors detected: Value')
    assert answer.count(b"; Value ") == 2


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"Runtime": "python2.7"}, ("Value python2.7 at 'runtime' failed to satisfy constraint: Member must satisfy "
                                   "enum value set: [python3.11, python3.12] or be a valid ARN")),
        ({"Runtime": "cobol"}, "Value cobol at 'runtime' failed to satisfy constraint"),
        ({"Code": {"ZipFile": b"not a zip"}}, ("Could not unzip uploaded file. Please check your file, then try to "
                                              "upload again.")),
        ({"Code": {"S3Bucket": "bucket", "S3Key": "key"}}, "this host knows no S3 endpoint (serve --s3-endpoint)"),
        ({"Code": {}}, "Please provide a source for function code."),
        ({"Layers": ["arn:aws:lambda:us-east-1:123456789012:layer:l:1"]}, "layer:l:1 does not exist."),
        ({"PackageType": "Image"}, "Please provide ImageUri when creating a function with packageType Image."),
        ({"Environment": {"Variables": {"AWS_REGION": "x"}}}, "Reserved keys used in this request: AWS_REGION"),
        ({"Environment": {"Variables": {"BIG": "x" * 4096}}}, "exceeded the 4KB limit. String measured: {\"BIG\":\"xx"),
        ({"LoggingConfig": {"LogFormat": "Text", "ApplicationLogLevel": "INFO"}}, "log format to JSON"),
        ({"VpcConfig": {"SubnetIds": ["subnet-1"]}}, "VPC"),
        ({"Tags": {"forklight:snapshot": "maybe"}}, "off, on, auto"),
    ],
)  # fmt: skip
def test_what_this_host_cannot_do_is_refused_clearly(
    client: Any, change: dict[str, Any], expected: str
) -> None:
    status, code, message = refused(create, client, **change)
    assert (status, code) == (400, "InvalidParameterValueException")
    assert expected in message
    assert client.list_functions()["Functions"] == []


def test_empty_vpc_and_the_like_are_accepted(client: Any) -> None:
    create(
        client, VpcConfig={"SubnetIds": [], "SecurityGroupIds": []}, TracingConfig={"Mode": "PassThrough"},
        SnapStart={"ApplyOn": "None"}, DeadLetterConfig={}, Layers=[], KMSKeyArn="", Publish=False,
    )  # fmt: skip


def test_runtime_and_handler_are_needed(control: ControlHarness) -> None:
    answer = control.operation("CreateFunction", {"FunctionName": "x", "Role": ROLE, "Code": {}}, package())
    assert answer["error"]["code"] == "InvalidParameterValueException"
    assert answer["error"]["message"].startswith("Runtime and Handler are mandatory")


def test_a_second_function_of_the_same_name_conflicts(client: Any) -> None:
    create(client)
    assert refused(create, client) == (
        409, "ResourceConflictException", "Function already exist: hello",
    )  # fmt: skip


def test_operations_that_are_not_there_are_named(client: Any, control: ControlHarness) -> None:
    create(client)
    assert refused(client.list_capacity_providers) == (
        501, "NotImplementedException", "Operation ListCapacityProviders is not implemented by this host.",
    )  # fmt: skip
    status, headers, _ = control.api("GET", "/2015-03-31/nothing")
    assert (status, headers["x-amzn-ErrorType"]) == (404, "UnknownOperationException")


def test_account_settings(client: Any) -> None:
    create(client)
    settings = client.get_account_settings()
    assert settings["AccountLimit"]["ConcurrentExecutions"] == 1000
    assert settings["AccountUsage"] == {"TotalCodeSize": len(package()), "FunctionCount": 1}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "SerializationException"),
        (b"[1]", "SerializationException"),
        (b"[" * 100_000, "SerializationException"),
        (b'{"FunctionName": 5}', "SerializationException"),
        (b'{"FunctionName":"f","Role":"arn:aws:iam::123456789012:role/r","Code":{"ZipFile":"%%"}}',
         "SerializationException"),
        (b'{"FunctionName":"f","Timeout":"3"}', "SerializationException"),
        (b'{"FunctionName":"f","Timeout":true}', "SerializationException"),
        (b"", "ValidationException"),
        (b"\xff\xfe", "SerializationException"),
    ],
)  # fmt: skip
def test_malformed_bodies_are_the_callers_fault(control: ControlHarness, body: bytes, code: str) -> None:
    status, headers, _ = control.api("POST", "/2015-03-31/functions", body)
    assert (status, headers["x-amzn-ErrorType"]) == (400, code)


def test_trailing_slash_and_encoded_names(control: ControlHarness, client: Any) -> None:
    create(client)
    assert control.api("GET", "/2015-03-31/functions/")[0] == 200
    assert control.api("GET", "/2015-03-31/functions/hello%3A%24LATEST")[0] == 200
    assert control.api("GET", "/2015-03-31/functions/..%2F..%2Fetc")[0] == 400


def test_our_own_endpoints(control: ControlHarness) -> None:
    assert json.loads(control.api("GET", "/forklight/v1/isolation", service="forklight")[2]) == REPORT
    assert b"python3.12" in control.api("GET", "/forklight/v1/runtimes", service="forklight")[2]
    assert control.api("GET", "/forklight/v1/other", service="forklight")[0] == 404
    assert control.api("POST", "/forklight/v1/isolation", service="forklight")[0] == 405
    status, headers, body = control.api("GET", "/metrics", service="forklight")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    assert b"forklight_log_lines_dropped" in body
