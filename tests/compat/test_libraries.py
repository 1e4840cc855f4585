"""Libraries that people run on Lambda, each in a layer that pip installed, under a function that answers an event of API Gateway.

Part of `make test-compat`: the layers come from PyPI, into .cache/compat.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.deploy import function, log_events
from tests.support.server import Server
from tests.support.witness import until

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
CACHE = HERE.parent.parent / ".cache" / "compat" / "layers"
LAYERS = dict(
    line.split(": ", 1) for line in (HERE / "libraries.txt").read_text().splitlines() if line[0] != "#"
)


def layer_package(name: str) -> bytes:
    """Made once: python/ with what the line says and all it needs."""
    file = CACHE / f"{name}.zip"
    made_of = CACHE / f"{name}.txt"
    if not (file.exists() and made_of.read_text() == LAYERS[name]):
        folder = CACHE / name / "python"
        shutil.rmtree(folder.parent, ignore_errors=True)
        command = [
            sys.executable,
            "-m",
            "pip",
            "-q",
            "--disable-pip-version-check",
            "install",
            "--no-compile",
        ]
        subprocess.run([*command, "--target", str(folder), *LAYERS[name].split()], check=True)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
            for path in sorted(folder.rglob("*")):
                if "tests" not in path.parts and path.is_file():  # as people do to stay below Lambda's limits
                    archive.write(path, path.relative_to(folder.parent))
        made_of.write_text(LAYERS[name])
        shutil.rmtree(folder.parent)
    return file.read_bytes()


@contextmanager
def deployed(server: Server, layer: str, source: str, **configuration: Any) -> Iterator[str]:
    client = server.client()
    made = client.publish_layer_version(LayerName=layer, Content={"ZipFile": layer_package(layer)})
    try:
        options = {"MemorySize": 512, "Timeout": 60, **configuration}
        with function(client, source, snapshot="auto", Layers=[made["LayerVersionArn"]], **options) as name:
            yield name
    finally:
        client.delete_layer_version(LayerName=layer, VersionNumber=made["Version"])


def http_event(method: str, path: str, query: str = "", body: bytes | None = None) -> dict[str, Any]:
    """API Gateway's payload format 2.0."""
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "cookies": ["session=abc"],
        "headers": {
            "host": "example.test",
            "content-type": "application/json",
            "x-forwarded-for": "203.0.113.7",
        },
        "queryStringParameters": dict(part.split("=") for part in query.split("&")) if query else {},
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "api",
            "domainName": "example.test",
            "domainPrefix": "example",
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "203.0.113.7",
                "userAgent": "t",
            },
            "requestId": "id",
            "routeKey": "$default",
            "stage": "$default",
            "time": "01/Jan/2026:00:00:00 +0000",
            "timeEpoch": 1767225600000,
        },
        **({"body": base64.b64encode(body).decode()} if body is not None else {}),
        "isBase64Encoded": body is not None,
    }


def call(server: Server, name: str, event: dict[str, Any]) -> Any:
    answer = server.client().invoke(FunctionName=name, Payload=json.dumps(event))
    result = json.load(answer["Payload"])
    assert "FunctionError" not in answer, result
    return result


POWERTOOLS = """
from aws_lambda_powertools import Logger
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver
logger = Logger(service="orders", level="INFO")
app = APIGatewayHttpResolver()

@app.get("/hello/<name>")
def hello(name):
    logger.info("greeting", extra={"who": name})
    return {"hello": name, "times": app.current_event.query_string_parameters.get("times")}

@app.not_found
def missing(error):
    return {"nothing": "here"}, 404

@logger.inject_lambda_context
def handler(event, context):
    return app.resolve(event, context)
"""


def test_powertools(server: Server) -> None:
    with deployed(server, "powertools", POWERTOOLS) as name:
        answer = call(server, name, http_event("GET", "/hello/ann", "times=3"))
        assert (answer["statusCode"], json.loads(answer["body"])) == (200, {"hello": "ann", "times": "3"})
        assert call(server, name, http_event("GET", "/elsewhere"))["statusCode"] == 404
        logs = server.client("logs")
        pattern = '{ $.message = "greeting" && $.service = "orders" }'
        (event,) = until(lambda: log_events(logs, name, filterPattern=pattern))
        record = json.loads(event["message"])
        assert (record["who"], record["function_name"]) == ("ann", name)
        assert record["function_request_id"] and record["cold_start"] is True


