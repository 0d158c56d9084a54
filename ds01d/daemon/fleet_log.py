"""Logs what becomes of a host in its fleet: one line when it begins, one when it ends."""

from __future__ import annotations

import structlog

from ds01d.model.drift import Outcome
from ds01d.model.fleet_drift import FleetFindingKind, Membership, MembershipState
from ds01d.model.primitives import Source, Wall
from ds01d.reconcile.fleet_report import FleetReport
from ds01d.reporting.message_ids import Event

_MOST_LINES = 20


def log_fleet_failure(error: Exception) -> None:
    """Log a bug of ours: bookings and repairs go on."""
    structlog.get_logger().error(
        Event.SERVICE_FAILED,
        reason=f"fleet: {type(error).__name__}: {error}",
        exc_info=error,
    )


class FleetLog:
    """For the thread of passes."""

    def __init__(self) -> None:
        self._failure = ""
        self._log = structlog.get_logger()
        self._before = Membership(state=MembershipState.JOINING, since=Wall(0.0))
        self._findings: frozenset[tuple[FleetFindingKind, str]] = frozenset()

    def log_failure(self, error: Exception) -> None:
        """Log a bug of ours, once for as long as it stays the same: it comes with each pass."""
        failure = f"{type(error).__name__}: {error}"
        if failure != self._failure:
            self._failure = failure
            log_fleet_failure(error)

    def log_report(self, report: FleetReport | None, membership: Membership) -> None:
        self._log_state(membership)
        if report is None or report.failure:
            return
        # Bounded: after an outage a host may have a thousand bookings to report.
        done = [gated for gated in report.drifts if gated.outcome is Outcome.DONE]
        for gated in done[:_MOST_LINES]:
            entry = gated.drift.entry
            self._log.info(
                Event.FLEET_REPAIRED,
                drift=str(gated.drift.kind),
                container=entry.container,
                user=entry.user,
                reason=gated.drift.reason,
            )
        # Once for each, however many passes see it.
        now = {(finding.kind, finding.subject): finding for finding in report.findings}
        new = [finding for key, finding in now.items() if key not in self._findings]
        for finding in new[:_MOST_LINES]:
            self._log.warning(
                Event.FLEET_FINDING,
                finding=str(finding.kind),
                subject=finding.subject,
                reason=finding.reason,
            )
        self._findings = frozenset(now)

    def _log_state(self, membership: Membership) -> None:
        # A reason may change from call to call: only a change of the state is news.
        before, self._before = self._before, membership
        if before.state is membership.state:
            return
        if membership.state is MembershipState.AWAY:
            self._log.warning(Event.SOURCE_DOWN, source=str(Source.FLEET), reason=membership.reason)
        elif membership.state is MembershipState.FENCED:
            self._log.warning(Event.FLEET_FENCED, reason=membership.reason)
        elif membership.state is MembershipState.RESTORED:
            self._log.warning(Event.FLEET_RESTORED, reason=membership.reason)
        elif before.state is MembershipState.AWAY:
            seconds = f"{max(0.0, membership.since - before.since):.0f}"
            self._log.info(Event.SOURCE_UP, source=str(Source.FLEET), seconds=seconds)
        else:
            self._log.info(Event.FLEET_JOINED)
