"""Which names a pass decides, what it keeps of the others, and when it looks again. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from ds01d.decide.deadlines import start_keys
from ds01d.decide.index import BooksIndex
from ds01d.decide.ownership import parse_uid
from ds01d.decide.renames import Renames, find_renames
from ds01d.model.books import AllocatorState
from ds01d.model.checkpoint import AnchoredTime, Checkpoint, DriftFirstSeen
from ds01d.model.containers import Engine
from ds01d.model.drift import DriftKey, GatedDrift, Kind, Outcome
from ds01d.model.holding import Free, Holds, Undecided, Verdicts
from ds01d.model.primitives import Boot, ContainerName, SlotId, Unknown
from ds01d.model.snapshot import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class PassScope:
    """What a pass is about: `names`, sorted; with what they were found by.

    `booked`: every name that the state lists, or that is to be merged into it, with its slots.
    `renames`: those that the books have not followed yet, by the checkpoint of before the pass.
    """

    names: tuple[ContainerName, ...]
    booked: Mapping[ContainerName, AbstractSet[SlotId]]
    renames: Renames


def find_scope(snapshot: Snapshot, checkpoint: Checkpoint) -> PassScope:
    """Every DS01 name that any source names; of these, those that the pass is about.

    With them go the names which their containers had before or have now: a swap is one change.
    """
    booked = _list_booked_slots(snapshot)
    records = {} if isinstance(snapshot.metadata, Unknown) else snapshot.metadata
    engine = snapshot.docker if isinstance(snapshot.docker, Engine) else None
    renames = find_renames(checkpoint, snapshot, booked)
    after = frozenset(renames.previous_names)
    containers = engine.by_name if engine is not None else {}
    if snapshot.names is None:
        candidates = {*booked, *records, *after, *containers}
    else:
        # Decision 67: half of a swap must not be decided without the other half.
        candidates = renames.connect_names(snapshot.names)

    def is_ds01_name(name: ContainerName) -> bool:
        if name in booked or name in records or name in after:
            return True
        return name in containers and (containers[name].labelled or parse_uid(name) is not None)

    names = tuple(sorted(filter(is_ds01_name, candidates)))
    return PassScope(names=names, booked=booked, renames=renames)


def _list_booked_slots(snapshot: Snapshot) -> Mapping[ContainerName, AbstractSet[SlotId]]:
    booked: dict[ContainerName, set[SlotId]] = {}
    if isinstance(snapshot.state, AllocatorState):
        for slot in snapshot.state.slots.values():
            for name in slot.containers:
                booked.setdefault(name, set()).add(slot.id)
        for name, slot_id in snapshot.state.merge:
            booked.setdefault(name, set()).add(slot_id)
    return booked


def keep_starts(
    checkpoint: Checkpoint, verdicts: Verdicts, index: BooksIndex, *, sweep: bool
) -> Mapping[str, AnchoredTime]:
    """What was put on the clock for names about which this pass decides nothing."""
    undecided = {
        index.renames.name_in_books(name)
        for name, verdict in verdicts.items()
        if isinstance(verdict, Undecided)
    }
    if sweep:
        # Invariant 4: a source that fails for a while must not reset its times.
        keys = (key for name in undecided for key in start_keys(name) if key in checkpoint.starts)
        return {key: checkpoint.starts[key] for key in keys}
    starts = dict(checkpoint.starts)
    decided = {*verdicts, *map(index.renames.name_in_books, verdicts)} - undecided
    for name in decided:
        for key in start_keys(name):
            starts.pop(key, None)
    return starts


def keep_first_seen(
    checkpoint: Checkpoint, index: BooksIndex, verdicts: Verdicts
) -> Mapping[DriftKey, DriftFirstSeen]:
    """The first-seen times of drifts that a partial pass does not decide."""

    def is_outside_pass(key: DriftKey) -> bool:
        if key.container:
            return key.container not in verdicts
        slot = index.table.slots.get(key.slot)
        # Counters are compared for the slots of the pass only; what is wrong with the table as a
        # whole is found by every pass.
        is_recount = key.kind in (Kind.WRONG_COUNT, Kind.DUPLICATE_ALLOCATION)
        return is_recount and slot is not None and verdicts.keys().isdisjoint(slot.containers)

    return {key: sighting for key, sighting in checkpoint.sightings.items() if is_outside_pass(key)}


def collect_rechecks(
    verdicts: Verdicts, gated: Iterable[GatedDrift], now: Boot
) -> Mapping[ContainerName, Boot]:
    """When each name is to be looked at again. "" stands for the whole host."""
    moments: dict[ContainerName, Boot] = {}

    def note_recheck(name: ContainerName, moment: Boot | None) -> None:
        if moment is not None and moment > now:
            moments[name] = min(moment, moments.get(name, moment))

    # The end of each wait wakes the loop: without it a drift would wait for the next sweep.
    for name, verdict in verdicts.items():
        match verdict:
            case Holds(until=until):
                note_recheck(name, until)
            case Free(due=due):
                note_recheck(name, due)
            case _:
                pass
    for gated_drift in gated:
        if gated_drift.outcome is Outcome.WAITING:
            note_recheck(gated_drift.drift.container or ContainerName(""), gated_drift.until)
    return moments