FASTAPI = """
from fastapi import FastAPI, Request
from mangum import Mangum
from pydantic import BaseModel
app = FastAPI()

class Order(BaseModel):
    item: str
    count: int = 1

@app.get("/items/{number}")
async def item(number: int, request: Request, q: str = ""):
    return {"number": number, "q": q, "cookie": request.cookies.get("session"), "client": request.client.host}

@app.post("/orders", status_code=201)
def order(order: Order):
    return {"got": order.item * order.count}

handler = Mangum(app, lifespan="off")
"""


def test_fastapi_by_mangum(server: Server) -> None:
    with deployed(server, "fastapi", FASTAPI) as name:
        answer = call(server, name, http_event("GET", "/items/42", "q=blue"))
        assert json.loads(answer["body"]) == {
            "number": 42,
            "q": "blue",
            "cookie": "abc",
            "client": "203.0.113.7",
        }
        answer = call(server, name, http_event("POST", "/orders", body=b'{"item": "ab", "count": 2}'))
        assert (answer["statusCode"], json.loads(answer["body"])) == (201, {"got": "abab"})
        assert call(server, name, http_event("GET", "/items/x"))["statusCode"] == 422


FLASK = """
from apig_wsgi import make_lambda_handler
from flask import Flask, Response, request
app = Flask(__name__)

@app.route("/echo", methods=["GET", "POST"])
def echo():
    return {"method": request.method, "args": request.args, "data": request.get_data(as_text=True), "cookie": request.cookies["session"]}

@app.route("/picture")
def picture():
    return Response(bytes(range(256)), mimetype="image/png")

handler = make_lambda_handler(app, binary_support=True)
"""


def test_flask_by_apig_wsgi(server: Server) -> None:
    with deployed(server, "flask", FLASK) as name:
        answer = call(server, name, http_event("POST", "/echo", "a=1", b"\xc3\xbc"))
        body = base64.b64decode(answer["body"]) if answer["isBase64Encoded"] else answer["body"]
        assert json.loads(body) == {"method": "POST", "args": {"a": "1"}, "data": "ü", "cookie": "abc"}
        answer = call(server, name, http_event("GET", "/picture"))
        assert (answer["isBase64Encoded"], base64.b64decode(answer["body"])) == (True, bytes(range(256)))


PANDAS = """
import json
import numpy as np
import pandas as pd

def handler(event, context):
    frame = pd.DataFrame(json.loads(event["body"]))
    solved = np.linalg.solve(np.array([[3.0, 1.0], [1.0, 2.0]]), np.array([9.0, 8.0]))
    means = frame.groupby("team")["points"].mean()
    return {"statusCode": 200, "body": json.dumps({"x": solved.round(9).tolist(), "means": means.to_dict(), "where": pd.__file__})}
"""


def test_numpy_and_pandas(server: Server) -> None:
    rows = [{"team": "a", "points": 1}, {"team": "a", "points": 4}, {"team": "b", "points": 7}]
    with deployed(server, "pandas", PANDAS, MemorySize=1024) as name:
        answer = json.loads(call(server, name, {"body": json.dumps(rows)})["body"])
    assert (answer["x"], answer["means"]) == ([2.0, 3.0], {"a": 2.5, "b": 7.0})
    assert answer["where"].startswith("/opt/python/")


BOTO3 = """
import boto3, json
s3 = boto3.client("s3", region_name="eu-west-1")

def handler(event, context):
    url = s3.generate_presigned_url("get_object", Params={"Bucket": event["bucket"], "Key": "k"})
    return {"statusCode": 200, "body": json.dumps({"url": url, "where": boto3.__file__, "version": boto3.__version__})}
"""


def test_boto3(server: Server) -> None:
    with deployed(server, "boto3", BOTO3) as name:
        answer = json.loads(call(server, name, {"bucket": "mine"})["body"])
    assert answer["url"].startswith("https://mine.s3") and "Signature=" in answer["url"]
    assert answer["where"].startswith("/opt/python/")
    assert f"boto3=={answer['version']}" == LAYERS["boto3"]
