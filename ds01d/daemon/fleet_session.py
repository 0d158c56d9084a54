"""A host's part in a fleet, for the worker: what the fleet's threads get to see, and it of them.

Imported only where a fleet is configured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from ds01d.config import Config
from ds01d.daemon.fleet_status_builder import build_fleet_status
from ds01d.daemon.fleet_worker import FleetParts, FleetWorker
from ds01d.decide.fleet_books import list_own_bookings
from ds01d.decide.fleet_elsewhere import describe_use_elsewhere
from ds01d.decide.freezes import EVERYTHING, describe_freeze, is_in_force
from ds01d.errors import BooksUnreadable, Ds01Error
from ds01d.model.containers import Engine
from ds01d.model.drift import Outcome
from ds01d.model.fleet_books import NodeId
from ds01d.model.fleet_drift import Membership, MembershipState, OwnBookings
from ds01d.model.limits import Limits
from ds01d.model.primitives import Boot, ContainerName, Source, Unknown, UserName, Wall
from ds01d.model.quota import OtherHostsUse, QuotaUnit
from ds01d.reconcile.fleet_memory import HostFacts
from ds01d.reconcile.fleet_report import FleetReport
from ds01d.reconcile.ports import World
from ds01d.reconcile.report import Report
from ds01d.reconcile.transactions import Transactions
from ds01d.reporting.fleet_status import FleetStatus
from ds01d.reporting.status import SourceStatus, Status
from ds01d.service.dispatch import Handler, describe_error
from ds01d.service.fleet_bookings import FleetBookings
from ds01d.service.fleet_calls import AdminJob, FleetCalls
from ds01d.service.requests import PendingCall


class FleetSession:
    """For the worker's thread. `read_status`: the status as it was published last.

    `world`: that of bookings.
    """

    def __init__(
        self,
        parts: FleetParts,
        config: Config,
        world: World,
        read_status: Callable[[], Status],
        wake: Callable[[], None],
    ) -> None:
        self._world, self._read_status = world, read_status
        self._transactions = Transactions(world)
        self._limits: Limits | Unknown = Unknown(source=Source.LIMITS, reason="not read yet")
        self._engine_id = ""
        self._is_started = False
        self._shown: tuple[Membership, FleetReport | None, NodeId, FleetStatus] | None = None
        facts = parts.read_facts
        self._worker = FleetWorker(
            replace(parts, read_facts=lambda: self._read_facts(facts)),
            settle_s=config.policy.settle_s,
            read_now=world.clock.now,
            read_limits=lambda: self._limits,
            read_summary=self._summarize_host,
            wake=wake,
        )
        self.bookings = FleetBookings(
            self._worker.reservations, self._transactions, config.fleet.when_away
        )
        self.handlers: Final[Mapping[str, Handler]] = FleetCalls(self._ask_member).handlers

    def start(self) -> None:
        """Begin to take part; once a pass has shown what there is on this host."""
        # Before a pass has shown the books, every entry would look like a left one.
        if not self._is_started:
            self._is_started = True
            self._worker.start()

    def close(self) -> None:
        if self._is_started:
            self._worker.close()

    def add_report(self, report: Report) -> None:
        """A pass over this host is over."""
        docker = report.decision.snapshot.docker
        if isinstance(docker, Engine):
            self._engine_id = docker.identity.id
        self._limits = self._world.limits.read()
        # Decision 313: what ds01d took from the books after its own proofs is withdrawn at once;
        # all else waits for a sweep.
        released = frozenset(
            name
            for gated in report.drifts
            if gated.outcome is Outcome.DONE
            for name, _ in gated.drift.taken
        )
        # Only a sweep with every source shows that a booking is really gone.
        is_whole = report.is_sweep and report.needed_sources_ok
        began = report.decision.snapshot.now.boot if is_whole else None
        self.add_changes(released, sweep_began=began)

    def add_changes(
        self, released: frozenset[ContainerName], *, sweep_began: Boot | None = None
    ) -> None:
        """Show the books as they are now; `released`: what ds01d itself may have taken."""
        self._worker.set_own(
            self._read_own(),
            released=released,
            sweep_began=sweep_began,
            frozen=self._describe_freeze(),
        )

    def _read_own(self) -> OwnBookings | Unknown:
        try:
            # As a pass or a booking has just read or written them.
            books = self._transactions.read_books(frozenset())
        except BooksUnreadable as error:
            return Unknown(source=Source.STATE, reason=str(error))
        return list_own_bookings(books.state, books.records)

    def _describe_freeze(self) -> str:
        now = self._world.clock.now()
        for freeze in self._read_status().freezes:
            if freeze.subject == EVERYTHING and is_in_force(freeze, now):
                return describe_freeze(freeze, now.wall)
        return ""

    # --- what others see; in the fleet's threads

    def _read_facts(self, read_facts: Callable[[], HostFacts]) -> HostFacts:
        now = self._world.clock.now()
        return replace(read_facts(), engine_id=self._engine_id, boot_id=now.boot_id)

    def _summarize_host(self) -> dict[str, object]:
        status = self._read_status()
        counts: dict[str, Counter[str]] = {
            "free": Counter(),
            "held": Counter(),
            "foreign": Counter(),
        }
        for slot in status.slots:
            state = "held" if slot.holders else "foreign" if slot.foreign else "free"
            counts[state][slot.kind] += 1
        down = sorted(source for source, answer in status.sources.items() if not answer.ok)
        frozen = any(freeze.subject == EVERYTHING for freeze in status.freezes)
        return {**{k: dict(v) for k, v in counts.items()}, "down": down, "frozen": frozen}

    # --- what the status shows

    def find_status(self) -> FleetStatus:
        """How this host stands: the same object until something of it is another."""
        membership, report = self._worker.membership, self._worker.report
        node = self._worker.node
        # A moment on the wall clock is never quite the same again: a status built in each turn
        # of the daemon would be published each time.
        if self._shown is None or self._shown[:3] != (membership, report, node):
            status = build_fleet_status(membership, report, node, self._world.clock.now())
            self._shown = (membership, report, node, status)
        return self._shown[3]

    def find_source(self) -> SourceStatus:
        """The store as a source like any other."""
        membership, report = self._worker.membership, self._worker.report
        # A fence is no answer of the store that this host could use.
        ok = membership.state in (MembershipState.MEMBER, MembershipState.RESTORED)
        last: Wall | None = None if report is None or report.failure else report.at
        reason = "" if ok else membership.reason or f"this host is {membership.state}"
        return SourceStatus(ok=ok, since=membership.since, reason=reason, last_success=last)

    def find_use_elsewhere(self, user: UserName, unit: QuotaUnit) -> OtherHostsUse:
        """What a user has on the other hosts, as the last pass over the store saw it."""
        membership, report = self._worker.membership, self._worker.report
        last_use, at = (None, None) if report is None else (report.elsewhere, report.at)
        return describe_use_elsewhere(user, unit, last_use, at, membership)

    # --- what admins ask for

    def _ask_member(self, request: PendingCall, job: AdminJob) -> None:
        self._worker.ask_admin_job(job, partial(_answer_call, request))


def _answer_call(request: PendingCall, done: str, error: Ds01Error | None) -> None:
    if error is None:
        request.finish({"done": done})
    else:
        request.fail(describe_error(error))
