"""A function has its execution role's rights, and no others: credentials in its environment, in every mode and runtime."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.functional.test_runtimes import get
from tests.support.deploy import OFTEN, function, invoke, zip_of
from tests.support.identities import ACCOUNT, FUNCTION, Keys, allow, client, refusal, trust
from tests.support.own_runtime import own_runtime
from tests.support.server import Server
from tests.support.witness import until

LAMBDA = {"Service": "lambda.amazonaws.com"}
# What SDKs look at when a module makes its clients, and what they look at later.
SOURCE = """
import json, os

def seen():
    return {name: os.environ.get(name) for name in
            ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ENDPOINT_URL_STS")}

AT_INIT = seen()

def handler(event, context):
    return {"init": AT_INIT, "now": seen(), "pid": os.getpid()}
"""
NODE = "exports.handler = async () => process.env;\n"


class Roles:
    """Of one test, deleted with it."""

    def __init__(self, server: Server) -> None:
        self.iam = server.client("iam")
        self.names: list[str] = []

    def make(self, name: str, principal: Any = LAMBDA, *policies: str) -> str:
        made = self.iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust(principal))
        self.names.append(name)
        for number, policy in enumerate(policies):
            self.iam.put_role_policy(RoleName=name, PolicyName=f"p{number}", PolicyDocument=policy)
        return str(made["Role"]["Arn"])

    def delete(self, name: str) -> None:
        for policy in self.iam.list_role_policies(RoleName=name)["PolicyNames"]:
            self.iam.delete_role_policy(RoleName=name, PolicyName=policy)
        self.iam.delete_role(RoleName=name)
        self.names.remove(name)


@pytest.fixture
def roles(server: Server) -> Iterator[Roles]:
    made = Roles(server)
    try:
        yield made
    finally:
        for name in list(made.names):
            made.delete(name)


def keys(seen: dict[str, str]) -> Keys:
    return Keys(seen["AWS_ACCESS_KEY_ID"], seen["AWS_SECRET_ACCESS_KEY"], seen["AWS_SESSION_TOKEN"])


def ask(server: Server, name: str) -> dict[str, Any]:
    answer: dict[str, Any] = invoke(server.client(), name)[0]
    return answer


def identity(server: Server, holder: Keys) -> Any:
    return client(server, holder, "sts").get_caller_identity()


def ended(server: Server, holder: Keys) -> bool:
    """Whether these credentials are nobody's any more."""
    return refusal(client(server, holder, "sts").get_caller_identity)[0] == 403


@pytest.fixture(scope="module")
def callees(server: Server) -> Iterator[None]:
    """One that the roles here may call, and one that they may not."""
    root = server.client()
    with (
        function(root, "def handler(event, context): return 'called'", name="exec-callee"),
        function(root, "def handler(event, context): return 'no'", name="closed"),
    ):
        yield


@pytest.mark.usefixtures("callees")
@pytest.mark.parametrize(
    ("isolation", "snapshot"), [("reuse", "off"), ("reuse", "on"), ("request", "off"), ("tenant", "off")]
)
def test_a_function_is_its_role(server: Server, roles: Roles, isolation: str, snapshot: str) -> None:
    root = server.client()
    role = roles.make("exec-modes", LAMBDA, allow("lambda:InvokeFunction", FUNCTION + "exec-*"))
    tenant = {"TenantId": "t"} if isolation == "tenant" else {}
    with function(root, SOURCE, name="exec-a", isolation=isolation, snapshot=snapshot, Role=role) as name:
        answer = invoke(root, name, **tenant)[0]
    for seen in (answer["init"], answer["now"]):
        assert seen["AWS_ACCESS_KEY_ID"].startswith("ASIA")
        assert seen["AWS_REGION"] == "us-east-1" and seen["AWS_ENDPOINT_URL_STS"] is None
    found = identity(server, keys(answer["init"]))
    assert found["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/exec-modes/exec-a"
    assert found["UserId"].startswith("AROA") and found["UserId"].endswith(":exec-a")
    own = client(server, keys(answer["now"]))
    assert invoke(own, "exec-callee")[0] == "called"
    status, code, message = refusal(own.invoke, FunctionName="closed")
    assert (status, code) == (403, "AccessDeniedException")
    assert message.startswith(
        f"User: {found['Arn']} is not authorized to perform: lambda:InvokeFunction on resource:"
    )
    assert refusal(own.list_functions)[0] == 403


def test_a_runtime_of_ones_own_has_it_too(server: Server, roles: Roles) -> None:
    role = roles.make("exec-own")
    with own_runtime(server.client(), name="exec-r", Role=role) as name:
        seen = ask(server, name)["env"]
        assert identity(server, keys(seen))["Arn"].endswith(":assumed-role/exec-own/exec-r")
        assert seen["AWS_REGION"] == "us-east-1"


def test_node_has_it_too(server: Server, roles: Roles) -> None:
    found = [name for name in get(server, "/forklight/v1/runtimes")["runtimes"] if name.startswith("nodejs")]
    if not found:
        pytest.skip("needs Node.js on the host")
    role = roles.make("exec-node")
    options = {"files": {"index.js": NODE}, "Runtime": found[-1], "Handler": "index.handler"}
    with function(server.client(), "", name="exec-n", Role=role, **options) as name:
        seen = ask(server, name)
        assert identity(server, keys(seen))["Arn"].endswith(":assumed-role/exec-node/exec-n")
        assert seen["AWS_REGION"] == "us-east-1"


def test_each_function_of_a_role_has_its_own(server: Server, roles: Roles) -> None:
    """And policies can tell them apart."""
    own = {"ArnEquals": {"lambda:SourceFunctionArn": FUNCTION + "exec-one"}}
    role = roles.make("exec-shared", LAMBDA, allow("lambda:ListFunctions", Condition=own))
    root = server.client()
    with (
        function(root, SOURCE, name="exec-one", Role=role) as one,
        function(root, SOURCE, name="exec-two", Role=role) as two,
    ):
        first, second = (keys(ask(server, name)["now"]) for name in (one, two))
        assert [identity(server, holder)["Arn"].rpartition("/")[2] for holder in (first, second)] == [
            one,
            two,
        ]
        assert client(server, first).list_functions()["Functions"]
        assert refusal(client(server, second).list_functions)[0] == 403


def test_what_lambda_may_not_assume_is_no_functions_role(server: Server, roles: Roles) -> None:
    """As on AWS, in its words. A role that nobody here knows is taken as it is, and gives nothing."""
    refused = (
        400,
        "InvalidParameterValueException",
        "The role defined for the function cannot be assumed by Lambda.",
    )
    foreign = roles.make("exec-ec2", {"Service": "ec2.amazonaws.com"})
    root = server.client()
    arguments = {
        "Runtime": "python3.11",
        "Handler": "index.handler",
        "Code": {"ZipFile": zip_of({"index.py": SOURCE})},
    }
    assert refusal(root.create_function, FunctionName="exec-f", Role=foreign, **arguments) == refused
    with function(root, SOURCE, name="exec-f") as name:
        assert not ask(server, name)["now"]["AWS_ACCESS_KEY_ID"].startswith("ASIA")
        assert refusal(root.update_function_configuration, FunctionName=name, Role=foreign) == refused
        good = roles.make("exec-good")
        root.update_function_configuration(FunctionName=name, Role=good)
        root.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig=OFTEN)
        assert ask(server, name)["now"]["AWS_ACCESS_KEY_ID"].startswith("ASIA")
        root.update_function_configuration(FunctionName=name, Description="the role is not asked again")


@pytest.mark.parametrize("snapshot", ["off", "on"])
def test_credentials_end_with_their_role(server: Server, roles: Roles, snapshot: str) -> None:
    """Deleted, and made anew under the same name, and closed to Lambda: workers that have what does not hold any more are replaced."""
    may = allow("lambda:ListFunctions")
    role = roles.make("exec-end", LAMBDA, may)
    with function(server.client(), SOURCE, name="exec-end-f", snapshot=snapshot, Role=role) as name:
        first = keys(ask(server, name)["init"])
        assert client(server, first).list_functions()["Functions"]
        roles.delete("exec-end")
        assert ended(server, first)
        _until_ids(server, name, "FORK")
        roles.make("exec-end", LAMBDA, may)
        assert ended(server, first), "another role of that name gives the first one's credentials life"
        _until_ids(server, name, "ASIA")
        second = keys(ask(server, name)["init"])
        assert client(server, second).list_functions()["Functions"]
        closed = json.loads(trust({"Service": "ec2.amazonaws.com"}))
        roles.iam.update_assume_role_policy(RoleName="exec-end", PolicyDocument=json.dumps(closed))
        _until_ids(server, name, "FORK")


def _until_ids(server: Server, name: str, prefix: str) -> None:
    """What module code and handler see."""

    def both() -> bool:
        answer = ask(server, name)
        return all(answer[when]["AWS_ACCESS_KEY_ID"].startswith(prefix) for when in ("init", "now"))

    until(both)


@pytest.mark.slow
def test_credentials_are_renewed(start_server: Callable[..., Server]) -> None:
    """Of a life of 6 s: workers, and what a snapshot's module code has seen, are replaced while they hold; no call fails meanwhile."""
    server = start_server("--role-credentials", "0.1")
    role = Roles(server).make("exec-renewed")
    for snapshot in ("off", "on"):
        with function(server.client(), SOURCE, name=f"exec-{snapshot}", snapshot=snapshot, Role=role) as name:
            seen: set[str] = set()
            end = time.monotonic() + 14
            while time.monotonic() < end:
                answer = ask(server, name)
                for when in ("init", "now"):
                    holder = keys(answer[when])
                    seen.add(holder.id)
                    assert identity(server, holder)["Arn"].endswith(f"/exec-renewed/{name}")
                time.sleep(0.05)
            assert len(seen) >= 3


@pytest.mark.root("network egress is a link of the host's")
def test_a_function_calls_back() -> None:
    """From inside, by nothing but what its environment says: boto3 finds server and credentials itself."""
    from tests.conftest import fresh_state_dir
    from tests.support.outside import HOST_PRIVATE, Outside, inside

    source = """
import boto3
from botocore.exceptions import ClientError
lambda_ = boto3.client("lambda")
sts = boto3.client("sts")

def handler(event, context):
    try:
        lambda_.invoke(FunctionName="exec-closed")
        refused = ""
    except ClientError as error:
        refused = error.response["Error"]["Code"]
    return {
        "arn": sts.get_caller_identity()["Arn"],
        "answer": lambda_.invoke(FunctionName="exec-callee", Payload=b'"hello"')["Payload"].read().decode(),
        "refused": refused,
    }
"""
    echo = "def handler(event, context): return event"
    with Outside() as world, fresh_state_dir() as state_dir, inside(world.host):
        url = f"http://{HOST_PRIVATE}:8080"
        with Server.start(state_dir, "--http", "0.0.0.0:8080", "--function-endpoint", url) as server:
            role = Roles(server).make(
                "exec-inside", LAMBDA, allow("lambda:InvokeFunction", FUNCTION + "exec-callee")
            )
            root = server.client()
            with (
                function(root, echo, name="exec-callee"),
                function(root, echo, name="exec-closed"),
                function(
                    root, source, name="exec-caller", network="egress", Role=role, MemorySize=512
                ) as caller,
            ):
                answer, response = invoke(root, caller)
                assert "FunctionError" not in response, answer
                assert answer == {
                    "arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/exec-inside/exec-caller",
                    "answer": '"hello"',
                    "refused": "AccessDeniedException",
                }
