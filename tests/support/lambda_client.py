"""What tests of the Lambda API's operations do with a boto3 client."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.packages import package

ROLE = "arn:aws:iam::123456789012:role/LambdaExecutionRole"


def create(client: Any, name: str = "hello", **more: Any) -> Any:
    arguments = {
        "FunctionName": name, "Runtime": "python3.11", "Role": ROLE, "Handler": "index.handler",
        "Code": {"ZipFile": package()}, **more,
    }  # fmt: skip
    return client.create_function(**arguments)


def refused(call: Any, *args: Any, **kwargs: Any) -> tuple[int, str, str]:
    """(status, code, message) of the refusal."""
    with pytest.raises(ClientError) as caught:
        call(*args, **kwargs)
    response = caught.value.response
    error = response["Error"]
    return response["ResponseMetadata"]["HTTPStatusCode"], error["Code"], error["Message"]
