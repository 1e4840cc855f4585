"""A server that ends while an image is on its way to it: the next start goes on, and nobody waits for that."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deploy import OFTEN, ROLE, invoke
from tests.support.image_registry import Registry, Reply
from tests.support.images import Entry, compiled, program_image
from tests.support.server import Server

PROGRAM = Path(__file__).parent.parent / "support" / "image_program.c"


@pytest.fixture
def registry() -> Iterator[Registry]:
    made = Registry()
    yield made
    made.close()


@pytest.mark.slow
def test_an_image_on_its_way_is_fetched_by_the_next_start(
    registry: Registry, state_dir: Path, tmp_path: Path
) -> None:
    image = program_image(compiled(PROGRAM, tmp_path), [Entry("which", b"fetched")], Env=["PATH=/app"])
    registry.serve(image)
    option, state = ("--image-registry", registry.url), state_dir
    with Server.start(state, *option) as server:
        client = server.client()
        uri = f"{registry.host}/app:v1"
        client.create_function(FunctionName="f", PackageType="Image", Code={"ImageUri": uri}, Role=ROLE)
        client.get_waiter("function_active_v2").wait(FunctionName="f", WaiterConfig=OFTEN)
        client.close()
        assert server.stop() == 0
    # As if it had been killed before it had the layers.
    shutil.rmtree(state / "code" / image.digest.removeprefix("sha256:"))
    config = json.loads(image.manifest)["config"]["digest"]
    for digest in set(image.blobs) - {config}:
        (state / "images" / "blobs" / digest.removeprefix("sha256:")).unlink()
    there, answer = threading.Event(), registry.answer

    def late(path: str, authorization: str | None) -> Reply:
        assert there.wait(60)
        return answer(path, authorization)

    registry.answer = late
    with Server.start(state, *option) as server:  # ready, although the registry does not answer yet
        client = server.client()
        try:
            assert client.get_function_configuration(FunctionName="f")["State"] == "Pending"
        finally:
            there.set()
        client.get_waiter("function_active_v2").wait(FunctionName="f", WaiterConfig=OFTEN)
        assert invoke(client, "f", "show /which")[0] == "fetched"
        client.close()
