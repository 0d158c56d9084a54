"""When the next pass over a fleet's store is made. Pure."""

from __future__ import annotations

from typing import Final

from ds01d.model.drift import Outcome
from ds01d.model.fleet_drift import MembershipState
from ds01d.model.primitives import Boot
from ds01d.reconcile.fleet_report import FleetReport

PASS_EVERY_S: Final = 30.0
# Bookings at the same moment are one look, not one each.
CHANGED_AFTER_S: Final = 1.0
AWAY_RETRY_S: Final = 5.0
# Of the time of its thread, and of the store's: 100,000 entries take seconds to read.
_MOST_LOAD: Final = 0.02
_MOST_LOAD_CHANGED: Final = 0.1


def plan_next_pass(report: FleetReport | None, took_s: float, boot: Boot) -> tuple[float, float]:
    """In how many seconds if something changes, and in how many if nothing does.

    `report`: of the last pass, which took `took_s` seconds; None: it failed as a whole.
    """
    if report is None or report.failure:
        return AWAY_RETRY_S, AWAY_RETRY_S
    # Of 100,000 entries a pass reads 12 MB: a fleet of that size has fewer of them.
    earliest_s = max(CHANGED_AFTER_S, took_s / _MOST_LOAD_CHANGED)
    wait_s = max(PASS_EVERY_S, took_s / _MOST_LOAD)
    for gated in report.drifts:
        if gated.until is not None:
            wait_s = min(wait_s, max(0.0, gated.until - boot))
        elif gated.outcome is Outcome.FAILED:
            wait_s = min(wait_s, AWAY_RETRY_S)
    # The others are waited for, and look at this host's report as often.
    if report.membership.state is MembershipState.RESTORED:
        wait_s = min(wait_s, AWAY_RETRY_S)
    return earliest_s, max(wait_s, earliest_s)
