"""Function URLs of a real server: the names it gives, real workers behind them, what changes of a policy do."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.support.deploy import function
from tests.support.patience import seconds
from tests.support.server import Server

CODE = """
import json, time

def handler(event, context):
    path = event["rawPath"]
    if path == "/raise":
        raise ValueError("no")
    if path == "/stream":
        return pieces(event)
    if path == "/fail":
        return fail()
    http = event["requestContext"]["http"]
    said = {"path": path, "method": http["method"], "arn": context.invoked_function_arn, "id": context.aws_request_id}
    return {"statusCode": 201, "cookies": ["a=1; Secure", "b=2"], "headers": {"Content-Type": "text/x-said"},
            "body": json.dumps(said)}

def pieces(event):
    yield json.dumps({"statusCode": 202, "headers": {"Content-Type": "text/event-stream"}, "cookies": ["c=3"]})
    yield bytes(8)
    for number in range(3):
        yield f"data: {number}\\n\\n"

def fail():
    yield "a part"
    raise ValueError("in the middle")
"""
EVERYBODY = {
    "StatementId": "url",
    "Action": "lambda:InvokeFunctionUrl",
    "Principal": "*",
    "FunctionUrlAuthType": "NONE",
}


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Any]:
    made = server.client()
    yield made
    made.close()


@pytest.fixture(scope="module")
def name(client: Any) -> Iterator[str]:
    with function(client, CODE, Publish=True) as made:
        yield made


def ask(
    url: str, method: str = "GET", body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[http.client.HTTPResponse, bytes]:
    """Names below localhost mean this host, whatever its resolver thinks of them."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=seconds(30))
    try:
        connection.request(method, parts.path, body, {"Host": parts.netloc, **(headers or {})})
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def test_a_public_url(client: Any, name: str) -> None:
    url = client.create_function_url_config(FunctionName=name, AuthType="NONE")["FunctionUrl"]
    assert ask(url)[0].status == 403
    client.add_permission(FunctionName=name, **EVERYBODY)
    for method in ("GET", "POST", "DELETE"):
        response, body = ask(url + "some/path", method, b"{}" if method == "POST" else None)
        assert (response.status, response.headers["content-type"]) == (201, "text/x-said")
        assert response.headers.get_all("set-cookie") == ["a=1; Secure", "b=2"]
        said = json.loads(body)
        assert (said["path"], said["method"]) == ("/some/path", method) and said["arn"].endswith(f":{name}")
        assert said["id"] == response.headers["x-amzn-requestid"]
    response, body = ask(url + "raise")
    assert (response.status, body) == (502, b"Internal Server Error")
    response, body = ask(url + "stream")  # nobody asked for a stream: it comes whole
    assert (response.status, body) == (202, b"data: 0\n\ndata: 1\n\ndata: 2\n\n")
    client.remove_permission(FunctionName=name, StatementId="url")
    assert ask(url)[0].status == 403
    client.delete_function_url_config(FunctionName=name)
    response, body = ask(url)
    assert (response.status, body) == (403, b'{"Message":null}')


def test_the_url_of_an_alias_is_signed_for(server: Server, client: Any, name: str) -> None:
    client.create_alias(FunctionName=name, Name="prod", FunctionVersion="1")
    url = client.create_function_url_config(FunctionName=name, Qualifier="prod", AuthType="AWS_IAM")[
        "FunctionUrl"
    ]
    assert ask(url)[0].status == 403
    request = AWSRequest("PUT", url + "signed", data=b"body", headers={"Host": urlsplit(url).netloc})
    SigV4Auth(Credentials(server.access_key, server.secret_key), "lambda", server.region).add_auth(request)
    response, body = ask(url + "signed", "PUT", b"body", dict(request.headers.items()))
    assert response.status == 201 and json.loads(body)["arn"].endswith(f":{name}:prod")
    response, _ = ask(url + "signed", "PUT", b"other", dict(request.headers.items()))
    assert (response.status, response.headers["x-amzn-errortype"]) == (403, "InvalidSignatureException")


def test_a_url_that_streams(client: Any, name: str) -> None:
    client.add_permission(FunctionName=name, **EVERYBODY)
    made = client.create_function_url_config(FunctionName=name, AuthType="NONE", InvokeMode="RESPONSE_STREAM")
    url = made["FunctionUrl"]
    response, body = ask(url + "stream")
    assert (response.status, response.headers["transfer-encoding"]) == (202, "chunked")
    assert response.headers["content-type"] == "text/event-stream" and response.headers["set-cookie"] == "c=3"
    assert body == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        ask(url + "fail")
    assert ask(url + "raise")[0].status == 502
    response, body = ask(url + "whole")
    assert response.status == 201 and json.loads(body)["path"] == "/whole"
    client.delete_function_url_config(FunctionName=name)
