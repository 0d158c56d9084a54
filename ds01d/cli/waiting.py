"""Passes until nothing is left that time alone will settle. Sleeps from moment to moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ds01d.cli.report import summary
from ds01d.cli.screen import waiting
from ds01d.cli.words import Moment
from ds01d.config import Config
from ds01d.model.drift import Gated, Outcome
from ds01d.model.facts import Boot
from ds01d.reconcile.passes import Report
from ds01d.reconcile.ports import Clock

SHORTEST_S = 0.2  # a moment that has passed already must not make us spin


def passes(
    run: Callable[[], Report],
    clock: Clock,
    sleep: Callable[[float], None],
    config: Config,
    *,
    timeout_s: float,
) -> Iterator[Report]:
    """One pass after the other, until nothing is held for time alone.

    Ends sooner where waiting cannot help within `timeout_s`, or a needed source does not answer.
    Never sleeps longer than a sweep's interval: absence has to be watched, not only timed.
    """
    end = clock.now().boot + timeout_s
    while True:
        report = run()
        yield report
        held = [one for one in report.drifts if held_for_time(one)]
        if not held or not report.needed_sources_answer:
            return
        now = clock.now()
        moment = min(one.until or Boot(now.boot + config.policy.settle_s) for one in held)
        if moment > end:
            return
        told = f"waiting until {Moment.of(moment, now).local()}: {summary(held)} (Ctrl-C ends it)"
        with waiting(told):
            sleep(max(SHORTEST_S, min(moment - now.boot, config.daemon.sweep_interval_s)))


def held_for_time(one: Gated) -> bool:
    """Held, and waiting is all that it takes."""
    return one.outcome is Outcome.HELD and one.gate is not None and one.gate.ends_by_itself
