"""EventBridge on a real server, driven by boto3: buses, rules, targets, and events that reach functions and queues."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.aws_server import AwsServer
from tests.support.deploy import function, log_events
from tests.support.event_server import EventServer
from tests.support.identities import Keys
from tests.support.identities import allow as policy
from tests.support.identities import client as client_of
from tests.support.witness import until

ARN = "arn:aws:lambda:us-east-1:123456789012:function"
# Prints what it gets.
TELLS = """
import json
def handler(event, context):
    print("GOT", json.dumps(event), flush=True)
"""


@pytest.fixture(scope="module")
def events(event_server: EventServer) -> Any:
    return event_server.server.client("events")


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


def got(logs: Any, name: str) -> list[Any]:
    found = [event["message"] for event in log_events(logs, name)]
    return [json.loads(line.removeprefix("GOT ")) for line in found if line.startswith("GOT ")]


@contextmanager
def rule(
    events: Any, pattern: Any, *targets: dict[str, Any], bus: str = "default", **more: Any
) -> Iterator[tuple[str, str]]:
    """Name and ARN."""
    name = f"r-{uuid.uuid4().hex[:8]}"
    arn = events.put_rule(Name=name, EventBusName=bus, EventPattern=json.dumps(pattern), **more)["RuleArn"]
    try:
        if targets:
            events.put_targets(Rule=name, EventBusName=bus, Targets=list(targets))
        yield name, arn
    finally:
        ids = [target["Id"] for target in events.list_targets_by_rule(Rule=name, EventBusName=bus)["Targets"]]
        if ids:
            events.remove_targets(Rule=name, EventBusName=bus, Ids=ids)
        events.delete_rule(Name=name, EventBusName=bus)


def allow(client: Any, name: str, rule_arn: str) -> None:
    client.add_permission(
        FunctionName=name, StatementId=f"s-{uuid.uuid4().hex[:8]}", Action="lambda:InvokeFunction",
        Principal="events.amazonaws.com", SourceArn=rule_arn,
    )  # fmt: skip


def put(events: Any, source: str, detail: Any, kind: str = "Test", **more: Any) -> str:
    entry = {"Source": source, "DetailType": kind, "Detail": json.dumps(detail), **more}
    answer = events.put_events(Entries=[entry])
    assert answer["FailedEntryCount"] == 0, answer
    return str(answer["Entries"][0]["EventId"])


def test_an_event_reaches_a_function_as_it_is(
    event_server: EventServer, events: Any, logs: Any, teller: str
) -> None:
    source = f"shop.{uuid.uuid4().hex[:6]}"
    pattern = {"source": [source], "detail": {"state": ["paid"], "total": [{"numeric": [">", 10]}]}}
    with rule(events, pattern, {"Id": "f", "Arn": f"{ARN}:{teller}"}) as (_, arn):
        allow(event_server.server.client(), teller, arn)
        put(events, source, {"state": "open", "total": 20})
        put(events, source, {"state": "paid", "total": 10})
        moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        detail = {"state": "paid", "total": 10.5, "big": 2**53 + 1, "text": 'é"\\'}
        event_id = put(events, source, detail, Time=moment, Resources=["arn:aws:x:::y"])
        until(lambda: any(event.get("id") == event_id for event in got(logs, teller)))
        mine = [event for event in got(logs, teller) if event.get("source") == source]
        assert mine == [
            {
                "version": "0", "id": event_id, "detail-type": "Test", "source": source, "account": "123456789012",
                "time": "2026-01-02T03:04:05Z", "region": "us-east-1", "resources": ["arn:aws:x:::y"], "detail": detail,
            }
        ]  # fmt: skip


def test_a_function_that_does_not_let_the_rule_is_not_called(
    events: Any, aws: AwsServer, event_server: EventServer, teller: str, logs: Any
) -> None:
    """It goes to the dead-letter queue at once, and so does what no function is there for."""
    source, letters = f"shop.{uuid.uuid4().hex[:6]}", aws.queue("letters")
    dead = {"DeadLetterConfig": {"Arn": letters.arn}}
    targets = [
        {"Id": "f", "Arn": f"{ARN}:{teller}", "Input": '{"no": 1}', **dead},
        {"Id": "nobody", "Arn": f"{ARN}:nobody", **dead},
    ]
    with rule(events, {"source": [source]}, *targets) as (_, arn):
        allow(event_server.server.client(), teller, arn + "-other")
        event_id = put(events, source, {})
        found: dict[str, str] = {}
        messages: list[Any] = []
        until(lambda: messages.extend(letters.take()) or len(messages) == len(targets))
        for message in messages:
            attributes = {key: value["StringValue"] for key, value in message["MessageAttributes"].items()}
            assert json.loads(message["Body"])["id"] == event_id
            assert attributes["RULE_ARN"] == arn
            assert attributes["RETRY_ATTEMPTS"] == "0"
            found[attributes["TARGET_ARN"].rpartition(":")[2]] = attributes["ERROR_CODE"]
        assert found == {teller: "NO_PERMISSIONS", "nobody": "NO_RESOURCE"}
        assert {"no": 1} not in got(logs, teller)


def test_input_path_and_transformer(event_server: EventServer, events: Any, logs: Any, teller: str) -> None:
    source, mark = f"shop.{uuid.uuid4().hex[:6]}", uuid.uuid4().hex
    target = f"{ARN}:{teller}"
    transformer = {
        "InputPathsMap": {"who": "$.detail.who", "n": "$.detail.list[1]"},
        "InputTemplate": '{"mark": "'
        + mark
        + '", "text": "<who> in <aws.events.rule-name>", "n": <n>, "who": <who>}',
    }
    with rule(
        events, {"source": [source]}, {"Id": "constant", "Arn": target, "Input": f'{{"constant": "{mark}"}}'},
        {"Id": "part", "Arn": target, "InputPath": "$.detail"},
        {"Id": "made", "Arn": target, "InputTransformer": transformer},
    ) as (name, arn):  # fmt: skip
        allow(event_server.server.client(), teller, arn)
        put(events, source, {"who": "ann", "list": [1, {"two": 2}], "mark": mark})

        def mine() -> list[Any]:
            return [event for event in got(logs, teller) if mark in json.dumps(event)]

        until(lambda: len(mine()) == 3)
        assert {"constant": mark} in mine()
        assert {"who": "ann", "list": [1, {"two": 2}], "mark": mark} in mine()
        assert {"mark": mark, "text": f"ann in {name}", "n": {"two": 2}, "who": "ann"} in mine()


def test_queues_and_topics_are_targets(events: Any, aws: AwsServer) -> None:
    source, queue = f"shop.{uuid.uuid4().hex[:6]}", aws.queue("orders")
    with rule(events, {"source": [source]}, {"Id": "q", "Arn": queue.arn, "InputPath": "$.detail"}):
        put(events, source, {"order": 7})
        assert queue.wait_for_body() == {"order": 7}


def test_buses_of_ones_own(event_server: EventServer, events: Any, logs: Any, teller: str) -> None:
    bus = f"orders-{uuid.uuid4().hex[:6]}"
    arn = events.create_event_bus(Name=bus, Description="of orders", Tags=[{"Key": "a", "Value": "b"}])[
        "EventBusArn"
    ]
    assert arn == f"arn:aws:events:us-east-1:123456789012:event-bus/{bus}"
    with pytest.raises(ClientError, match=f"Event bus {bus} already exists."):
        events.create_event_bus(Name=bus)
    assert {"default", bus} <= {found["Name"] for found in events.list_event_buses()["EventBuses"]}
    assert events.describe_event_bus(Name=arn)["Description"] == "of orders"
    assert events.list_tags_for_resource(ResourceARN=arn)["Tags"] == [{"Key": "a", "Value": "b"}]
    source = f"shop.{uuid.uuid4().hex[:6]}"
    with rule(events, {"source": [source]}, {"Id": "f", "Arn": f"{ARN}:{teller}"}, bus=bus) as (
        name,
        rule_arn,
    ):
        assert rule_arn == f"arn:aws:events:us-east-1:123456789012:rule/{bus}/{name}"
        allow(event_server.server.client(), teller, rule_arn)
        elsewhere = put(events, source, {})
        here = put(events, source, {}, EventBusName=arn)
        until(lambda: here in [event.get("id") for event in got(logs, teller)])
        assert elsewhere not in [event.get("id") for event in got(logs, teller)]
        with pytest.raises(ClientError, match="has rules"):
            events.delete_event_bus(Name=bus)
    events.delete_event_bus(Name=bus)
    with pytest.raises(ClientError, match=f"Event bus {bus} does not exist."):
        events.describe_event_bus(Name=bus)
    with pytest.raises(ClientError, match="Cannot delete event bus default"):
        events.delete_event_bus(Name="default")


def test_rules_are_kept_as_eventbridge_keeps_them(events: Any, teller: str) -> None:
    target = f"{ARN}:{teller}"
    with rule(
        events,
        {"source": ["a"]},
        {"Id": "f", "Arn": target},
        Description="one",
        Tags=[{"Key": "k", "Value": "v"}],
    ) as (
        name,
        arn,
    ):
        found = events.describe_rule(Name=name)
        assert {key: found[key] for key in ("Arn", "State", "Description", "EventBusName", "CreatedBy")} == {
            "Arn": arn, "State": "ENABLED", "Description": "one", "EventBusName": "default", "CreatedBy": "123456789012",
        }  # fmt: skip
        events.disable_rule(Name=name)
        assert events.describe_rule(Name=name)["State"] == "DISABLED"
        events.put_rule(Name=name, EventPattern='{"source": ["b"]}')
        found = events.describe_rule(Name=name)
        assert (found["State"], found.get("Description")) == ("ENABLED", None)
        assert events.list_targets_by_rule(Rule=name)["Targets"] == [{"Id": "f", "Arn": target}]
        assert events.list_rule_names_by_target(TargetArn=target)["RuleNames"] == [name]
        assert [one["Name"] for one in events.list_rules(NamePrefix=name)["Rules"]] == [name]
        events.untag_resource(ResourceARN=arn, TagKeys=["k"])
        assert events.list_tags_for_resource(ResourceARN=arn)["Tags"] == []
        with pytest.raises(ClientError, match="Rule can't be deleted since it has targets"):
            events.delete_rule(Name=name)
        missing = events.remove_targets(Rule=name, Ids=["other"])
        assert missing["FailedEntries"][0]["ErrorCode"] == "ResourceNotFoundException"
    events.delete_rule(Name=name)  # once more does nothing
    with pytest.raises(ClientError, match=f"Rule {name} does not exist on EventBus default."):
        events.describe_rule(Name=name)


REFUSED = [
    ({}, "EventPattern or ScheduleExpression must be specified"),
    ({"EventPattern": "{"}, "InvalidEventPatternException.*Event pattern is not valid. Reason: "),
    ({"EventPattern": '{"a": 1}'}, '"a" must be an object or an array'),
    ({"ScheduleExpression": "rate(1 minutes)"}, "Parameter ScheduleExpression is not valid."),
    ({"ScheduleExpression": "cron(0 3 * * * *)"}, "Parameter ScheduleExpression is not valid."),
    ({"EventPattern": '{"a": [1]}', "EventBusName": "nowhere"}, "Event bus nowhere does not exist."),
    ({"ScheduleExpression": "rate(1 minute)", "Name": "a b"}, "failed to satisfy constraint"),
]


@pytest.mark.parametrize(("asked", "why"), REFUSED)
def test_rules_that_are_refused(events: Any, asked: dict[str, Any], why: str) -> None:
    with pytest.raises(ClientError, match=why):
        events.put_rule(**{"Name": "refused", **asked})


BAD_TARGETS = [
    ({"Arn": "nothing"}, "Provided Arn is not in correct format"),
    ({"Arn": "arn:aws:states:us-east-1:123456789012:stateMachine:x"}, "delivers to lambda, sqs, sns only"),
    ({"Input": "{"}, "JSON syntax error in input for target t"),
    ({"InputPath": "detail"}, "Invalid InputPath for target t"),
    ({"InputTransformer": {"InputTemplate": "<x>"}}, "Invalid InputTemplate for target t"),
    ({"Input": "{}", "InputPath": "$"}, "Only one of Input, InputPath, or InputTransformer"),
    ({"DeadLetterConfig": {"Arn": "arn:aws:sns:us-east-1:123456789012:t"}}, "a standard SQS queue"),
]


@pytest.mark.parametrize(("asked", "why"), BAD_TARGETS)
def test_targets_that_are_refused(events: Any, asked: dict[str, Any], why: str) -> None:
    with rule(events, {"source": ["a"]}) as (name, _), pytest.raises(ClientError, match=why):
        events.put_targets(Rule=name, Targets=[{"Id": "t", "Arn": f"{ARN}:x", **asked}])


def test_an_unknown_rule_is_told_before_a_target_that_is_not_served(events: Any) -> None:
    elsewhere = {"Id": "t", "Arn": "arn:aws:s3:::bucket"}
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        events.put_targets(Rule="nobody", Targets=[elsewhere])
    with pytest.raises(ClientError, match="Parameter bucket is not valid"):
        events.put_targets(Rule="nobody", Targets=[elsewhere, {"Id": "u", "Arn": "bucket"}])
    with pytest.raises(ClientError, match="SqsParameters must be specified for target: t"):
        events.put_targets(
            Rule="nobody", Targets=[{"Id": "t", "Arn": "arn:aws:sqs:us-east-1:123456789012:q.fifo"}]
        )


def test_a_rule_has_five_targets(events: Any) -> None:
    targets = [{"Id": str(number), "Arn": f"{ARN}:x"} for number in range(6)]
    with rule(events, {"source": ["a"]}) as (name, _):
        with pytest.raises(ClientError, match="LimitExceededException"):
            events.put_targets(Rule=name, Targets=targets)
        events.put_targets(Rule=name, Targets=targets[:5])


def test_entries_are_refused_one_by_one(events: Any) -> None:
    good = {"Source": "a", "DetailType": "b", "Detail": "{}"}
    entries = [
        good,
        {**good, "Detail": "["},
        {**good, "Detail": "[]"},
        {key: value for key, value in good.items() if key != "Source"},
        {**good, "Source": "aws.s3"},
    ]
    answer = events.put_events(Entries=entries)
    assert answer["FailedEntryCount"] == 4
    assert [entry.get("ErrorCode") for entry in answer["Entries"]] == [
        None, "MalformedDetail", "MalformedDetail", "InvalidArgument", "NotAuthorizedForSourceException",
    ]  # fmt: skip
    assert (
        answer["Entries"][3]["ErrorMessage"]
        == "Parameter Source is not valid. Reason: Source is a required argument."
    )
    with pytest.raises(ClientError, match="Member must have length less than or equal to 10"):
        events.put_events(Entries=[good] * 11)
    large = {**good, "Detail": json.dumps({"x": "y" * 524_288})}
    with pytest.raises(ClientError, match="Total size of the entries in the request is over the limit"):
        events.put_events(Entries=[large, large])
    assert events.put_events(Entries=[large])["FailedEntryCount"] == 0


def test_patterns_can_be_tried(events: Any) -> None:
    event = {
        "id": "1", "account": "123456789012", "source": "a", "time": "2026-01-01T00:00:00Z", "region": "us-east-1",
        "resources": [], "detail-type": "b", "detail": {"n": 3},
    }  # fmt: skip
    for pattern, result in (({"detail": {"n": [3]}}, True), ({"detail": {"n": [4]}}, False)):
        answer = events.test_event_pattern(EventPattern=json.dumps(pattern), Event=json.dumps(event))
        assert answer["Result"] is result
    with pytest.raises(ClientError, match="Reason: Filter is not an object"):
        events.test_event_pattern(EventPattern="[]", Event=json.dumps(event))
    del event["detail-type"]
    with pytest.raises(ClientError, match="detail-type is missing"):
        events.test_event_pattern(EventPattern='{"a": [1]}', Event=json.dumps(event))


def test_who_may_put_events_is_asked(event_server: EventServer) -> None:
    bus = "arn:aws:events:us-east-1:123456789012:event-bus/default"
    entry = {"Source": "a", "DetailType": "b", "Detail": "{}"}
    iam, name = event_server.server.client("iam"), f"u-{uuid.uuid4().hex[:8]}"
    iam.create_user(UserName=name)
    try:
        iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=policy("events:PutEvents", bus))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        client = client_of(event_server.server, Keys.of(key), "events")
        assert client.put_events(Entries=[entry])["FailedEntryCount"] == 0
        with pytest.raises(ClientError, match="not authorized to perform: events:PutEvents"):
            client.put_events(Entries=[{**entry, "EventBusName": "other"}])
        with pytest.raises(ClientError, match="not authorized to perform: events:PutRule"):
            client.put_rule(Name="x", EventPattern='{"a": [1]}')
    finally:
        iam.delete_user_policy(UserName=name, PolicyName="p")
        iam.delete_access_key(UserName=name, AccessKeyId=key["AccessKeyId"])
        iam.delete_user(UserName=name)


def test_what_is_not_served_says_so(events: Any) -> None:
    with pytest.raises(ClientError, match=r"Event source aws\.partner/a/b does not exist"):
        events.create_event_bus(Name="aws.partner/a/b", EventSourceName="aws.partner/a/b")
    with pytest.raises(ClientError, match="Operation CreateConnection is not implemented by this host"):
        events.create_connection(
            Name="x",
            AuthorizationType="API_KEY",
            AuthParameters={"ApiKeyAuthParameters": {"ApiKeyName": "a", "ApiKeyValue": "b"}},
        )
