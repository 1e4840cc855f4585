"""Web servers that know nothing of Lambda, behind function URLs: by a bootstrap in a layer, and by a wrapper in front of Node."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.functional.test_function_urls import EVERYBODY, ask
from tests.functional.test_runtimes import get
from tests.support.deploy import function, zip_of
from tests.support.patience import handler_timeout
from tests.support.server import Server
from tests.support.web_adapter import ADAPTER, NODE_SERVER, PYTHON_SERVER


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Any]:
    made = server.client()
    yield made
    made.close()


@pytest.fixture(scope="module")
def layer(client: Any) -> Iterator[str]:
    """The adapter at /opt/bootstrap."""
    made = client.publish_layer_version(
        LayerName="web-adapter", Content={"ZipFile": zip_of({"bootstrap": ADAPTER}, ["bootstrap"])}
    )
    yield made["LayerVersionArn"]
    client.delete_layer_version(LayerName="web-adapter", VersionNumber=made["Version"])


@contextmanager
def web(client: Any, layer: str, program: str, mode: str = "BUFFERED", **settings: Any) -> Iterator[str]:
    """Yields the URL."""
    with function(
        client, "", files={"server": program}, executable=["server"], Handler="server", Layers=[layer],
        MemorySize=512, Timeout=handler_timeout(20), **settings,
    ) as name:  # fmt: skip
        client.add_permission(FunctionName=name, **EVERYBODY)
        yield client.create_function_url_config(FunctionName=name, AuthType="NONE", InvokeMode=mode)[
            "FunctionUrl"
        ]


def check(url: str) -> None:
    response, body = ask(url + "some/path", headers={"X-Mine": "yes"})
    assert (response.status, response.headers["content-type"], body) == (
        200,
        "text/plain",
        b"GET /some/path yes",
    )
    response, body = ask(url, "POST", bytes(range(256)))
    assert (response.status, body) == (201, bytes(range(256))[::-1])


def test_a_bootstrap_in_a_layer(client: Any, layer: str) -> None:
    with web(client, layer, PYTHON_SERVER, Runtime="provided.al2023") as url:
        check(url)


def test_a_streamed_answer(client: Any, layer: str) -> None:
    variables = {"Variables": {"AWS_LWA_INVOKE_MODE": "response_stream"}}
    with web(
        client, layer, PYTHON_SERVER, "RESPONSE_STREAM", Runtime="provided.al2023", Environment=variables
    ) as url:
        check(url)
        response, body = ask(url + "large")  # more than fits into an answer that is not streamed
        assert (response.headers["transfer-encoding"], body) == ("chunked", b"x" * (7 << 20))


def test_a_wrapper_in_front_of_node(server: Server, client: Any, layer: str) -> None:
    found = [name for name in get(server, "/forklight/v1/runtimes")["runtimes"] if name.startswith("nodejs")]
    if not found:
        pytest.skip("this host has no Node")
    variables = {"Variables": {"AWS_LAMBDA_EXEC_WRAPPER": "/opt/bootstrap"}}
    with web(client, layer, NODE_SERVER, Runtime=found[-1], Environment=variables) as url:
        check(url)
