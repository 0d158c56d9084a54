"""Since when each name has its newest booking, as far as ds01d saw it. Pure.

Decision 371: metadata may be torn, or be that of an earlier slot, so this alone may tell how old a
booking is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ds01d.decide.pass_scope import PassScope
from ds01d.model.books import AllocatorState, Booking
from ds01d.model.checkpoint import BookingFirstSeen, Checkpoint
from ds01d.model.primitives import Boot, ContainerName, SlotId, Unknown
from ds01d.model.snapshot import Snapshot

Ages = Mapping[ContainerName, BookingFirstSeen]


def note_bookings(snapshot: Snapshot, checkpoint: Checkpoint, scope: PassScope) -> Ages:
    """The ages with what is booked now: one more slot is new, and one that goes and comes back."""
    state, ages, names = snapshot.state, dict(checkpoint.appeared), frozenset(scope.names)
    # While the state cannot be read nobody knows which bookings are gone.
    if not isinstance(state, Unknown):
        for name in checkpoint.appeared.keys() - scope.booked.keys():
            del ages[name]
        for name in ages.keys() - names:
            slots = ages[name].slots
            if slots is not None and not slots <= scope.booked[name]:
                ages[name] = replace(ages[name], slots=slots & scope.booked[name])
    # With Docker as the books these come and go with their devices; nobody has just booked them.
    derived = state.derived if isinstance(state, AllocatorState) else frozenset()
    for name in scope.booked.keys() & names:
        booked, first = scope.booked[name], ages.get(name)
        if first is not None and booked == first.slots:
            continue
        if first is None:
            more = booked
        else:
            more = frozenset() if first.slots is None else booked - first.slots
        is_booked = any((name, slot) not in derived for slot in more)
        if first is None or is_booked:
            inherited = not checkpoint.has_baseline or not is_booked
            first = BookingFirstSeen(
                at=snapshot.observed_at, inherited=inherited, missed_at=checkpoint.swept_at
            )
        ages[name] = replace(first, slots=frozenset(booked))
    return ages


def follow_changes(
    ages: Ages,
    taken: frozenset[Booking],
    given: frozenset[Booking],
    moved: Mapping[SlotId, SlotId],
    at: Boot,
) -> Ages:
    """The ages after a change of ds01d's own. `moved`: slots that have another ID since.

    What is booked again after a release is new; a booking that ds01d makes has no creation behind
    it, so it never looks like one that just appeared.
    """
    changed = {name for name, _ in taken | given}
    if not changed and not moved:
        return ages
    following = dict(ages)
    ours = BookingFirstSeen(at=at, inherited=True, slots=frozenset())
    for name in changed | ages.keys() if moved else changed:
        booking = ages.get(name, ours)
        if booking.slots is None:
            continue
        slots = {moved.get(slot, slot) for slot in booking.slots}
        slots -= {slot for who, slot in taken if who == name}
        slots |= {slot for who, slot in given if who == name}
        if slots:
            following[name] = replace(booking, slots=frozenset(slots))
        else:
            following.pop(name, None)
    return following
