"""The pace (invariant 6): how many releases one window allows that no `destroy` event proves. Pure.

A destroy event of the trusted engine proves a removal by itself; only inferred absences can be
wrong in bulk, so only they are paced.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ds01d.config import Policy
from ds01d.model.checkpoint import Checkpoint
from ds01d.model.drift import Drift, DriftKey
from ds01d.model.primitives import Boot, Now


@dataclass(frozen=True, slots=True)
class PaceWindow:
    """What the pace allows now: `spent` of `limit` releases in `length_s`, until `until`."""

    spent: int
    limit: int
    length_s: float
    until: Boot


def measure_window(
    checkpoint: Checkpoint, policy: Policy, now: Now, *, bookings: int
) -> PaceWindow:
    """Measure the window at `now`; `bookings`: those left, without the ones it has released."""
    # Decision 7: releases are counted before they are written, so a daemon that is killed after
    # each one keeps to the pace.
    recent = list_recent(checkpoint, policy, now)
    return PaceWindow(
        spent=len(recent),
        limit=pace_limit(policy, bookings + len(recent)),
        length_s=policy.pace_window_s,
        until=Boot(min(recent, default=now.boot) + policy.pace_window_s),
    )


def pace_limit(policy: Policy, bookings: int) -> int:
    """How many releases one window allows with so many bookings."""
    return max(policy.pace_count, int(policy.pace_fraction * bookings))


def list_recent(checkpoint: Checkpoint, policy: Policy, now: Now) -> list[Boot]:
    """The releases that count in this window."""
    return [at for at in checkpoint.released if at > now.boot - policy.pace_window_s]


def find_over_limit(
    drifts: Iterable[Drift], groups: Mapping[DriftKey, str], window: PaceWindow
) -> set[str]:
    """The groups of paced drifts that have to wait for the next window."""
    costs: dict[str, int] = {}
    for drift in drifts:
        group = groups[drift.key]
        costs[group] = costs.get(group, 0) + len(drift.taken)
    over_limit: set[str] = set()
    spent = window.spent
    # Sorted, so that the same drifts give the same choice in the next pass, in `plan` and in the
    # tests.
    for group in sorted(costs):
        # A group with more bookings than the limit may still be released, but alone.
        if spent + costs[group] > window.limit and (spent or not window.limit):
            over_limit.add(group)
        else:
            spent += costs[group]
    return over_limit


def count_releases(
    checkpoint: Checkpoint, written: Iterable[Drift], policy: Policy, now: Now
) -> Checkpoint:
    """The checkpoint with the releases that count for the pace, once they are in the state."""
    recent = list_recent(checkpoint, policy, now)
    for drift in written:
        if drift.is_paced:
            recent.extend([now.boot] * len(drift.taken))
    return replace(checkpoint, released=tuple(recent))
