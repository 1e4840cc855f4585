"""EventBridge Scheduler on a real server, driven by boto3: schedules and groups are kept as Scheduler keeps them, and call functions."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.functional.test_event_buses import ARN, TELLS, got
from tests.support.aws_server import AwsServer
from tests.support.deploy import function
from tests.support.event_server import EventServer
from tests.support.identities import allow, trust
from tests.support.witness import until

OFF = {"Mode": "OFF"}


@pytest.fixture(scope="module")
def scheduler(event_server: EventServer) -> Any:
    return event_server.server.client("scheduler")


@pytest.fixture(scope="module")
def logs(event_server: EventServer) -> Any:
    return event_server.server.client("logs")


@pytest.fixture
def aws(event_server: EventServer) -> AwsServer:
    return event_server.aws


@pytest.fixture(scope="module")
def teller(event_server: EventServer) -> Iterator[str]:
    with function(event_server.server.client(), TELLS) as name:
        yield name


@pytest.fixture(scope="module")
def role(event_server: EventServer) -> Iterator[str]:
    """One that Scheduler may become, and that may call every function but `nobody`."""
    iam, name = event_server.server.client("iam"), f"scheduler-{uuid.uuid4().hex[:8]}"
    made = iam.create_role(
        RoleName=name, AssumeRolePolicyDocument=trust({"Service": "scheduler.amazonaws.com"})
    )
    iam.put_role_policy(
        RoleName=name, PolicyName="p", PolicyDocument=allow("lambda:InvokeFunction", f"{ARN}:t-*")
    )
    yield str(made["Role"]["Arn"])
    iam.delete_role_policy(RoleName=name, PolicyName="p")
    iam.delete_role(RoleName=name)


def soon(seconds: float = 1.0) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("at(%Y-%m-%dT%H:%M:%S)")


def test_once_calls_its_function_once_and_is_deleted(
    scheduler: Any, logs: Any, teller: str, role: str
) -> None:
    name, mark = f"once-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    text = json.dumps(
        {
            "mark": mark,
            "arn": "<aws.scheduler.schedule-arn>",
            "at": "<aws.scheduler.scheduled-time>",
            "id": "<aws.scheduler.execution-id>",
            "attempt": "<aws.scheduler.attempt-number>",
        }
    )
    expression = soon(2)
    arn = scheduler.create_schedule(
        Name=name, ScheduleExpression=expression, FlexibleTimeWindow=OFF, ActionAfterCompletion="DELETE",
        Target={"Arn": f"{ARN}:{teller}", "RoleArn": role, "Input": text},
    )["ScheduleArn"]  # fmt: skip
    assert arn == f"arn:aws:scheduler:us-east-1:123456789012:schedule/default/{name}"

    def mine() -> list[Any]:
        return [event for event in got(logs, teller) if event.get("mark") == mark]

    until(mine)
    until(lambda: all(one["Name"] != name for one in scheduler.list_schedules(NamePrefix=name)["Schedules"]))
    with pytest.raises(ClientError, match=f"Schedule {name} does not exist."):
        scheduler.get_schedule(Name=name)
    (event,) = mine()
    assert event.pop("id")
    assert event == {"mark": mark, "arn": arn, "at": expression[3:-1] + "Z", "attempt": "1"}


def test_a_rate_begins_at_once_with_an_event_of_its_own(
    scheduler: Any, logs: Any, teller: str, role: str
) -> None:
    name = f"rate-{uuid.uuid4().hex[:8]}"
    scheduler.create_schedule(
        Name=name,
        ScheduleExpression="rate(1 hour)",
        FlexibleTimeWindow=OFF,
        Target={"Arn": f"{ARN}:{teller}", "RoleArn": role},
    )
    arn = scheduler.get_schedule(Name=name)["Arn"]
    until(lambda: [event for event in got(logs, teller) if event.get("resources") == [arn]])
    (event,) = [event for event in got(logs, teller) if event.get("resources") == [arn]]
    assert (event["source"], event["detail-type"], event["detail"]) == (
        "aws.scheduler",
        "Scheduled Event",
        "{}",
    )
    scheduler.delete_schedule(Name=name)


def test_what_the_role_may_not_call_goes_to_the_dead_letter_queue(
    scheduler: Any, aws: AwsServer, role: str
) -> None:
    name, queue = f"dead-{uuid.uuid4().hex[:8]}", aws.queue("schedule-letters")
    scheduler.create_schedule(
        Name=name, ScheduleExpression=soon(), FlexibleTimeWindow=OFF,
        Target={"Arn": f"{ARN}:nobody", "RoleArn": role, "Input": '{"a": 1}', "DeadLetterConfig": {"Arn": queue.arn}},
    )  # fmt: skip
    message = queue.wait()
    attributes = {key: value["StringValue"] for key, value in message["MessageAttributes"].items()}
    assert json.loads(message["Body"]) == {"a": 1}
    assert attributes["ERROR_CODE"] == "NO_RESOURCE"
    assert attributes["SCHEDULE_ARN"].endswith(f"/default/{name}")
    assert scheduler.get_schedule(Name=name)["ActionAfterCompletion"] == "NONE"  # it stays
    scheduler.delete_schedule(Name=name)


def test_schedules_and_groups_are_kept(scheduler: Any, role: str) -> None:
    group, name = f"g-{uuid.uuid4().hex[:8]}", f"kept-{uuid.uuid4().hex[:8]}"
    arn = scheduler.create_schedule_group(Name=group, Tags=[{"Key": "a", "Value": "b"}])["ScheduleGroupArn"]
    assert scheduler.list_tags_for_resource(ResourceArn=arn)["Tags"] == [{"Key": "a", "Value": "b"}]
    with pytest.raises(ClientError, match=f"Schedule group {group} already exists."):
        scheduler.create_schedule_group(Name=group)
    start = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    asked: dict[str, Any] = {
        "Name": name, "GroupName": group, "ScheduleExpression": "cron(0 3 * * ? *)", "ScheduleExpressionTimezone": "Europe/Paris",
        "FlexibleTimeWindow": {"Mode": "FLEXIBLE", "MaximumWindowInMinutes": 15}, "Description": "nightly", "State": "DISABLED",
        "StartDate": start, "EndDate": start + timedelta(days=9), "Target": {"Arn": f"{ARN}:t-x", "RoleArn": role},
    }  # fmt: skip
    scheduler.create_schedule(**asked)
    with pytest.raises(ClientError, match=f"Schedule {name} already exists."):
        scheduler.create_schedule(**asked)
    found = scheduler.get_schedule(Name=name, GroupName=group)
    policy = {"MaximumEventAgeInSeconds": 86_400, "MaximumRetryAttempts": 185}
    assert {key: found[key] for key in asked} == {
        **asked,
        "Target": {**asked["Target"], "RetryPolicy": policy},
    }
    with pytest.raises(ClientError, match=f"Schedule {name} does not exist."):
        scheduler.get_schedule(Name=name)
    assert [
        one["Name"] for one in scheduler.list_schedules(GroupName=group, State="DISABLED")["Schedules"]
    ] == [name]
    assert scheduler.list_schedules(GroupName=group, State="ENABLED")["Schedules"] == []
    del asked["Description"]
    scheduler.update_schedule(**{**asked, "State": "ENABLED"})
    found = scheduler.get_schedule(Name=name, GroupName=group)
    assert (found["State"], found.get("Description")) == ("ENABLED", None)
    scheduler.delete_schedule_group(Name=group)
    with pytest.raises(ClientError, match=f"Schedule group {group} does not exist."):
        scheduler.get_schedule(Name=name, GroupName=group)
    assert scheduler.get_schedule_group(Name="default")["State"] == "ACTIVE"


REFUSED = [
    ({"ScheduleExpression": "cron(0 3 * * *)"}, r"Invalid Schedule Expression cron\(0 3 \* \* \*\)"),
    ({"ScheduleExpression": "at(tomorrow)"}, "Invalid Schedule Expression"),
    ({"ScheduleExpressionTimezone": "Mars/Olympus"}, "Invalid ScheduleExpressionTimezone"),
    ({"FlexibleTimeWindow": {"Mode": "FLEXIBLE"}}, "MaximumWindowInMinutes must be set"),
    ({"FlexibleTimeWindow": {"Mode": "OFF", "MaximumWindowInMinutes": 5}}, "must not be set"),
    ({"StartDate": datetime(2020, 1, 1, tzinfo=UTC)}, "cannot be earlier than 5 minutes ago"),
    ({"Target": {"Arn": "arn:aws:scheduler:::aws-sdk:lambda:invoke"}}, "lambda, sqs, sns only"),
    ({"Target": {"Arn": f"{ARN}:t-x", "Input": "{"}}, "not valid JSON"),
    (
        {"Target": {"RoleArn": "arn:aws:iam::123456789012:role/absent"}},
        "must allow AWS EventBridge Scheduler to assume",
    ),
    ({"GroupName": "absent"}, "Schedule group absent does not exist"),
    ({"Name": "a/b"}, "No operation of Scheduler|failed to satisfy constraint"),
]


@pytest.mark.parametrize(("asked", "why"), REFUSED)
def test_schedules_that_are_refused(scheduler: Any, role: str, asked: dict[str, Any], why: str) -> None:
    good = {"Arn": f"{ARN}:t-x", "RoleArn": role}
    whole: dict[str, Any] = {
        "Name": "refused",
        "ScheduleExpression": "rate(1 hour)",
        "FlexibleTimeWindow": OFF,
    }
    with pytest.raises(ClientError, match=why):
        scheduler.create_schedule(**{**whole, **asked, "Target": {**good, **asked.get("Target", {})}})
