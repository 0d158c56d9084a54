"""Reserves in the store of a fleet what a host is about to book, and says what became of that.

For a thread of its own: each call to the store may take as long as its deadline.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from itertools import islice

from ds01d.decide.fleet_books import (
    QuotaQuestion,
    check_fleet_quota,
    find_undercounted,
    index_hosts,
    make_entry,
    measure_use,
)
from ds01d.decide.user_quota import make_rejection
from ds01d.model.allocation import Refusal, Rejected
from ds01d.model.fleet_books import (
    Changed,
    Conflict,
    ConflictKind,
    EntryPhase,
    FleetEntry,
    NameEntry,
    NodeId,
    UserEntries,
)
from ds01d.model.primitives import BookingId, Source, Unknown, UserName, Wall
from ds01d.reconcile.fleet_ports import FleetBook

# Each attempt that is lost is a reservation of another host for the same user: one that needs more
# than sixteen has no luck to wait for.
_ATTEMPTS = 16
_MOST_LEFT = 16
PATIENCE_S = 4.0
"""After which no further attempt begins: others wait for their turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserved:
    """The store allows it.

    `counted`: the slots and sevenths that the user had on this host then, as far as was known.
    """

    entry: FleetEntry
    counted: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsettled:
    """The store answers, and nobody can say whether it allows it."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fenced:
    """Somebody else has this host's identity."""

    conflict: Conflict


