"""What the history has of a drift: the books before and after, and the evidence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from ds01d.decide.decision import Decision
from ds01d.decide.drift_groups import change_groups
from ds01d.decide.expected_books import ExpectedBooks
from ds01d.decide.undo_guard import fingerprint_name
from ds01d.model.books import AllocatorState, Unreadable
from ds01d.model.containers import Engine
from ds01d.model.drift import Action, Drift
from ds01d.model.history import (
    BooksState,
    ContainerFingerprint,
    Entry,
    Phase,
    SlotRecord,
    record_slot,
)
from ds01d.model.primitives import ContainerId, ContainerName, SlotId
from ds01d.reconcile.history import OURSELVES, append_entries, format_utc, make_entry_id
from ds01d.reconcile.ports import World

_OF_SLOTS = frozenset({Action.RECOUNT, Action.UPDATE_SLOT, Action.REMOVE_SLOT})


def begin_entries(
    world: World, decision: Decision, due: Sequence[Drift], books: ExpectedBooks, *, first: int = 0
) -> Sequence[str]:
    """Append an entry for each drift, durably; gives their IDs. Raises `HistoryFailed`.

    `first`: how many entries this pass has appended before.
    """
    # Decision 33: what is written as one change is undone as one; each drift has its own entry, and
    # all entries of a change name its first one.
    now = decision.snapshot.now
    ids = [make_entry_id(now, number) for number, _ in enumerate(due, start=first)]
    changes = change_groups(due)
    leader = dict(reversed(list(zip(changes, ids, strict=True))))
    append_entries(
        world,
        [
            replace(_build_entry(drift, decision, books, world), id=entry, change=leader[change])
            for entry, change, drift in zip(ids, changes, due, strict=True)
        ],
    )
    return ids


def _build_entry(drift: Drift, decision: Decision, books: ExpectedBooks, world: World) -> Entry:
    """The entry of a drift, without its own ID and that of its change."""
    snapshot, names = decision.snapshot, drift.names
    changes = {change.name: change for change in books.records if change.name in names}
    before, after = _slots_before_after(drift, decision, books, world)
    # A rebuild keeps the broken file under its digest, so that an undo can put it back (decision
    # 38).
    broken = snapshot.state.digest if isinstance(snapshot.state, Unreadable) else ""
    return Entry(
        id="",
        at=format_utc(snapshot.now),
        phase=Phase.BEGIN,
        kind=drift.kind.value,
        action=drift.action.value,
        container=drift.container,
        slot=drift.slot,
        reason=drift.reason,
        evidence=drift.evidence,
        before=BooksState(
            slots=before,
            # As texts, not as records: an undo restores also what ds01d does not know.
            metadata={name: world.metadata.read_text(name) for name in sorted(changes)},
            broken=broken,
            mig_enabled=_mig_enabled(drift, snapshot.state),
        ),
        after=BooksState(
            slots=after,
            metadata={
                name: None
                if change.record is None
                else world.metadata.render_record(change.record, base=change.base)
                for name, change in changes.items()
            },
            mig_enabled=_mig_enabled(drift, books.state),
        ),
        boot_id=snapshot.now.boot_id,
        boot=snapshot.now.boot,
        fingerprint=drift.fingerprint,
        taken=tuple(sorted(drift.taken)),
        given=tuple(sorted(drift.given)),
        containers=_fingerprint_containers(names, decision),
        by=OURSELVES,
        actor=world.actor,
        booking=None if decision.index is None else decision.index.find_booking_id(drift.container),
        # Decision 68: after half of a swap nothing in the books shows whose each file is.
        homes={} if drift.renamed_to is None else find_bearers(names, decision),
    )


def find_bearers(
    names: Iterable[ContainerName], decision: Decision
) -> Mapping[ContainerName, ContainerId | Literal[""]]:
    """The ID of the container that has each name; "" where none has."""
    engine = decision.snapshot.docker
    containers = engine.by_name if isinstance(engine, Engine) else {}
    return {name: containers[name].id if name in containers else "" for name in sorted(names)}


def _fingerprint_containers(
    names: Iterable[ContainerName], decision: Decision
) -> Mapping[ContainerName, ContainerFingerprint]:
    engine = decision.snapshot.docker
    if not isinstance(engine, Engine):
        return {}
    return {name: fingerprint_name(name, engine, decision.checkpoint) for name in sorted(names)}


Slots = Mapping[str, "SlotRecord | None"]


def _slots_before_after(
    drift: Drift, decision: Decision, books: ExpectedBooks, world: World
) -> tuple[Slots, Slots]:
    """The slots that a drift changes, before and after."""
    old = decision.snapshot.state
    if isinstance(old, Unreadable) and books.state is not None:
        rebuilt = books.state.without_derived().slots
        return {}, {name: record_slot(slot) for name, slot in rebuilt.items()}
    if not isinstance(old, AllocatorState):
        return {}, {}
    new = (books.state or old).without_derived()
    over = {pair for pair in old.doubled if pair[0] in drift.names}
    # What a container loses that it had by its request is shown, so that an undo can book it.
    old = replace(old, derived=old.derived - drift.taken - over).without_derived()
    if drift.of_table:
        # As the text of the file: an undo has to restore keys that ds01d does not know, too.
        ids = _changed_slots(old, new)
        texts = world.state.slot_texts(ids)
        behind = decision.index.table.device_of if decision.index is not None else {}
        remembered = decision.checkpoint.slots
        return (
            {i: record_slot(old.slots.get(i), texts.get(i, ""), remembered.get(i)) for i in ids},
            {i: record_slot(new.slots.get(i), "", behind.get(i)) for i in ids},
        )
    # Only its own slots: other drifts of this write have entries of their own.
    named = {slot for _, slot in drift.taken | drift.given | over}
    if drift.slot is not None and drift.action in _OF_SLOTS:
        named.add(drift.slot)
    return (
        {i: record_slot(old.slots.get(i)) for i in sorted(named)},
        {i: record_slot(new.slots.get(i)) for i in sorted(named)},
    )


def _changed_slots(old: AllocatorState, new: AllocatorState) -> list[SlotId]:
    ids = old.slots.keys() | new.slots.keys()
    return sorted(i for i in ids if old.slots.get(i) != new.slots.get(i))


def _mig_enabled(drift: Drift, state: object) -> bool | None:
    of_table = drift.of_table and isinstance(state, AllocatorState)
    return state.mig_enabled if of_table and isinstance(state, AllocatorState) else None
