"""This host's bookings as a fleet's store has them, and how much a user has on all hosts. Pure.

The books of a host are the truth about it: what the store has of this host is compared with them,
and never counted instead of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil

from ds01d.decide.booking_record import derive_booking_id, identify_booking
from ds01d.decide.bookings import Records, count_bookings, find_payers
from ds01d.decide.ownership import NOBODY
from ds01d.decide.user_quota import check_gpu_quota, make_rejection, weigh_by_books
from ds01d.model.allocation import AllocationRequest, Refusal, Rejected
from ds01d.model.books import AllocatorState, Record, Slot
from ds01d.model.fleet_books import EntryPhase, FleetEntry, NodeId, exceeds_use
from ds01d.model.fleet_drift import OwnBooking, OwnBookings
from ds01d.model.primitives import BookingId, ContainerName, SlotId, UserName, Wall

# The parts of a GPU that MIG has. Whole numbers, so that every host has the same sum.
_SEVENTHS = 7
_MOST_HOSTS_SHOWN = 8


def list_own_bookings(state: AllocatorState, records: Records) -> dict[BookingId, OwnBooking]:
    """Every booking that counts for somebody's quota, by its ID; the order of the slots is kept."""
    slots: dict[tuple[ContainerName, UserName], list[SlotId]] = {}
    sevenths: dict[tuple[ContainerName, UserName], int] = {}
    for slot in state.slots.values():
        payers = find_payers(slot, state, records)
        weighed: set[UserName] = set()
        for name, user in zip(dict.fromkeys(slot.containers), payers, strict=True):
            # It counts for nobody's quota here, so it counts for nobody's elsewhere.
            if user is None or user == NOBODY:
                continue
            key = (name, user)
            slots.setdefault(key, []).append(slot.id)
            # As quotas count: each slot of a user once, however many of their containers it lists.
            weight = 0 if user in weighed else _weigh_slot(slot)
            weighed.add(user)
            sevenths[key] = sevenths.get(key, 0) + weight
    bookings: dict[BookingId, OwnBooking] = {}
    for (name, user), listed in slots.items():
        record = records.get(name)
        booking = identify_booking(name, record)
        if booking in bookings:  # a record that somebody copied by hand, with its ID
            booking = derive_booking_id(name, None)
        allocated_at = record.allocated_at if isinstance(record, Record) else None
        bookings[booking] = OwnBooking(
            booking=booking,
            user=user,
            container=name,
            slots=tuple(listed),
            sevenths=sevenths[(name, user)],
            since=allocated_at or Wall(0.0),
        )
    return bookings


def count_unowned(user: UserName, state: AllocatorState, records: Records) -> int:
    """How many bookings count for a user on this host, and are none of `list_own_bookings`.

    Their container has no record, so the counters of the slot alone say whose they are.
    """
    listed = [b for b in list_own_bookings(state, records).values() if b.user == user]
    return max(0, count_bookings(user, state, records) - sum_own_use(listed)[0])


def _weigh_slot(slot: Slot) -> int:
    # Upwards: a share between two sevenths may not make a quota larger.
    return ceil(weigh_by_books(slot) * _SEVENTHS)


def make_entry(local: OwnBooking, node: NodeId, phase: EntryPhase) -> FleetEntry:
    """The entry that the store is to have of a booking."""
    return FleetEntry(
        user=local.user,
        node=node,
        booking=local.booking,
        container=local.container,
        phase=phase,
        count=len(local.slots),
        sevenths=local.sevenths,
        since=local.since,
        slots=() if phase is EntryPhase.RESERVED else local.slots,
    )


def is_undercounted(local: OwnBooking, entry: FleetEntry) -> bool:
    """Whether the store counts less for a booking than the books do."""
    return exceeds_use(local.use, entry.use)


