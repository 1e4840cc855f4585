"""Code of functions and layers that lies in a bucket of a server that speaks S3."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.deploy import OFTEN, ROLE, invoke, zip_of
from tests.support.event_server import EventServer
from tests.support.lambda_client import refused

CODE = """
try:
    import extra
except ImportError:
    extra = None
def handler(event, context):
    return [{}, extra and extra.WORD]
"""
KIND = (400, "InvalidParameterValueException")


@dataclass
class Shelf:
    """A versioned bucket, and a client of the server that may read it."""

    s3: Any
    client: Any

    def put(self, key: str, body: bytes) -> str:
        """The object's version."""
        return str(self.s3.put_object(Bucket="code", Key=key, Body=body)["VersionId"])


@pytest.fixture(scope="module")
def shelf(event_server: EventServer) -> Iterator[Shelf]:
    s3, client = event_server.aws.client("s3"), event_server.server.client()
    s3.create_bucket(Bucket="code")
    s3.put_bucket_versioning(Bucket="code", VersioningConfiguration={"Status": "Enabled"})
    yield Shelf(s3, client)
    s3.close()
    client.close()


def code(number: int) -> bytes:
    return zip_of({"index.py": CODE.format(number)})


def create(shelf: Shelf, name: str, **where: Any) -> Any:
    return shelf.client.create_function(
        FunctionName=name, Role=ROLE, Runtime="python3.11", Handler="index.handler", Timeout=30, Code=where
    )


def test_functions_and_layers(shelf: Shelf) -> None:
    client = shelf.client
    first = shelf.put("a folder/cödé+1.zip", code(1))
    shelf.put("a folder/cödé+1.zip", code(2))
    made = create(shelf, "stored", S3Bucket="code", S3Key="a folder/cödé+1.zip")
    try:
        assert made["CodeSha256"] == base64.b64encode(hashlib.sha256(code(2)).digest()).decode()
        client.get_waiter("function_active_v2").wait(FunctionName="stored", WaiterConfig=OFTEN)
        assert invoke(client, "stored")[0] == [2, None]
        client.update_function_code(
            FunctionName="stored", S3Bucket="code", S3Key="a folder/cödé+1.zip", S3ObjectVersion=first
        )
        client.get_waiter("function_updated_v2").wait(FunctionName="stored", WaiterConfig=OFTEN)
        assert invoke(client, "stored")[0] == [1, None]
        shelf.put("layer.zip", zip_of({"python/extra.py": "WORD = 'layer'\n"}))
        layer = client.publish_layer_version(
            LayerName="stored", Content={"S3Bucket": "code", "S3Key": "layer.zip"}
        )
        client.update_function_configuration(FunctionName="stored", Layers=[layer["LayerVersionArn"]])
        client.get_waiter("function_updated_v2").wait(FunctionName="stored", WaiterConfig=OFTEN)
        assert json.loads(json.dumps(invoke(client, "stored")[0])) == [1, "layer"]
    finally:
        client.delete_function(FunctionName="stored")


def test_what_is_not_there_is_said_in_the_words_of_s3(shelf: Shelf) -> None:
    status, code_name, message = refused(create, shelf, "none", S3Bucket="code", S3Key="none.zip")
    assert (status, code_name) == KIND
    assert message == (
        "Error occurred while GetObject. S3 Error Code: NoSuchKey. S3 Error Message: The specified key does not exist."
    )
    status, code_name, message = refused(create, shelf, "none", S3Bucket="other", S3Key="none.zip")
    assert (status, code_name) == KIND and "S3 Error Code: NoSuchBucket." in message
    shelf.put("text", b"no zip")
    assert refused(create, shelf, "none", S3Bucket="code", S3Key="text")[2].startswith(
        "Could not unzip uploaded file."
    )
    assert refused(create, shelf, "none", S3Bucket="code")[:2] == KIND
    assert refused(create, shelf, "none", S3Bucket="code", S3Key="text", ZipFile=code(1)) == (
        *KIND, "Please do not provide other FunctionCode parameters when providing a ZipFile.",
    )  # fmt: skip
    assert refused(create, shelf, "none", S3Bucket="../x", S3Key="text")[1] == "ValidationException"


def test_an_object_of_more_than_50_mib_is_too_large(shelf: Shelf) -> None:
    shelf.put("large", bytes(52_428_801))
    assert refused(create, shelf, "none", S3Bucket="code", S3Key="large") == (
        413, "RequestEntityTooLargeException", "Zipped size must be smaller than 52428800 bytes",
    )  # fmt: skip
