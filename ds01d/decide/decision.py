"""Deciding, whole: from a snapshot and a checkpoint to gated drifts, findings, and wake-up times.

Pure. The same function serves the daemon's passes, `ds01ctl plan`, `explain` and `reconcile`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ds01d.config import Config
from ds01d.decide.claims import bind_claimed
from ds01d.decide.deadlines import Deadlines
from ds01d.decide.device_loss import follow_access
from ds01d.decide.diff import diff_books
from ds01d.decide.diff_rebuild import diff_rebuild
from ds01d.decide.docker_books import derive_books
from ds01d.decide.expected_books import ExpectedBooks, render_books
from ds01d.decide.findings import find_all
from ds01d.decide.gate import apply_gate
from ds01d.decide.idleness import follow_idleness
from ds01d.decide.index import BooksIndex, build_index
from ds01d.decide.pass_scope import collect_rechecks, find_scope, keep_first_seen, keep_starts
from ds01d.decide.plausibility import check_plausible
from ds01d.decide.remembered_devices import restore_remembered
from ds01d.decide.slot_table import SlotTable, follow_devices, keep_table
from ds01d.decide.subject import gather_subject
from ds01d.decide.undo_guard import drop_obsolete, keep_unchanged
from ds01d.decide.update_checkpoint import update_checkpoint
from ds01d.decide.verdict import decide_verdict
from ds01d.model.books import AllocatorState, Unreadable
from ds01d.model.checkpoint import Checkpoint
from ds01d.model.devices import Inventory
from ds01d.model.drift import Drift, Finding, GatedDrift, Outcome, WaitReason
from ds01d.model.holding import Free, Holds, Verdict, Verdicts
from ds01d.model.primitives import Boot, ContainerId, ContainerName, Digest, Unknown
from ds01d.model.snapshot import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """All that follows from one snapshot.

    `index` is what the verdicts rest on; None where the state is unknown, so that there is nothing
    to compare. `recheck_at`: when a name has to be decided again, on CLOCK_BOOTTIME.
    `checkpoint`: the next one, before any repair.
    """

    snapshot: Snapshot
    index: BooksIndex | None
    verdicts: Verdicts
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
        container_ids: set[ContainerId] = set()
        for name in names:
            verdict = self.verdicts.get(name) if name is not None else None
            if name is None or self.index is None:
                continue
            if name in self.index.renames.orphans:
                container_ids.add(self.index.checkpoint.identities[name].id)
            elif isinstance(verdict, Free):
                container_ids |= gather_subject(name, self.index).find_inactive_ids(verdict)
            elif isinstance(verdict, Holds):
                container_ids |= gather_subject(name, self.index).former
        return frozenset(container_ids)

    def expected_books(self, due: Iterable[Drift]) -> ExpectedBooks:
        """What the books should say once `due` is settled and nothing else."""
        return (
            ExpectedBooks(state=None, records=())
            if self.index is None
            else render_books(self.index, due)
        )


def decide(snapshot: Snapshot, checkpoint: Checkpoint, config: Config) -> Decision:
    """Decide a snapshot. Never raises for a source's content; what is in doubt stays undecided."""
    gpu = check_plausible(
        restore_remembered(snapshot.gpu, checkpoint, snapshot.now)
        if isinstance(snapshot.gpu, Inventory)
        else snapshot.gpu,
        remembered=checkpoint.devices,
        now=snapshot.now,
        boot_grace_s=config.policy.boot_grace_s,
    )
    snapshot = derive_books(replace(snapshot, gpu=gpu), checkpoint, config)
    if isinstance(snapshot.state, Unreadable):
        return _decide_rebuild(snapshot, snapshot.state, checkpoint, config)
    checkpoint = bind_claimed(snapshot, checkpoint, config)
    scope = find_scope(snapshot, checkpoint)
    checkpoint = update_checkpoint(snapshot, checkpoint, config, scope)
    if isinstance(snapshot.state, Unknown):
        return Decision(
            snapshot=snapshot,
            index=None,
            verdicts={},
            gated=(),
            findings=(),
            checkpoint=replace(checkpoint, sightings={}),
            recheck_at={},
        )
    decision = _decide_on_table(
        _build_table(snapshot, snapshot.state, checkpoint, config),
        scope.names,
        snapshot,
        checkpoint,
        config,
    )
    waiting = [
        g
        for g in decision.gated
        if g.drift.container is None and g.drift.of_table and g.outcome is Outcome.WAITING
    ]
    # Decision 4: part of the table has to wait, so the whole table stays as it is, and bookings are
    # decided on that.
    if waiting:
        table = keep_table(snapshot.state, snapshot.gpu, checkpoint.slots)
        table = replace(table, drifts=tuple(g.drift for g in waiting))
        return _decide_on_table(table, scope.names, snapshot, checkpoint, config)
    return decision


