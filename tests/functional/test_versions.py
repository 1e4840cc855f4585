"""Which version runs: by number, by alias, by weights, over HTTP and gRPC, and what the function is told about it."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.request import Request, urlopen

import grpc
import pytest

from gateway.rpc import invocations_pb2, invocations_pb2_grpc
from tests.support.deploy import OFTEN, function, invoke, zip_of
from tests.support.patience import seconds
from tests.support.server import Server

SOURCE = """
import os
def handler(event, context):
    said = [context.function_version, context.invoked_function_arn, os.environ["AWS_LAMBDA_FUNCTION_VERSION"]]
    return {"code": CODE, "said": said, "stream": context.log_stream_name}
CODE = """


@pytest.fixture
def versioned(server: Server) -> Iterator[str]:
    """A function with versions 1 and 2, and 3 as its code now."""
    client = server.client()
    with function(client, SOURCE + "1") as name:
        client.publish_version(FunctionName=name)
        client.update_function_code(FunctionName=name, ZipFile=_code(2), Publish=True)
        client.update_function_code(FunctionName=name, ZipFile=_code(3))
        yield name


def _code(number: int) -> bytes:
    return zip_of({"index.py": SOURCE + str(number)})


def test_every_spelling_runs_its_version(server: Server, versioned: str) -> None:
    client = server.client()
    client.create_alias(FunctionName=versioned, Name="prod", FunctionVersion="1")
    arn = client.get_function_configuration(FunctionName=versioned)["FunctionArn"]
    for _ in range(2):  # the second time it is known already
        for name, qualifier, code, version, invoked in (
            (versioned, None, 3, "$LATEST", arn),
            (versioned, "$LATEST", 3, "$LATEST", f"{arn}:$LATEST"),
            (f"{versioned}:1", None, 1, "1", f"{arn}:1"),
            (versioned, "2", 2, "2", f"{arn}:2"),
            (f"{arn}:2", None, 2, "2", f"{arn}:2"),
            (f"{arn}:prod", "prod", 1, "1", f"{arn}:prod"),
            (f"123456789012:function:{versioned}:prod", None, 1, "1", f"{arn}:prod"),
        ):
            more = {} if qualifier is None else {"Qualifier": qualifier}
            answer, response = invoke(client, name, **more)
            assert answer["code"] == code
            assert answer["said"] == [version, invoked, version]
            assert f"/[{version}]" in answer["stream"]
            assert response["ExecutedVersion"] == version
    for missing in ("7", "test"):
        with pytest.raises(client.exceptions.ResourceNotFoundException) as caught:
            invoke(client, versioned, Qualifier=missing)
        assert caught.value.response["Error"]["Message"] == f"Function not found: {arn}:{missing}"


def test_an_alias_follows_at_once_and_divides_by_weights(server: Server, versioned: str) -> None:
    client = server.client()
    client.create_alias(FunctionName=versioned, Name="prod", FunctionVersion="1")

    def versions(count: int) -> Counter[str]:
        return Counter(
            invoke(client, versioned, Qualifier="prod")[1]["ExecutedVersion"] for _ in range(count)
        )

    assert versions(10) == {"1": 10}
    client.update_alias(FunctionName=versioned, Name="prod", FunctionVersion="2")
    assert versions(10) == {"2": 10}
    client.update_alias(
        FunctionName=versioned, Name="prod", RoutingConfig={"AdditionalVersionWeights": {"1": 0.5}}
    )
    # Both sides of a fair coin thrown 200 times come up more than 60 times, but for one time in a hundred million.
    assert min(versions(200).values()) > 60
    client.update_alias(
        FunctionName=versioned, Name="prod", RoutingConfig={"AdditionalVersionWeights": {"1": 1.0}}
    )
    assert versions(10) == {"1": 10}
    client.update_alias(FunctionName=versioned, Name="prod", RoutingConfig={})
    assert versions(10) == {"2": 10}
    client.delete_alias(FunctionName=versioned, Name="prod")
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        invoke(client, versioned, Qualifier="prod")


def test_a_deleted_version_is_gone_and_the_others_stay(server: Server, versioned: str) -> None:
    client = server.client()
    assert invoke(client, versioned, Qualifier="1")[0]["code"] == 1
    client.delete_function(FunctionName=versioned, Qualifier="1")
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        invoke(client, versioned, Qualifier="1")
    assert invoke(client, versioned, Qualifier="2")[0]["code"] == 2
    assert invoke(client, versioned)[0]["code"] == 3


def test_grpc_names_versions_too(server: Server, versioned: str) -> None:
    client = server.client()
    client.create_alias(
        FunctionName=versioned, Name="both", FunctionVersion="1",
        RoutingConfig={"AdditionalVersionWeights": {"2": 0.5}},
    )  # fmt: skip
    metadata = [("authorization", f"Bearer {server.token}")]
    with grpc.insecure_channel(server.grpc) as channel:
        stub = invocations_pb2_grpc.InvocationsStub(channel)

        def run(name: str, qualifier: str = "") -> tuple[str, Any]:
            request = invocations_pb2.InvokeRequest(function=name, qualifier=qualifier)
            answer = stub.Invoke(request, metadata=metadata)
            return answer.executed_version, json.loads(answer.payload)

        for _ in range(3):
            assert run(versioned)[0] == "$LATEST"
            assert run(f"{versioned}:1")[0] == "1"
            version, answer = run(versioned, "2")
            assert (version, answer["code"], answer["said"][1][-2:]) == ("2", 2, ":2")
        assert min(Counter(run(versioned, "both")[0] for _ in range(200)).values()) > 60
        with pytest.raises(grpc.RpcError) as caught:
            run(versioned, "7")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]


def test_versions_and_aliases_survive_the_death_of_the_server(start_server: Any, state_dir: Any) -> None:
    server = start_server(state_dir=state_dir)
    client = server.client()
    client.create_function(
        FunctionName="kept", Role="arn:aws:iam::123456789012:role/test", Runtime="python3.11",
        Handler="index.handler", Code={"ZipFile": _code(1)}, Publish=True, Timeout=30,
    )  # fmt: skip
    client.update_function_code(FunctionName="kept", ZipFile=_code(2), Publish=True)
    client.create_alias(FunctionName="kept", Name="prod", FunctionVersion="1")
    server.kill()
    client = start_server(state_dir=state_dir).client()
    assert invoke(client, "kept", Qualifier="prod")[0]["code"] == 1
    assert invoke(client, "kept", Qualifier="2")[0]["code"] == 2
    assert client.publish_version(FunctionName="kept")["Version"] == "2"


def test_snap_start_forks_published_versions_from_a_snapshot(server: Server) -> None:
    source = (
        "import os, uuid\nMADE = str(uuid.uuid4())\n"
        'def handler(event, context):\n    return [MADE, os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"]]\n'
    )
    client = server.client()
    with function(client, source, isolation="request", SnapStart={"ApplyOn": "PublishedVersions"}) as name:
        client.publish_version(FunctionName=name)
        client.get_waiter("published_version_active").wait(
            FunctionName=name, Qualifier="1", WaiterConfig=OFTEN
        )
        found = client.get_function_configuration(FunctionName=name, Qualifier="1")
        assert found["SnapStart"] == {"ApplyOn": "PublishedVersions", "OptimizationStatus": "On"}
        published = [invoke(client, name, Qualifier="1")[0] for _ in range(3)]
        assert {kind for _, kind in published} == {"snap-start"}
        assert len({made for made, _ in published}) == 1  # the module code ran once
        plain = [invoke(client, name)[0] for _ in range(2)]
        assert {kind for _, kind in plain} == {"on-demand"} and plain[0][0] != plain[1][0]


def test_plain_calls_of_an_alias_take_the_fast_path(start_server: Any) -> None:
    server = start_server("--doors", "1")
    client = server.client()
    with function(client, "def handler(event, context):\n    return event\n", Publish=True) as name:
        client.create_alias(FunctionName=name, Name="prod", FunctionVersion="1")
        for _ in range(20):
            assert invoke(client, name, 1, Qualifier="prod")[0] == 1
        deadline = time.monotonic() + seconds(20)
        while (fast := _fast(server)) < 15 and time.monotonic() < deadline:
            time.sleep(0.1)  # doors push their figures once a second
        assert fast >= 15


def _fast(server: Server) -> float:
    request = Request(f"{server.url}/metrics", headers={"Authorization": f"Bearer {server.token}"})
    with urlopen(request, timeout=seconds(10)) as response:
        lines = response.read().decode().splitlines()
    name = "forklight_fast_invocations_total"
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))
