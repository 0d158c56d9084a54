"""What lasts is told when it begins and when it ends; what comes and goes, less and less often.

Keeps the account and tells nothing itself. After `PATIENCE` times without an hour of peace between
them, an end counts only once it has held for a minute, the next time for two, and so on up to an
hour: until then it is one thing that lasts. So anything is told a few dozen times a day at most.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from ds01d.model.primitives import Boot

PATIENCE: Final = 5
QUIET_S: Final = 60.0
LONGEST_QUIET_S: Final = 3600.0

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Ended(Generic[K]):
    """It is over, after so many seconds; `times`: how often it was met in them."""

    key: K
    seconds: float
    times: int


@dataclass(slots=True)
class _Span:
    """`count`: beginnings since the last hour of peace. `times`: those within this span."""

    since: Boot
    count: int = 1
    times: int = 1
    gone: Boot | None = None
    over: bool = False


class FlapFilter(Generic[K]):
    """Things of one sort, by key. `quiet_s`: how long an end has to hold in any case."""

    def __init__(self, quiet_s: float = 0.0) -> None:
        self._quiet_s = quiet_s
        self._spans: dict[K, _Span] = {}

    def begin_present(self, present: Collection[K], now: Boot) -> list[K]:
        """Note what is there; gives what begins with it."""
        return [key for key in present if self._mark_present(key, now)]

    def end_absent(self, present: Collection[K], now: Boot) -> list[Ended[K]]:
        """Note that nothing else is there; gives what has ended with it."""
        ended: list[Ended[K]] = []
        for key, span in list(self._spans.items()):
            if key in present:
                continue
            if span.gone is None:
                span.gone = now
            if not span.over and now - span.gone >= self._required_quiet_s(span):
                span.over = True
                ended.append(Ended(key, span.gone - span.since, span.times))
            if span.over and now - span.gone >= LONGEST_QUIET_S:
                del self._spans[key]
        return ended

    def end_now(self, key: K, now: Boot) -> float | None:
        """It is over for certain: after how many seconds, None if it had not begun."""
        span = self._spans.get(key)
        if span is None or span.over:
            return None
        span.gone, span.over = now, True
        return now - span.since

    def is_open(self, key: K) -> bool:
        """It has begun and not ended."""
        return key in self._spans and not self._spans[key].over

    def _mark_present(self, key: K, now: Boot) -> bool:
        span = self._spans.get(key)
        if span is None:
            self._spans[key] = _Span(now)
            return True
        if span.gone is None:
            return False
        peace_s = now - span.gone
        span.gone = None
        if peace_s < self._quiet_s:
            return False  # it was never gone for long enough to be counted anew
        span.count = 1 if peace_s >= LONGEST_QUIET_S else span.count + 1
        if span.over:
            span.since, span.times, span.over = now, 1, False
            return True
        span.times += 1
        return False

    def _required_quiet_s(self, span: _Span) -> float:
        more = span.count - PATIENCE
        quiet_s = QUIET_S * 2.0 ** min(more - 1, 20) if more > 0 else 0.0
        return max(self._quiet_s, min(quiet_s, LONGEST_QUIET_S))
