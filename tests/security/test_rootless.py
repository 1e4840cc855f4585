"""The same sandboxes for an ordinary user, in a user namespace: what works, and that the rest is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.ordinary_user import host_of_an_ordinary_user

pytestmark = [pytest.mark.security]


@pytest.fixture(scope="module")
def found(project_root: Path) -> dict[str, Any]:
    result = host_of_an_ordinary_user(project_root)
    if "error" in result:
        pytest.skip(result["error"])
    return result


def test_it_is_rootless_and_says_that_it_is_weaker(found: dict[str, Any]) -> None:
    assert found["rootless"]
    assert found["report"]["overall"] == "degraded"
    assert found["line"].startswith("degraded: ")
    assert "uid" in found["line"]


@pytest.mark.parametrize(
    "name", ["pid", "mnt", "net", "ipc", "uts", "capabilities", "no-new-privs", "seccomp"]
)
def test_what_needs_no_root_is_enforced(found: dict[str, Any], name: str) -> None:
    assert found["report"]["features"][name]["state"] == "enforced"


@pytest.mark.parametrize("name", ["uid-per-sandbox", "tmp-size"])
def test_what_needs_root_is_named_with_a_reason(found: dict[str, Any], name: str) -> None:
    feature = found["report"]["features"][name]
    assert feature["state"] != "enforced"
    assert feature["why"]


@pytest.mark.parametrize("network", ["none", "host"])
def test_a_sandbox_is_made_and_destroyed(found: dict[str, Any], network: str) -> None:
    shell = found["shells"][network]
    assert shell["reaped"]
    assert shell["removed"]
    assert ("net" in shell["join"]) == (network == "none")


def test_its_first_process_has_no_privileges(found: dict[str, Any]) -> None:
    status = found["shells"]["none"]["status"]
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"


def test_rlimits_stand_in_where_there_are_no_cgroups(found: dict[str, Any]) -> None:
    if found["report"]["features"]["cgroup"]["state"] == "enforced":
        pytest.skip("this user has cgroups of its own")
    assert found["rlimits"]["DATA"] == 128 << 20
    assert found["report"]["features"]["memory"]["state"] == "degraded"


def test_nothing_is_left(found: dict[str, Any]) -> None:
    assert found["left"] == []
