"""What a pass leaves: each drift's outcome after the repairs, and the next checkpoint. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from ds01d.config import Config
from ds01d.decide.booking_ages import follow_changes
from ds01d.decide.decision import Decision
from ds01d.decide.gate import count_repairs
from ds01d.decide.pace import count_releases
from ds01d.decide.renames import follow_renames
from ds01d.decide.slot_table import SlotTable
from ds01d.model.books import AllocatorState
from ds01d.model.checkpoint import Checkpoint, Holding
from ds01d.model.containers import Engine
from ds01d.model.drift import Drift, DriftKey, GatedDrift, Outcome, WaitReason
from ds01d.model.primitives import Boot, DeviceUuid, SlotId
from ds01d.reconcile.history_entries import find_bearers
from ds01d.reconcile.repair import RepairResult


def apply_results(
    decision: Decision, repairs: RepairResult, later: frozenset[DriftKey], now: Boot, config: Config
) -> tuple[GatedDrift, ...]:
    """Each drift with its outcome. `later`: those that the pass left to the next one."""
    done = {drift.key for drift in repairs.done}
    retry = Boot(now + config.policy.settle_s)

    def apply_result(gated: GatedDrift) -> GatedDrift:
        drift, key = gated.drift, gated.drift.key
        if gated.outcome is not Outcome.DUE:
            return gated
        if key in repairs.failed:
            reason = repairs.failed[key]
            return GatedDrift(drift=drift, outcome=Outcome.FAILED, reason=reason, until=retry)
        if key in done:
            return GatedDrift(drift=drift, outcome=Outcome.DONE)
        reason = repairs.postponed.get(key, "decided again in the next pass")
        if key in later:
            reason = "next pass: too many metadata files for one"
        return GatedDrift(
            drift=drift,
            outcome=Outcome.WAITING,
            gate=WaitReason.PROOF,
            reason=reason,
            until=now if key in later else retry,
        )

    return tuple(map(apply_result, decision.gated))


def build_checkpoint(decision: Decision, repairs: RepairResult, config: Config) -> Checkpoint:
    """The checkpoint of the decision, with what the repairs changed."""
    now = decision.snapshot.now
    checkpoint = count_repairs(decision.checkpoint, repairs.done, config.policy, now)
    checkpoint = count_releases(checkpoint, repairs.written, config.policy, now)
    checkpoint = _end_holdings(decision, repairs.done, checkpoint)
    done = {drift.key for drift in repairs.done}
    renames = [drift for drift in repairs.written if drift.renamed_to is not None]
    homes = find_bearers(frozenset().union(*(drift.names for drift in renames)), decision)
    checkpoint = follow_renames(
        checkpoint, {name: bearer or None for name, bearer in homes.items()}
    )
    table = _find_written_table(decision, done)
    is_repaired = table is not None and any(drift.of_table for drift in repairs.done)
    return replace(
        checkpoint,
        sightings={key: first for key, first in checkpoint.sightings.items() if key not in done},
        appeared=follow_changes(
            checkpoint.appeared,
            taken=frozenset().union(*(drift.taken for drift in repairs.written)),
            given=frozenset().union(*(drift.given for drift in repairs.written)),
            moved=table.moved if table is not None and is_repaired else {},
            at=now.boot,
        ),
        slots=checkpoint.slots if table is None else _find_slot_devices(table, checkpoint),
    )


def _end_holdings(decision: Decision, done: Iterable[Drift], checkpoint: Checkpoint) -> Checkpoint:
    """With Docker as the books: what was released is not theirs any more."""
    # Decision 203: their requests still name it, so the end has to be remembered.
    state, docker = decision.snapshot.state, decision.snapshot.docker
    if not isinstance(state, AllocatorState):
        return checkpoint
    # Decision 375: by its device, since a name may be that of several, one after the other.
    ended = {
        (name, state.slots[slot].uuid)
        for drift in done
        if drift.renamed_to is None
        for name, slot in drift.taken & state.derived
    }
    if not ended:
        return checkpoint
    listed = docker.containers if isinstance(docker, Engine) else {}

    def is_over(holding: Holding) -> bool:
        return any((holding.name, device) in ended for device in holding.devices or ())

    holdings = {
        id_: replace(holding, devices=None) if is_over(holding) else holding
        for id_, holding in checkpoint.holdings.items()
        if id_ in listed or not is_over(holding)
    }
    return replace(checkpoint, holdings=holdings)


def _find_written_table(decision: Decision, done: set[DriftKey]) -> SlotTable | None:
    """The slots, if the file has them now."""
    # While a repair of the table is open the file still has the former slots (decision 4).
    if decision.index is None:
        return None
    table = decision.index.table
    pending = [d for d in table.drifts if d.key not in done and d.of_table]
    return None if pending else table


def _find_slot_devices(table: SlotTable, checkpoint: Checkpoint) -> Mapping[SlotId, DeviceUuid]:
    devices = {**checkpoint.slots, **table.device_of}
    return {slot: devices[slot] for slot in table.slots if slot in devices}
