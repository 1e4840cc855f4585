"""The isolation report says "full" only when it is, and names what is weaker."""

from __future__ import annotations

import pytest

from sandbox import host_report
from sandbox.errors import SandboxError
from sandbox.isolation import ESSENTIAL, REQUIRED, IsolationReport


@pytest.fixture
def complete() -> IsolationReport:
    report = IsolationReport()
    for name in REQUIRED:
        report.enforced(name)
    return report


def test_everything_required_makes_it_full(complete: IsolationReport) -> None:
    assert complete.overall == "full"
    assert complete.summary_line() == "full"


def test_what_is_not_required_does_not_count(complete: IsolationReport) -> None:
    complete.absent("io", "bandwidth is not limited")
    assert complete.overall == "full"


@pytest.mark.parametrize("name", sorted(set(REQUIRED) - set(ESSENTIAL)))
def test_one_weak_feature_makes_it_degraded(complete: IsolationReport, name: str) -> None:
    complete.degraded(name, "because")
    assert complete.overall == "degraded"
    assert complete.summary_line() == f"degraded: {name} degraded (because)"


@pytest.mark.parametrize("name", ESSENTIAL)
def test_without_an_essential_feature_there_is_no_isolation(complete: IsolationReport, name: str) -> None:
    complete.absent(name, "because")
    assert complete.overall == "none"


def test_an_unknown_feature_is_not_assumed(complete: IsolationReport) -> None:
    del complete.features["cpu"]
    assert complete.overall == "degraded"


def test_of_a_host_that_refuses_everything_is_absent() -> None:
    report = host_report.refused(SandboxError(1, "enter a user namespace", "unshare"))
    assert report.overall == "none"
    assert {feature.state for feature in report.features.values()} == {"absent"}
    assert all("enter a user namespace" in feature.why for feature in report.features.values())
    assert report.as_dict()["claim"].startswith("no function runs")


def test_features_with_one_reason_are_said_together(complete: IsolationReport) -> None:
    complete.absent("cpu", "no cgroups")
    complete.absent("swap", "no cgroups")
    assert complete.summary_line() == "degraded: swap, cpu absent (no cgroups)"


def test_as_dict_is_plain_data(complete: IsolationReport) -> None:
    data = complete.as_dict()
    assert data["overall"] == "full"
    assert data["features"]["pid"] == {"state": "enforced", "why": ""}
