"""What policies are asked about for tags of buses, rules and schedule groups: what would be changed, whatever else its ARN says."""

from __future__ import annotations

import pytest

from gateway.web.apis import events, scheduler

HERE = "us-east-1"


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("arn:aws:events:us-east-1:123456789012:rule/r", "arn:aws:events:us-east-1:123456789012:rule/r"),
        ("arn:aws:events:eu-west-1:123456789012:rule/r", "arn:aws:events:us-east-1:123456789012:rule/r"),
        ("arn:aws:events:us-east-1:123456789012:rule/default/r", "arn:aws:events:us-east-1:123456789012:rule/r"),
        ("arn:aws:events:us-east-1:999999999999:rule/b/r", "arn:aws:events:us-east-1:123456789012:rule/b/r"),
        ("arn:aws:x:eu-west-1::event-bus/b", "arn:aws:events:us-east-1:123456789012:event-bus/b"),
        ("nonsense", "nonsense"),  # which is refused, behind it
    ],
)  # fmt: skip
def test_of_rules_and_buses(asked: str, meant: str) -> None:
    assert events._resource(HERE, "TagResource", {"ResourceARN": asked}) == meant


@pytest.mark.parametrize("region", ["us-east-1", "eu-west-1"])
def test_of_schedule_groups(region: str) -> None:
    asked = f"arn:aws:scheduler:{region}:123456789012:schedule-group/g"
    meant = "arn:aws:scheduler:us-east-1:123456789012:schedule-group/g"
    assert scheduler._resource(HERE, "TagResource", {"ResourceArn": asked}) == meant
