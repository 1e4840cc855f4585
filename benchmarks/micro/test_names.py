"""Function names: on the path of every request."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from gateway.model.arn import parse_function_name


@pytest.mark.parametrize(
    "name",
    ["hello", "hello:live", "arn:aws:lambda:us-east-1:123456789012:function:hello:$LATEST"],
    ids=["bare", "qualified", "arn"],
)
def test_parse_function_name(benchmark: BenchmarkFixture, name: str) -> None:
    assert benchmark(parse_function_name, name).name == "hello"
