"""Deciding, whole: from a snapshot and a memory to drifts with the gate's word, findings, moments.

Pure. The same function serves the daemon's passes, `ds01ctl plan`, `explain` and `reconcile`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ds01d.config import Config
from ds01d.decide.absence import Deadlines, former_ids, ids_of, start_keys
from ds01d.decide.diff import diff_books
from ds01d.decide.expected_books import ExpectedBooks, render_books
from ds01d.decide.findings import find_all
from ds01d.decide.gate import apply_gate
from ds01d.decide.index import BooksIndex, build_index, parse_uid
from ds01d.decide.remembered_devices import restore_remembered
from ds01d.decide.renames import NO_RENAMES, find_renames
from ds01d.decide.slot_table import SlotTable, check_plausible, follow_devices, keep_table
from ds01d.decide.undo_guard import drop_obsolete, keep_unchanged
from ds01d.decide.update_checkpoint import list_booked_names, update_checkpoint
from ds01d.decide.verdict import decide_verdict
from ds01d.model.books import AllocatorState, Unreadable
from ds01d.model.checkpoint import AnchoredTime, Checkpoint, DriftFirstSeen
from ds01d.model.containers import Engine
from ds01d.model.devices import Inventory
from ds01d.model.drift import Action, Drift, Finding, GatedDrift, Kind, Outcome, WaitReason
from ds01d.model.holding import Free, Holds, Undecided, Verdict
from ds01d.model.primitives import Boot, ContainerId, ContainerName, Digest, SlotId, Unknown
from ds01d.model.snapshot import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """All that follows from one snapshot.

    `view` is what the verdicts rest on (None where the state is unknown and there is nothing to
    compare); `moments`: when a name has to be looked at again; `memory`: the next one, before any
    settling.
    """

    snapshot: Snapshot
    index: BooksIndex | None
    verdicts: Mapping[ContainerName, Verdict]
    gated: tuple[GatedDrift, ...]
    findings: tuple[Finding, ...]
    checkpoint: Checkpoint
    recheck_at: Mapping[ContainerName, Boot]

    @property
    def due_drifts(self) -> tuple[Drift, ...]:
        return tuple(g.drift for g in self.gated if g.outcome is Outcome.DUE)

    @property
    def ids_to_probe(self) -> frozenset[ContainerId]:
        """The containers from which a due drift takes something because they are gone or stopped.

        Whether they live for the kernel has to be known first, see `Snapshot.living`.
        """
        taking = [g for g in self.gated if g.drift.takes and g.drift.renamed_to is None]
        due = {g.drift.container for g in taking if g.outcome is Outcome.DUE}
        # What a living container is to lose for its own request is another drift if somebody who
        # had its name lives: known from the first sight on, or neither would ever settle.
        due |= {
            name
            for g in taking
            if g.gate is WaitReason.SETTLE
            and (name := g.drift.container) is not None
            and isinstance(self.verdicts.get(name), Holds)
        }
        return self.find_inactive_ids(due)

    def find_inactive_ids(self, names: Iterable[ContainerName | None]) -> frozenset[ContainerId]:
        """The containers of these names that are gone or stopped, by the verdicts."""
        found: set[ContainerId] = set()
        for name in names:
            verdict = self.verdicts.get(name) if name is not None else None
            if name is None or self.index is None:
                continue
            if name in self.index.renames.orphans:
                found.add(self.index.checkpoint.identities[name].id)
            elif isinstance(verdict, Free):
                found |= ids_of(name, verdict, self.index)
            elif isinstance(verdict, Holds):
                found |= former_ids(name, self.index)
        return frozenset(found)

    def expected_books(self, due: Iterable[Drift]) -> ExpectedBooks:
        """What the books should say once `due` is settled and nothing else."""
        return (
            ExpectedBooks(state=None, records=())
            if self.index is None
            else render_books(self.index, due)
        )


def decide(seen: Snapshot, memory: Checkpoint, config: Config) -> Decision:
    """Decide a snapshot. Never raises for what a source says; what is in doubt stays undecided."""
    gpu = check_plausible(
        restore_remembered(seen.gpu, memory, seen.now)
        if isinstance(seen.gpu, Inventory)
        else seen.gpu,
        remembered=memory.devices,
        now=seen.now,
        boot_grace_s=config.policy.boot_grace_s,
    )
    seen = replace(seen, gpu=gpu)
    if isinstance(seen.state, Unreadable):
        return _decide_rebuild(seen, seen.state, memory, config)
    names = names_in_scope(seen, memory)
    memory = update_checkpoint(seen, memory, config, names)
    if isinstance(seen.state, Unknown):
        return Decision(
            snapshot=seen,
            index=None,
            verdicts={},
            gated=(),
            findings=(),
            checkpoint=replace(memory, sightings={}),
            recheck_at={},
        )
    decision = _decide_on_table(
        _build_table(seen, seen.state, memory, config), names, seen, memory, config
    )
    held = [
        g
        for g in decision.gated
        if g.drift.container is None and g.drift.of_table and g.outcome is Outcome.WAITING
    ]
    if held:  # the table may not change yet: decide on it as it is
        table = keep_table(seen.state, seen.gpu, memory.slots)
        waiting = replace(table, drifts=tuple(g.drift for g in held))
        return _decide_on_table(waiting, names, seen, memory, config)
    return decision


def names_in_scope(seen: Snapshot, memory: Checkpoint) -> tuple[ContainerName, ...]:
    """Every DS01 name that any source names; of these, those that the pass is about.

    With them go the names which their containers had before or have now: a swap is one change.
    """
    booked = list_booked_names(seen)
    records = {} if isinstance(seen.metadata, Unknown) else seen.metadata
    engine = seen.docker if isinstance(seen.docker, Engine) else None
    renames = NO_RENAMES if engine is None else find_renames(memory, engine, booked, records)
    after = frozenset(renames.previous_names)
    containers = engine.by_name if engine is not None else {}
    if seen.names is None:
        wanted = {*booked, *records, *after, *containers}
    else:
        wanted = renames.connect_names(seen.names)

    def ours(name: ContainerName) -> bool:
        if name in booked or name in records or name in after:
            return True
        return name in containers and (containers[name].labelled or parse_uid(name) is not None)

    return tuple(sorted(filter(ours, wanted)))


def _build_table(
    seen: Snapshot, state: AllocatorState, memory: Checkpoint, config: Config
) -> SlotTable:
    if not isinstance(seen.gpu, Inventory) or seen.gpu.incomplete:
        return keep_table(state, seen.gpu, memory.slots)
    return follow_devices(
        state, seen.gpu, remembered=memory.slots, whole_gpus=config.books.whole_gpus
    )


def _decide_on_table(
    table: SlotTable,
    names: tuple[ContainerName, ...],
    seen: Snapshot,
    memory: Checkpoint,
    config: Config,
) -> Decision:
    view = build_index(seen, memory, config, table)
    clock = Deadlines(view)
    verdicts = {name: decide_verdict(name, view, clock) for name in names}
    bookings = sum(map(len, view.booked_slots.values()))
    drifts = tuple(diff_books(view, verdicts))
    if memory.undone:
        memory = replace(memory, undone=drop_obsolete(keep_unchanged(view), drifts, view))
    passed = apply_gate(drifts, memory, config.policy, seen.now, bookings=bookings)
    sweep = seen.names is None
    starts = {**_keep_starts(memory, verdicts, view, sweep=sweep), **clock.used}
    kept = {} if sweep else _keep_first_seen(memory, view, verdicts)
    return Decision(
        snapshot=seen,
        index=view,
        verdicts=verdicts,
        gated=passed.gated,
        findings=tuple(find_all(view, verdicts)) if sweep else (),
        checkpoint=replace(memory, starts=starts, sightings={**kept, **passed.sightings}),
        recheck_at=_collect_rechecks(verdicts, passed.gated, seen.now.boot),
    )


def _keep_starts(
    memory: Checkpoint, verdicts: Mapping[ContainerName, Verdict], view: BooksIndex, *, sweep: bool
) -> Mapping[str, AnchoredTime]:
    """What was put on the clock for names about which this pass decides nothing."""
    undecided = {
        view.name_in_books(name) for name, said in verdicts.items() if isinstance(said, Undecided)
    }
    if sweep:
        kept = (key for name in undecided for key in start_keys(name) if key in memory.starts)
        return {key: memory.starts[key] for key in kept}
    starts = dict(memory.starts)
    for name in {name for one in verdicts for name in (one, view.name_in_books(one))} - undecided:
        for key in start_keys(name):
            starts.pop(key, None)
    return starts


def _keep_first_seen(
    memory: Checkpoint, view: BooksIndex, verdicts: Mapping[ContainerName, Verdict]
) -> Mapping[str, DriftFirstSeen]:
    """The sightings that a pass over some names says nothing about."""

    def untouched(key: str) -> bool:
        kind, _, rest = key.partition("|")
        name, _, slot = rest.rpartition("|")
        if name:
            return name not in verdicts
        there = view.table.slots.get(SlotId(slot))
        counted = kind in (Kind.WRONG_COUNT, Kind.DUPLICATE_ALLOCATION)
        return counted and there is not None and verdicts.keys().isdisjoint(there.containers)

    return {key: sighting for key, sighting in memory.sightings.items() if untouched(key)}


def _collect_rechecks(
    verdicts: Mapping[ContainerName, Verdict], gated: Iterable[GatedDrift], now: Boot
) -> Mapping[ContainerName, Boot]:
    """When each name is to be looked at again. "" stands for the whole host."""
    moments: dict[ContainerName, Boot] = {}

    def at(name: ContainerName, moment: Boot | None) -> None:
        if moment is not None and moment > now:
            moments[name] = min(moment, moments.get(name, moment))

    for name, said in verdicts.items():
        match said:
            case Holds(until=until):
                at(name, until)
            case Free(due=due):
                at(name, due)
            case _:
                pass
    for one in gated:
        if one.outcome is Outcome.WAITING:
            at(one.drift.container or ContainerName(""), one.until)
    return moments


def _decide_rebuild(
    seen: Snapshot, state: Unreadable, memory: Checkpoint, config: Config
) -> Decision:
    """A state that makes no sense is rebuilt from its last good copy, Docker, NVML and metadata.

    Only added to, never taken from: what is wrong in the copy is found by the next pass.
    """
    base = state.last_good
    if base is None:
        base = AllocatorState(slots={}, mig_enabled=False, digest=Digest(""))
    sources = [seen.docker, seen.gpu, seen.metadata]
    blocked = next((f"{s.source}: {s.reason}" for s in sources if isinstance(s, Unknown)), None)
    if seen.gpu is None and not base.slots:
        blocked = (
            "there is no last good copy, and with gpu.source = none nothing else tells the slots"
        )
    whole = replace(seen, state=base, names=None)
    names = names_in_scope(whole, memory)
    memory = update_checkpoint(whole, memory, config, names)
    table = replace(_build_table(whole, base, memory, config), drifts=())
    view = build_index(whole, memory, config, table)
    clock = Deadlines(view)
    verdicts = {name: decide_verdict(name, view, clock) for name in names}
    given: frozenset[tuple[ContainerName, SlotId]] = frozenset(
        (name, slot)
        for name, said in verdicts.items()
        if isinstance(said, Holds)
        and name not in view.renames.previous_names  # those follow as a rename
        for slot in said.slots - view.booked_slots.get(name, frozenset())
    )
    kept = sum(len(slots) for slots in view.booked_slots.values())
    drift = Drift(
        kind=Kind.UNREADABLE_STATE,
        action=Action.REBUILD,
        container=None,
        slot=None,
        reason=state.reason,
        evidence=(
            f"state: {state.reason}",
            (
                f"rebuilt: {len(table.slots)} slots, {kept} bookings of the last good copy,"
                f" {len(given)} from Docker and metadata"
            ),
        ),
        fingerprint=state.digest,
        given=given,
        blocked=blocked,
    )
    passed = apply_gate((drift,), memory, config.policy, seen.now, bookings=kept)
    starts = {**_keep_starts(memory, verdicts, view, sweep=True), **clock.used}
    return Decision(
        snapshot=seen,
        index=replace(view, snapshot=replace(whole, state=state)),
        verdicts={},
        gated=passed.gated,
        findings=(),
        checkpoint=replace(memory, starts=starts, sightings=passed.sightings),
        recheck_at=_collect_rechecks({}, passed.gated, seen.now.boot),
    )
