"""A pass: load the checkpoint, observe, decide, repair, save the checkpoint; under one lock.

The daemon and ds01ctl make the same passes; a dry run stops before the repairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace

from ds01d.config import Config
from ds01d.decide.decision import Decision, decide
from ds01d.decide.pace import count_releases
from ds01d.errors import Ds01Error
from ds01d.model.actor import Actor
from ds01d.model.books import AllocatorState
from ds01d.model.checkpoint import Checkpoint
from ds01d.model.drift import Drift, DriftKey, GatedDrift, Kind
from ds01d.model.primitives import Boot, ContainerId, ContainerName, Unknown
from ds01d.reconcile import history
from ds01d.reconcile.checkpoint_store import CheckpointStore
from ds01d.reconcile.observe import observe_host
from ds01d.reconcile.pass_logs import PassLogs
from ds01d.reconcile.pass_results import apply_results, build_checkpoint
from ds01d.reconcile.ports import World
from ds01d.reconcile.recovery import recover_entries
from ds01d.reconcile.repair import RepairResult, repair_drifts
from ds01d.reconcile.report import Report

EVERY_KIND = frozenset(Kind)
_UNFINISHED_RENAME = "an earlier rename was recorded only in part; finishing it failed so far"


class Reconciler:
    """Makes passes over one world with one configuration."""

    def __init__(self, world: World, config: Config, *, most_records: int | None = None) -> None:
        """`most_records`: metadata files that one pass writes at most; None: no limit."""
        self._world = world
        self._config = config
        self._most_records = most_records
        self.checkpoints = CheckpointStore(world.state_dir)
        self._logs = PassLogs(world)
        self._save_error = ""
        self._has_open_entries = False

    def act_for(self, actor: Actor) -> Reconciler:
        """One that repairs without a limit in the name of `actor`, with the same checkpoint."""
        other = copy(self)
        other._world = replace(self._world, actor=actor)  # noqa: SLF001 - a copy of its own
        other._logs = PassLogs(other._world)  # noqa: SLF001 - as above
        other._most_records = None  # noqa: SLF001 - as above
        return other

    def plan(self, names: frozenset[ContainerName] | None = None) -> Report:
        """What a pass would do now. Writes nothing and takes no lock."""
        began = self._world.clock.now().boot
        checkpoint, warning = self.checkpoints.load()
        # Decision 105: a user who may not read the checkpoint has not lost it; without this every
        # booking would look like one that may be part of a creation.
        if self.checkpoints.is_unreadable and not self.checkpoints.has_checkpoint:
            checkpoint = replace(checkpoint, has_baseline=False)
        decision = self._probe_processes(self._decide(checkpoint, names), checkpoint)
        report = self._build_report(
            decision, decision.gated, decision.checkpoint, began, [warning], is_applied=False
        )
        return replace(report, checkpoint_lost="" if self.checkpoints.has_checkpoint else warning)

    def run(
        self, names: frozenset[ContainerName] | None = None, kinds: frozenset[Kind] = EVERY_KIND
    ) -> Report:
        """One pass over `names`, or a sweep. Raises `LockTimeout` if another pass does not end.

        Only drifts of `kinds` are repaired and reported; the checkpoint has all of them.
        """
        began = self._world.clock.now().boot
        with self._world.state_dir.lock():
            before, broken = self.checkpoints.load()
            lost = "" if self.checkpoints.has_checkpoint else broken
            warnings, self._save_error = [broken], ""
            if broken:
                _try_action(self.checkpoints.set_aside, warnings)
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
        """Observe and decide, without a look for processes that live."""
        return decide(
            observe_host(self._world, checkpoint, self._config, names), checkpoint, self._config
        )

    def _probe_processes(self, decision: Decision, checkpoint: Checkpoint) -> Decision:
        """The decision by what is known of living processes, where something rests on them."""
        # Decision 60: reading all processes is expensive, so only where a release is due.
        if not decision.ids_to_probe:
            return decision
        living = self._world.processes.find_living(decision.ids_to_probe)
        return self._decide_with(living, decision, checkpoint) if living else decision

    def _decide_with(
        self,
        living: Mapping[ContainerId, int] | Unknown,
        decision: Decision,
        checkpoint: Checkpoint,
    ) -> Decision:
        return decide(replace(decision.snapshot, living=living), checkpoint, self._config)

    def _recover_entries(
        self, before: Checkpoint, warnings: list[str]
    ) -> tuple[Checkpoint, frozenset[ContainerName]]:
        """Close the history entries of killed processes first.

        Gives the checkpoint after that, and the names with an unfinished rename.
        """
        recovered = recover_entries(
            self._world, before, self.checkpoints.save, left_open=self._has_open_entries
        )
        self._has_open_entries = bool(recovered.warnings)
        warnings += recovered.warnings
        return recovered.checkpoint, recovered.unfinished

    def _save_checkpoint(self, checkpoint: Checkpoint, warnings: list[str]) -> bool:
        """Save the checkpoint; gives whether it is in the file."""
        try:
            self.checkpoints.save(checkpoint)
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
        # Decision 15: observe keeps its checkpoint, or it could never say that something would be
        # due.
        if self._config.daemon.mode == "observe":
            decision = self._probe_processes(decision, before)
            self._save_checkpoint(decision.checkpoint, warnings)
            return self._build_report(
                decision, decision.gated, decision.checkpoint, began, warnings, is_applied=False
            )
        wanted, later = self._select_due(decision, kinds)
        is_probed = bool(unfinished) or not _is_probed_by_repair(decision, wanted)
        if is_probed:
            decision = self._probe_processes(decision, before)
            wanted, later = self._select_due(decision, kinds)
        repairs = self._repair_due(
            decision, wanted, before, warnings, unfinished, is_probed=is_probed
        )
        # Decision 255: nothing was changed, and the verdict may differ by what lives.
        if repairs.living:
            decision = self._decide_with(repairs.living, decision, before)
            wanted, later = self._select_due(decision, kinds)
            repairs = self._repair_due(
                decision, wanted, before, warnings, unfinished, is_probed=True
            )
        now = self._world.clock.now().boot
        gated = apply_results(decision, repairs, later, now, self._config)
        checkpoint = build_checkpoint(decision, repairs, self._config)
        saved = self._save_checkpoint(checkpoint, warnings)
        # Decision 68: the checkpoint first, then the entry of the rename.
        if repairs.open_entries and saved:
            done = dict.fromkeys(repairs.open_entries)
            saved = _try_action(lambda: history.close_entries(self._world, done), warnings)
        # The next pass reads the whole history then, and finishes them.
        if repairs.has_unfinished or (repairs.open_entries and not saved):
            self._has_open_entries = True
        warnings += self._logs.append_lines(decision, repairs)
        report = self._build_report(decision, gated, checkpoint, began, warnings, is_applied=True)
        return replace(report, history_failure=repairs.history_failure)

    def _select_due(
        self, decision: Decision, kinds: frozenset[Kind]
    ) -> tuple[list[Drift], frozenset[DriftKey]]:
        """The drifts to repair now, and the keys of those for the next pass."""
        due = [drift for drift in decision.due_drifts if drift.kind in kinds]
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
        unfinished: frozenset[ContainerName],
        *,
        is_probed: bool,
    ) -> RepairResult:
        """Repair `wanted`, but for `unfinished` renames; `is_probed` as for `repair_drifts`."""
        # Decision 68: half a rename has the records under each other's names; anything else done to
        # them would mix two users' holds.
        withheld = {d.key: _UNFINISHED_RENAME for d in wanted if d.names & unfinished}
        if not wanted:
            # A valid file in which nothing is due: the copy to rebuild from.
            if isinstance(decision.snapshot.state, AllocatorState):
                _try_action(self._world.state.save_last_good, warnings)
            return RepairResult()
        now, policy = decision.snapshot.now, self._config.policy
        paced = [d for d in wanted if d.is_paced and d.key not in withheld]
        # Releases that count for the pace are saved before they are made: a process that is killed
        # again and again would otherwise release without a limit.
        try:
            if paced:
                self.checkpoints.save(count_releases(decision.checkpoint, paced, policy, now))
        except Ds01Error as error:
            withheld |= {d.key: f"checkpoint: {error}" for d in paced}
        due = [d for d in wanted if d.key not in withheld]
        repairs = repair_drifts(
            decision, due, before, self._world, self._config, is_probed=is_probed
        )
        warnings += repairs.warnings
        # After the repair, which is what somebody waits for.
        if repairs.written:
            _try_action(self._world.state.save_last_good, warnings)
        return replace(repairs, failed={**repairs.failed, **withheld})

    def _build_report(
        self,
        decision: Decision,
        gated: Sequence[GatedDrift],
        checkpoint: Checkpoint,
        began: Boot,
        warnings: Sequence[str],
        *,
        is_applied: bool,
    ) -> Report:
        return Report(
            decision=decision,
            drifts=tuple(gated),
            checkpoint=checkpoint,
            is_applied=is_applied,
            duration_s=self._world.clock.now().boot - began,
            warnings=tuple(warning for warning in warnings if warning),
        )


def _is_probed_by_repair(decision: Decision, wanted: Sequence[Drift]) -> bool:
    """Whether the look right before the write finds every process that the verdicts rest on."""
    # What is counted for the pace is counted before that look, and must be certain by then.
    if any(drift.is_paced for drift in wanted):
        return False
    names = {d.container for d in wanted if d.takes and d.renamed_to is None}
    return decision.find_inactive_ids(names) == decision.ids_to_probe


def _try_action(action: Callable[[], None], warnings: list[str]) -> bool:
    """Run `action`; on failure add the reason to `warnings`. Gives whether it succeeded."""
    try:
        action()
    except Ds01Error as error:
        warnings.append(str(error))
        return False
    return True
