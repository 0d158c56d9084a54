"""Passes until no drift waits for time alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from ds01d.config import Config
from ds01d.model.drift import DriftKey, GatedDrift, Outcome
from ds01d.model.primitives import Boot, Now, Wall
from ds01d.reconcile.books_ports import Clock
from ds01d.reconcile.report import Report

SHORTEST_S = 0.2  # a moment that has passed already must not make us spin

_Failure = tuple[DriftKey, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class PassWait:
    """What is waited for, until when it takes at least, and when to make the next pass."""

    drifts: Sequence[GatedDrift]
    until: Wall
    next_pass_s: float


Announce = Callable[[PassWait], AbstractContextManager[None]]


class SettleWait:
    """Whether one more pass can help, by the reports of those before.

    A repair that failed is tried once more, and waited for no longer if it fails in the same way.
    Ends sooner where waiting cannot help until `end`, or a needed source does not answer.
    """

    def __init__(self, config: Config, end: Boot) -> None:
        self._config, self._end = config, end
        self._seen_failures: frozenset[_Failure] = frozenset()

    def add_report(self, report: Report, now: Now) -> PassWait | None:
        """What to wait for after this pass; None: nothing."""
        # Compared by reason: a failure that stays the same will not go by waiting.
        failed = [gated for gated in report.drifts if gated.outcome is Outcome.FAILED]
        failures = frozenset(map(_failure_key, failed))
        waiting = [gated for gated in report.drifts if gated.waits_for_time]
        waiting += [gated for gated in failed if _failure_key(gated) not in self._seen_failures]
        # Without a history no repair is allowed: a second failure will not change that.
        nothing_possible = bool(report.history_failure) and bool(failures & self._seen_failures)
        self._seen_failures = failures
        if not waiting or nothing_possible or not report.needed_sources_ok:
            return None
        settle_s = self._config.policy.settle_s
        moment = min(gated.until or Boot(now.boot + settle_s) for gated in waiting)
        # A wait that ends after the timeout would only delay the same answer.
        if moment > self._end:
            return None
        left_s = moment - now.boot
        return PassWait(
            drifts=waiting,
            until=Wall(now.wall + left_s),
            # At most a sweep interval: absence has to be observed, not only timed.
            next_pass_s=max(SHORTEST_S, min(left_s, self._config.daemon.sweep_interval_s)),
        )


def run_until_settled(
    run: Callable[[], Report],
    clock: Clock,
    sleep: Callable[[float], None],
    config: Config,
    *,
    timeout_s: float,
    announce: Announce,
) -> Iterator[Report]:
    """One pass after the other, until nothing waits for time alone."""
    settle_wait = SettleWait(config, Boot(clock.now().boot + timeout_s))
    while True:
        report = run()
        yield report
        wait = settle_wait.add_report(report, clock.now())
        if wait is None:
            return
        with announce(wait):
            sleep(wait.next_pass_s)


def _failure_key(gated: GatedDrift) -> _Failure:
    """What identifies a failure: its reason without numbers such as sizes and process IDs."""
    # Sizes and PIDs change between attempts of the same failure.
    return gated.drift.key, re.sub(r"[0-9]+", "", gated.reason)
