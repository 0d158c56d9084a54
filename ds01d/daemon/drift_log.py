"""Logs each drift once: that it waits, is blocked, failed, was repaired or is gone.

A drift that is repaired as soon as it is due is one entry; one that goes within the settle time
none, since a writer in the middle of its work causes such drifts all the time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

import structlog

from ds01d.config import Policy
from ds01d.daemon.flap_filter import FlapFilter
from ds01d.model.drift import Drift, DriftKey, GatedDrift, Outcome, WaitReason
from ds01d.model.primitives import Boot
from ds01d.reconcile.report import Report
from ds01d.reporting.message_ids import Event

_MAX_ENTRIES_PER_REASON: Final = 3  # more failures than this for one reason are one entry
_FAILURES: Final = frozenset({Event.DRIFT_BLOCKED, Event.DRIFT_FAILED})


class DriftLog:
    """Compares reports with what it logged before, by the key of each drift."""

    def __init__(self) -> None:
        self._log = structlog.get_logger()
        self._flaps: FlapFilter[DriftKey] = FlapFilter()
        self._first_seen: dict[DriftKey, Boot] = {}
        self._logged_events: dict[DriftKey, set[Event]] = {}
        self._last_drifts: dict[DriftKey, Drift] = {}

    def log_report(self, report: Report, policy: Policy, now: Boot) -> None:
        failed: list[GatedDrift] = []
        for gated in report.drifts:
            key = gated.drift.key
            first = self._first_seen.setdefault(key, now)
            event = _choose_event(gated, first, policy)
            if event is Event.DRIFT_SETTLED:
                self._log_repaired(gated, self._flaps.end_now(key, now))
            elif event is not None:
                begins = bool(self._flaps.begin_present((key,), now))
                self._last_drifts[key] = gated.drift
                logged = self._logged_events.setdefault(key, set())
                # A drift that waits and then fails is logged for both; one that fails again is not.
                if event in logged or not (begins or event in _FAILURES):
                    continue
                if event is not Event.DRIFT_FAILED:
                    self._log_drift(event, gated, _choose_reason(event, gated))
                elif report.history_failure:
                    continue  # the event history.failed covers all of them
                else:
                    failed.append(gated)
                logged.add(event)
        self._log_failures(failed)
        self._log_gone(report, now)

    def log_repairs(self, report: Report) -> None:
        for gated in report.drifts:
            if gated.outcome is Outcome.DONE:
                self._log_repaired(gated, None)

    def _log_repaired(self, gated: GatedDrift, seconds: float | None) -> None:
        self._first_seen.pop(gated.drift.key, None)
        self._logged_events.pop(gated.drift.key, None)
        after = {} if seconds is None else {"seconds": round(seconds)}
        self._log_drift(Event.DRIFT_SETTLED, gated, gated.drift.reason, **after)

    def _log_failures(self, failed: Iterable[GatedDrift]) -> None:
        """Log failed repairs; many with one reason as one entry."""
        failed = list(failed)
        alike = Counter(gated.reason for gated in failed)
        for gated in failed:
            if alike[gated.reason] <= _MAX_ENTRIES_PER_REASON:
                self._log_drift(Event.DRIFT_FAILED, gated, gated.reason)
        for reason, count in alike.items():
            if count > _MAX_ENTRIES_PER_REASON:
                subjects = [str(gated.drift.key) for gated in failed]
                self._log.info(
                    Event.DRIFT_FAILED,
                    count=count,
                    verdict=Outcome.FAILED,
                    reason=reason,
                    evidence=subjects,
                )

    def _log_gone(self, report: Report, now: Boot) -> None:
        """Log drifts that are gone without a repair, as far as this pass has looked."""
        # While a source fails nothing is reported of what needs it, so nothing is known to be gone.
        if not report.needed_sources_ok:
            return
        present = {gated.drift.key for gated in report.drifts}
        for key in self._first_seen.keys() - present:
            if report.covers(key.container):
                del self._first_seen[key]
        # Only a sweep looks at the drifts of the slot table and of containers that no name led to.
        if not report.is_sweep:
            return
        for over in self._flaps.end_absent(present, now):
            self._logged_events.pop(over.key, None)
            drift = self._last_drifts.pop(over.key)
            self._log.info(
                Event.DRIFT_GONE,
                drift=drift.kind,
                container=drift.container,
                slot=drift.slot,
                seconds=round(over.seconds),
            )
        self._last_drifts = {
            key: gated for key, gated in self._last_drifts.items() if self._flaps.is_open(key)
        }

    def _log_drift(self, event: Event, gated: GatedDrift, reason: str, **more: object) -> None:
        self._log.info(
            event,
            drift=gated.drift.kind,
            container=gated.drift.container,
            slot=gated.drift.slot,
            action=gated.drift.action,
            verdict=gated.outcome,
            gate=gated.gate,
            reason=reason,
            evidence=list(gated.drift.evidence),
            **more,
        )


def _choose_event(gated: GatedDrift, first: Boot, policy: Policy) -> Event | None:
    """The event of a drift in its current outcome; None: nothing to log yet."""
    if gated.outcome is Outcome.DONE:
        return Event.DRIFT_SETTLED
    if gated.outcome is Outcome.FAILED:
        return Event.DRIFT_FAILED
    if gated.gate is WaitReason.BLOCKED:
        return Event.DRIFT_BLOCKED
    if gated.gate is WaitReason.BACKOFF:
        return None  # the finding other-writer covers it
    # Writers change several files one after another: what they have not finished is no news.
    soon = gated.until is not None and gated.until <= first + 2 * policy.settle_s
    return (
        None if soon and gated.gate in (WaitReason.SETTLE, WaitReason.PROOF) else Event.DRIFT_FOUND
    )


def _choose_reason(event: Event, gated: GatedDrift) -> str:
    plain = event is Event.DRIFT_FOUND and gated.gate is not WaitReason.UNDONE
    return gated.drift.reason if plain else gated.reason
