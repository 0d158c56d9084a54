"""The slots of a change as they were before it, on the state as it is now. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from ds01d.decide.undo_choice import Reversal, UndoContext, UndoRefusal, UndoRefusedError
from ds01d.decide.undo_states import Change, describe_slot, has_device, restrict_state
from ds01d.model.books import AllocatorState, Slot
from ds01d.model.history import SlotRecord, matches_record
from ds01d.model.primitives import ContainerName, SlotId, Unknown


def plan_state(change: Change, context: UndoContext) -> Reversal:
    changed = {
        SlotId(name): (change.before.slots[name], after)
        for name, after in change.after.slots.items()
        if change.before.slots.get(name) != after
    }
    state = context.snapshot.state
    if not isinstance(state, AllocatorState):
        raise UndoRefusedError(
            UndoRefusal.SOURCE_SILENT, f"the state cannot be read: {state.reason}"
        )
    slots, texts = dict(state.slots), {}
    for name, (before, after) in changed.items():
        current = state.slots.get(name)
        # Decision 34: a slot whose place or device changed has its whole text in the history, with
        # keys that ds01d does not know.
        if before is not None and before.text:
            require_unchanged(name, current, after)
            slots[name] = context.parse_slot(name, before.text)
            texts[name] = before.text
        elif before is None:
            require_unchanged(name, current, after)
            del slots[name]
        else:
            slots[name] = _restore_bookings(name, current, before, after, change)
    of_table = change.before.mig_enabled is not None
    mig = change.before.mig_enabled
    mig = state.mig_enabled if mig is None else mig
    # `merge` is emptied: those bookings are not what is taken back, and the next pass adds them.
    new_state = replace(state, slots=slots, mig_enabled=mig, merge=frozenset())
    _require_devices(new_state, changed, change, context)
    return Reversal(
        undoes=change.entries,
        before=restrict_state(state, changed, change.after, context.slots if of_table else {}),
        after=restrict_state(new_state, changed, change.before, texts),
        state=new_state if (slots, mig) != (dict(state.slots), state.mig_enabled) else None,
        onto=state.digest,
        texts=texts,
        taken=change.taken,
        given=change.given,
        restored={i: before.device for i, (before, _) in changed.items() if before is not None}
        if of_table
        else {},
    )


def require_unchanged(name: SlotId, current: Slot | None, after: SlotRecord | None) -> None:
    """A slot whose place or device changed goes back whole, or not at all."""
    if not matches_record(current, after):
        raise UndoRefusedError(
            UndoRefusal.BOOKS_CHANGED, f"slot {name} has changed since: {describe_slot(current)}"
        )


def _restore_bookings(
    name: SlotId, current: Slot | None, before: SlotRecord, after: SlotRecord | None, change: Change
) -> Slot:
    """A slot with its bookings as they were; those that others made since stay."""
    if current is None or after is None:
        raise UndoRefusedError(UndoRefusal.DEVICE_GONE, f"there is no slot {name} any more")
    if current.uuid != after.uuid:
        raise UndoRefusedError(
            UndoRefusal.DEVICE_GONE, f"slot {name} is another device now, {current.uuid}"
        )
    given = [holder for holder, slot in change.given if slot == name]
    taken = {holder for holder, slot in change.taken if slot == name}
    # A slot that was free then may have been given to somebody since; an undo never makes two
    # tenants of one slot.
    if given and (others := sorted(set(current.containers) - {*before.containers, *taken})):
        raise UndoRefusedError(
            UndoRefusal.SLOT_HELD, f"slot {name} is held by {', '.join(others)} now"
        )
    for holder in sorted({*given} & {*current.containers}):
        raise UndoRefusedError(
            UndoRefusal.BOOKS_CHANGED, f"{holder} is booked in slot {name} already"
        )
    for holder in sorted(taken - {*current.containers}):
        raise UndoRefusedError(
            UndoRefusal.BOOKS_CHANGED, f"{holder} is not booked in slot {name} any more"
        )
    # As the change left it: everything in it goes back, doubles and counters too.
    if after.matches(current):
        old = tuple(map(ContainerName, before.containers))
        return replace(current, containers=old, users=dict(before.users))
    if not given and not taken:
        raise UndoRefusedError(
            UndoRefusal.BOOKS_CHANGED, f"slot {name} has changed since: {describe_slot(current)}"
        )
    remaining = [holder for holder in current.containers if holder not in taken]
    returning = [ContainerName(holder) for holder in before.containers if holder in given]
    # Only the difference that the change made: counts of others since then stay.
    users = Counter(current.users)
    users.update(Counter(before.users))
    users.subtract(Counter(after.users))
    return replace(
        current,
        containers=(*remaining, *returning),
        users={user: count for user, count in users.items() if count > 0},
    )


def _require_devices(
    new_state: AllocatorState,
    changed: Mapping[SlotId, tuple[SlotRecord | None, SlotRecord | None]],
    change: Change,
    context: UndoContext,
) -> None:
    """Nobody is booked where there is no device (any more)."""
    gpu = context.snapshot.gpu
    # A change of the slot table is put back whole, devices and all.
    if gpu is None or not change.given or change.before.mig_enabled is not None:
        return
    if isinstance(gpu, Unknown):
        raise UndoRefusedError(
            UndoRefusal.SOURCE_SILENT, f"whether the devices are there is not known: {gpu.reason}"
        )
    for name in sorted({slot for _, slot in change.given} & changed.keys()):
        if not has_device(new_state.slots[name], gpu):
            slot = new_state.slots[name]
            raise UndoRefusedError(
                UndoRefusal.DEVICE_GONE, f"the device of slot {name} is gone ({slot.uuid or name})"
            )
