"""Taking a change back: what would have to be written, or why it may not be. Pure.

A change is put back exactly as it was, and only if nothing newer contradicts it. What cannot be
known refuses: an admin can fix the source, or edit the books.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ds01d.decide.engine_identity import same_engine
from ds01d.decide.undo_choice import Reversal, UndoContext, UndoRefusal, UndoRefused
from ds01d.decide.undo_guard import fingerprint_container
from ds01d.decide.undo_states import describe_slot, has_device, join_states, restrict_state
from ds01d.model.books import AllocatorState, BadRecord, Record, Slot, Unreadable
from ds01d.model.checkpoint import Undone
from ds01d.model.containers import Container, Engine
from ds01d.model.drift import Action, DriftKey, Kind
from ds01d.model.history import (
    BooksState,
    ContainerFingerprint,
    HistoryEntry,
    SlotRecord,
    matches_record,
)
from ds01d.model.primitives import (
    ContainerName,
    Digest,
    SlotId,
    Unknown,
    Wall,
)


def plan_reversal(
    change: Sequence[HistoryEntry], context: UndoContext, by: str
) -> Reversal | UndoRefused:
    """What takes `change` back, on the books as they are; `by`: who asked for it."""
    return _ReversalPlanner(change, context).plan(by)


class _RefusedError(Exception):
    """It may not be; leaves `_ReversalPlanner` as its answer."""

    def __init__(self, why: UndoRefusal, reason: str) -> None:
        super().__init__(reason)
        self.refused = UndoRefused(why=why, reason=reason)


class _ReversalPlanner:
    """One change on the way back."""

    def __init__(self, change: Sequence[HistoryEntry], context: UndoContext) -> None:
        self._entries = tuple(item.entry for item in change)
        self._snapshot, self._checkpoint = context.snapshot, context.checkpoint
        self._texts, self._slot_texts = context.texts, context.slots
        self._understand = context.parse_slot
        self._names = frozenset().union(*(entry.names for entry in self._entries))
        self._before = join_states([e.before for e in self._entries])
        self._after = join_states([e.after for e in self._entries])
        # Seen from here: what the change gave is taken, what it took is given.
        self._taken = frozenset(pair for e in self._entries for pair in e.given)
        self._given = frozenset(pair for e in self._entries for pair in e.taken)

    def plan(self, by: str) -> Reversal | UndoRefused:
        try:
            containers = self._check_containers()
            records = self._check_records()
            reversal = (
                self._plan_broken_state()
                if self._before.broken or self._after.broken
                else self._plan_state()
            )
        except _RefusedError as refusal:
            return refusal.refused
        return replace(
            reversal,
            records={name: (self._before.metadata[name], onto) for name, onto in records.items()},
            before=replace(
                reversal.before, metadata={name: self._after.metadata[name] for name in records}
            ),
            after=replace(
                reversal.after, metadata={name: self._before.metadata[name] for name in records}
            ),
            containers=containers,
            hold=self._make_undone(by, containers),
        )

    # --- containers

    def _check_containers(self) -> Mapping[ContainerName, ContainerFingerprint]:
        """The containers of the change as they are now; refuses if one was recreated since."""
        if not self._names:
            return {}
        engine = self._snapshot.docker
        if isinstance(engine, Unknown):
            reason = f"whether its containers are the same is not known: {engine.reason}"
            raise _RefusedError(UndoRefusal.SOURCE_SILENT, reason)
        same_boot = self._checkpoint.boot_id == self._snapshot.now.boot_id
        trusted = self._checkpoint.engine
        if trusted is not None and not same_engine(trusted, engine.identity, same_boot=same_boot):
            raise _RefusedError(
                UndoRefusal.OTHER_ENGINE,
                "Docker engine is not the trusted one; fix, if intended: ds01ctl thaw --engine",
            )
        before = {n: recorded for e in self._entries for n, recorded in e.containers.items()}
        now: dict[ContainerName, ContainerFingerprint] = {}
        for name in sorted(self._names):
            recorded = before.get(name, ContainerFingerprint())
            now[name] = self._check_container(name, recorded, engine.by_name.get(name), engine)
        return now

    def _check_container(
        self,
        name: ContainerName,
        recorded: ContainerFingerprint,
        current: Container | None,
        engine: Engine,
    ) -> ContainerFingerprint:
        gives = any(name == who for who, _ in self._given)
        takes = any(name == who for who, _ in self._taken)
        if current is None:
            renamed = engine.containers.get(recorded.id) if recorded.id else None  # type: ignore[call-overload]
            if recorded.state and gives:
                now = f"was renamed to {renamed.name}" if renamed is not None else "is gone"
                raise _RefusedError(
                    UndoRefusal.CONTAINER_CHANGED, f"container {name} {now}: it needs no booking"
                )
            return ContainerFingerprint(id=recorded.id)
        if current.id != recorded.id:
            change = "was recreated" if recorded.id else "exists now, but did not exist then"
            raise _RefusedError(
                UndoRefusal.CONTAINER_CHANGED, f"container {name} {change} ({current.id[:12]})"
            )
        # It was stopped when it was booked and runs now: taking the booking away would free a GPU
        # in use.
        if takes and current.state.alive and not recorded.alive:
            raise _RefusedError(
                UndoRefusal.CONTAINER_CHANGED,
                f"container {name} lives now, which it did not then: its booking stays",
            )
        return fingerprint_container(current)

    # --- the state

    def _plan_state(self) -> Reversal:
        changed = {
            SlotId(name): (self._before.slots[name], after)
            for name, after in self._after.slots.items()
            if self._before.slots.get(name) != after
        }
        state = self._snapshot.state
        if not isinstance(state, AllocatorState):
            raise _RefusedError(
                UndoRefusal.SOURCE_SILENT, f"the state cannot be read: {state.reason}"
            )
        slots, texts = dict(state.slots), {}
        for name, (before, after) in changed.items():
            current = state.slots.get(name)
            if before is not None and before.text:
                self._require_unchanged(name, current, after)
                slots[name] = self._understand(name, before.text)
                texts[name] = before.text
            elif before is None:
                self._require_unchanged(name, current, after)
                del slots[name]
            else:
                slots[name] = self._restore_bookings(name, current, before, after)
        of_table = self._before.mig_enabled is not None
        mig = self._before.mig_enabled
        mig = state.mig_enabled if mig is None else mig
        new_state = replace(state, slots=slots, mig_enabled=mig, merge=frozenset())
        self._require_devices(new_state, changed)
        return Reversal(
            undoes=self._entries,
            before=restrict_state(
                state, changed, self._after, self._slot_texts if of_table else {}
            ),
            after=restrict_state(new_state, changed, self._before, texts),
            state=new_state if (slots, mig) != (dict(state.slots), state.mig_enabled) else None,
            onto=state.digest,
            texts=texts,
            taken=self._taken,
            given=self._given,
            restored={i: before.device for i, (before, _) in changed.items() if before is not None}
            if of_table
            else {},
        )

    def _require_unchanged(
        self, name: SlotId, current: Slot | None, after: SlotRecord | None
    ) -> None:
        """A slot whose place or device changed goes back whole, or not at all."""
        if not matches_record(current, after):
            raise _RefusedError(
                UndoRefusal.BOOKS_CHANGED,
                f"slot {name} has changed since: {describe_slot(current)}",
            )

    def _restore_bookings(
        self, name: SlotId, current: Slot | None, before: SlotRecord, after: SlotRecord | None
    ) -> Slot:
        """A slot with its bookings as they were; those that others made since stay."""
        if current is None or after is None:
            raise _RefusedError(UndoRefusal.DEVICE_GONE, f"there is no slot {name} any more")
        if current.uuid != after.uuid:
            raise _RefusedError(
                UndoRefusal.DEVICE_GONE, f"slot {name} is another device now, {current.uuid}"
            )
        given = [name_in_slot for name_in_slot, slot in self._given if slot == name]
        taken = {name_in_slot for name_in_slot, slot in self._taken if slot == name}
        # A slot that was free then may have been given to somebody since; an undo never makes two
        # tenants of one slot.
        if given and (others := sorted(set(current.containers) - {*before.containers, *taken})):
            raise _RefusedError(
                UndoRefusal.SLOT_HELD, f"slot {name} is held by {', '.join(others)} now"
            )
        for name_in_slot in given:
            if name_in_slot in current.containers:
                raise _RefusedError(
                    UndoRefusal.BOOKS_CHANGED, f"{name_in_slot} is booked in slot {name} already"
                )
        for name_in_slot in taken:
            if name_in_slot not in current.containers:
                raise _RefusedError(
                    UndoRefusal.BOOKS_CHANGED,
                    f"{name_in_slot} is not booked in slot {name} any more",
                )
        if after.matches(current):
            old = tuple(map(ContainerName, before.containers))
            return replace(current, containers=old, users=dict(before.users))
        if not given and not taken:
            raise _RefusedError(
                UndoRefusal.BOOKS_CHANGED,
                f"slot {name} has changed since: {describe_slot(current)}",
            )
        remaining = [
            name_in_slot for name_in_slot in current.containers if name_in_slot not in taken
        ]
        users = Counter(current.users)
        users.update(Counter(before.users))
        users.subtract(Counter(after.users))
        return replace(
            current,
            containers=(
                *remaining,
                *(
                    ContainerName(name_in_slot)
                    for name_in_slot in before.containers
                    if name_in_slot in given
                ),
            ),
            users={user: count for user, count in users.items() if count > 0},
        )

    def _require_devices(
        self,
        new_state: AllocatorState,
        changed: Mapping[SlotId, tuple[SlotRecord | None, SlotRecord | None]],
    ) -> None:
        """Nobody is booked where there is no device (any more)."""
        gpu = self._snapshot.gpu
        if gpu is None or not self._given or self._before.mig_enabled is not None:
            return
        if isinstance(gpu, Unknown):
            raise _RefusedError(
                UndoRefusal.SOURCE_SILENT,
                f"whether the devices are there is not known: {gpu.reason}",
            )
        for name in sorted({slot for _, slot in self._given} & changed.keys()):
            if not has_device(new_state.slots[name], gpu):
                slot = new_state.slots[name]
                raise _RefusedError(
                    UndoRefusal.DEVICE_GONE,
                    f"the device of slot {name} is gone ({slot.uuid or name})",
                )

    def _plan_broken_state(self) -> Reversal:
        """A state that was rebuilt becomes the broken one again, or the other way round."""
        state = self._snapshot.state
        if self._after.broken:
            return self._plan_rebuilt_state()
        if not isinstance(state, AllocatorState):
            raise _RefusedError(
                UndoRefusal.BOOKS_CHANGED, f"the state cannot be read any more: {state.reason}"
            )
        # Of these nothing was copied before the rebuild, so there is no text to restore.
        if self._before.broken.partition(":")[0] in ("missing", "oversized"):
            raise _RefusedError(
                UndoRefusal.NOTHING_KEPT, "before it there was no file that was kept"
            )
        for name in self._after.slots.keys() | state.slots.keys():
            self._require_unchanged(
                SlotId(name), state.slots.get(SlotId(name)), self._after.slots.get(name)
            )
        return Reversal(
            undoes=self._entries,
            before=BooksState(slots=self._after.slots),
            after=BooksState(broken=self._before.broken),
            onto=state.digest,
            broken=self._before.broken,
        )

    def _plan_rebuilt_state(self) -> Reversal:
        """What was rebuilt comes back from its copy, if that is the same."""
        state = self._snapshot.state
        if not isinstance(state, Unreadable) or state.digest != self._after.broken:
            raise _RefusedError(
                UndoRefusal.BOOKS_CHANGED, "the state is not the broken file any more"
            )
        last_good = state.last_good
        slots = {} if last_good is None else last_good.slots
        same_slots = slots.keys() == self._before.slots.keys()
        if not same_slots or not all(
            matches_record(slots[SlotId(n)], record) for n, record in self._before.slots.items()
        ):
            reason = (
                "the copy that was rebuilt from is gone; fix: ds01ctl thaw, then ds01d rebuilds it"
            )
            raise _RefusedError(UndoRefusal.NOTHING_KEPT, reason)
        return Reversal(
            undoes=self._entries,
            before=self._after,
            after=self._before,
            state=last_good,
            onto=state.digest,
        )

    # --- metadata

    def _check_records(self) -> Mapping[ContainerName, Digest | None]:
        """The files that the change wrote, all as it left them, with their digests."""
        metadata = self._snapshot.metadata
        if not self._after.metadata:
            return {}
        if isinstance(metadata, Unknown):
            raise _RefusedError(
                UndoRefusal.SOURCE_SILENT, f"the metadata cannot be read: {metadata.reason}"
            )
        digests: dict[ContainerName, Digest | None] = {}
        for text, after in self._after.metadata.items():
            name = ContainerName(text)
            if self._texts.get(name) != after:
                raise _RefusedError(
                    UndoRefusal.BOOKS_CHANGED, f"the metadata of {name} has changed since"
                )
            record = metadata.get(name)
            digests[name] = record.digest if isinstance(record, Record | BadRecord) else None
        return digests

    # --- what must not be done again

    def _make_undone(
        self, by: str, containers: Mapping[ContainerName, ContainerFingerprint]
    ) -> Undone | None:
        """Nothing where an undoing is taken back: that lets go of what was held."""
        # Undoing an undo does the repair again, so nothing is left to prevent.
        if any(entry.undoes for entry in self._entries):
            return None
        now: Wall = self._snapshot.now.wall
        # A broken file has no bookings to compare; the whole state is guarded by the drift's
        # fingerprint alone.
        rebuilt = any(entry.kind == Kind.UNREADABLE_STATE for entry in self._entries)
        return Undone(
            by=by,
            since=now,
            taken=frozenset() if rebuilt else self._given,
            given=frozenset() if rebuilt else self._taken,
            containers={} if rebuilt else containers,
            records=dict.fromkeys(map(ContainerName, self._after.metadata), Digest("")),
            drifts={
                DriftKey(e.kind, ContainerName(""), SlotId(e.slot or "")): e.fingerprint
                for e in self._entries
                if e.container is None and e.action != Action.NOTHING
            },
        )