Answer = Reserved | Rejected | Unsettled | Fenced | Unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetReserver:
    """`in_flight`: what this host is about to book, the reservation in hand included.

    `read_booked`: what it has booked by now, which may be more than when the question was asked.
    """

    book: FleetBook
    node: NodeId
    in_flight: Callable[[], Collection[FleetEntry]] = tuple
    read_booked: Callable[[], Collection[BookingId]] = tuple
    host_names: Callable[[], dict[NodeId, str]] = field(default=dict)

    def try_reserve(self, question: QuotaQuestion, entry: FleetEntry) -> Answer:
        """Reserve, unless the user has as much as the limits give, or the name is taken."""
        # Decision 351: no entry can have it, so no host would count it, this one included.
        if question.unowned:
            return Unsettled(
                reason=f"{question.unowned} of the bookings of {entry.user} on this host have no"
                " record, which ds01d restores: try again"
            )
        until = time.monotonic() + PATIENCE_S
        for attempt in range(_ATTEMPTS):
            # Decision 344: each call has its deadline, and a slow store answers within each.
            if attempt and time.monotonic() > until:
                break
            entries = self.book.read_user(entry.user)
            if isinstance(entries, Unknown):
                return entries
            if entries.uncounted:
                return Unsettled(
                    reason=f"what {entry.user} has there cannot be counted: {entries.uncounted}"
                )
            if entries.malformed:
                key, why = next(iter(entries.malformed.items()))
                # What cannot be read may be any number of slots.
                return Unsettled(reason=f"an entry of {entry.user} is malformed: {key}: {why}")
            # In each round: another call of this host may have ended meanwhile.
            others = [other for other in self.in_flight() if other.booking != entry.booking]
            left = self._withdraw_left(question, entries, others, until)
            if left is not None:
                return left
            use = measure_use(
                question, entries.entries, others, self.node, index_hosts(self.host_names())
            )
            rejection = check_fleet_quota(question, use)
            if rejection is not None:
                return rejection
            answer = self.book.reserve_entry(entry, entries.fence)
            # The fence was the one of the count: nobody has reserved for the user in between.
            if isinstance(answer, Changed):
                return Reserved(entry=entry, counted=use.here)
            if isinstance(answer, Unknown):
                return answer
            refused = self._explain_conflict(question, entry, answer, entries, others)
            if refused is not None:
                return refused
        return Unsettled(
            reason=f"other hosts reserve for {entry.user} at the same moment: try again"
        )

    def _withdraw_left(
        self,
        question: QuotaQuestion,
        entries: UserEntries,
        others: Collection[FleetEntry],
        until: float,
    ) -> Unknown | Fenced | None:
        """Withdraw what the user has of this host there and not in its books any more."""
        # Decision 312: or a user who gave a slot back would be over the quota in the store with the
        # next one. The books were read under their lock when `question` was asked.
        expected = self._list_expected(question, others)
        entries_here = [entry for entry in entries.entries if entry.node == self.node]
        unexpected = [entry for entry in entries_here if entry.booking not in expected]
        if not unexpected:
            return None
        # Decision 348: the store never counts less than the books, or another host gives that away.
        undercounted = self._find_undercounted(question, entries_here, others)
        for entry in entries_here:
            if (entry.user, entry.booking) in undercounted and time.monotonic() <= until:
                local = question.local[entry.booking]
                confirmed = self.book.confirm_entry(make_entry(local, self.node, EntryPhase.HELD))
                if isinstance(confirmed, Unknown):
                    return confirmed
                if isinstance(confirmed, Conflict):
                    return Fenced(conflict=confirmed)
                if isinstance(confirmed, Changed):
                    undercounted.discard((entry.user, entry.booking))
        # The others have no entry, and a pass reports them: what is left counts until then.
        if undercounted:
            return None
        # Not without end, whatever was written there: a pass withdraws the others.
        for left in islice(unexpected, _MOST_LEFT):
            if time.monotonic() <= until:
                answer = self.book.withdraw_entry(left)
                if isinstance(answer, Unknown):
                    return answer
                if isinstance(answer, Conflict):
                    return Fenced(conflict=answer)
        return None

    def _find_undercounted(
        self, question: QuotaQuestion, entries: Iterable[FleetEntry], others: Collection[FleetEntry]
    ) -> set[tuple[UserName, BookingId]]:
        entries_here = (entry for entry in entries if entry.node == self.node)
        in_flight = {other.booking for other in others}
        return {*find_undercounted(question.own_of_user, entries_here, in_flight)}

    def _list_expected(
        self, question: QuotaQuestion, others: Collection[FleetEntry]
    ) -> frozenset[BookingId]:
        """The bookings whose entries are not left ones: they are made, or are being made."""
        in_flight = (other.booking for other in others)
        return frozenset((*question.local, *in_flight, *self.read_booked()))

    def _explain_conflict(
        self,
        question: QuotaQuestion,
        entry: FleetEntry,
        conflict: Conflict,
        entries: UserEntries,
        others: Collection[FleetEntry],
    ) -> Answer | None:
        """The answer where another attempt cannot help; None if it can."""
        if conflict.kind is ConflictKind.INCARNATION:
            return Fenced(conflict=conflict)
        if conflict.kind is ConflictKind.FENCE:
            return None
        holder = conflict.holder
        # It was given back meanwhile.
        if holder is None:
            return None
        expected = self._list_expected(question, others)
        if holder.node == self.node and holder.booking not in expected:
            if self._find_undercounted(question, entries.entries, others):
                return Unsettled(
                    reason=f"not all that {entry.user} has on this host is reported yet: try again"
                )
            answer = self.book.withdraw_entry(_entry_of_name(holder, entry.user))
            return answer if isinstance(answer, Unknown) else None
        host = index_hosts(self.host_names())(holder.node)
        return make_rejection(question.request, Refusal.NAME_TAKEN, f"{entry.container} on {host}")


def _entry_of_name(holder: NameEntry, user: UserName) -> FleetEntry:
    """For a withdrawal, which goes by the booking ID alone."""
    return FleetEntry(
        user=user,
        node=holder.node,
        booking=holder.booking,
        container=holder.container,
        phase=EntryPhase.RESERVED,
        count=0,
        sevenths=0,
        since=Wall(0.0),
    )


def away(reason: str) -> Unknown:
    """The answer while nothing can be reserved."""
    return Unknown(source=Source.FLEET, reason=reason)
