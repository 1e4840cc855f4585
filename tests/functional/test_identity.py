"""Users, roles and their policies on a running server, as boto3, gRPC and the command line see them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from gateway.model.bearer import bearer_token
from gateway.rpc import functions_pb2, invocations_pb2
from tests.support.identities import ACCOUNT, FUNCTION, Keys, allow, client, denial, refusal, trust
from tests.support.lambda_client import create
from tests.support.patience import seconds
from tests.support.server import Server, forklight_command

INVOKE = "lambda:InvokeFunction"
ADMIN = "arn:aws:iam::aws:policy/AdministratorAccess"


@pytest.fixture(scope="module")
def functions(server: Server) -> Iterator[tuple[str, str]]:
    """Two functions that are there."""
    root = server.client()
    names = ("identity-f", "identity-g")
    for name in names:
        create(root, name)
    yield names
    for name in names:
        root.delete_function(FunctionName=name)


class Users:
    """Made as a test asks for them, deleted with it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.iam = server.client("iam")
        self.names: list[str] = []
        self.roles: list[str] = []

    def user(self, name: str, *policies: str) -> Keys:
        self.iam.create_user(UserName=name)
        self.names.append(name)
        for number, policy in enumerate(policies):
            self.iam.put_user_policy(UserName=name, PolicyName=f"p{number}", PolicyDocument=policy)
        return Keys.of(self.iam.create_access_key(UserName=name)["AccessKey"])

    def role(self, name: str, principal: Any, **options: Any) -> str:
        made = self.iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust(principal), **options)
        self.roles.append(name)
        return str(made["Role"]["Arn"])

    def clean(self) -> None:
        iam = self.iam
        for name in self.names:
            for key in iam.list_access_keys(UserName=name)["AccessKeyMetadata"]:
                iam.delete_access_key(UserName=name, AccessKeyId=key["AccessKeyId"])
            for policy in iam.list_user_policies(UserName=name)["PolicyNames"]:
                iam.delete_user_policy(UserName=name, PolicyName=policy)
            for policy in iam.list_attached_user_policies(UserName=name)["AttachedPolicies"]:
                iam.detach_user_policy(UserName=name, PolicyArn=policy["PolicyArn"])
            iam.delete_user(UserName=name)
        for name in self.roles:
            for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]:
                iam.delete_role_policy(RoleName=name, PolicyName=policy)
            for policy in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
                iam.detach_role_policy(RoleName=name, PolicyArn=policy["PolicyArn"])
            iam.delete_role(RoleName=name)


@pytest.fixture
def users(server: Server) -> Iterator[Users]:
    made = Users(server)
    try:
        yield made
    finally:
        made.clean()


def invoke(caller: Any, name: str, payload: bytes = b"{}") -> int:
    return int(caller.invoke(FunctionName=name, Payload=payload)["StatusCode"])


