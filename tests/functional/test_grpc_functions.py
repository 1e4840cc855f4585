"""Service Functions over a fake control process: what is asked of it, and how its answers look."""

from __future__ import annotations

import grpc
import pytest

from gateway.rpc import functions_pb2 as pb
from tests.support.fake_door import FakeControl
from tests.support.grpc_door import AUTHORIZED, door, engine, refused, run  # noqa: F401

pytestmark = pytest.mark.usefixtures("engine")

CREATE = pb.CreateFunctionRequest(
    function_name="f", runtime="python3.11", handler="index.handler", zip_file=b"PK", timeout=7,
    isolation=pb.ISOLATION_TENANT, snapshot=pb.SNAPSHOT_AUTO, environment=pb.Environment(variables={"A": "1"}),
)  # fmt: skip


def changes(control: FakeControl) -> list[str]:
    """The operations that were asked for, without the looks in between."""
    return [operation for operation, _, _ in control.calls if operation != "GetFunction"]


def test_create_sends_settings_as_tags() -> None:
    async def test() -> None:
        async with door() as it:
            made = await it.functions.Create(CREATE, metadata=AUTHORIZED)
            operation, params, body = it.control.calls[0]
            assert (operation, body) == ("CreateFunction", b"PK")
            assert params["Tags"] == {"forklight:isolation": "tenant", "forklight:snapshot": "auto"}
            assert params["Timeout"] == 7
            assert params["Environment"] == {"Variables": {"A": "1"}}
            assert "MemorySize" not in params
            assert made.function_arn == "arn:aws:lambda:us-east-1:123456789012:function:f"
            assert (made.isolation, made.snapshot, made.network) == (
                pb.ISOLATION_TENANT, pb.SNAPSHOT_AUTO, pb.NETWORK_NONE,
            )  # fmt: skip
            assert (made.timeout, made.memory_size, made.code_size, made.state) == (7, 128, 2, "Active")
            assert dict(made.environment.variables) == {"A": "1"}
            error = await refused(it.functions.Create(CREATE, metadata=AUTHORIZED))
            assert error.code() is grpc.StatusCode.ALREADY_EXISTS

    run(test())


def test_update_changes_only_what_is_set() -> None:
    async def test() -> None:
        async with door() as it:
            await it.functions.Create(CREATE, metadata=AUTHORIZED)
            it.control.calls.clear()
            changed = await it.functions.Update(
                pb.UpdateFunctionRequest(function_name="f", handler="other.handler"), metadata=AUTHORIZED
            )
            assert changes(it.control) == ["UpdateFunctionConfiguration"]
            assert it.control.calls[1][1] == {"FunctionName": "f", "Handler": "other.handler"}
            assert (changed.handler, changed.timeout, changed.isolation) == (
                "other.handler",
                7,
                pb.ISOLATION_TENANT,
            )
            it.control.calls.clear()
            request = pb.UpdateFunctionRequest(
                function_name="f", zip_file=b"PK12", isolation=pb.ISOLATION_REQUEST, revision_id="r1"
            )
            changed = await it.functions.Update(request, metadata=AUTHORIZED)
            assert changes(it.control) == ["TagResource", "UpdateFunctionCode"]
            assert b"PK12" in [body for _, _, body in it.control.calls]
            assert (changed.code_size, changed.isolation) == (4, pb.ISOLATION_REQUEST)
            request.revision_id = "r0"
            error = await refused(it.functions.Update(request, metadata=AUTHORIZED))
            assert error.code() is grpc.StatusCode.FAILED_PRECONDITION

    run(test())


def test_get_list_and_delete() -> None:
    async def test() -> None:
        async with door() as it:
            await it.functions.Create(CREATE, metadata=AUTHORIZED)
            got = await it.functions.Get(pb.GetFunctionRequest(function_name="f"), metadata=AUTHORIZED)
            listed = await it.functions.List(pb.ListFunctionsRequest(), metadata=AUTHORIZED)
            assert list(listed.functions) == [got]
            assert got.isolation == pb.ISOLATION_TENANT
            await it.functions.Delete(pb.DeleteFunctionRequest(function_name="f"), metadata=AUTHORIZED)
            error = await refused(
                it.functions.Get(pb.GetFunctionRequest(function_name="f"), metadata=AUTHORIZED)
            )
            assert error.code() is grpc.StatusCode.NOT_FOUND
            assert dict(error.trailing_metadata())["x-amzn-errortype"] == "ResourceNotFoundException"
            error = await refused(
                it.functions.List(pb.ListFunctionsRequest(max_items=51), metadata=AUTHORIZED)
            )
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT

    run(test())


def test_malformed_requests_are_refused() -> None:
    async def test() -> None:
        async with door() as it:
            bad = pb.CreateFunctionRequest(function_name="f", isolation=9)  # type: ignore[arg-type]
            error = await refused(it.functions.Create(bad, metadata=AUTHORIZED))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            error = await refused(it.functions.Get(pb.GetFunctionRequest(), metadata=AUTHORIZED))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            create = it.channel.unary_unary("/forklight.v1.Functions/Create")
            error = await refused(create(b"\xff", metadata=AUTHORIZED))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert it.control.calls == []

    run(test())