def find_undercounted(
    local: OwnBookings, entries: Iterable[FleetEntry], in_flight: Collection[BookingId] = ()
) -> frozenset[tuple[UserName, BookingId]]:
    """The bookings that the store may count for less than the books do.

    `entries`: those of this host. `in_flight`: bookings of which an entry is being written.
    """
    # Decision 348: what is being written may be older than the books, and smaller.
    counted = {
        (entry.user, entry.booking)
        for entry in entries
        if entry.booking not in in_flight
        and (booking := local.get(entry.booking)) is not None
        and not is_undercounted(booking, entry)
    }
    return frozenset((booking.user, key) for key, booking in local.items()) - counted


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetUse:
    """What a user has on all hosts. `hosts`: where, this host first.

    `here`: slots and sevenths of it on this host, with what it has reserved.
    """

    slots: int = 0
    sevenths: int = 0
    hosts: tuple[str, ...] = ()
    here: tuple[int, int] = (0, 0)

    @property
    def gpus(self) -> Fraction:
        return Fraction(self.sevenths, _SEVENTHS)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaQuestion:
    """What is to be reserved: `request` with the limits of its user, and what it would get.

    `local`: the bookings of this host when it was asked; `unowned`: how many more count for this
    user (see `count_unowned`). `sevenths`: of what was chosen.
    """

    request: AllocationRequest
    sevenths: int
    local: OwnBookings = field(default_factory=dict)
    unowned: int = 0

    @property
    def own_of_user(self) -> dict[BookingId, OwnBooking]:
        user = self.request.user
        return {key: local for key, local in self.local.items() if local.user == user}


def measure_use(
    question: QuotaQuestion,
    entries: Iterable[FleetEntry],
    in_flight: Iterable[FleetEntry],
    node: NodeId,
    name_host: Callable[[NodeId], str],
) -> FleetUse:
    """What the user has: by the books here, by the store elsewhere.

    `in_flight`: what this host has reserved or is about to, and what may not be in its books yet.
    """
    local = question.own_of_user
    user = question.request.user
    # Decision 312: an entry of this host counts by its books; a reservation that they do not have
    # yet, by what was asked for.
    reserved = [e for e in in_flight if e.user == user and e.booking not in local]
    elsewhere = [e for e in entries if e.node != node]
    booked_slots, booked_sevenths = sum_own_use(local.values())
    slots = booked_slots + sum(entry.count for entry in reserved)
    sevenths = booked_sevenths + sum(entry.sevenths for entry in reserved)
    hosts = [name_host(node)] if local or reserved else []
    hosts += sorted({name_host(entry.node) for entry in elsewhere})
    return FleetUse(
        slots=slots + sum(entry.count for entry in elsewhere),
        sevenths=sevenths + sum(entry.sevenths for entry in elsewhere),
        hosts=tuple(hosts),
        here=(slots, sevenths),
    )


def check_fleet_quota(question: QuotaQuestion, use: FleetUse) -> Rejected | None:
    """The refusal of a user who may have no more over all hosts; None if they may."""
    request = question.request
    where = describe_hosts(use.hosts)
    # The same words and numbers as for this host alone: scripts match them.
    most = request.max_slots
    if most is not None and use.slots + request.count > most:
        more = f", {request.count} more asked for" if request.count > 1 else ""
        return make_rejection(
            request, Refusal.USER_AT_LIMIT, f"{use.slots}/{most}{more} on {where}"
        )
    rejection = check_gpu_quota(request, use.gpus, Fraction(question.sevenths, _SEVENTHS))
    if rejection is None:
        return None
    return make_rejection(request, rejection.refusal, f"{rejection.detail} on {where}")


def describe_hosts(hosts: tuple[str, ...]) -> str:
    """Their names, or how many more there are: gpu03, gpu07."""
    shown = ", ".join(hosts[:_MOST_HOSTS_SHOWN])
    more = len(hosts) - _MOST_HOSTS_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown or "no host"


def sum_own_use(bookings: Iterable[OwnBooking]) -> tuple[int, int]:
    """Slots and sevenths of these bookings."""
    listed = [*bookings]
    return sum(len(b.slots) for b in listed), sum(b.sevenths for b in listed)


def sum_use(entries: Iterable[FleetEntry]) -> dict[UserName, tuple[int, int]]:
    """Slots and sevenths of each user."""
    totals: dict[UserName, tuple[int, int]] = {}
    for entry in entries:
        slots, sevenths = totals.get(entry.user, (0, 0))
        totals[entry.user] = (slots + entry.count, sevenths + entry.sevenths)
    return totals


def index_hosts(names: Mapping[NodeId, str]) -> Callable[[NodeId], str]:
    """The name of a host by its ID; the ID itself where nobody knows one."""
    return lambda node: names.get(node) or str(node)
