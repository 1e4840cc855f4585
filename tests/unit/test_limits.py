"""Limits become kernel settings by arithmetic that users can check against Lambda's documentation."""

from __future__ import annotations

import pytest

from sandbox.limits import CPU_PERIOD_US, Limits, worker_rlimits


def test_1769_mb_are_one_cpu() -> None:
    assert Limits(memory_mb=1769, tmp_mb=512).cpu_quota_us == CPU_PERIOD_US


@pytest.mark.parametrize(("memory_mb", "share"), [(128, 0.0723), (512, 0.2894), (3538, 2.0), (10240, 5.788)])
def test_cpu_is_in_proportion_to_memory(memory_mb: int, share: float) -> None:
    assert Limits(memory_mb, 512).cpu_quota_us / CPU_PERIOD_US == pytest.approx(share, abs=0.001)


def test_a_tiny_function_still_gets_a_quota_that_the_kernel_accepts() -> None:
    assert Limits(memory_mb=1, tmp_mb=512).cpu_quota_us == 1000


def test_rlimits_leave_memory_to_the_cgroup_where_there_is_one() -> None:
    limits = Limits(128, 512)
    assert "AS" not in worker_rlimits(limits, cgroups=True)
    assert worker_rlimits(limits, cgroups=False)["DATA"] == 128 * 1024 * 1024
    assert worker_rlimits(limits, cgroups=True)["CORE"] == 0
