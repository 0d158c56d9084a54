"""NVML samples ahead of releases: early enough to be there, late enough to count."""

from __future__ import annotations

from math import inf

from ds01d.daemon.sample_prefetch import SamplePrefetch
from ds01d.model.primitives import Boot

SETTLE_S = 5.0


class Gpu:
    """Counts the samples that were begun, on a clock that tests move."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.begun: list[float] = []

    def prefetch(self) -> None:
        self.begun.append(self.now)

    def samples(self) -> SamplePrefetch:
        return SamplePrefetch(self, SETTLE_S, lambda: Boot(self.now))


def test_one_sample_is_begun_early_in_the_settle_time() -> None:
    gpu = Gpu()
    samples = gpu.samples()
    samples.plan_next([Boot(2000.0), Boot(gpu.now + SETTLE_S)])
    samples.start_if_due()
    assert gpu.begun == []
    gpu.now += samples.wait_s()
    samples.start_if_due()
    samples.start_if_due()
    assert gpu.begun == [1000.5]
    assert samples.wait_s() == inf


def test_it_still_counts_for_a_worker_that_is_late() -> None:
    gpu = Gpu()
    samples = gpu.samples()
    due = gpu.now + SETTLE_S
    samples.plan_next([Boot(due)])
    gpu.now += samples.wait_s()
    samples.start_if_due()
    late = due + 0.4
    assert gpu.begun[0] >= late - SETTLE_S


def test_moments_that_lie_together_share_a_sample() -> None:
    gpu = Gpu()
    samples = gpu.samples()
    for after in (5.0, 5.2, 5.4):
        samples.plan_next([Boot(1000.0 + after)])
        gpu.now = max(gpu.now, 1000.0 + after - 4.0)
        samples.start_if_due()
    assert gpu.begun == [1001.0]
    samples.plan_next([Boot(1009.0)])
    assert samples.wait_s() > 0


def test_without_nvml_nothing_is_begun() -> None:
    samples = SamplePrefetch(None, SETTLE_S, lambda: Boot(1000.0))
    samples.plan_next([Boot(1000.0)])
    samples.start_if_due()


def test_without_a_moment_nothing_is_begun() -> None:
    gpu = Gpu()
    samples = gpu.samples()
    samples.plan_next([Boot(1000.0)])
    samples.plan_next([])
    samples.start_if_due()
    assert gpu.begun == []
    assert samples.wait_s() == inf
