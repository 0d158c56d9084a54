"""Time in which nobody looked. Pure.

Every wait is there so that something is seen unchanged, or somebody has time to finish. While the
host sleeps, while ds01d is stopped (SIGSTOP, a debugger, a frozen control group), or where a
virtual machine goes on from a snapshot, CLOCK_BOOTTIME jumps: all waits would be over at once,
though nothing was observed meanwhile. So that time counts for none of them. What depends on
Docker's events starts again by itself (`Checkpoint.since`). The retention of a stopped container is
a span of time that its user was given, and goes on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ds01d.config import Config
from ds01d.model.checkpoint import Checkpoint
from ds01d.model.primitives import Boot, Now


def longest_break_s(config: Config) -> float:
    """How long no pass may have been made so that what was seen before and after is one thing."""
    return 2 * max(config.policy.absence_grace_s, config.daemon.sweep_interval_s)


def note_gap(checkpoint: Checkpoint, now: Now, config: Config) -> Checkpoint:
    """The checkpoint with this pass; if none was made for too long, without that time.

    What was seen for the first time before the gap moves along, so that it still has to be seen for
    as long as was left.
    """
    before = checkpoint.passed_at
    checkpoint = replace(checkpoint, passed_at=now.boot)
    # Decision 150: within this time a pass may simply have been late; beyond it, nobody watched.
    if before is None or now.boot - before <= longest_break_s(config):
        return checkpoint
    gap = now.boot - before
    inventory_changed, limits = checkpoint.inventory_changed, checkpoint.limits
    grace_s = config.policy.creation_grace_s
    # Kept for as long as a creation that began before may still be under way.
    gaps = (*checkpoint.gaps, (before, now.boot))
    return replace(
        checkpoint,
        gaps=tuple(
            first_seen
            for first_seen in gaps
            if watched_end(first_seen[1], grace_s, gaps) > now.boot
        ),
        sightings={
            key: replace(first_seen, first=Boot(first_seen.first + gap))
            for key, first_seen in checkpoint.sightings.items()
        },
        inventory_seen=None,
        inventory_changed=None if inventory_changed is None else Boot(inventory_changed + gap),
        limits=limits
        if limits is None or limits.settled <= before
        else replace(limits, settled=Boot(limits.settled + gap)),
    )


def watched_end(start: Boot, length_s: float, gaps: Iterable[tuple[Boot, Boot]]) -> Boot:
    """When a wait from `start` is over, if the time of gaps that it was under way in is no time."""
    end = start + length_s
    for began, ended in gaps:
        if start <= began < end:
            end += ended - began
    return Boot(end)
