"""Layers of the control process as boto3 sees them, and what the supervisor mounts of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.support.control import ControlHarness
from tests.support.lambda_client import create, refused
from tests.support.packages import package

LAYER = "arn:aws:lambda:us-east-1:123456789012:layer"
ONE = package({"python/shared.py": "VALUE = 1\n", "python/one.py": "", "data/x": "1"})
TWO = package({"python/shared.py": "VALUE = 2\n", "python/two.py": "", "data": "a file now"})


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlHarness]:
    with ControlHarness(tmp_path / "state") as harness:
        yield harness


@pytest.fixture
def client(control: ControlHarness) -> Any:
    return control.client()


def publish(client: Any, name: str = "shared", zipped: bytes = ONE, **more: Any) -> Any:
    return client.publish_layer_version(LayerName=name, Content={"ZipFile": zipped}, **more)


def mounted(control: ControlHarness, name: str = "hello") -> dict[str, str]:
    """Files at /opt of the function as it was defined last."""
    specs = control.call(lambda: dict(control.supervisor.defined))
    key = control.call(lambda: control.door.views["us-east-1", name]["key"])
    layers = specs[key]["layers"]
    assert len(layers) == 1
    root = Path(layers[0])
    return {
        str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()
    }


def test_a_layer_version(client: Any) -> None:
    made = publish(
        client,
        Description="d",
        LicenseInfo="MIT",
        CompatibleRuntimes=["python3.11"],
        CompatibleArchitectures=["x86_64"],
    )
    assert made["ResponseMetadata"]["HTTPStatusCode"] == 201
    expected = {
        "LayerArn": f"{LAYER}:shared", "LayerVersionArn": f"{LAYER}:shared:1", "Version": 1, "Description": "d",
        "LicenseInfo": "MIT", "CompatibleRuntimes": ["python3.11"], "CompatibleArchitectures": ["x86_64"],
    }  # fmt: skip
    assert {name: made[name] for name in expected} == expected
    assert made["Content"]["CodeSize"] == len(ONE)
    assert made["CreatedDate"].endswith("+0000")
    for found in (
        client.get_layer_version(LayerName="shared", VersionNumber=1),
        client.get_layer_version(LayerName=f"{LAYER}:shared", VersionNumber=1),
        client.get_layer_version_by_arn(Arn=f"{LAYER}:shared:1"),
    ):
        assert {name: found[name] for name in expected} == expected
        assert found["Content"]["CodeSha256"] == made["Content"]["CodeSha256"]
        with urlopen(found["Content"]["Location"]) as response:
            assert response.read() == ONE
    assert client.get_account_settings()["AccountUsage"]["TotalCodeSize"] == len(ONE)


def test_numbers_lists_and_filters(client: Any) -> None:
    for number in range(3):
        publish(client, CompatibleRuntimes=["python3.11" if number < 2 else "python3.12"])
    publish(client, "another")
    client.delete_layer_version(LayerName="shared", VersionNumber=3)
    client.delete_layer_version(LayerName="shared", VersionNumber=3)
    assert publish(client)["Version"] == 4
    pages = list(
        client.get_paginator("list_layer_versions").paginate(
            LayerName="shared", PaginationConfig={"PageSize": 2}
        )
    )
    assert [[item["Version"] for item in page["LayerVersions"]] for page in pages] == [[4, 2], [1]]
    layers = client.list_layers()["Layers"]
    assert [(item["LayerName"], item["LatestMatchingVersion"]["Version"]) for item in layers] == [
        ("another", 1), ("shared", 4),
    ]  # fmt: skip
    fitting = client.list_layers(CompatibleRuntime="python3.11")["Layers"]
    assert [(item["LayerName"], item["LatestMatchingVersion"]["Version"]) for item in fitting] == [
        ("shared", 2)
    ]
    pages = client.get_paginator("list_layers").paginate(PaginationConfig={"PageSize": 1})
    assert [item["LayerName"] for page in pages for item in page["Layers"]] == ["another", "shared"]
    assert client.list_layer_versions(LayerName="nobody")["LayerVersions"] == []
    assert refused(client.get_layer_version, LayerName="shared", VersionNumber=3) == (
        404, "ResourceNotFoundException", "The resource you requested does not exist.",
    )  # fmt: skip
    assert refused(client.get_layer_version, LayerName="shared", VersionNumber=0)[2] == (
        "Layer Version Cannot be less than 1"
    )
    assert refused(publish, client, "shared", b"no zip")[1] == "InvalidParameterValueException"
    assert refused(publish, client, "a b")[1] == "ValidationException"


def test_a_function_has_its_layers_one_over_the_other(control: ControlHarness, client: Any) -> None:
    first, second = publish(client)["LayerVersionArn"], publish(client, "more", TWO)["LayerVersionArn"]
    made = create(client, Layers=[first, second])
    assert made["Layers"] == [{"Arn": first, "CodeSize": len(ONE)}, {"Arn": second, "CodeSize": len(TWO)}]
    assert mounted(control) == {
        "python/shared.py": "VALUE = 2\n", "python/one.py": "", "python/two.py": "", "data": "a file now",
    }  # fmt: skip
    client.update_function_configuration(FunctionName="hello", Layers=[second, first])
    assert mounted(control)["python/shared.py"] == "VALUE = 1\n"
    assert mounted(control)["data/x"] == "1"
    client.publish_version(FunctionName="hello")
    client.update_function_configuration(FunctionName="hello", Layers=[second])
    assert mounted(control) == {"python/shared.py": "VALUE = 2\n", "python/two.py": "", "data": "a file now"}
    client.update_function_configuration(FunctionName="hello", Timeout=5)
    assert client.get_function_configuration(FunctionName="hello")["Layers"] == [
        {"Arn": second, "CodeSize": len(TWO)}
    ]
    assert len(client.get_function_configuration(FunctionName="hello:1")["Layers"]) == 2
    client.update_function_configuration(FunctionName="hello", Layers=[])
    assert "Layers" not in client.get_function_configuration(FunctionName="hello")


def test_layers_that_cannot_be_had(client: Any) -> None:
    arns = [publish(client, f"l{number}")["LayerVersionArn"] for number in range(6)]
    second = publish(client, "l0")["LayerVersionArn"]

    def with_layers(*layers: str) -> str:
        status, code, message = refused(create, client, Layers=list(layers))
        assert (status, code) == (400, "InvalidParameterValueException")
        return message

    assert with_layers(*arns) == "Cannot reference more than 5 layers."
    assert with_layers(arns[0], second) == (
        "Two different versions of the same layer are not allowed to be referenced in the same function. "
        f"{arns[0]} and {second} are versions of the same layer."
    )
    assert with_layers(f"{LAYER}:nobody:1") == f"Layer version {LAYER}:nobody:1 does not exist."
    assert with_layers(arns[0].replace("us-east-1", "eu-west-1")) == (
        "Layers are not in the same region as the function. Layers are expected to be in region us-east-1."
    )
    assert refused(create, client, Layers=["l0"])[1] == "ValidationException"
    assert client.list_functions()["Functions"] == []


def test_a_function_and_its_layers_share_one_limit(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    arn = publish(client)["LayerVersionArn"]
    monkeypatch.setattr("gateway.control.code_keeper.MAX_UNZIPPED", 20)
    status, code, message = refused(create, client, Layers=[arn])
    assert (status, code) == (400, "InvalidParameterValueException")
    assert message.startswith(
        "Function code combined with layers exceeds the maximum allowed size of 20 bytes."
    )
    create(client)
    assert refused(client.update_function_configuration, FunctionName="hello", Layers=[arn])[0] == 400
    assert "Layers" not in client.get_function_configuration(FunctionName="hello")


def test_a_deleted_layer_stays_with_the_functions_that_have_it(tmp_path: Path) -> None:
    with ControlHarness(tmp_path / "state", code_retention_s=0.2) as control:
        client = control.client()
        first, second = publish(client)["LayerVersionArn"], publish(client, "more", TWO)["LayerVersionArn"]
        create(client, Layers=[first, second])
        client.delete_layer_version(LayerName="shared", VersionNumber=1)
        client.delete_layer_version(LayerName="more", VersionNumber=1)
        assert client.list_layers()["Layers"] == []
        assert mounted(control)["python/shared.py"] == "VALUE = 2\n"
    (tree,) = {path for path in (tmp_path / "state" / "code").iterdir() if (path / "python" / "two.py").exists()
               and (path / "python" / "one.py").exists()}  # fmt: skip
    for path in sorted(tree.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    tree.rmdir()
    with ControlHarness(tmp_path / "state", code_retention_s=0.2) as control:
        client = control.client()
        assert mounted(control)["python/shared.py"] == "VALUE = 2\n", "made again"
        assert client.get_function(FunctionName="hello")["Configuration"]["State"] == "Active"
        assert publish(client)["Version"] == 2
        client.delete_function(FunctionName="hello")
        code = tmp_path / "state" / "code"
        control.eventually(lambda: len(list(code.iterdir())) == 1, 20)


def test_permissions_of_a_layer(client: Any) -> None:
    publish(client)
    which = {"LayerName": "shared", "VersionNumber": 1}
    grant = {"StatementId": "all", "Action": "lambda:GetLayerVersion", "Principal": "*"}
    added = client.add_layer_version_permission(**which, **grant)
    statement = {
        "Sid": "all", "Effect": "Allow", "Principal": "*", "Action": "lambda:GetLayerVersion",
        "Resource": f"{LAYER}:shared:1",
    }  # fmt: skip
    assert json.loads(added["Statement"]) == statement
    policy = client.get_layer_version_policy(**which)
    assert json.loads(policy["Policy"])["Statement"] == [statement]
    assert policy["RevisionId"] == added["RevisionId"]
    assert refused(client.add_layer_version_permission, **which, **grant)[:2] == (
        409,
        "ResourceConflictException",
    )
    other = {**grant, "StatementId": "b", "Principal": "111122223333"}
    assert refused(client.add_layer_version_permission, **which, **other, RevisionId="x")[0] == 412
    client.add_layer_version_permission(**which, **other, RevisionId=added["RevisionId"])
    for sid in ("all", "b"):
        client.remove_layer_version_permission(**which, StatementId=sid)
    assert refused(client.remove_layer_version_permission, **which, StatementId="b")[2] == (
        "Statement b is not found in resource policy."
    )
    assert (
        refused(client.get_layer_version_policy, **which)[2]
        == "No policy is associated with the given resource."
    )
    which["VersionNumber"] = 9
    assert (
        refused(client.get_layer_version_policy, **which)[2]
        == f"Layer version {LAYER}:shared:9 does not exist."
    )
