"""What is told of each drift: that it lasts, that it cannot be settled, that it is settled or gone.

A reader of reports, as `telling` is. A drift that is settled as soon as it may be is told once, and
one that goes within the settle time not at all: a writer at work is no news.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

import structlog

from ds01d.config import Policy
from ds01d.daemon.flap_filter import FlapFilter
from ds01d.model.drift import Drift, GatedDrift, Outcome, WaitReason
from ds01d.model.primitives import Boot
from ds01d.reconcile.reconciler import Report
from ds01d.reporting.message_ids import Event

_TOGETHER: Final = 3  # more failures than this for one reason are one entry
_FAILURES: Final = frozenset({Event.DRIFT_BLOCKED, Event.DRIFT_FAILED})


class DriftLog:
    """Keeps what was told of each drift, by its key."""

    def __init__(self) -> None:
        self._log = structlog.get_logger()
        self._lasting: FlapFilter[str] = FlapFilter()
        self._first: dict[str, Boot] = {}
        self._told: dict[str, set[Event]] = {}
        self._known: dict[str, Drift] = {}

    def tell(self, report: Report, policy: Policy, now: Boot) -> None:
        failed: list[GatedDrift] = []
        for one in report.drifts:
            key = one.drift.key
            first = self._first.setdefault(key, now)
            event = _event(one, first, policy)
            if event is Event.DRIFT_SETTLED:
                self._settled(one, self._lasting.end(key, now))
            elif event is not None:
                begins = bool(self._lasting.met((key,), now))
                self._known[key] = one.drift
                told = self._told.setdefault(key, set())
                if event in told or not (begins or event in _FAILURES):
                    continue
                if event is not Event.DRIFT_FAILED:
                    self._one(event, one, _reason(event, one))
                elif report.no_history:
                    continue  # which is told of all of them together
                else:
                    failed.append(one)
                told.add(event)
        self._failed(failed)
        self._gone(report, now)

    def tell_done(self, report: Report) -> None:
        for one in report.drifts:
            if one.outcome is Outcome.DONE:
                self._settled(one, None)

    def _settled(self, one: GatedDrift, seconds: float | None) -> None:
        self._first.pop(one.drift.key, None)
        self._told.pop(one.drift.key, None)
        after = {} if seconds is None else {"seconds": round(seconds)}
        self._one(Event.DRIFT_SETTLED, one, one.drift.reason, **after)

    def _failed(self, failed: Iterable[GatedDrift]) -> None:
        """Many that fail for one reason are one entry."""
        failed = list(failed)
        alike = Counter(one.reason for one in failed)
        for one in failed:
            if alike[one.reason] <= _TOGETHER:
                self._one(Event.DRIFT_FAILED, one, one.reason)
        for reason, count in alike.items():
            if count > _TOGETHER:
                subjects = [one.drift.key.replace("|", " ") for one in failed]
                self._log.info(
                    Event.DRIFT_FAILED,
                    count=count,
                    verdict=Outcome.FAILED,
                    reason=reason,
                    evidence=subjects,
                )

    def _gone(self, report: Report, now: Boot) -> None:
        """What is neither there nor settled any more, where the pass has looked."""
        there, covered = {one.drift.key for one in report.drifts}, report.decision.verdicts
        looked = report.needed_sources_answer
        for key in [k for k in self._first if k not in there]:
            if looked and (report.sweep or key.split("|")[1] in covered):
                del self._first[key]
        if not looked or not report.sweep:
            return
        for over in self._lasting.missed(there, now):
            self._told.pop(over.key, None)
            drift = self._known.pop(over.key)
            self._log.info(
                Event.DRIFT_GONE,
                drift=drift.kind,
                container=drift.container,
                slot=drift.slot,
                seconds=round(over.seconds),
            )
        self._known = {key: one for key, one in self._known.items() if self._lasting.lasts(key)}

    def _one(self, event: Event, one: GatedDrift, reason: str, **more: object) -> None:
        self._log.info(
            event,
            drift=one.drift.kind,
            container=one.drift.container,
            slot=one.drift.slot,
            action=one.drift.action,
            verdict=one.outcome,
            gate=one.gate,
            reason=reason,
            evidence=list(one.drift.evidence),
            **more,
        )


def _event(one: GatedDrift, first: Boot, policy: Policy) -> Event | None:
    """What there is to tell of a drift as it stands; None: nothing yet."""
    if one.outcome is Outcome.DONE:
        return Event.DRIFT_SETTLED
    if one.outcome is Outcome.FAILED:
        return Event.DRIFT_FAILED
    if one.gate is WaitReason.BLOCKED:
        return Event.DRIFT_BLOCKED
    if one.gate is WaitReason.BACKOFF:
        return None  # the finding other-writer tells of it
    soon = one.until is not None and one.until <= first + 2 * policy.settle_s
    return None if soon and one.gate in (WaitReason.SETTLE, WaitReason.PROOF) else Event.DRIFT_FOUND


def _reason(event: Event, one: GatedDrift) -> str:
    plain = event is Event.DRIFT_FOUND and one.gate is not WaitReason.UNDONE
    return one.drift.reason if plain else one.reason
