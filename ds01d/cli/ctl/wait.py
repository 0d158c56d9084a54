"""Runs passes until no drift waits for time alone, sleeping in between."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager

from ds01d.cli.ctl.report import summarize_drifts
from ds01d.cli.output.display import announce_on_terminal
from ds01d.cli.output.text import DisplayTime
from ds01d.config import Config
from ds01d.model.drift import DriftKey, GatedDrift, Outcome
from ds01d.model.primitives import Boot
from ds01d.reconcile.books_ports import Clock
from ds01d.reconcile.report import Report

SHORTEST_S = 0.2  # a moment that has passed already must not make us spin
_MOST_NAMED = 3

Announce = Callable[[str], AbstractContextManager[None]]
_Failure = tuple[DriftKey, str]


def run_until_settled(
    run: Callable[[], Report],
    clock: Clock,
    sleep: Callable[[float], None],
    config: Config,
    *,
    timeout_s: float,
    announce: Announce = announce_on_terminal,
) -> Iterator[Report]:
    """One pass after the other, until nothing waits for time alone.

    A repair that failed is tried once more, and waited for no longer if it fails in the same way.
    Ends sooner where waiting cannot help within `timeout_s`, or a needed source does not answer.
    Never sleeps longer than a sweep's interval: absence has to be watched, not only timed.
    """
    end = clock.now().boot + timeout_s
    seen_failures: frozenset[_Failure] = frozenset()
    while True:
        report = run()
        yield report
        # Compared by reason: a failure that stays the same will not go by waiting.
        failures = frozenset(map(_failure_key, _failed_drifts(report)))
        waiting = [gated for gated in report.drifts if gated.waits_for_time]
        waiting += [
            gated for gated in _failed_drifts(report) if _failure_key(gated) not in seen_failures
        ]
        # Without a history no repair is allowed: a second failure will not change that.
        nothing_possible = bool(report.history_failure) and bool(failures & seen_failures)
        seen_failures = failures
        if not waiting or nothing_possible or not report.needed_sources_ok:
            return
        now = clock.now()
        moment = min(gated.until or Boot(now.boot + config.policy.settle_s) for gated in waiting)
        # A wait that ends after the timeout would only delay the same answer.
        if moment > end:
            return
        until = DisplayTime.from_boot(moment, now).to_local()
        with announce(f"waiting until {until} (Ctrl-C ends it): {_describe_waiting(waiting)}"):
            # At most a sweep interval: absence has to be observed, not only timed.
            sleep(max(SHORTEST_S, min(moment - now.boot, config.daemon.sweep_interval_s)))


def _failed_drifts(report: Report) -> list[GatedDrift]:
    return [gated for gated in report.drifts if gated.outcome is Outcome.FAILED]


def _failure_key(gated: GatedDrift) -> _Failure:
    """What identifies a failure: its reason without numbers such as sizes and process IDs."""
    # Sizes and PIDs change between attempts of the same failure.
    return gated.drift.key, re.sub(r"[0-9]+", "", gated.reason)


def _describe_waiting(waiting: Collection[GatedDrift]) -> str:
    """What is waited for: "2 drifts: 1 waiting, 1 failed: stale-allocation a._.1001 (proof), …"."""
    descriptions = ", ".join(_describe_drift(gated) for gated in [*waiting][:_MOST_NAMED])
    more = ", …" if len(waiting) > _MOST_NAMED else ""
    return f"{summarize_drifts(waiting)}: {descriptions}{more}"


def _describe_drift(gated: GatedDrift) -> str:
    subject = gated.drift.container or gated.drift.slot or ""
    why = f"failed: {gated.reason}" if gated.outcome is Outcome.FAILED else gated.gate
    return f"{gated.drift.kind} {subject} ({why})"
