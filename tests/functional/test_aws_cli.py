"""The AWS CLI drives Forklight as it drives AWS: the commands of a common tutorial, with nothing but `forklight env` added.

One word of the tutorial differs: it writes --environment as Variables='{"ENV": ...}', JSON inside the shorthand syntax, which every
version of the AWS CLI refuses before it sends anything. What it asks of other services (API Gateway, S3) is left out. Needs version 2
(Debian package awscli): version 1 has neither --cli-binary-format nor `logs tail`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.support.patience import seconds
from tests.support.server import Server

TUTORIAL = r"""
set -euo pipefail
aws iam create-role \
    --role-name LambdaExecutionRole \
    --assume-role-policy-document '{
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Allow",
            "Principal": {"Service": "lambda.amazonaws.com"},
            "Action": "sts:AssumeRole"
        }]
    }'

aws iam attach-role-policy \
    --role-name LambdaExecutionRole \
    --policy-arn arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole

cat > index.py << 'END'
import json
import os
import boto3

def handler(event, context):
    print(f"Event: {json.dumps(event)}")

    return {
        'statusCode': 200,
        'headers': {'Content-Type': 'application/json'},
        'body': json.dumps({
            'message': 'Hello from Lambda!',
            'event': event
        })
    }
END

zip function.zip index.py

aws lambda create-function \
    --function-name my-function \
    --runtime python3.11 \
    --handler index.handler \
    --role arn:aws:iam::123456789012:role/LambdaExecutionRole \
    --zip-file fileb://function.zip \
    --timeout 30 \
    --memory-size 256 \
    --environment '{"Variables": {
        "ENV": "production",
        "LOG_LEVEL": "INFO"
    }}' \
    --tags Environment=production

aws lambda wait function-active-v2 --function-name my-function

aws lambda invoke \
    --function-name my-function \
    --payload '{"key": "value"}' \
    --cli-binary-format raw-in-base64-out \
    response.json

cat response.json

API_ID=a1b2c3d4e5
aws lambda add-permission \
    --function-name my-function \
    --statement-id apigateway-invoke \
    --action lambda:InvokeFunction \
    --principal apigateway.amazonaws.com \
    --source-arn "arn:aws:execute-api:eu-west-1:123456789012:$API_ID/*"

aws lambda create-event-source-mapping \
    --function-name my-function \
    --event-source-arn arn:aws:sqs:eu-west-1:123456789012:my-queue \
    --batch-size 10 \
    --maximum-batching-window-in-seconds 5

aws lambda create-event-source-mapping \
    --function-name my-function \
    --event-source-arn arn:aws:dynamodb:eu-west-1:123456789012:table/my-table/stream/xxx \
    --batch-size 100 \
    --starting-position LATEST
"""
RULES = r"""
set -euo pipefail
aws events put-rule \
    --name s3-upload-rule \
    --event-pattern '{
        "source": ["aws.s3"],
        "detail-type": ["Object Created"],
        "detail": {
            "bucket": {"name": ["my-bucket"]},
            "object": {"key": [{"prefix": "uploads/"}]}
        }
    }' \
    --state ENABLED

aws events put-targets \
    --rule s3-upload-rule \
    --targets '[{
        "Id": "process-upload",
        "Arn": "arn:aws:lambda:eu-west-1:123456789012:function:process-upload"
    }]'

aws events put-rule \
    --name daily-cleanup \
    --schedule-expression "cron(0 3 * * ? *)" \
    --state ENABLED

aws events put-targets \
    --rule daily-cleanup \
    --targets '[{
        "Id": "cleanup-function",
        "Arn": "arn:aws:lambda:eu-west-1:123456789012:function:cleanup"
    }]'
"""
TAIL = "aws logs tail /aws/lambda/my-function --since 10m --follow --format short"


def _version_2() -> tuple[str, tuple[int, int]] | None:
    for candidate in ("/usr/bin/aws", "/usr/local/bin/aws", shutil.which("aws") or ""):
        if not candidate or not Path(candidate).exists():
            continue
        text = subprocess.run([candidate, "--version"], capture_output=True, text=True, check=False).stdout
        match = re.match(r"aws-cli/2\.(\d+)", text)
        if match:
            return candidate, (2, int(match[1]))
    return None


@pytest.fixture
def aws_cli() -> tuple[str, tuple[int, int]]:
    found = _version_2()
    if found is None:
        pytest.skip("needs AWS CLI version 2 (Debian package awscli)")
    return found


@dataclass
class Shell:
    """Where commands run: a folder, and an environment with the server's credentials."""

    cwd: Path
    environment: dict[str, str]
    aws: str

    def start(self, script: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", "-c", f'aws() {{ command {self.aws} "$@"; }}\n{script}'],
            cwd=self.cwd,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )


