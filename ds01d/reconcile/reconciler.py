"""A pass: load the checkpoint, observe, decide, repair, save the checkpoint; under one lock.

The daemon and ds01ctl make the same passes; a dry run stops before the repairs.
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
    """What one pass saw, decided and did, for log, metrics and status.

    `is_applied`: whether repairs were made; False in a dry run and in mode observe.
    `warnings`: what failed beside the repairs (a log, the checkpoint). `checkpoint_lost`,
    `checkpoint_unsaved`, `history_failure`: the reason, or "". `duration_s` includes the sources.
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
        """Docker, NVML (if configured), state and metadata answered; no repair needs the others."""
        needed = (Source.DOCKER, Source.NVML, Source.STATE, Source.METADATA)
        silent = [source for source in needed if self.sources[source] != "ok"]
        return not silent or (
            silent == [Source.STATE] and isinstance(self.decision.snapshot.state, Unreadable)
        )

    @property
    def is_consistent(self) -> bool:
        """No drift is open and every needed source answered. Findings do not count."""
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
        """`most_records`: metadata files that one pass writes at most; None: no limit."""
        self._world = world
        self._config = config
        self._most_records = most_records
        self._checkpoints = CheckpointStore(world.state_dir)
        self._logs = PassLogs(world)
        self._save_error = ""
        self._has_open_entries = False

    def plan(self, names: frozenset[ContainerName] | None = None) -> Report:
        """What a pass would do now. Writes nothing and takes no lock."""
        began = self._world.clock.now().boot
        checkpoint, trouble = self._checkpoints.load()
        # Decision 105: a user who may not read the checkpoint has not lost it; without this every
        # booking would look like one that may be part of a creation.
        if self._checkpoints.is_unreadable and not self._checkpoints.has_checkpoint:
            checkpoint = replace(checkpoint, acquainted=False)
        decision = self._decide(checkpoint, names)
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

        Only drifts of `kinds` are repaired and reported; the checkpoint has all of them.
        """
        began = self._world.clock.now().boot
        with self._world.state_dir.lock():
            before, broken = self._checkpoints.load()
            lost = "" if self._checkpoints.has_checkpoint else broken
            warnings, self._save_error = [broken], ""
            if broken:
                _try_action(self._checkpoints.set_aside, warnings)
            unfinished: frozenset[ContainerName] = frozenset()
            if self._config.daemon.mode == "repair":
                before, unfinished = self._recover_entries(before, warnings)
            report = self._run_locked(names, kinds, before, began, warnings, unfinished=unfinished)
            if self._config.daemon.mode == "repair" and names is None:
                self._world.state_dir.remove_leftovers()
                self._world.metadata.remove_leftovers()
            reported = tuple(gated for gated in report.drifts if gated.drift.kind in kinds)
            return replace(
                report, drifts=reported, checkpoint_lost=lost, checkpoint_unsaved=self._save_error
            )

    def _decide(self, checkpoint: Checkpoint, names: frozenset[ContainerName] | None) -> Decision:
        """Observe and decide."""
        # Decision 60: reading all processes is expensive, so only where a release is due.
        decision = decide(
            observe_host(self._world, checkpoint, self._config, names), checkpoint, self._config
        )
        if not decision.ids_to_probe:
            return decision
        living = self._world.processes.find_living(decision.ids_to_probe)
        if not living:
            return decision
        return decide(replace(decision.snapshot, living=living), checkpoint, self._config)

    def _recover_entries(
        self, before: Checkpoint, warnings: list[str]
    ) -> tuple[Checkpoint, frozenset[ContainerName]]:
        """Close the history entries of killed processes first.

        Gives the checkpoint after that, and the names with an unfinished rename.
        """
        recovered = recover_entries(
            self._world, before, self._checkpoints.save, left_open=self._has_open_entries
        )
        self._has_open_entries = bool(recovered.warnings)
        warnings += recovered.warnings
        return recovered.checkpoint, recovered.unfinished

    def _save_checkpoint(self, checkpoint: Checkpoint, warnings: list[str]) -> bool:
        """Save the checkpoint; gives whether it is in the file."""
        try:
            self._checkpoints.save(checkpoint)
        except Ds01Error as error:
            self._save_error = f"the checkpoint was not saved, this process keeps it: {error}"
            warnings.append(self._save_error)
            return False
        return True

    def _run_locked(
        self,
        names: frozenset[ContainerName] | None,
        kinds: frozenset[Kind],
        before: Checkpoint,
        began: Boot,
        warnings: list[str],
        *,
        unfinished: frozenset[ContainerName],
    ) -> Report:
        decision = self._decide(before, names)
        if self._config.daemon.mode == "observe":
            self._save_checkpoint(decision.checkpoint, warnings)
            return self._build_report(
                decision, decision.gated, decision.checkpoint, began, warnings, settled=False
            )
        wanted, later = self._limit_records(
            [drift for drift in decision.due_drifts if drift.kind in kinds]
        )
        withheld = {d.key: _UNFINISHED_RENAME for d in wanted if d.names & unfinished}
        repairs = self._repair_due(decision, wanted, before, warnings, withheld)
        now = self._world.clock.now().boot
        gated = tuple(
            _defer_to_next_pass(result, now) if result.drift.key in later else result
            for result in _apply_results(decision, repairs, now, self._config)
        )
        checkpoint = _next_checkpoint(decision, repairs, self._config)
        saved = self._save_checkpoint(checkpoint, warnings)
        if repairs.open_entries and saved:
            done = dict.fromkeys(repairs.open_entries)
            saved = _try_action(lambda: history.close_entries(self._world, done), warnings)
        if repairs.has_unfinished or (repairs.open_entries and not saved):
            self._has_open_entries = True
        warnings += self._logs.append_lines(decision, repairs)
        report = self._build_report(decision, gated, checkpoint, began, warnings, settled=True)
        return replace(report, history_failure=repairs.history_failure)

    def _limit_records(self, due: list[Drift]) -> tuple[list[Drift], frozenset[DriftKey]]:
        """The drifts to repair now, and the keys of those for the next pass."""
        # Decision 59: after a loss of all metadata a release must not wait for thousands of files.
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
        warnings: list[str],
        withheld: dict[DriftKey, str],
    ) -> RepairResult:
        """Repair `wanted`; `withheld`: keys of drifts that are not repaired, with the reason."""
        if not wanted:
            self._save_last_good(decision, warnings)
            return RepairResult()
        now, policy = decision.snapshot.now, self._config.policy
        paced = [d for d in wanted if d.taken and not d.destroyed and d.key not in withheld]
        # Releases that count for the pace are saved before they are made: a process that is killed
        # again and again would otherwise release without a limit.
        try:
            if paced:
                self._checkpoints.save(count_releases(decision.checkpoint, paced, policy, now))
        except Ds01Error as error:
            withheld |= {d.key: f"checkpoint: {error}" for d in paced}
        due = [d for d in wanted if d.key not in withheld]
        repairs = repair_drifts(decision, due, before, self._world, self._config)
        warnings += repairs.warnings
        return replace(repairs, failed={**repairs.failed, **withheld})

    def _save_last_good(self, decision: Decision, warnings: list[str]) -> None:
        """Copy a valid state file, to rebuild from."""
        if isinstance(decision.snapshot.state, AllocatorState):
            _try_action(self._world.state.save_last_good, warnings)

    def _build_report(
        self,
        decision: Decision,
        gated: Sequence[GatedDrift],
        checkpoint: Checkpoint,
        began: Boot,
        warnings: Sequence[str],
        *,
        settled: bool,
    ) -> Report:
        return Report(
            decision=decision,
            drifts=tuple(gated),
            findings=decision.findings,
            sources=decision.snapshot.sources(),
            checkpoint=checkpoint,
            is_sweep=decision.snapshot.names is None,
            is_applied=settled,
            duration_s=self._world.clock.now().boot - began,
            warnings=tuple(trouble for trouble in warnings if trouble),
        )


def _try_action(action: Callable[[], None], warnings: list[str]) -> bool:
    """Run `action`; on failure add the reason to `warnings`. Gives whether it succeeded."""
    try:
        action()
    except Ds01Error as error:
        warnings.append(str(error))
        return False
    return True


def _apply_results(
    decision: Decision, repairs: RepairResult, now: Boot, config: Config
) -> tuple[GatedDrift, ...]:
    """Each drift with its outcome."""
    done = {drift.key for drift in repairs.done}
    retry = Boot(now + config.policy.settle_s)

    def outcome(gated: GatedDrift) -> GatedDrift:
        key = gated.drift.key
        if gated.outcome is not Outcome.DUE:
            return gated
        if key in repairs.failed:
            reason = repairs.failed[key]
            return GatedDrift(drift=gated.drift, outcome=Outcome.FAILED, reason=reason, until=retry)
        if key in done:
            return GatedDrift(drift=gated.drift, outcome=Outcome.DONE)
        reason = repairs.postponed.get(key, "decided again in the next pass")
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


def _next_checkpoint(decision: Decision, repairs: RepairResult, config: Config) -> Checkpoint:
    """The checkpoint of the decision, with what the repairs changed."""
    now = decision.snapshot.now
    checkpoint = count_repairs(decision.checkpoint, repairs.done, config.policy, now)
    checkpoint = count_releases(checkpoint, repairs.written, config.policy, now)
    done = {drift.key for drift in repairs.done}
    sightings = {
        key: first_seen for key, first_seen in checkpoint.sightings.items() if key not in done
    }
    renames = [drift for drift in repairs.written if drift.renamed_to is not None]
    homes = history.find_bearers(frozenset().union(*(drift.names for drift in renames)), decision)
    checkpoint = follow_renames(
        checkpoint, {name: bearer or None for name, bearer in homes.items()}
    )
    ours = {
        name
        for drift in repairs.written
        for name, _ in drift.given
        if drift.renamed_to is None or name not in checkpoint.appeared
    }
    ours_now = BookingFirstSeen(at=now.boot, inherited=True)
    appeared = dict(checkpoint.appeared) | dict.fromkeys(ours, ours_now)
    return replace(
        checkpoint,
        sightings=sightings,
        appeared=appeared,
        slots=_slot_devices(decision, done, checkpoint),
    )


def _slot_devices(
    decision: Decision, done: set[DriftKey], checkpoint: Checkpoint
) -> Mapping[SlotId, DeviceUuid]:
    """The device of each slot in the file now."""
    # While a repair of the table is open the file still has the former slots (decision 4).
    if decision.index is None:
        return checkpoint.slots
    table = decision.index.table
    pending = [d for d in table.drifts if d.key not in done and d.of_table]
    if pending:
        return checkpoint.slots
    devices = {**checkpoint.slots, **table.device_of}
    return {slot: devices[slot] for slot in table.slots if slot in devices}
