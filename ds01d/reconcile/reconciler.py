"""A pass: load memory, observe, decide, gate, settle, save memory; under one lock.

Stateless in itself. The daemon and ds01ctl make the same passes; a dry one stops before settling.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ds01d.config import Config
from ds01d.decide.decision import Decision, decide
from ds01d.decide.gate import count_releases, count_repairs
from ds01d.decide.renames import follow_renames
from ds01d.errors import Ds01Error
from ds01d.model.books import AllocatorState, Unreadable
from ds01d.model.checkpoint import BookingFirstSeen, Checkpoint
from ds01d.model.drift import Drift, DriftKey, Finding, GatedDrift, Kind, Outcome, WaitReason
from ds01d.model.primitives import Boot, ContainerName, DeviceUuid, SlotId, Source
from ds01d.reconcile import history
from ds01d.reconcile.checkpoint_store import CheckpointStore
from ds01d.reconcile.observe import observe_host
from ds01d.reconcile.pass_logs import PassLogs
from ds01d.reconcile.ports import World
from ds01d.reconcile.recovery import recover_entries
from ds01d.reconcile.repair import RepairResult, repair_drifts

EVERY_KIND = frozenset(Kind)
_UNFINISHED_RENAME = "an earlier rename was recorded only in part; finishing it failed so far"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one pass saw, decided and did: one frozen result per drift, for log, metrics and status.

    `troubles`: what went wrong beside the repairs (a log that cannot be written, a lost memory).
    `memory_lost`, `memory_unsaved`, `no_history`: why, if that is so; "" otherwise.
    `duration_s` in seconds, the sources' answers included.
    """

    decision: Decision
    drifts: tuple[GatedDrift, ...]
    findings: tuple[Finding, ...]
    sources: Mapping[Source, str]
    checkpoint: Checkpoint
    is_sweep: bool
    is_applied: bool
    duration_s: float
    warnings: tuple[str, ...] = ()
    checkpoint_lost: str = ""
    checkpoint_unsaved: str = ""
    history_failure: str = ""

    @property
    def needed_sources_ok(self) -> bool:
        """Docker, NVML (if wanted), state and metadata answered; the others are witnesses."""
        needed = (Source.DOCKER, Source.NVML, Source.STATE, Source.METADATA)
        silent = [source for source in needed if self.sources[source] != "ok"]
        return not silent or (
            silent == [Source.STATE] and isinstance(self.decision.snapshot.state, Unreadable)
        )

    @property
    def is_consistent(self) -> bool:
        """Nothing due, held or failed, and every needed source answered. Findings do not count."""
        return self.needed_sources_ok and all(g.outcome is Outcome.DONE for g in self.drifts)

    @property
    def waits_for_time(self) -> bool:
        """Something is held for time alone: waiting is enough."""
        return any(
            g.outcome is Outcome.DUE
            or (g.outcome is Outcome.WAITING and g.gate is not None and g.gate.ends_by_itself)
            for g in self.drifts
        )