@pytest.fixture
def shell(server: Server, tmp_path: Path, aws_cli: tuple[str, tuple[int, int]]) -> Shell:
    program, version = aws_cli
    # AWS_ENDPOINT_URL is honoured from 2.13 on (AWS CLI changelog); an older one is told by option.
    option = ' --endpoint-url "$AWS_ENDPOINT_URL"' if version < (2, 13) else ""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    more = {"AWS_PAGER": "", "AWS_DEFAULT_REGION": "eu-west-1"}  # the region of the tutorial's ARNs
    return Shell(tmp_path, {**clean, **server.environment, **more}, program + option)


@pytest.fixture
def cleaned(server: Server) -> Iterator[Any]:
    """A client of the tutorial's region; what the tutorial makes is gone afterwards."""
    session = boto3.session.Session(server.access_key, server.secret_key, region_name="eu-west-1")
    client = session.client("lambda", endpoint_url=server.url)
    yield client
    for mapping in client.list_event_source_mappings(FunctionName="my-function")["EventSourceMappings"]:
        client.delete_event_source_mapping(UUID=mapping["UUID"])
    client.delete_function(FunctionName="my-function")
    iam = server.client("iam")
    for policy in iam.list_attached_role_policies(RoleName="LambdaExecutionRole")["AttachedPolicies"]:
        iam.detach_role_policy(RoleName="LambdaExecutionRole", PolicyArn=policy["PolicyArn"])
    iam.delete_role(RoleName="LambdaExecutionRole")


def test_a_tutorials_commands_run(shell: Shell, cleaned: Any) -> None:
    if shutil.which("zip") is None:
        pytest.skip("needs zip, as the tutorial does")
    process = shell.start(TUTORIAL)
    output, errors = process.communicate(timeout=seconds(180))
    assert process.returncode == 0, errors
    answer = json.loads((shell.cwd / "response.json").read_text())
    assert json.loads(answer["body"]) == {"message": "Hello from Lambda!", "event": {"key": "value"}}
    assert '"StatusCode": 200' in output and '"ExecutedVersion": "$LATEST"' in output
    policy = json.loads(cleaned.get_policy(FunctionName="my-function")["Policy"])
    assert [statement["Sid"] for statement in policy["Statement"]] == ["apigateway-invoke"]
    found = cleaned.list_event_source_mappings(FunctionName="my-function")["EventSourceMappings"]
    assert sorted(mapping["BatchSize"] for mapping in found) == [10, 100]
    _tail(shell)


def test_a_tutorials_rules_are_kept(shell: Shell, server: Server) -> None:
    session = boto3.session.Session(server.access_key, server.secret_key, region_name="eu-west-1")
    events = session.client("events", endpoint_url=server.url)
    process = shell.start(RULES)
    output, errors = process.communicate(timeout=seconds(120))
    assert process.returncode == 0, errors
    documents = [json.loads(text) for text in re.findall(r"^{.*?^}", output, re.MULTILINE | re.DOTALL)]
    arn = "arn:aws:events:eu-west-1:123456789012:rule"
    none_failed = {"FailedEntryCount": 0, "FailedEntries": []}
    assert documents == [
        {"RuleArn": f"{arn}/s3-upload-rule"}, none_failed, {"RuleArn": f"{arn}/daily-cleanup"}, none_failed,
    ]  # fmt: skip
    for rule, target in (("s3-upload-rule", "process-upload"), ("daily-cleanup", "cleanup-function")):
        found = events.describe_rule(Name=rule)
        assert found["State"] == "ENABLED"
        assert [one["Id"] for one in events.list_targets_by_rule(Rule=rule)["Targets"]] == [target]
        if rule == "daily-cleanup":
            assert found["ScheduleExpression"] == "cron(0 3 * * ? *)"
        else:
            uploaded = {"bucket": {"name": "my-bucket"}, "object": {"key": "uploads/a.png"}}
            assert _matches(events, found["EventPattern"], uploaded)
            assert not _matches(events, found["EventPattern"], {**uploaded, "object": {"key": "other/a.png"}})
        events.remove_targets(Rule=rule, Ids=[target])
        events.delete_rule(Name=rule)


def _matches(events: Any, pattern: str, detail: dict[str, Any]) -> bool:
    event = {
        "id": "1", "account": "123456789012", "time": "2026-01-01T00:00:00Z", "region": "eu-west-1", "resources": [],
        "source": "aws.s3", "detail-type": "Object Created", "detail": detail,
    }  # fmt: skip
    return bool(events.test_event_pattern(EventPattern=pattern, Event=json.dumps(event))["Result"])


def _tail(shell: Shell) -> None:
    """Follows until it sees what the function has printed: lines are on disk a moment after the answer."""
    process = shell.start(f"exec {shell.aws} {TAIL.removeprefix('aws ')}")
    timer = threading.Timer(seconds(60), os.killpg, (process.pid, signal.SIGKILL))
    timer.start()
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert any(re.search(r'^\S+ Event: {"key": "value"}$', line) for line in lines), (
            process.communicate()[1]
        )
    finally:
        timer.cancel()
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
