"""What of this host's entries in the store differs from its books, and when it is repaired. Pure.

The books are right. What is repaired is the store, by this host's own entries alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from ds01d.decide.fleet_books import is_undercounted, make_entry
from ds01d.model.drift import Outcome, WaitReason
from ds01d.model.fleet_books import EntryPhase, FleetEntry, NameEntry, NodeId
from ds01d.model.fleet_drift import (
    FleetAction,
    FleetDrift,
    FleetDriftKind,
    GatedFleetDrift,
    Membership,
    MembershipState,
    OwnBooking,
    OwnBookings,
)
from ds01d.model.primitives import BookingId, Boot, ContainerName, UserName, Wall

Names = Mapping[ContainerName, NameEntry]
_MOST_SHOWN: Final = 200  # characters of one difference


def find_fleet_drifts(
    local: OwnBookings,
    entries: Iterable[FleetEntry],
    names: Names,
    node: NodeId,
    in_flight: Collection[BookingId] = (),
) -> tuple[FleetDrift, ...]:
    """What differs. `entries`: those of this host. `in_flight`: bookings that are being made."""
    return tuple(_find_drifts(local, [*entries], names, node, frozenset(in_flight)))


def _find_drifts(
    local: OwnBookings,
    entries: list[FleetEntry],
    names: Names,
    node: NodeId,
    in_flight: frozenset[BookingId],
) -> Iterator[FleetDrift]:
    reported: set[BookingId] = set()
    for entry in entries:
        booking = local.get(entry.booking)
        # Who makes it confirms or withdraws it; a pass that came in between would be wrong.
        if entry.booking in in_flight:
            reported.add(entry.booking)
        elif booking is None or booking.user != entry.user:
            yield FleetDrift(
                kind=FleetDriftKind.STALE_RESERVATION,
                # Decision 352: entries are kept by user, and a name by its booking alone.
                action=FleetAction.WITHDRAW if booking is None else FleetAction.WITHDRAW_KEY,
                entry=entry,
                reason="the books of this host have no such booking"
                if booking is None
                else f"the booking is {booking.user}'s",
            )
        else:
            reported.add(entry.booking)
            yield from _compare_entry(booking, entry, names, node)
    for key, booking in local.items():
        if key not in reported and key not in in_flight:
            yield FleetDrift(
                kind=FleetDriftKind.UNREPORTED_BOOKING,
                action=FleetAction.REPORT,
                entry=make_entry(booking, node, EntryPhase.HELD),
                reason="the store has no entry of this booking",
            )
    yield from _find_left_names(local, entries, names, node, in_flight)


def _compare_entry(
    booking: OwnBooking, entry: FleetEntry, names: Names, node: NodeId
) -> Iterator[FleetDrift]:
    wanted = make_entry(booking, node, EntryPhase.HELD)
    # The daemon was killed between the booking and its confirmation, or the store was away.
    if entry.phase is EntryPhase.RESERVED:
        yield FleetDrift(
            kind=FleetDriftKind.UNCONFIRMED_BOOKING,
            action=FleetAction.CONFIRM,
            entry=wanted,
            reason="the booking is made, and the store has it as reserved",
            is_undercounted=is_undercounted(booking, entry),
        )
        return
    differences = [
        f"{field}: {theirs}, not {ours}"
        for field, theirs, ours in (
            ("container", entry.container, wanted.container),
            ("slots", ",".join(entry.slots), ",".join(wanted.slots)),
            ("count", entry.count, wanted.count),
            ("sevenths of a GPU", entry.sevenths, wanted.sevenths),
        )
        if theirs != ours
    ]
    action = FleetAction.CONFIRM
    # A name that another booking has is a finding; one that is missing can be taken.
    if wanted.container not in names:
        differences.append("its name is not taken")
        action = FleetAction.REPORT
    if differences:
        yield FleetDrift(
            kind=FleetDriftKind.WRONG_ENTRY,
            action=action,
            entry=wanted,
            # Who may write to the store may have listed slots without end.
            reason="; ".join(text[:_MOST_SHOWN] for text in differences),
            is_undercounted=is_undercounted(booking, entry),
        )


def _find_left_names(
    local: OwnBookings,
    entries: Iterable[FleetEntry],
    names: Names,
    node: NodeId,
    in_flight: frozenset[BookingId],
) -> Iterator[FleetDrift]:
    """Names of this host that no booking has: nobody else could ever take them."""
    bookings = {entry.booking for entry in entries}
    # What becomes of an entry takes the name with it that the entry has.
    of_entries = {(entry.booking, entry.container) for entry in entries}
    for name, taken in names.items():
        if taken.node != node or taken.booking in in_flight:
            continue
        booking = local.get(taken.booking)
        if booking is not None:
            # Decision 353: also where an entry shows that the booking lives.
            if booking.container != name and (taken.booking, name) not in of_entries:
                yield FleetDrift(
                    kind=FleetDriftKind.STALE_RESERVATION,
                    action=FleetAction.FREE_NAME,
                    entry=replace(make_entry(booking, node, EntryPhase.HELD), container=name),
                    reason=f"the booking of this name is called {booking.container} now",
                )
        elif taken.booking not in bookings:
            yield FleetDrift(
                kind=FleetDriftKind.STALE_RESERVATION,
                action=FleetAction.WITHDRAW,
                entry=FleetEntry(
                    user=UserName("unknown"),
                    node=node,
                    booking=taken.booking,
                    container=name,
                    phase=EntryPhase.RESERVED,
                    count=0,
                    sevenths=0,
                    since=Wall(0.0),
                ),
                reason="a name is taken for a booking that there is not",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetGate:
    """What the gate goes by.

    `settle_s`: how long a drift is to be seen unchanged. `sweep_began`: when the last pass over all
    of this host began that succeeded; None: none has. `proven`: bookings that this ds01d released
    itself. `frozen`: who stopped all repairs; "": nobody.
    """

    membership: Membership
    settle_s: float
    sweep_began: Boot | None = None
    proven: frozenset[BookingId] = frozenset()
    frozen: str = ""


def gate_fleet_drifts(
    drifts: Iterable[FleetDrift], first_seen: Mapping[str, Boot], now: Boot, gate: FleetGate
) -> tuple[GatedFleetDrift, ...]:
    """Each drift as due or waiting. `first_seen` by key; what is missing there was never seen."""
    return tuple(_gate_drift(drift, first_seen.get(drift.key, now), now, gate) for drift in drifts)


def _gate_drift(drift: FleetDrift, first_seen: Boot, now: Boot, gate: FleetGate) -> GatedFleetDrift:
    def make_waiting(reason: WaitReason, why: str, until: Boot | None = None) -> GatedFleetDrift:
        return GatedFleetDrift(
            drift=drift,
            outcome=Outcome.WAITING,
            gate=reason,
            reason=why,
            until=until,
            first_seen=first_seen,
        )

    withdraws = drift.is_withdrawal
    membership = gate.membership
    if not membership.may_report:
        return make_waiting(
            WaitReason.BLOCKED, membership.reason or f"this host is {membership.state}"
        )
    # Others may count by entries that were put back, and reserve before this host has reported.
    if withdraws and membership.state is MembershipState.RESTORED:
        return make_waiting(WaitReason.BLOCKED, membership.reason)
    # Who froze the host looks into what its books say: nothing is changed by them meanwhile.
    if gate.frozen:
        return make_waiting(WaitReason.FREEZE, gate.frozen)
    # What this ds01d released itself is proven: neither time nor a sweep would show more. And other
    # hosts give away what the store does not count: too much there for some seconds harms nobody.
    if drift.entry.booking not in gate.proven and not drift.is_undercounted:
        settled = Boot(first_seen + gate.settle_s)
        if now < settled:
            return make_waiting(WaitReason.SETTLE, "seen just now", settled)
        # Decision 313: other writers may have taken a booking from the books that a pass puts back.
        if withdraws and (gate.sweep_began is None or gate.sweep_began <= first_seen):
            return make_waiting(
                WaitReason.PROOF, "until a sweep of this host has not found the booking"
            )
    return GatedFleetDrift(drift=drift, outcome=Outcome.DUE, first_seen=first_seen)


def defer_withdrawal(
    gated: GatedFleetDrift, undercounted: Iterable[tuple[UserName, BookingId]]
) -> GatedFleetDrift:
    """The drift as waiting, if it would withdraw something of a user of `undercounted`."""
    user = gated.drift.entry.user
    if (
        gated.outcome is not Outcome.DUE
        or not gated.drift.is_withdrawal
        or user not in {owner for owner, _ in undercounted}
    ):
        return gated
    # Decision 348: a slot that two containers of a user share counts for one of them. What is
    # withdrawn with the first would be missing until the other counts for it.
    return replace(
        gated,
        outcome=Outcome.WAITING,
        gate=WaitReason.BLOCKED,
        reason=f"until the store counts all that {user} has on this host",
    )


def find_released(
    before: OwnBookings, after: OwnBookings, names: frozenset[ContainerName]
) -> frozenset[BookingId]:
    """The bookings that were there and are not any more, of containers that ds01d released."""
    return frozenset(
        key for key, local in before.items() if key not in after and local.container in names
    )
