"""The one drift of an unreadable state: its rebuild from the last good copy and reality. Pure.

Only added to, never taken from: a state without a booking would free a GPU in use, and a stale
booking of the copy is released by the next pass.
"""

from __future__ import annotations

from ds01d.decide.index import BooksIndex
from ds01d.model.books import Unreadable
from ds01d.model.drift import Action, Drift, Kind
from ds01d.model.holding import Holds, Verdicts
from ds01d.model.primitives import ContainerName, SlotId, Unknown


def diff_rebuild(state: Unreadable, index: BooksIndex, verdicts: Verdicts) -> Drift:
    """`index`: of the last good copy, as if it were the state."""
    sources = (index.snapshot.docker, index.snapshot.gpu, index.snapshot.metadata)
    blocked = next((f"{s.source}: {s.reason}" for s in sources if isinstance(s, Unknown)), None)
    # Without NVML the slots exist only in the file that is broken; an empty table would drop every
    # booking.
    if index.snapshot.gpu is None and not index.table.slots:
        blocked = (
            'no last good copy of the state, and no source for the slots (gpu.source = "none")'
        )
    restored: frozenset[tuple[ContainerName, SlotId]] = frozenset(
        (name, slot)
        for name, verdict in verdicts.items()
        # What belongs to a renamed container follows as a rename.
        if isinstance(verdict, Holds) and name not in index.renames.previous_names
        for slot in verdict.slots - index.booked_slots.get(name, frozenset())
    )
    rebuilt = (
        f"rebuilt: {len(index.table.slots)} slots, {index.count_bookings()} bookings of the last"
        f" good copy, {len(restored)} from Docker and metadata"
    )
    return Drift(
        kind=Kind.UNREADABLE_STATE,
        action=Action.REBUILD,
        container=None,
        slot=None,
        reason=state.reason,
        evidence=(f"state: {state.reason}", rebuilt),
        fingerprint=state.digest,
        given=restored,
        blocked=blocked,
    )
