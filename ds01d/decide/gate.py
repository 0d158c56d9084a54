"""The one gate: every reason to wait, in one place. Pure.

What passes is due; the rest waits, with the moment at which the wait ends (if time ends it).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ds01d.config import Policy
from ds01d.decide import undo_guard
from ds01d.decide.drift_groups import repair_groups
from ds01d.decide.engine_identity import describe_engine
from ds01d.decide.freezes import find_freeze, freeze_end
from ds01d.decide.pace import PaceWindow, find_over_limit, measure_window
from ds01d.model.checkpoint import Checkpoint, DriftFirstSeen, Repair
from ds01d.model.drift import Drift, DriftKey, GatedDrift, Outcome, WaitReason
from ds01d.model.primitives import Boot, Now

PATIENCE = 3  # after so many times the same repair, another writer must be undoing it
REPEAT_WITHIN_S = 3600.0
LONGEST_BACKOFF_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """Every drift, due or waiting; `sightings`: since when each is seen, for the checkpoint."""

    gated: tuple[GatedDrift, ...]
    sightings: Mapping[DriftKey, DriftFirstSeen]


@dataclass(frozen=True, slots=True)
class _Wait:
    gate: WaitReason
    reason: str
    until: Boot | None = None


def apply_gate(
    drifts: Iterable[Drift], checkpoint: Checkpoint, policy: Policy, now: Now, *, bookings: int
) -> GateResult:
    """Sort drifts into due and waiting. `bookings`: how many the books have, for the pace."""
    drifts = tuple(drifts)
    sightings = {drift.key: _note_first_seen(drift, checkpoint, now) for drift in drifts}
    waits = {
        drift.key: _find_wait(drift, sightings[drift.key].first, checkpoint, policy, now)
        for drift in drifts
    }
    groups = repair_groups(drifts)
    # Once before the pace, so that a group which waits spends nothing, and once after it, so that a
    # group is released whole or not at all.
    _hold_groups(drifts, waits, groups)
    window = measure_window(checkpoint, policy, now, bookings=bookings)
    waits = _apply_pace(drifts, waits, groups, window)
    _hold_groups(drifts, waits, groups)
    gated = tuple(
        GatedDrift(drift=drift, outcome=Outcome.DUE)
        if (wait := waits[drift.key]) is None
        else GatedDrift(
            drift=drift,
            outcome=Outcome.WAITING,
            gate=wait.gate,
            reason=wait.reason,
            until=wait.until,
        )
        for drift in drifts
    )
    return GateResult(gated=gated, sightings=sightings)


def _note_first_seen(drift: Drift, checkpoint: Checkpoint, now: Now) -> DriftFirstSeen:
    """Since when this very drift is seen without a break."""
    previous = checkpoint.sightings.get(drift.key)
    is_same = previous is not None and previous.fingerprint == drift.fingerprint
    first = previous.first if previous is not None and is_same else now.boot
    if drift.first_seen is not None:
        first = min(first, drift.first_seen)
    # For a container, time before `since` does not count: a boot, a start of dockerd, or a gap in
    # Docker's answers.
    return DriftFirstSeen(
        first=max(first, checkpoint.since or Boot(0.0)) if drift.container else first,
        fingerprint=drift.fingerprint,
    )


def _find_wait(
    drift: Drift, first: Boot, checkpoint: Checkpoint, policy: Policy, now: Now
) -> _Wait | None:
    # What needs a person comes first, what time ends comes last: an admin who reads that a frozen
    # drift waits for its settle time would wait for nothing.
    return _find_lasting_wait(drift, checkpoint, now) or _find_timed_wait(
        drift, first, checkpoint, policy, now
    )


def _find_lasting_wait(drift: Drift, checkpoint: Checkpoint, now: Now) -> _Wait | None:
    """The first reason that a person has to end (a freeze may have an end of its own)."""
    if drift.blocked is not None:
        return _Wait(WaitReason.BLOCKED, drift.blocked)
    freeze = find_freeze(drift, checkpoint.freezes, now)
    if freeze is not None:
        freeze_reason = f": {freeze.reason}" if freeze.reason else ""
        return _Wait(
            WaitReason.FREEZE, f"frozen by {freeze.by}{freeze_reason}", freeze_end(freeze, now)
        )
    repeated = undo_guard.find_repeated_change(drift, checkpoint.undone)
    if repeated is not None:
        entry, undone = repeated
        subject = drift.container or drift.slot or entry
        reason = f"undone by {undone.by} ({entry}); fix: ds01ctl thaw {subject}"
        return _Wait(WaitReason.UNDONE, reason)
    # Invariant 7: another engine does not list the trusted one's containers, so every absence that
    # it shows is worthless. What takes nothing stays allowed.
    if checkpoint.untrusted_engine is not None and drift.takes:
        engine = describe_engine(checkpoint.untrusted_engine)
        return _Wait(
            WaitReason.ENGINE,
            f"Docker engine is not the trusted one ({engine});"
            " fix, if intended: ds01ctl thaw --engine",
        )
    return None


def _find_timed_wait(
    drift: Drift, first: Boot, checkpoint: Checkpoint, policy: Policy, now: Now
) -> _Wait | None:
    """The first reason that ends at a known moment."""
    changed = checkpoint.inventory_changed
    # While an admin repartitions MIG, slots come and go for minutes; a release in between would
    # follow a layout that is not final.
    steady_at = Boot(changed + policy.freeze_s) if changed is not None else None
    if steady_at is not None and now.boot < steady_at and (drift.takes or drift.of_table):
        return _Wait(
            WaitReason.INVENTORY, "the GPUs or the MIG layout have just changed", steady_at
        )
    if drift.earliest is not None and now.boot < drift.earliest:
        return _Wait(WaitReason.PROOF, "absence not proven yet, or hold not over", drift.earliest)
    # A debounce: other writers change several files one after another, and their half-done work
    # must not be repaired. Urgent drifts restore what our own write lost.
    settled_at = Boot(first + policy.settle_s)
    if now.boot < settled_at and not drift.urgent:
        return _Wait(WaitReason.SETTLE, "settle time not over", settled_at)
    # Invariant 13: two programs that repair each other's work in turns would write for ever.
    repair = checkpoint.repairs.get(drift.repair_key)
    if repair is not None and now.boot < repair.not_before:
        return _Wait(
            WaitReason.BACKOFF,
            f"repaired {repair.times} times, but another writer undoes the repair",
            repair.not_before,
        )
    return None


def _hold_groups(
    drifts: tuple[Drift, ...], waits: dict[DriftKey, _Wait | None], groups: Mapping[DriftKey, str]
) -> None:
    """If part of a group waits, all of it does."""
    group_waits: dict[str, _Wait] = {}
    for drift in drifts:
        wait = waits[drift.key]
        if wait is not None:
            group_waits.setdefault(groups[drift.key], wait)
    for drift in drifts:
        if waits[drift.key] is None:
            waits[drift.key] = group_waits.get(groups[drift.key])


def _apply_pace(
    drifts: tuple[Drift, ...],
    waits: dict[DriftKey, _Wait | None],
    groups: Mapping[DriftKey, str],
    window: PaceWindow,
) -> dict[DriftKey, _Wait | None]:
    """At most so many releases without a destroy event in one window; the rest waits."""
    paced = [drift for drift in drifts if waits[drift.key] is None and drift.is_paced]
    over_limit = find_over_limit(paced, groups, window)
    wait = _Wait(
        WaitReason.PACE,
        f"{window.limit} releases without a destroy event in {window.length_s:.0f} s are the limit",
        window.until,
    )
    return waits | {drift.key: wait for drift in paced if groups[drift.key] in over_limit}


def count_repairs(
    checkpoint: Checkpoint, done: Iterable[Drift], policy: Policy, now: Now
) -> Checkpoint:
    """The checkpoint after some repairs: they are counted.

    One that has to be repeated again and again waits longer each time.
    """
    repairs = {
        key: repair
        for key, repair in checkpoint.repairs.items()
        if now.boot - max(repair.last, repair.not_before) < REPEAT_WITHIN_S
    }
    for drift in done:
        key = drift.repair_key
        times = repairs[key].times + 1 if key in repairs else 1
        # Exponential back-off, but only from the third time on: twice the same repair is ordinary
        # after a crash.
        extra = max(policy.settle_s, 1.0) * 2.0 ** (times - 1) if times >= PATIENCE else 0.0
        wait = min(extra, LONGEST_BACKOFF_S)
        repairs[key] = Repair(times=times, last=now.boot, not_before=Boot(now.boot + wait))
    return replace(checkpoint, repairs=repairs)