class Reconciler:
    """Makes passes over one world with one configuration."""

    def __init__(self, world: World, config: Config, *, most_records: int | None = None) -> None:
        """`most_records`: of metadata alone so many files are written in one pass; None: all."""
        self._world = world
        self._config = config
        self._most_records = most_records
        self._checkpoints = CheckpointStore(world.state_dir)
        self._logs = PassLogs(world)
        self._save_error = ""
        self._has_open_entries = False

    def plan(self, names: frozenset[ContainerName] | None = None) -> Report:
        """What a pass would do now. Writes nothing anywhere and takes no lock.

        Who may not read the memory has not lost it: to them no booking looks as if just made.
        """
        began = self._world.clock.now().boot
        memory, trouble = self._checkpoints.load()
        if self._checkpoints.is_unreadable and not self._checkpoints.has_checkpoint:
            memory = replace(memory, acquainted=False)
        decision = self._decide(memory, names)
        report = self._build_report(
            decision, decision.gated, decision.checkpoint, began, [trouble], settled=False
        )
        return replace(report, checkpoint_lost="" if self._checkpoints.has_checkpoint else trouble)

    def run(
        self,
        names: frozenset[ContainerName] | None = None,
        kinds: frozenset[Kind] = EVERY_KIND,
    ) -> Report:
        """One pass over `names`, or a sweep. Raises `LockTimeout` if another pass does not end.

        Of the drifts only `kinds` are settled and reported; all are decided upon and remembered.
        """
        began = self._world.clock.now().boot
        with self._world.state_dir.lock():
            before, broken = self._checkpoints.load()
            lost = "" if self._checkpoints.has_checkpoint else broken
            troubles, self._save_error = [broken], ""
            if broken:
                _try_action(self._checkpoints.set_aside, troubles)
            unfinished: frozenset[ContainerName] = frozenset()
            if self._config.daemon.mode == "repair":
                before, unfinished = self._recover_entries(before, troubles)
            report = self._run_locked(names, kinds, before, began, troubles, unfinished=unfinished)
            if self._config.daemon.mode == "repair" and names is None:
                self._world.state_dir.remove_leftovers()
                self._world.metadata.remove_leftovers()
            reported = tuple(gated for gated in report.drifts if gated.drift.kind in kinds)
            return replace(
                report, drifts=reported, checkpoint_lost=lost, checkpoint_unsaved=self._save_error
            )

    def _decide(self, memory: Checkpoint, names: frozenset[ContainerName] | None) -> Decision:
        """Observe and decide. The host's processes are looked at only where something is due."""
        decision = decide(
            observe_host(self._world, memory, self._config, names), memory, self._config
        )
        if not decision.ids_to_probe:
            return decision
        living = self._world.processes.find_living(decision.ids_to_probe)
        if not living:
            return decision
        return decide(replace(decision.snapshot, living=living), memory, self._config)

    def _recover_entries(
        self, before: Checkpoint, troubles: list[str]
    ) -> tuple[Checkpoint, frozenset[ContainerName]]:
        """What a process that was killed left open is closed before anything else is done.

        Gives also the names that it could not be finished for.
        """
        recovered = recover_entries(
            self._world, before, self._checkpoints.save, left_open=self._has_open_entries
        )
        self._has_open_entries = bool(recovered.warnings)
        troubles += recovered.warnings
        return recovered.checkpoint, recovered.unfinished

    def _save_checkpoint(self, memory: Checkpoint, troubles: list[str]) -> bool:
        """Save the memory; where that fails this process goes on with it. Whether it is saved."""
        try:
            self._checkpoints.save(memory)
        except Ds01Error as error:
            self._save_error = f"the checkpoint was not saved, this process keeps it: {error}"
            troubles.append(self._save_error)
            return False
        return True

    def _run_locked(
        self,
        names: frozenset[ContainerName] | None,
        kinds: frozenset[Kind],
        before: Checkpoint,
        began: Boot,
        troubles: list[str],
        *,
        unfinished: frozenset[ContainerName],
    ) -> Report:
        decision = self._decide(before, names)
        if self._config.daemon.mode == "observe":
            self._save_checkpoint(decision.checkpoint, troubles)
            return self._build_report(
                decision, decision.gated, decision.checkpoint, began, troubles, settled=False
            )
        wanted, later = self._limit_records(
            [drift for drift in decision.due_drifts if drift.kind in kinds]
        )
        withheld = {d.key: _UNFINISHED_RENAME for d in wanted if d.names & unfinished}
        settled = self._repair_due(decision, wanted, before, troubles, withheld)
        now = self._world.clock.now().boot
        gated = tuple(
            _defer_to_next_pass(result, now) if result.drift.key in later else result
            for result in _apply_results(decision, settled, now, self._config)
        )
        memory = _next_checkpoint(decision, settled, self._config)
        saved = self._save_checkpoint(memory, troubles)
        if settled.open_entries and saved:
            done = dict.fromkeys(settled.open_entries)
            saved = _try_action(lambda: history.close_entries(self._world, done), troubles)
        if settled.has_unfinished or (settled.open_entries and not saved):
            self._has_open_entries = True
        troubles += self._logs.append_lines(decision, settled)
        report = self._build_report(decision, gated, memory, began, troubles, settled=True)
        return replace(report, history_failure=settled.history_failure)

    def _limit_records(self, due: list[Drift]) -> tuple[list[Drift], frozenset[DriftKey]]:
        """What to settle now, and what in the next pass, so that many files keep nobody waiting."""
        if self._most_records is None:
            return due, frozenset()
        records = [drift.key for drift in due if drift.of_metadata]
        later = frozenset(records[self._most_records :])
        return [drift for drift in due if drift.key not in later], later

    def _repair_due(
        self,
        decision: Decision,
        wanted: Sequence[Drift],
        before: Checkpoint,
        troubles: list[str],
        withheld: dict[DriftKey, str],
    ) -> RepairResult:
        """Settle `wanted`, which is due, but for what is `withheld` with its reason.

        Releases that count for the pace are remembered before they are made: no crash forgets them.
        """
        if not wanted:
            self._save_last_good(decision, troubles)
            return RepairResult()
        now, policy = decision.snapshot.now, self._config.policy
        paced = [d for d in wanted if d.taken and not d.destroyed and d.key not in withheld]
        try:
            if paced:
                self._checkpoints.save(count_releases(decision.checkpoint, paced, policy, now))
        except Ds01Error as error:
            withheld |= {d.key: f"memory: {error}" for d in paced}
        due = [d for d in wanted if d.key not in withheld]
        settled = repair_drifts(decision, due, before, self._world, self._config)
        troubles += settled.warnings
        return replace(settled, failed={**settled.failed, **withheld})

    def _save_last_good(self, decision: Decision, troubles: list[str]) -> None:
        """Keep a copy of a state that is well, to rebuild from."""
        if isinstance(decision.snapshot.state, AllocatorState):
            _try_action(self._world.state.save_last_good, troubles)

    def _build_report(
        self,
        decision: Decision,
        gated: Sequence[GatedDrift],
        memory: Checkpoint,
        began: Boot,
        troubles: Sequence[str],
        *,
        settled: bool,
    ) -> Report:
        return Report(
            decision=decision,
            drifts=tuple(gated),
            findings=decision.findings,
            sources=decision.snapshot.sources(),
            checkpoint=memory,
            is_sweep=decision.snapshot.names is None,
            is_applied=settled,
            duration_s=self._world.clock.now().boot - began,
            warnings=tuple(trouble for trouble in troubles if trouble),
        )


