"""Where events go when they have ended: queues and topics of a real server, functions of ours, HTTP; and how all that is set."""

from __future__ import annotations

import json
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.aws_server import AwsServer
from tests.support.deploy import function
from tests.support.event_server import EventServer, Hook
from tests.support.server import forklight_command
from tests.support.witness import SOURCE, runs, until

ARN = "arn:aws:lambda:us-east-1:123456789012:function"


@pytest.fixture
def client(event_server: EventServer) -> Any:
    return event_server.server.client()


@pytest.fixture
def aws(event_server: EventServer) -> AwsServer:
    return event_server.aws


@pytest.fixture
def hook(event_server: EventServer) -> Hook:
    return event_server.hook


def send(client: Any, name: str, event: Any, **more: Any) -> str:
    answer = client.invoke(FunctionName=name, InvocationType="Event", Payload=json.dumps(event), **more)
    return str(answer["ResponseMetadata"]["RequestId"])


def test_a_success_and_a_failure_are_told_as_lambda_tells_them(client: Any, aws: AwsServer) -> None:
    good, bad = aws.queue("good"), aws.queue("bad")
    with function(client, SOURCE) as name:
        client.put_function_event_invoke_config(
            FunctionName=name,
            MaximumRetryAttempts=1,
            DestinationConfig={"OnSuccess": {"Destination": good.arn}, "OnFailure": {"Destination": bad.arn}},
        )
        request_id = send(client, name, {"id": 1})
        record = good.wait_for_body()
        timestamp = record.pop("timestamp")
        assert record == {
            "version": "1.0",
            "requestContext": {
                "requestId": request_id,
                "functionArn": f"{ARN}:{name}:$LATEST",
                "condition": "Success",
                "approximateInvokeCount": 1,
            },
            "requestPayload": {"id": 1},
            "responseContext": {"statusCode": 200, "executedVersion": "$LATEST"},
            "responsePayload": {"id": 1},
        }
        assert list(record) == [
            "version", "requestContext", "requestPayload", "responseContext", "responsePayload",
        ]  # fmt: skip
        assert len(timestamp) == 24 and timestamp.endswith("Z")
        request_id = send(client, name, {"id": 2, "fail": True})
        record = bad.wait_for_body()
        assert record["requestContext"] == {
            "requestId": request_id,
            "functionArn": f"{ARN}:{name}:$LATEST",
            "condition": "RetriesExhausted",
            "approximateInvokeCount": 2,
        }
        assert record["responseContext"] == {
            "statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled",
        }  # fmt: skip
        assert record["responsePayload"]["errorType"] == "RuntimeError"
        assert record["requestPayload"] == {"id": 2, "fail": True}
        assert good.take() == []


def test_an_aliass_own_configuration_and_its_version(client: Any, aws: AwsServer) -> None:
    queue = aws.queue("of-the-alias")
    with function(client, SOURCE) as name:
        version = client.publish_version(FunctionName=name)["Version"]
        client.get_waiter("published_version_active").wait(FunctionName=name, Qualifier=version)
        client.create_alias(FunctionName=name, Name="live", FunctionVersion=version)
        client.put_function_event_invoke_config(
            FunctionName=name, Qualifier="live", DestinationConfig={"OnSuccess": {"Destination": queue.arn}}
        )
        send(client, name, {"id": "latest"})
        send(client, name, {"id": "alias"}, Qualifier="live")
        record = queue.wait_for_body()
        assert record["requestPayload"] == {"id": "alias"}
        assert record["requestContext"]["functionArn"] == f"{ARN}:{name}:live"
        assert record["responseContext"]["executedVersion"] == version