def test_a_user_may_do_nothing_but_what_his_policies_allow(
    server: Server, users: Users, functions: tuple[str, str]
) -> None:
    f, g = functions
    keys = users.user("alice")
    alice = client(server, keys)
    assert refusal(alice.invoke, FunctionName=f) == denial("alice", INVOKE, FUNCTION + f)
    assert refusal(alice.invoke, FunctionName="absent") == denial("alice", INVOKE, FUNCTION + "absent")
    assert refusal(alice.list_functions) == denial("alice", "lambda:ListFunctions", "*")
    assert refusal(alice.delete_function, FunctionName=f) == denial(
        "alice", "lambda:DeleteFunction", FUNCTION + f
    )
    logs = client(server, keys, "logs")
    assert refusal(logs.describe_log_groups)[:2] == (403, "AccessDeniedException")
    iam = client(server, keys, "iam")
    assert refusal(iam.create_user, UserName="mallory") == (403, "AccessDenied", (
        f"User: arn:aws:iam::{ACCOUNT}:user/alice is not authorized to perform: iam:CreateUser on resource: "
        f"arn:aws:iam::{ACCOUNT}:user/mallory because no identity-based policy allows the iam:CreateUser action"
    ))  # fmt: skip
    users.iam.put_user_policy(
        UserName="alice", PolicyName="p", PolicyDocument=allow([INVOKE, "lambda:Get*"], FUNCTION + f)
    )
    # Often enough that both doors have taught it to their fast path, which must not let her call the other one.
    for _ in range(12):
        assert invoke(alice, f) == 200
        assert refusal(alice.invoke, FunctionName=g) == denial("alice", INVOKE, FUNCTION + g)
    assert alice.get_function(FunctionName=f)["Configuration"]["FunctionName"] == f
    assert refusal(alice.get_function, FunctionName=g)[0] == 403
    assert refusal(alice.invoke, FunctionName=f, Qualifier="$LATEST") == denial(
        "alice", INVOKE, f"{FUNCTION}{f}:$LATEST"
    )
    stream = alice.invoke_with_response_stream(FunctionName=f, Payload=b"{}")
    assert [event for event in stream["EventStream"] if "PayloadChunk" in event]
    assert refusal(alice.invoke_with_response_stream, FunctionName=g) == denial("alice", INVOKE, FUNCTION + g)
    assert refusal(client(server, keys, region="eu-west-1").invoke, FunctionName=f)[0] == 403


def test_what_is_taken_away_is_gone_at_once(server: Server, users: Users, functions: tuple[str, str]) -> None:
    f, _ = functions
    keys = users.user("bob", allow(INVOKE))
    bob, iam = client(server, keys), users.iam
    for _ in range(8):
        assert invoke(bob, f) == 200
    deny = json.dumps({"Statement": {"Effect": "Deny", "Action": "*", "Resource": "*"}})
    iam.put_user_policy(UserName="bob", PolicyName="no", PolicyDocument=deny)
    for _ in range(6):
        assert refusal(bob.invoke, FunctionName=f)[2].endswith(
            "with an explicit deny in an identity-based policy"
        )
    iam.delete_user_policy(UserName="bob", PolicyName="no")
    for _ in range(6):
        assert invoke(bob, f) == 200
    iam.update_access_key(UserName="bob", AccessKeyId=keys.id, Status="Inactive")
    for _ in range(6):
        assert refusal(bob.invoke, FunctionName=f)[1] == "UnrecognizedClientException"
    iam.update_access_key(UserName="bob", AccessKeyId=keys.id, Status="Active")
    assert invoke(bob, f) == 200
    second = Keys.of(iam.create_access_key(UserName="bob")["AccessKey"])
    assert refusal(iam.create_access_key, UserName="bob")[:2] == (409, "LimitExceeded")
    iam.delete_access_key(UserName="bob", AccessKeyId=keys.id)
    for _ in range(6):
        assert refusal(bob.invoke, FunctionName=f)[1] == "UnrecognizedClientException"
    assert invoke(client(server, second), f) == 200
    assert refusal(iam.delete_user, UserName="bob")[:2] == (409, "DeleteConflict")


def test_a_functions_own_policy(server: Server, users: Users, functions: tuple[str, str]) -> None:
    f, g = functions
    carol = client(server, users.user("carol"))
    root = server.client()
    root.add_permission(
        FunctionName=f, StatementId="carol", Action=INVOKE, Principal=f"arn:aws:iam::{ACCOUNT}:user/carol"
    )
    for _ in range(6):
        assert invoke(carol, f) == 200
    assert refusal(carol.invoke, FunctionName=g)[0] == refusal(carol.get_policy, FunctionName=f)[0] == 403
    root.remove_permission(FunctionName=f, StatementId="carol")
    for _ in range(6):
        assert refusal(carol.invoke, FunctionName=f) == denial("carol", INVOKE, FUNCTION + f)
    # The account as principal leaves it to her own policies, of which she has none.
    root.add_permission(FunctionName=f, StatementId="account", Action=INVOKE, Principal=ACCOUNT)
    assert refusal(carol.invoke, FunctionName=f)[0] == 403
    root.remove_permission(FunctionName=f, StatementId="account")


