"""A pass over a host's entries in the store of its fleet: observe, decide, repair the store.

For a thread of its own, after the passes over the host. It changes the store alone: nothing that it
sees there makes this host release, move or forget a booking.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

from ds01d.decide.fleet_books import find_undercounted, make_entry
from ds01d.decide.fleet_drifts import (
    FleetGate,
    defer_withdrawal,
    find_fleet_drifts,
    gate_fleet_drifts,
)
from ds01d.decide.fleet_elsewhere import sum_use_elsewhere
from ds01d.decide.fleet_findings import find_fleet_findings
from ds01d.model.drift import Outcome
from ds01d.model.fleet_books import Absent, Conflict, ConflictKind, FleetContents, NodeId
from ds01d.model.fleet_drift import (
    FleetAction,
    FleetDrift,
    FleetFinding,
    FleetFindingKind,
    GatedFleetDrift,
    Membership,
    MembershipState,
    OwnBookings,
)
from ds01d.model.limits import Limits
from ds01d.model.primitives import BookingId, Boot, Now, Unknown, UserName, Wall
from ds01d.reconcile.fleet_member import FleetMember
from ds01d.reconcile.fleet_ports import FleetBook
from ds01d.reconcile.fleet_report import FleetReport, HostView, OwnView
from ds01d.reconcile.fleet_summary import SummaryPublisher


@dataclass(slots=True, kw_only=True)
class FleetPass:
    """Makes passes for one host.

    `read_own`: the newest view of the books. `in_flight`: bookings that are being made.
    `hold_booking`: none is begun under that ID meanwhile.
    `read_summary`: what this host shows of itself.
    """

    book: FleetBook
    member: FleetMember
    settle_s: float
    read_now: Callable[[], Now]
    read_own: Callable[[], OwnView]
    in_flight: Callable[[], Collection[BookingId]]
    hold_booking: Callable[[BookingId], AbstractContextManager[None]]
    read_limits: Callable[[], Limits | Unknown]
    read_summary: Callable[[], dict[str, object]] = dict
    # Kept from pass to pass, by this thread alone.
    _first_seen: dict[str, Boot] = field(default_factory=dict)
    _unseen_since: dict[NodeId, Wall] = field(default_factory=dict)
    _publisher: SummaryPublisher = field(init=False)
    last_report: FleetReport | None = None

    def __post_init__(self) -> None:
        self._publisher = SummaryPublisher(
            book=self.book, member=self.member, read_summary=self.read_summary
        )

    def run(self) -> FleetReport:
        """Make a pass. Raises `Ds01Error` where this host's own files cannot be written."""
        # Before the store is read: what is booked meanwhile is in its contents and not in flight
        # any more, and would look like an entry without a booking.
        in_flight = frozenset(self.in_flight())
        contents = self.book.read_contents()
        now = self.read_now()
        if isinstance(contents, Unknown):
            self.member.set_state(MembershipState.AWAY, contents.reason)
            report = self._report_failure(now, contents.reason)
        else:
            membership = self.member.observe_store(contents)
            report = self._reconcile_entries(contents, membership, now, in_flight)
        self.last_report = report
        return report

    def _report_failure(self, now: Now, reason: str) -> FleetReport:
        """The last known status, with why there is no newer one."""
        before = self.last_report or FleetReport(
            at=now.wall, membership=self.member.membership, node=self.member.node
        )
        return replace(before, membership=self.member.membership, failure=reason)

    def _reconcile_entries(
        self,
        contents: FleetContents,
        membership: Membership,
        now: Now,
        in_flight: frozenset[BookingId],
    ) -> FleetReport:
        node, local = self.member.node, self.read_own()
        self._note_unseen(contents, now.wall)
        drifts: tuple[GatedFleetDrift, ...] = ()
        warnings: list[str] = []
        bookings: OwnBookings = {}
        if isinstance(local.bookings, Unknown):
            # Unknown is not empty: without the books each entry would look like a left one.
            warnings.append(f"the books of this host are unknown: {local.bookings.reason}")
        else:
            bookings = local.bookings
            entries = [entry for entry in contents.entries if entry.node == node]
            # Before and after the read: a booking that began or ended meanwhile is in one of both.
            in_flight |= frozenset(self.in_flight())
            differences = find_fleet_drifts(bookings, entries, contents.names, node, in_flight)
            # Of what is seen now alone: a difference that was away for a pass waits its time again.
            self._first_seen = {
                drift.key: self._first_seen.get(drift.key, now.boot) for drift in differences
            }
            gate = FleetGate(
                membership=membership,
                settle_s=self.settle_s,
                sweep_began=local.sweep_began,
                proven=local.released,
                frozen=local.frozen,
            )
            gated = gate_fleet_drifts(differences, self._first_seen, now.boot, gate)
            undercounted = find_undercounted(bookings, entries, in_flight)
            drifts = self._repair_drifts(gated, set(undercounted))
            self._publisher.publish_if_new(contents, drifts, now, is_idle=not self.in_flight())
        identity = self.member.identity
        findings: tuple[FleetFinding, ...] = ()
        if identity is not None:
            findings = find_fleet_findings(
                contents,
                bookings,
                identity,
                self.read_limits(),
                unseen_since=self._unseen_since,
                now=now.wall,
            )
        # Asked again: a repair of this pass may have met the fence.
        if self.member.membership.state is MembershipState.FENCED:
            reason = self.member.membership.reason
            cloned = FleetFinding(
                kind=FleetFindingKind.CLONED_NODE, subject=str(node), reason=reason
            )
            findings = (cloned, *findings)
        return FleetReport(
            at=now.wall,
            membership=self.member.membership,
            node=node,
            cluster=contents.cluster,
            revision=contents.revision,
            entries=len(contents.entries),
            drifts=drifts,
            findings=findings,
            hosts=self._list_hosts(contents),
            elsewhere=sum_use_elsewhere(contents, node),
            warnings=tuple(warnings),
        )

    # --- repairs of the store

    def _repair_drifts(
        self,
        drifts: Iterable[GatedFleetDrift],
        undercounted: set[tuple[UserName, BookingId]],
    ) -> tuple[GatedFleetDrift, ...]:
        repaired: list[GatedFleetDrift] = []
        # What is withdrawn comes last: the store never counts less than the books in between.
        for gated in sorted(drifts, key=lambda g: g.drift.is_withdrawal):
            done = self._repair_drift(defer_withdrawal(gated, undercounted))
            repaired.append(done)
            if done.outcome is Outcome.DONE:
                undercounted.discard((done.drift.entry.user, done.drift.entry.booking))
        return tuple(repaired)

    def _repair_drift(self, gated: GatedFleetDrift) -> GatedFleetDrift:
        if gated.outcome is not Outcome.DUE:
            return gated
        drift = gated.drift
        if self.member.membership.state in (MembershipState.AWAY, MembershipState.FENCED):
            # One call that failed is enough: each of the others would wait for its deadline.
            return replace(gated, outcome=Outcome.FAILED, reason=self.member.membership.reason)
        with self.hold_booking(drift.entry.booking):
            # Books and bookings go on while the store is read: decided upon what they are now.
            if not self._is_still_so(drift):
                reason = "the booking is being changed"
                return replace(gated, outcome=Outcome.WAITING, reason=reason)
            answer = self._change_store(drift)
        if isinstance(answer, Unknown):
            self.member.set_state(MembershipState.AWAY, answer.reason)
            return replace(gated, outcome=Outcome.FAILED, reason=answer.reason)
        if isinstance(answer, Conflict) and answer.kind is ConflictKind.INCARNATION:
            is_fenced = self.member.fence_host(answer.identity)
            why = self.member.membership.reason if is_fenced else "the identity was just renewed"
            return replace(gated, outcome=Outcome.FAILED, reason=why)
        if isinstance(answer, Absent) and drift.action is FleetAction.CONFIRM:
            # It counts for nothing there: the next pass reports it.
            return replace(gated, outcome=Outcome.FAILED, reason="its entry is gone meanwhile")
        # A conflict of names is a finding of its own.
        return replace(gated, outcome=Outcome.DONE, reason="")

    def _change_store(self, drift: FleetDrift) -> object:
        if drift.action is FleetAction.WITHDRAW:
            return self.book.withdraw_entry(drift.entry)
        if drift.action is FleetAction.WITHDRAW_KEY:
            return self.book.withdraw_entry(drift.entry, keeps_names=True)
        if drift.action is FleetAction.FREE_NAME:
            return self.book.free_name(drift.entry)
        if drift.action is FleetAction.REPORT:
            return self.book.report_entry(drift.entry)
        return self.book.confirm_entry(drift.entry)

    def _is_still_so(self, drift: FleetDrift) -> bool:
        entry = drift.entry
        # Decision 349: asked before the books, which have what is not in flight any more.
        is_in_flight, local = entry.booking in self.in_flight(), self.read_own().bookings
        if is_in_flight or isinstance(local, Unknown):
            return False
        booking = local.get(entry.booking)
        if drift.action is FleetAction.WITHDRAW_KEY:
            return booking is None or booking.user != entry.user
        if drift.action is FleetAction.WITHDRAW:
            return booking is None
        if drift.action is FleetAction.FREE_NAME:
            return booking is None or booking.container != entry.container
        return booking is not None and make_entry(booking, entry.node, entry.phase) == entry

    def _note_unseen(self, contents: FleetContents, now: Wall) -> None:
        # By when this ds01d missed it: the clocks of other hosts are not compared.
        unseen = set(contents.identities) - contents.alive - {self.member.node}
        self._unseen_since = {node: self._unseen_since.get(node, now) for node in unseen}

    def _list_hosts(self, contents: FleetContents) -> tuple[HostView, ...]:
        slots: dict[NodeId, int] = {}
        for entry in contents.entries:
            slots[entry.node] = slots.get(entry.node, 0) + entry.count
        hosts = [
            HostView(
                node=node,
                host=identity.host,
                version=identity.version,
                slots=slots.get(node, 0),
                unseen_since=self._unseen_since.get(node),
            )
            for node, identity in contents.identities.items()
        ]
        return tuple(sorted(hosts, key=lambda host: (host.host, host.node)))
