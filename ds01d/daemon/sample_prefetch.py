"""Starts an NVML sample ahead of a pass, so that no release waits for NVML.

A sample may be as old as the settle time. One from the beginning of that time would be too old for
a worker that is a moment late; one from its end may not be ready where NVML is slow.
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
    """Starts a sample ahead of the next pass. `gpu` None: no NVML."""

    def __init__(self, gpu: SamplerPort | None, settle_s: float, clock: Callable[[], Boot]) -> None:
        self._gpu, self._settle_s, self._clock = gpu, settle_s, clock
        self._begun_at = Boot(-inf)
        self._next_at: Boot | None = None

    def plan_next(self, moments: Iterable[Boot]) -> None:
        """Plan a sample for the first of `moments`; replaces the former plan."""
        # Only for the first: by the time of the next, another plan is made.
        at = Boot(min(moments, default=inf) - LEAD * self._settle_s)
        # One that is under way is fresh enough for every moment up to its settle time.
        self._next_at = at if self._begun_at < at < inf else None

    def wait_s(self) -> float:
        """How long `begin` may wait to be called."""
        return inf if self._next_at is None else max(0.0, self._next_at - self._clock())

    def start_if_due(self) -> None:
        """Start a sample if it is time."""
        now = self._clock()
        if self._gpu is not None and self._next_at is not None and now >= self._next_at:
            self._begun_at, self._next_at = now, None
            self._gpu.prefetch()
