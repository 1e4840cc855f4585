"""What front doors see of a change, and when its caller gets the answer."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.control import HEAD, ControlHarness, FakeDoor
from tests.support.packages import package

ROLE = "arn:aws:iam::123456789012:role/r"


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlHarness]:
    with ControlHarness(tmp_path / "state", door_ack_timeout_s=0.5) as harness:
        yield harness


def create(control: ControlHarness, name: str = "hello", **more: object) -> dict[str, object]:
    params = {
        "FunctionName": name, "Runtime": "python3.11", "Role": ROLE, "Handler": "index.handler", "Code": {}, **more,
    }  # fmt: skip
    answer = control.operation("CreateFunction", params, package())
    assert "result" in answer, answer
    result = answer["result"]
    assert isinstance(result, dict)
    return result


def test_a_door_gets_the_state_keys_and_every_change(control: ControlHarness) -> None:
    create(control, "a", Timeout=7, MemorySize=256)
    view = control.call(lambda: control.door.views["us-east-1", "a"])
    assert (view["timeout_s"], view["memory_mb"], view["state"]) == (7, 256, "Active")
    assert view["log_group"] == "/aws/lambda/a"
    late = FakeDoor(1)
    control.run(late.connect(control.settings.control_socket))
    assert late.views == control.call(lambda: control.door.views)
    (key,) = late.keys
    assert key["id"].startswith("AKIA")
    assert len(key["id"]) == 20
    assert all(len(token) == 64 for token in late.tokens)
    create(control, "b")
    assert set(late.views) == {("us-east-1", "a"), ("us-east-1", "b")}
    control.run(late.close())


def test_the_answer_waits_for_every_door(control: ControlHarness) -> None:
    slow = FakeDoor(1, ack_delay_s=0.2)
    control.run(slow.connect(control.settings.control_socket))
    begun = time.monotonic()
    create(control)
    assert time.monotonic() - begun >= 0.2
    assert ("us-east-1", "hello") in slow.views
    control.run(slow.close())
    begun = time.monotonic()
    create(control, "after")
    assert time.monotonic() - begun < 0.2


def test_a_door_that_does_not_answer_is_disconnected(control: ControlHarness) -> None:
    mute = FakeDoor(1, ack_delay_s=None)
    control.run(mute.connect(control.settings.control_socket))
    create(control)
    control.run(asyncio.wait_for(mute.gone.wait(), 5))
    assert ("us-east-1", "hello") in control.call(lambda: control.door.views)


def test_a_door_that_leaves_holds_nobody_up(control: ControlHarness) -> None:
    leaving = FakeDoor(1, ack_delay_s=None)
    control.run(leaving.connect(control.settings.control_socket))

    async def create_and_leave() -> float:
        header = {
            "op": "call", "region": "us-east-1", "operation": "CreateFunction", "zip_in_body": True,
            "params": {"FunctionName": "x", "Runtime": "python3.11", "Role": ROLE, "Handler": "i.h", "Code": {}},
        }  # fmt: skip
        begun = time.monotonic()
        asking = asyncio.ensure_future(control.door.ask(header, package()))
        await asyncio.sleep(0.1)
        await leaving.close()
        answer, _ = await asking
        assert "result" in answer
        return time.monotonic() - begun

    assert control.run(create_and_leave()) < 0.45


def test_a_request_outlives_its_door(control: ControlHarness) -> None:
    """A door that dies in the middle of a creation leaves a whole function or none."""
    dying = FakeDoor(1)
    control.run(dying.connect(control.settings.control_socket))

    async def ask_and_die() -> None:
        header = {
            "op": "call", "id": 1, "region": "us-east-1", "operation": "CreateFunction", "zip_in_body": True,
            "caller": {"root": True},
            "params": {"FunctionName": "x", "Runtime": "python3.11", "Role": ROLE, "Handler": "i.h", "Code": {}},
        }  # fmt: skip
        dying.send(header, package())
        await dying.close()

    control.run(ask_and_die())
    control.eventually(lambda: ("us-east-1", "x") in control.door.views)
    assert control.call(lambda: len(control.supervisor.defined)) == 1


def test_changes_of_one_function_happen_one_after_the_other(control: ControlHarness) -> None:
    create(control)

    async def race() -> list[object]:
        async def change(number: int) -> object:
            header = {
                "op": "call", "region": "us-east-1", "operation": "UpdateFunctionConfiguration",
                "params": {"FunctionName": "hello", "Timeout": number},
            }  # fmt: skip
            return (await control.door.ask(header))[0]["result"]["RevisionId"]

        return list(await asyncio.gather(*(change(number) for number in range(1, 21))))

    revisions = control.run(race())
    assert len(set(revisions)) == 20
    defined = control.call(lambda: list(control.supervisor.defined))
    assert len(defined) == 1
    assert defined[0] == control.call(lambda: control.door.views["us-east-1", "hello"]["key"])


def test_many_creations_of_one_name_make_one(control: ControlHarness) -> None:
    async def race() -> list[object]:
        async def make() -> object:
            header = {
                "op": "call", "region": "us-east-1", "operation": "CreateFunction", "zip_in_body": True,
                "params": {"FunctionName": "x", "Runtime": "python3.11", "Role": ROLE, "Handler": "i.h", "Code": {}},
            }  # fmt: skip
            answer, _ = await control.door.ask(header, package())
            return answer.get("error", {}).get("code")

        return list(await asyncio.gather(*(make() for _ in range(10))))

    codes = control.run(race())
    assert sorted(codes, key=str) == sorted([None, *["ResourceConflictException"] * 9], key=str)


def test_nonsense_ends_the_connection_and_nothing_else(control: ControlHarness) -> None:
    async def say(data: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(str(control.settings.control_socket))
        writer.write(data)
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        return answer

    unknown = b'{"op":"dance"}'
    for data in (
        b"\xff" * 64, HEAD.pack(3, 0) + b"[1]", HEAD.pack(2, 0) + b"{}", HEAD.pack(1 << 30, 0),
        HEAD.pack(len(unknown), 0) + unknown,
    ):  # fmt: skip
        assert control.run(say(data)) == b""
    create(control)


def test_the_socket_and_the_secrets_are_the_owners_alone(control: ControlHarness) -> None:
    state = control.settings.state_dir
    for name in ("run/control.sock", "credentials.json", "forklight.db"):
        assert stat.S_IMODE((state / name).stat().st_mode) == 0o600, name
    document = json.loads((state / "credentials.json").read_text())
    (key,) = control.call(lambda: control.door.keys)
    assert (document["access_key_id"], document["secret_access_key"]) == (key["id"], key["secret"])
    assert document["region"] == "us-east-1"
    assert document["endpoints"] == {"http": "http://127.0.0.1:1"}
    assert document["token"] not in (state / "forklight.db").read_bytes().decode("latin1")


def test_a_refusing_supervisor_leaves_nothing_half_made(control: ControlHarness) -> None:
    def refuse(why: str | None) -> None:
        control.supervisor.refuse = why

    control.call(lambda: refuse("no such interpreter"))
    params = {"FunctionName": "x", "Runtime": "python3.11", "Role": ROLE, "Handler": "i.h", "Code": {}}
    error = control.operation("CreateFunction", params, package())["error"]
    assert (error["status"], error["code"]) == (500, "ServiceException")
    assert "no such interpreter" in error["message"]
    assert control.operation("ListFunctions", {})["result"]["Functions"] == []
    control.call(lambda: refuse(None))
    create(control, "x")
    key = control.call(lambda: control.door.views["us-east-1", "x"]["key"])
    control.call(lambda: refuse("changed my mind"))
    change = {"FunctionName": "x", "Timeout": 9}
    assert "error" in control.operation("UpdateFunctionConfiguration", change)
    assert control.call(lambda: control.door.views["us-east-1", "x"]["key"]) == key
    assert control.operation("GetFunctionConfiguration", {"FunctionName": "x"})["result"]["Timeout"] == 3


def test_a_silent_supervisor_is_a_clean_503(tmp_path: Path) -> None:
    with ControlHarness(tmp_path / "state", define_timeout_s=0.2) as control:
        control.call(lambda: setattr(control.supervisor, "silent", True))
        params = {"FunctionName": "x", "Runtime": "python3.11", "Role": ROLE, "Handler": "i.h", "Code": {}}
        error = control.operation("CreateFunction", params, package())["error"]
        assert (error["status"], error["code"]) == (503, "ServiceException")
        assert control.call(lambda: len(control.server.registry)) == 0


def test_unused_code_goes_after_its_retention(tmp_path: Path) -> None:
    with ControlHarness(tmp_path / "state", code_retention_s=0.3) as control:
        create(control, "a")
        create(control, "b")
        trees = control.settings.state_dir / "code"
        assert len(list(trees.iterdir())) == 1
        control.operation("DeleteFunction", {"FunctionName": "a"})
        time.sleep(0.8)
        assert len(list(trees.iterdir())) == 1
        control.operation("DeleteFunction", {"FunctionName": "b"})
        assert len(list(trees.iterdir())) == 1
        control.eventually(lambda: not os.listdir(trees))
        assert not os.listdir(control.settings.state_dir / "packages")
        create(control, "a")


def test_a_large_package_does_not_stall_the_others(control: ControlHarness) -> None:
    """30 MB that do not compress: hashing, unpacking and flushing are not the loop's work."""
    large = package({"blob.bin": os.urandom(30 << 20), "index.py": "x = 1\n"})

    async def measure() -> float:
        header = {
            "op": "call", "region": "us-east-1", "operation": "CreateFunction", "zip_in_body": True,
            "params": {"FunctionName": "l", "Runtime": "python3.11", "Role": ROLE, "Handler": "i.h", "Code": {}},
        }  # fmt: skip
        asking = asyncio.ensure_future(control.door.ask(header, large))
        await asyncio.sleep(0.05)
        worst = 0.0
        while not asking.done():
            begun = time.monotonic()
            await control.door.ask(
                {"op": "call", "region": "us-east-1", "operation": "ListFunctions", "params": {}}
            )
            worst = max(worst, time.monotonic() - begun)
            await asyncio.sleep(0.01)
        assert "result" in asking.result()[0]
        return worst

    assert control.run(measure()) < 0.5


def test_too_many_large_requests_are_throttled_not_kept(
    control: ControlHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.control.doors._MAX_HELD", 100)
    status, headers, body = control.api("POST", "/2015-03-31/functions", b"x" * 200)
    assert (status, headers["x-amzn-ErrorType"]) == (429, "TooManyRequestsException")
    assert json.loads(body)["Reason"] == "CallerRateLimitExceeded"
    answer = control.operation("CreateFunction", {}, b"x" * 200)
    assert answer["error"]["status"] == 429
    assert control.api("GET", "/2015-03-31/functions")[0] == 200