def test_a_dead_letter_queue_gets_the_event_itself(client: Any, aws: AwsServer) -> None:
    queue = aws.queue("dead")
    with function(client, SOURCE, DeadLetterConfig={"TargetArn": queue.arn}) as name:
        found = client.get_function_configuration(FunctionName=name)
        assert found["DeadLetterConfig"] == {"TargetArn": queue.arn}
        request_id = send(client, name, {"id": 3, "fail": True})
        message = queue.wait()
        assert json.loads(message["Body"]) == {"id": 3, "fail": True}
        said = {
            key: (value["DataType"], value["StringValue"])
            for key, value in message["MessageAttributes"].items()
        }
        assert said == {
            "RequestID": ("String", request_id),
            "ErrorCode": ("Number", "200"),
            "ErrorMessage": ("String", "as told"),
        }
        client.update_function_configuration(FunctionName=name, DeadLetterConfig={"TargetArn": ""})
        assert "DeadLetterConfig" not in client.get_function_configuration(FunctionName=name)


def test_a_topic_and_a_function(client: Any, event_server: EventServer, aws: AwsServer) -> None:
    queue = aws.queue("behind-the-topic")
    topic = aws.topic("topic", queue)
    logs = event_server.server.client("logs")
    with function(client, SOURCE) as name, function(client, TELLS) as other:
        client.put_function_event_invoke_config(
            FunctionName=name,
            MaximumRetryAttempts=0,
            DestinationConfig={
                "OnSuccess": {"Destination": f"{ARN}:{other}"}, "OnFailure": {"Destination": topic},
            },
        )  # fmt: skip
        send(client, name, {"id": 4, "fail": True})
        record = json.loads(queue.wait_for_body()["Message"])
        assert record["requestContext"]["condition"] == "RetriesExhausted"
        send(client, name, {"id": 5})
        ((told, _, _),) = until(lambda: runs(logs, other))
        assert told["requestContext"]["condition"] == "Success"
        assert told["responsePayload"] == {"id": 5}


TELLS = SOURCE.replace('event.get("id")', "event", 1)


def test_an_http_destination_that_fails_is_told_in_the_end(client: Any, hook: Hook) -> None:
    path = f"/hooks/{uuid.uuid4().hex}"
    with function(client, SOURCE) as name:
        client.put_function_event_invoke_config(
            FunctionName=name,
            DestinationConfig={"OnSuccess": {"Destination": f"http://127.0.0.1:{hook.server_port}{path}"}},
        )
        send(client, name, {"id": 6})
        (record,) = until(lambda: hook.got.get(path))
        assert record["requestPayload"] == {"id": 6}
        assert hook.tries[path] == 2


def test_no_reserved_concurrency_is_no_attempt(client: Any, aws: AwsServer) -> None:
    """Where the operation is there: with none reserved an event goes where failures go, at once."""
    queue = aws.queue("none-reserved")
    with function(client, SOURCE) as name:
        client.put_function_event_invoke_config(
            FunctionName=name, DestinationConfig={"OnFailure": {"Destination": queue.arn}}
        )
        try:
            client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
        except ClientError as error:
            assert error.response["Error"]["Code"] == "NotImplementedException"
            return
        send(client, name, {"id": 7})
        record = queue.wait_for_body()
        assert record["requestContext"]["condition"] == "ZeroReservedConcurrency"
        assert record["requestContext"]["approximateInvokeCount"] == 0
        assert "responseContext" not in record