def test_conditions_of_the_request(server: Server, users: Users, functions: tuple[str, str]) -> None:
    f, _ = functions

    def where(name: str, condition: Any) -> Any:
        return client(server, users.user(name, allow(INVOKE, Condition=condition)))

    here = where("here", {"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}})
    elsewhere = where("elsewhere", {"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}})
    named = where("named", {"StringEquals": {"aws:username": "named", "aws:RequestedRegion": "us-east-1"}})
    later = where("later", {"DateGreaterThan": {"aws:CurrentTime": "2999-01-01T00:00:00Z"}})
    for _ in range(4):
        assert invoke(here, f) == invoke(named, f) == 200
        assert refusal(elsewhere.invoke, FunctionName=f)[0] == refusal(later.invoke, FunctionName=f)[0] == 403
    plain = where("plain", {"Bool": {"aws:SecureTransport": "false", "aws:ViaAWSService": "false"}})
    secure = where("secure", {"Bool": {"aws:SecureTransport": "true"}})
    assert invoke(plain, f) == 200 and refusal(secure.invoke, FunctionName=f)[0] == 403
    # Control answers these, by what the front door has seen.
    agent = allow("lambda:GetFunction", Condition={"StringLike": {"aws:UserAgent": "Boto3/*"}})
    browser = allow("lambda:GetFunction", Condition={"StringLike": {"aws:UserAgent": "Mozilla/*"}})
    assert client(server, users.user("agent", agent)).get_function(FunctionName=f)["Configuration"]
    assert refusal(client(server, users.user("browser", browser)).get_function, FunctionName=f)[0] == 403


def test_who_gets_a_deleted_ones_name_does_not_get_its_rights(
    server: Server, users: Users, functions: tuple[str, str]
) -> None:
    """Stored policies name users and roles by their unique ids, as on AWS, and show ARNs while there is somebody behind them."""
    f, _ = functions
    root, iam = server.client(), users.iam
    user = f"arn:aws:iam::{ACCOUNT}:user/erin"
    first = users.user("erin", allow("sts:AssumeRole"))
    unique = iam.get_user(UserName="erin")["User"]["UserId"]
    role = users.role("erins", {"AWS": user})
    session = f"arn:aws:sts::{ACCOUNT}:assumed-role/erins/s1"
    added = root.add_permission(FunctionName=f, StatementId="erin", Action=INVOKE, Principal=user)
    root.add_permission(FunctionName=f, StatementId="session", Action=INVOKE, Principal=session)
    assert json.loads(added["Statement"])["Principal"] == {"AWS": user}

    def shown() -> list[str]:
        policy = json.loads(root.get_policy(FunctionName=f)["Policy"])
        trusted = iam.get_role(RoleName="erins")["Role"]["AssumeRolePolicyDocument"]
        return [statement["Principal"]["AWS"] for statement in (*policy["Statement"], *trusted["Statement"])]

    try:
        assert shown() == [user, session, user]
        assert invoke(client(server, first), f) == 200
        made = client(server, first, "sts").assume_role(RoleArn=role, RoleSessionName="s1")
        assert invoke(client(server, Keys.of(made["Credentials"])), f) == 200
        iam.delete_user_policy(UserName="erin", PolicyName="p0")
        iam.delete_access_key(UserName="erin", AccessKeyId=first.id)
        iam.delete_user(UserName="erin")
        users.names.remove("erin")
        assert shown() == [unique, session, unique]
        second = users.user("erin", allow("sts:AssumeRole", user))
        assert shown() == [unique, session, unique]
        assert refusal(client(server, second).invoke, FunctionName=f)[0] == 403
        assert (
            refusal(client(server, second, "sts").assume_role, RoleArn=role, RoleSessionName="s1")[0] == 403
        )
    finally:
        for sid in ("erin", "session"):
            root.remove_permission(FunctionName=f, StatementId=sid)


def test_roles_are_passed_and_assumed(server: Server, users: Users, functions: tuple[str, str]) -> None:
    f, g = functions
    keys = users.user("dave", allow(["lambda:UpdateFunctionConfiguration"]))
    dave, sts = client(server, keys), client(server, keys, "sts")
    role = users.role("runner", {"AWS": f"arn:aws:iam::{ACCOUNT}:user/dave"})
    users.iam.put_role_policy(RoleName="runner", PolicyName="p", PolicyDocument=allow(INVOKE))
    assert refusal(dave.update_function_configuration, FunctionName=f, Role=role) == denial(
        "dave", "iam:PassRole", role
    )
    who = sts.get_caller_identity()
    assert (who["Account"], who["Arn"]) == (ACCOUNT, f"arn:aws:iam::{ACCOUNT}:user/dave")
    made = sts.assume_role(RoleArn=role, RoleSessionName="s1")
    arn = f"arn:aws:sts::{ACCOUNT}:assumed-role/runner/s1"
    assert made["AssumedRoleUser"]["Arn"] == arn
    temporary = Keys.of(made["Credentials"])
    assert client(server, temporary, "sts").get_caller_identity()["Arn"] == arn
    runner = client(server, temporary)
    for _ in range(6):
        assert invoke(runner, f) == 200
    assert refusal(runner.list_functions)[2].startswith(
        f"User: {arn} is not authorized to perform: lambda:ListFunctions"
    )
    limited = sts.assume_role(RoleArn=role, RoleSessionName="s2", Policy=allow(INVOKE, FUNCTION + f))[
        "Credentials"
    ]
    narrow = client(server, Keys.of(limited))
    assert invoke(narrow, f) == 200
    assert refusal(narrow.invoke, FunctionName=g)[2].endswith(
        f"because no session policy allows the {INVOKE} action"
    )
    # A token that is another's, damaged or missing.
    for token in (
        limited["SessionToken"],
        temporary.token[:-9] + "AAAAAAAA=" if temporary.token else "",
        None,
    ):
        forged = client(server, Keys(temporary.id, temporary.secret, token))
        assert refusal(forged.invoke, FunctionName=f)[1] == "UnrecognizedClientException"
    other = client(server, users.user("erin"), "sts")
    assert refusal(other.assume_role, RoleArn=role, RoleSessionName="s3")[:2] == (403, "AccessDenied")
    assert refusal(other.assume_role, RoleArn=role + "2", RoleSessionName="s3")[:2] == (403, "AccessDenied")
    assert refusal(sts.assume_role, RoleArn=role, RoleSessionName="s3", DurationSeconds=7200)[:2] == (
        400,
        "ValidationError",
    )
    own = Keys.of(sts.get_session_token()["Credentials"])
    assert client(server, own, "sts").get_caller_identity()["Arn"] == who["Arn"]
    users.iam.delete_role_policy(RoleName="runner", PolicyName="p")
    assert refusal(runner.invoke, FunctionName=f)[1] == "AccessDeniedException"
    users.iam.delete_role(RoleName="runner")
    role = users.role(
        "runner", {"AWS": f"arn:aws:iam::{ACCOUNT}:user/dave"}
    )  # of the same name, and not the same
    users.roles.remove("runner")
    assert refusal(runner.invoke, FunctionName=f)[1] == "UnrecognizedClientException"
    users.iam.delete_access_key(UserName="dave", AccessKeyId=keys.id)
    assert refusal(client(server, own, "sts").get_caller_identity)[:2] == (403, "InvalidClientTokenId")


def test_grpc_tells_users_apart(server: Server, users: Users, functions: tuple[str, str]) -> None:
    f, g = functions
    keys = users.user("frank", allow([INVOKE, "lambda:GetFunction"], FUNCTION + f))
    metadata = (("authorization", f"Bearer {bearer_token(keys.id, keys.secret)}"),)

    def call(method: str, message: Any, answer: Any, tags: Any = metadata) -> Any:
        wire = channel.unary_unary(
            f"/forklight.v1.{method}", lambda found: found.SerializeToString(), answer.FromString
        )
        return wire(message, metadata=tags, timeout=seconds(30))

    def run(name: str, tags: Any = metadata) -> bytes:
        request = invocations_pb2.InvokeRequest(function=name, payload=b"{}")
        return bytes(call("Invocations/Invoke", request, invocations_pb2.InvokeResponse, tags).payload)

    with grpc.insecure_channel(server.grpc) as channel:
        for _ in range(4):
            assert run(f)
            assert run(g, (("authorization", f"Bearer {server.token}"),))
            with pytest.raises(grpc.RpcError) as caught:
                run(g)
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
            assert caught.value.details() == denial("frank", INVOKE, FUNCTION + g)[2]
        found = call(
            "Functions/Get", functions_pb2.GetFunctionRequest(function_name=f), functions_pb2.Function
        )
        assert found.function_name == f
        with pytest.raises(grpc.RpcError) as caught:
            call(
                "Functions/Delete",
                functions_pb2.DeleteFunctionRequest(function_name=f),
                functions_pb2.DeleteFunctionResponse,
            )
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        with pytest.raises(grpc.RpcError) as caught:
            call(
                "Invocations/InvokeAsync",
                invocations_pb2.InvokeAsyncRequest(function=g),
                invocations_pb2.InvokeAsyncResponse,
            )
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        users.iam.delete_access_key(UserName="frank", AccessKeyId=keys.id)
        with pytest.raises(grpc.RpcError) as caught:
            run(f)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_the_command_line_makes_lists_and_revokes_keys(
    server: Server, users: Users, functions: tuple[str, str], tmp_path: Any
) -> None:
    f, _ = functions
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}

    def forklight(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*forklight_command(), "keys", *arguments, "--state-dir", str(server.state_dir)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=seconds(60))

    policy = tmp_path / "policy.json"
    policy.write_text(allow(INVOKE))
    made = forklight("create", "grace", "--policy", f"@{policy}", "--json")
    users.names.append("grace")
    assert made.returncode == 0, made.stderr
    document = json.loads(made.stdout)
    keys = Keys(document["access_key_id"], document["secret_access_key"])
    assert document["token"] == bearer_token(keys.id, keys.secret)
    assert invoke(client(server, keys), f) == 200
    listed = forklight("list")
    assert [line.split()[:3] for line in listed.stdout.splitlines() if "grace" in line] == [
        ["grace", keys.id, "Active"]
    ]
    assert forklight("revoke", keys.id, "--yes").returncode == 0
    assert refusal(client(server, keys).invoke, FunctionName=f)[1] == "UnrecognizedClientException"
    wrong = forklight("create", "grace", "--policy", "NoSuchPolicy")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (1, 1)
    assert "NoSuchEntity" in wrong.stderr


@pytest.mark.slow
def test_everything_is_there_after_a_restart(start_server: Any, state_dir: Any) -> None:
    first = start_server(state_dir=state_dir)
    create(first.client(), "f")
    users = Users(first)
    keys = users.user("heidi", allow([INVOKE, "sts:AssumeRole"]))
    role = users.role("r", {"AWS": f"arn:aws:iam::{ACCOUNT}:root"})
    users.iam.attach_role_policy(RoleName="r", PolicyArn=ADMIN)
    made = client(first, keys, "sts").assume_role(RoleArn=role, RoleSessionName="s3")
    first.stop()
    second = start_server(state_dir=state_dir)
    assert invoke(client(second, keys), "f") == 200
    assert refusal(client(second, keys).list_functions)[0] == 403
    assert len(client(second, Keys.of(made["Credentials"])).list_functions()["Functions"]) == 1
