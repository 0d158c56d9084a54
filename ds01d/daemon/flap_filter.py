"""Flap suppression: which conditions have begun and ended, for logs that report both once.

After `PATIENCE` beginnings without a quiet hour between them, an end counts only once it has lasted
a minute, the next one two, up to an hour. So a condition is logged a few dozen times a day at most.
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
    """A condition that ended; `times`: how often it began within these seconds."""

    key: K
    seconds: float
    times: int


@dataclass(slots=True)
class _Span:
    """`count`: beginnings since the last quiet hour. `times`: those within this span."""

    since: Boot
    count: int = 1
    times: int = 1
    gone: Boot | None = None
    over: bool = False


class FlapFilter(Generic[K]):
    """Conditions of one kind, by key. `quiet_s`: how long an end has to last at least."""

    def __init__(self, quiet_s: float = 0.0) -> None:
        self._quiet_s = quiet_s
        self._spans: dict[K, _Span] = {}

    def begin_present(self, present: Collection[K], now: Boot) -> list[K]:
        """Note the conditions that are present; gives those that begin now."""
        return [key for key in present if self._mark_present(key, now)]

    def end_absent(self, present: Collection[K], now: Boot) -> list[Ended[K]]:
        """Note that all others are absent; gives those that ended."""
        ended: list[Ended[K]] = []
        for key, span in list(self._spans.items()):
            if key in present:
                continue
            if span.gone is None:
                span.gone = now
            if not span.over and now - span.gone >= self._required_quiet_s(span):
                span.over = True
                ended.append(Ended(key, span.gone - span.since, span.times))
            # Kept for as long as the beginnings count, or a flapping condition would always look
            # new.
            if span.over and now - span.gone >= LONGEST_QUIET_S:
                del self._spans[key]
        return ended

    def end_now(self, key: K, now: Boot) -> float | None:
        """End a condition at once; gives its seconds, None if it had not begun."""
        span = self._spans.get(key)
        if span is None or span.over:
            return None
        span.gone, span.over = now, True
        return now - span.since

    def is_open(self, key: K) -> bool:
        """Whether a condition has begun and not ended."""
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
            return False  # absent too briefly to count as an end
        # An hour without it is a new story: the next flaps are logged again.
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