def _try_action(action: Callable[[], None], troubles: list[str]) -> bool:
    """Whether it could be done."""
    try:
        action()
    except Ds01Error as error:
        troubles.append(str(error))
        return False
    return True


def _apply_results(
    decision: Decision, settled: RepairResult, now: Boot, config: Config
) -> tuple[GatedDrift, ...]:
    """Each drift with what became of it."""
    done = {drift.key for drift in settled.done}
    retry = Boot(now + config.policy.settle_s)

    def outcome(gated: GatedDrift) -> GatedDrift:
        key = gated.drift.key
        if gated.outcome is not Outcome.DUE:
            return gated
        if key in settled.failed:
            reason = settled.failed[key]
            return GatedDrift(drift=gated.drift, outcome=Outcome.FAILED, reason=reason, until=retry)
        if key in done:
            return GatedDrift(drift=gated.drift, outcome=Outcome.DONE)
        reason = settled.postponed.get(key, "decided afresh in the next pass")
        return GatedDrift(
            drift=gated.drift,
            outcome=Outcome.WAITING,
            gate=WaitReason.PROOF,
            reason=reason,
            until=retry,
        )

    return tuple(outcome(gated) for gated in decision.gated)


def _defer_to_next_pass(gated: GatedDrift, now: Boot) -> GatedDrift:
    return replace(
        gated,
        outcome=Outcome.WAITING,
        gate=WaitReason.PROOF,
        reason="next pass: too many metadata files for one",
        until=now,
    )


def _next_checkpoint(decision: Decision, settled: RepairResult, config: Config) -> Checkpoint:
    """The next memory: what was decided, with what was done."""
    seen = decision.snapshot.now
    memory = count_repairs(decision.checkpoint, settled.done, config.policy, seen)
    memory = count_releases(memory, settled.written, config.policy, seen)
    done = {drift.key for drift in settled.done}
    sightings = {key: seen for key, seen in memory.sightings.items() if key not in done}
    renames = [drift for drift in settled.written if drift.renamed_to is not None]
    homes = history.find_bearers(frozenset().union(*(drift.names for drift in renames)), decision)
    memory = follow_renames(memory, {name: bearer or None for name, bearer in homes.items()})
    ours = {
        name
        for drift in settled.written
        for name, _ in drift.given
        if drift.renamed_to is None or name not in memory.appeared
    }
    ours_now = BookingFirstSeen(at=seen.boot, inherited=True)
    appeared = dict(memory.appeared) | dict.fromkeys(ours, ours_now)
    return replace(
        memory, sightings=sightings, appeared=appeared, slots=_slot_devices(decision, done, memory)
    )


def _slot_devices(
    decision: Decision, done: set[DriftKey], memory: Checkpoint
) -> Mapping[SlotId, DeviceUuid]:
    """The device behind each slot, as the file has it now."""
    if decision.index is None:
        return memory.slots
    table = decision.index.table
    pending = [d for d in table.drifts if d.key not in done and d.of_table]
    if pending:
        return memory.slots
    devices = {**memory.slots, **table.device_of}
    return {slot: devices[slot] for slot in table.slots if slot in devices}
