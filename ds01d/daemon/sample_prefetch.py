"""When to begin an NVML sample, so that one is at hand when a pass is due. Asks NVML nothing.

A sample may be as old as the settle time. One that is begun when the wait begins would be too old
for a worker that is only a moment late, and a release would wait for another; one that is begun
late would not be there in time where NVML is slow. So it is begun early in the settle time, but not
at once. A sweep too finds one in this way, and keeps no release waiting for NVML.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from typing import Final, Protocol

from ds01d.model.primitives import Boot

LEAD: Final = 0.9  # of the settle time before the moment


class SamplerPort(Protocol):
    """NVML, as far as it is needed here."""

    def prefetch(self) -> None: ...


class SamplePrefetch:
    """Begins a sample ahead of the next moment. `gpu` None: there is nothing to sample."""

    def __init__(self, gpu: SamplerPort | None, settle_s: float, clock: Callable[[], Boot]) -> None:
        self._gpu, self._settle_s, self._clock = gpu, settle_s, clock
        self._begun_at = Boot(-inf)
        self._next_at: Boot | None = None

    def plan_next(self, moments: Iterable[Boot]) -> None:
        """Have one for the first of `moments`, which take the place of those before."""
        at = Boot(min(moments, default=inf) - LEAD * self._settle_s)
        self._next_at = at if self._begun_at < at < inf else None

    def wait_s(self) -> float:
        """How long `begin` may wait to be called."""
        return inf if self._next_at is None else max(0.0, self._next_at - self._clock())

    def start_if_due(self) -> None:
        """Begin a sample if it is time."""
        now = self._clock()
        if self._gpu is not None and self._next_at is not None and now >= self._next_at:
            self._begun_at, self._next_at = now, None
            self._gpu.prefetch()