def test_put_update_get_list_delete(client: Any, aws: AwsServer) -> None:
    queue = aws.queue("configured")
    with function(client, SOURCE) as name:
        latest = f"{ARN}:{name}:$LATEST"
        made = client.put_function_event_invoke_config(FunctionName=name, MaximumRetryAttempts=0)
        assert made["FunctionArn"] == latest
        assert made["MaximumRetryAttempts"] == 0 and "MaximumEventAgeInSeconds" not in made
        assert made["DestinationConfig"] == {"OnSuccess": {}, "OnFailure": {}}
        changed = client.update_function_event_invoke_config(
            FunctionName=name,
            MaximumEventAgeInSeconds=60,
            DestinationConfig={"OnFailure": {"Destination": queue.arn}},
        )
        assert (changed["MaximumRetryAttempts"], changed["MaximumEventAgeInSeconds"]) == (0, 60)
        found = client.get_function_event_invoke_config(FunctionName=name)
        found.pop("ResponseMetadata"), changed.pop("ResponseMetadata")
        assert found == changed
        assert found["DestinationConfig"] == {"OnSuccess": {}, "OnFailure": {"Destination": queue.arn}}
        assert found["LastModified"].year > 2000
        version = client.publish_version(FunctionName=name)["Version"]
        client.put_function_event_invoke_config(FunctionName=name, Qualifier=version, MaximumRetryAttempts=1)
        pages = client.get_paginator("list_function_event_invoke_configs").paginate(
            FunctionName=name, PaginationConfig={"PageSize": 1}
        )
        listed = [config["FunctionArn"] for page in pages for config in page["FunctionEventInvokeConfigs"]]
        assert sorted(listed) == sorted([latest, f"{ARN}:{name}:{version}"])
        anew = client.put_function_event_invoke_config(FunctionName=name, MaximumEventAgeInSeconds=120)
        assert "MaximumRetryAttempts" not in anew
        client.delete_function_event_invoke_config(FunctionName=name)
        for call in (client.get_function_event_invoke_config, client.delete_function_event_invoke_config):
            with pytest.raises(ClientError) as caught:
                call(FunctionName=name)
            assert caught.value.response["Error"] == {
                "Code": "ResourceNotFoundException",
                "Message": f"The function {latest} doesn't have an EventInvokeConfig",
            }
        client.delete_function(FunctionName=name, Qualifier=version)
        assert (
            client.list_function_event_invoke_configs(FunctionName=name)["FunctionEventInvokeConfigs"] == []
        )


def test_what_is_refused(event_server: EventServer, hook: Hook) -> None:
    client = event_server.server.client(parameter_validation=False)
    with function(client, SOURCE) as name:
        for wanted, code, words in (
            ({}, "InvalidParameterValueException", "at least one of error handling or destination"),
            ({"MaximumRetryAttempts": 3}, "ValidationException", "less than or equal to 2"),
            ({"MaximumEventAgeInSeconds": 59}, "ValidationException", "greater than or equal to 60"),
            (on_failure(f"{ARN}:{name}"), "InvalidParameterValueException", "destination for itself"),
            (on_failure(f"{ARN}:nobody"), "InvalidParameterValueException", "destination ARN"),
            (
                on_failure("arn:aws:s3:::bucket"),
                "InvalidParameterValueException",
                "onFailure=OnFailure(destination=arn:aws:s3:::bucket)) is invalid",
            ),
            (on_failure("gopher://x"), "ValidationException", "regular expression"),
            (on_failure("http://169.254.169.254/latest"), "InvalidParameterValueException", "--http-destination"),
            (
                on_failure(f"http://127.0.0.1:{hook.server_port}/hooks/../x"),
                "InvalidParameterValueException",
                "--http-destination",
            ),
        ):  # fmt: skip
            with pytest.raises(ClientError) as caught:
                client.put_function_event_invoke_config(FunctionName=name, **wanted)
            assert caught.value.response["Error"]["Code"] == code, wanted
            assert words in caught.value.response["Error"]["Message"]
        with pytest.raises(ClientError) as caught:
            client.put_function_event_invoke_config(FunctionName="nobody", MaximumRetryAttempts=1)
        assert caught.value.response["Error"]["Message"] == "The function doesn't exist."
        target = {"TargetArn": f"{ARN}:{name}"}
        with pytest.raises(ClientError) as caught:
            client.update_function_configuration(FunctionName=name, DeadLetterConfig=target)
        assert caught.value.response["Error"]["Code"] == "InvalidParameterValueException"


def on_failure(target: str) -> dict[str, Any]:
    return {"DestinationConfig": {"OnFailure": {"Destination": target}}}


@pytest.mark.parametrize(
    "option",
    [
        ("--sqs-endpoint", "nowhere"),
        ("--http-destination", "http://a@b/c"),
        ("--destination-credentials", "/etc/hostname"),
    ],
)
def test_a_server_that_could_not_tell_anybody_does_not_start(tmp_path: Path, option: tuple[str, str]) -> None:
    done = subprocess.run(
        [*forklight_command(), "serve", "--state-dir", str(tmp_path / "state"), "--http", "127.0.0.1:0", *option],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert option[0] in done.stderr and len(done.stderr.splitlines()) == 1
