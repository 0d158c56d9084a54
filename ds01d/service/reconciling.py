"""Sweeps that operators ask for, made by the worker in their name. For the worker's thread."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ds01d.config import Config
from ds01d.documents.passes import build_pass_document, describe_wait
from ds01d.model.primitives import Boot
from ds01d.reconcile.books_ports import Clock
from ds01d.reconcile.reconciler import Reconciler
from ds01d.reconcile.report import Report, join_reports
from ds01d.reconcile.settling import SettleWait
from ds01d.service.requests import PendingCall
from ds01d.service.rules import unavailable


@dataclass(slots=True, kw_only=True)
class _ReconcileCall:
    """`settle_wait`: whether to go on after a pass; None: the first one is the answer."""

    request: PendingCall
    settle_wait: SettleWait | None
    next_pass: Boot
    reports: list[Report] = field(default_factory=list)


class ReconcileCalls:
    """The calls that wait for a sweep."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self._config, self._clock = config, clock
        self._calls: list[_ReconcileCall] = []
        self._swept: _ReconcileCall | None = None

    def add_call(self, request: PendingCall, timeout_s: float) -> None:
        """Make a sweep for a call; with a timeout, sweeps until nothing waits for time alone."""
        now = self._clock.read_boot()
        settle_wait = SettleWait(self._config, Boot(now + timeout_s)) if timeout_s else None
        call = _ReconcileCall(request=request, settle_wait=settle_wait, next_pass=now)
        self._calls.append(call)

    def wait_s(self) -> float:
        """Seconds until a sweep is due."""
        if not self._calls:
            return math.inf
        return max(0.0, min(call.next_pass for call in self._calls) - self._clock.read_boot())

    def begin_sweep(self, reconciler: Reconciler) -> Reconciler:
        """What makes this sweep: in the name of the first call that is due, if one is."""
        self._calls = [call for call in self._calls if call.request.is_open]
        now = self._clock.read_boot()
        # One call for each sweep, since the history has one author for what a pass repairs.
        self._swept = next((call for call in self._calls if call.next_pass <= now), None)
        if self._swept is None:
            return reconciler
        return reconciler.act_for(self._swept.request.peer.actor)

    def end_sweep(self, report: Report) -> None:
        """Answer the call that the sweep was made for, or go on."""
        call, self._swept = self._swept, None
        if call is None:
            return
        call.reports.append(report)
        now = self._clock.now()
        wait = None if call.settle_wait is None else call.settle_wait.add_report(report, now)
        if wait is not None:
            call.next_pass = Boot(now.boot + wait.next_pass_s)
            call.request.send_progress({"report": None, "waiting": describe_wait(wait)})
            return
        self._calls.remove(call)
        document = build_pass_document(join_reports(call.reports), self._config)
        call.request.finish({"report": document, "waiting": None})

    def fail_sweep(self, reason: str) -> None:
        """The sweep failed as a whole."""
        call, self._swept = self._swept, None
        if call is not None:
            self._calls.remove(call)
            call.request.fail(unavailable(reason))

    def fail_all(self, reason: str) -> None:
        """End every call: ds01d stops, or its configuration is another one."""
        for call in self._calls:
            call.request.fail(unavailable(reason))
        self._calls = []
