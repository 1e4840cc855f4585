"""The AWS CLI drives Forklight as it drives AWS: the commands of a common Lambda tutorial, with nothing but `forklight env` added.

One word of the tutorial differs: it writes --environment as Variables='{"ENV": ...}', JSON inside the shorthand syntax, which every
version of the AWS CLI refuses before it sends anything. Needs version 2 (Debian package awscli): version 1 has no --cli-binary-format.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.patience import seconds
from tests.support.server import Server

TUTORIAL = r"""
set -euo pipefail
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

python3 -m zipfile -c function.zip index.py

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
"""


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


def test_a_tutorials_commands_run(
    server: Server, tmp_path: Path, aws_cli: tuple[str, tuple[int, int]]
) -> None:
    program, version = aws_cli
    # AWS_ENDPOINT_URL is honoured from 2.13 on (AWS CLI changelog); an older one is told by option.
    option = ' --endpoint-url "$AWS_ENDPOINT_URL"' if version < (2, 13) else ""
    script = f'aws() {{ command {program}{option} "$@"; }}\n{TUTORIAL}'
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    try:
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env={**clean, **server.environment, "AWS_PAGER": ""},
            capture_output=True,
            text=True,
            timeout=seconds(120),
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answer = json.loads((tmp_path / "response.json").read_text())
        assert json.loads(answer["body"]) == {"message": "Hello from Lambda!", "event": {"key": "value"}}
        assert '"StatusCode": 200' in done.stdout and '"ExecutedVersion": "$LATEST"' in done.stdout
    finally:
        server.client().delete_function(FunctionName="my-function")