def _build_table(
    snapshot: Snapshot, state: AllocatorState, checkpoint: Checkpoint, config: Config
) -> SlotTable:
    if not isinstance(snapshot.gpu, Inventory) or snapshot.gpu.incomplete:
        return keep_table(state, snapshot.gpu, checkpoint.slots)
    return follow_devices(
        state, snapshot.gpu, remembered=checkpoint.slots, whole_gpus=config.books.whole_gpus
    )


def _decide_on_table(
    table: SlotTable,
    names: tuple[ContainerName, ...],
    snapshot: Snapshot,
    checkpoint: Checkpoint,
    config: Config,
) -> Decision:
    index = build_index(snapshot, checkpoint, config, table)
    deadlines = Deadlines(snapshot, checkpoint)
    verdicts = _decide_names(names, index, deadlines)
    idle, access = follow_idleness(index, verdicts), follow_access(index, verdicts)
    if idle != checkpoint.idle or access != checkpoint.device_access:
        checkpoint = replace(checkpoint, idle=idle, device_access=access)
        index = replace(index, checkpoint=checkpoint)
    bookings = index.count_bookings()
    drifts = tuple(diff_books(index, verdicts))
    if checkpoint.undone:
        checkpoint = replace(checkpoint, undone=drop_obsolete(keep_unchanged(index), drifts, index))
    result = apply_gate(drifts, checkpoint, config.policy, snapshot.now, bookings=bookings)
    sweep = snapshot.names is None
    # Anchored times that no verdict used are dropped, so that the checkpoint does not grow with
    # every name that ever existed.
    starts = {**keep_starts(checkpoint, verdicts, index, sweep=sweep), **deadlines.used}
    first_seen = {} if sweep else keep_first_seen(checkpoint, index, verdicts)
    return Decision(
        snapshot=snapshot,
        index=index,
        verdicts=verdicts,
        gated=result.gated,
        findings=tuple(find_all(index, verdicts)) if sweep else (),
        checkpoint=replace(checkpoint, starts=starts, sightings={**first_seen, **result.sightings}),
        recheck_at=collect_rechecks(verdicts, result.gated, snapshot.now.boot),
    )


def _decide_names(
    names: Iterable[ContainerName], index: BooksIndex, deadlines: Deadlines
) -> dict[ContainerName, Verdict]:
    # One verdict for each name, each independent of all others: this is what lets a partial pass
    # agree with a sweep.
    return {name: decide_verdict(gather_subject(name, index), index, deadlines) for name in names}


def _decide_rebuild(
    snapshot: Snapshot, state: Unreadable, checkpoint: Checkpoint, config: Config
) -> Decision:
    """The decision on an unreadable state: nothing but its rebuild."""
    base = state.last_good
    if base is None:
        base = AllocatorState(slots={}, mig_enabled=False, digest=Digest(""))
    whole = derive_books(replace(snapshot, state=base, names=None), checkpoint, config)
    base = whole.state if isinstance(whole.state, AllocatorState) else base
    checkpoint = bind_claimed(whole, checkpoint, config)
    scope = find_scope(whole, checkpoint)
    checkpoint = update_checkpoint(whole, checkpoint, config, scope)
    table = replace(_build_table(whole, base, checkpoint, config), drifts=())
    index = build_index(whole, checkpoint, config, table)
    deadlines = Deadlines(whole, checkpoint)
    verdicts = _decide_names(scope.names, index, deadlines)
    drifts = (diff_rebuild(state, index, verdicts),)
    bookings = index.count_bookings()
    result = apply_gate(drifts, checkpoint, config.policy, snapshot.now, bookings=bookings)
    starts = {**keep_starts(checkpoint, verdicts, index, sweep=True), **deadlines.used}
    return Decision(
        snapshot=snapshot,
        index=replace(index, snapshot=replace(whole, state=state)),
        verdicts={},
        gated=result.gated,
        findings=(),
        checkpoint=replace(checkpoint, starts=starts, sightings=result.sightings),
        recheck_at=collect_rechecks({}, result.gated, snapshot.now.boot),
    )
