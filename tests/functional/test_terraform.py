"""Terraform itself, with AWS's provider: a stack with one of everything is made, is as it should be, changes and goes.

Runs where the provider is installed as a local mirror (`terraform providers mirror`), in one of Terraform's own places or in the
folder that TF_PLUGIN_MIRROR names; nothing is downloaded. `test_terraform_calls.py` makes the calls that the provider would make.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.deploy import invoke, zip_of
from tests.support.patience import seconds
from tests.support.server import Server

STACK = Path(__file__).parent / "terraform" / "main.tf"
PROVIDER = Path("registry.terraform.io/hashicorp/aws")
PLACES = ("~/.terraform.d/plugins", "/usr/local/share/terraform/plugins", "/usr/share/terraform/plugins")
HANDLER = "def handler(event, context): return {!r}\n"


@pytest.fixture(scope="module")
def plugins() -> Path:
    if shutil.which("terraform") is None:
        pytest.skip("needs Terraform")
    for place in (os.environ.get("TF_PLUGIN_MIRROR") or "", *PLACES):
        if place and (Path(place).expanduser() / PROVIDER).is_dir():
            return Path(place).expanduser()
    pytest.skip("needs Terraform's AWS provider in a local mirror (TF_PLUGIN_MIRROR)")


def test_a_stack_is_made_changed_and_destroyed(plugins: Path, server: Server, tmp_path: Path) -> None:
    shutil.copy(STACK, tmp_path)
    package = tmp_path / "function.zip"
    package.write_bytes(zip_of({"index.py": HANDLER.format("one")}))
    (tmp_path / "layer.zip").write_bytes(zip_of({"python/shared.py": "VALUE = 1\n"}))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    variables = {"endpoint": server.url, "package": str(package), "layer": str(tmp_path / "layer.zip")}
    environment = {
        **clean,
        **server.environment,
        **{f"TF_VAR_{name}": value for name, value in variables.items()},
        "TF_IN_AUTOMATION": "1",
    }

    def terraform(*arguments: str) -> int:
        done = subprocess.run(
            ["terraform", *arguments, "-no-color"],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=seconds(170), check=False,
        )  # fmt: skip
        assert done.returncode in (0, 2), done.stdout + done.stderr
        return done.returncode

    plan = ("plan", "-input=false", "-detailed-exitcode")
    terraform("init", f"-plugin-dir={plugins}", "-input=false")
    try:
        terraform("apply", "-input=false", "-auto-approve")
        assert terraform(*plan) == 0, "a second plan has changes"
        root = server.client()
        assert invoke(root, "terraform-function", Qualifier="live")[0] == "one"
        package.write_bytes(zip_of({"index.py": HANDLER.format("two")}))
        assert terraform(*plan) == 2
        terraform("apply", "-input=false", "-auto-approve")
        assert terraform(*plan) == 0
        assert invoke(root, "terraform-function", Qualifier="live")[0] == "two"
    finally:
        terraform("destroy", "-input=false", "-auto-approve")
    names = [found["FunctionName"] for found in server.client().list_functions()["Functions"]]
    assert "terraform-function" not in names
