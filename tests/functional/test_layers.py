"""What a function finds of its layers: /opt, sys.path, the order, with a snapshot and without."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.deploy import function, invoke, zip_of
from tests.support.server import Server

SOURCE = """
import os, shared, first, second
def handler(event, context):
    try:
        open("/opt/python/new.py", "w")
        writable = True
    except OSError:
        writable = False
    with open("/opt/data.txt") as file:
        text = file.read()
    return [shared.VALUE, first.VALUE, second.VALUE, text, writable, shared.__file__]
"""


@pytest.mark.parametrize("snapshot", ["off", "on"])
def test_layers_are_imported_and_later_ones_win(server: Server, snapshot: str) -> None:
    client: Any = server.client()

    def layer(name: str, files: dict[str, str | bytes]) -> str:
        content = {"ZipFile": zip_of(files)}
        arn: str = client.publish_layer_version(LayerName=name, Content=content)["LayerVersionArn"]
        return arn

    lower = layer(
        "lower", {"python/shared.py": "VALUE = 1", "python/first.py": "VALUE = 'a'", "data.txt": "lower"}
    )
    site = "python/lib/python3.11/site-packages"
    upper = layer(f"upper-{snapshot}", {"python/shared.py": "VALUE = 2", f"{site}/second.py": "VALUE = 'b'"})
    with function(client, SOURCE, snapshot=snapshot, Layers=[lower, upper]) as name:
        expected = [2, "a", "b", "lower", False, "/opt/python/shared.py"]
        assert invoke(client, name)[0] == expected
        client.publish_version(FunctionName=name)
        client.get_waiter("published_version_active").wait(FunctionName=name, Qualifier="1")
        client.delete_layer_version(LayerName=f"lower-{snapshot}", VersionNumber=1)
        client.delete_layer_version(LayerName=f"upper-{snapshot}", VersionNumber=1)
        assert invoke(client, name, Qualifier="1")[0] == expected
        if snapshot == "off":
            client.update_function_configuration(FunctionName=name, Layers=[])
            answer, response = invoke(client, name)
            assert response["FunctionError"] == "Unhandled"
            assert answer["errorType"] == "Runtime.ImportModuleError"
