"""The checkpoint on the clock of now: after a reboot, or with moments that lie ahead. Pure.

No wait may become shorter or end early by it: what is not known starts again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from operator import attrgetter

from ds01d.decide.freezes import anchor_freeze, is_in_force
from ds01d.decide.gate import LONGEST_BACKOFF_S
from ds01d.model.checkpoint import Checkpoint, Freeze, Repair
from ds01d.model.primitives import Boot, Now

# `now` is read before Docker is asked.
CLOCK_SLACK_S = 1.0


def rebase_clock(checkpoint: Checkpoint, now: Now) -> Checkpoint:
    if checkpoint.boot_id != now.boot_id:
        return _carry_over_boot(checkpoint, now)
    # Decision 72: a moment in the future belongs to another clock, even under the same boot ID
    # (CRIU, a restored snapshot, a time namespace).
    if is_ahead_of_clock(checkpoint, now):
        return replace(_carry_over_boot(checkpoint, now), limits=checkpoint.limits)
    return _bound_waits(checkpoint, now)


def is_ahead_of_clock(checkpoint: Checkpoint, now: Now) -> bool:
    """Whether something is remembered that has not happened yet, by the clock as it is now.

    CLOCK_BOOTTIME is smaller than it was under the same boot ID in a time namespace (`unshare
    --time`, CRIU), in a restored snapshot of a machine, or with a checkpoint that was copied from
    elsewhere. How much time has really passed is then not known.
    """
    latest = max(_list_past_times(checkpoint), default=None)
    return latest is not None and latest > now.boot


def _list_past_times(checkpoint: Checkpoint) -> Iterable[Boot]:
    """Every moment that is remembered, but for the ends of waits, which may lie ahead."""
    identities = checkpoint.identities.values()
    times: Iterable[Boot | None] = chain(
        (
            checkpoint.passed_at,
            checkpoint.asked_at,
            checkpoint.swept_at,
            checkpoint.since,
            checkpoint.inventory_seen,
            checkpoint.inventory_changed,
        ),
        chain.from_iterable(checkpoint.gaps),
        map(attrgetter("first"), checkpoint.sightings.values()),
        checkpoint.absent.values(),
        map(attrgetter("at"), checkpoint.starts.values()),
        map(attrgetter("alive_at"), identities),
        map(attrgetter("unborn_at"), identities),
        map(attrgetter("at"), checkpoint.appeared.values()),
        map(attrgetter("missed_at"), checkpoint.appeared.values()),
        checkpoint.unlabelled.values(),
        (at for _, at in checkpoint.destroyed.values()),
        checkpoint.removing.values(),
        (moment for run in checkpoint.idle.values() for moment in (run.since, run.read_at)),
        map(attrgetter("lost"), checkpoint.device_access.values()),
        checkpoint.released,
        map(attrgetter("last"), checkpoint.repairs.values()),
    )
    # Each pass looks at thousands; without a frame of ours for each it takes a fifth of the time.
    return filter(None, times)


def _bound_waits(checkpoint: Checkpoint, now: Now) -> Checkpoint:
    """No wait that is remembered by its end lasts longer than the longest of its kind."""
    # A checkpoint that was damaged or copied must not stop repairs for longer than any wait that we
    # make ourselves.
    latest = Boot(now.boot + LONGEST_BACKOFF_S)
    if any(repair.not_before > latest for repair in checkpoint.repairs.values()):
        repairs = {
            key: replace(repair, not_before=min(repair.not_before, latest))
            for key, repair in checkpoint.repairs.items()
        }
        checkpoint = replace(checkpoint, repairs=repairs)
    if any(_is_too_long(freeze, now) for freeze in checkpoint.freezes.values()):
        freezes = {
            subject: anchor_freeze(freeze, now) if _is_too_long(freeze, now) else freeze
            for subject, freeze in checkpoint.freezes.items()
        }
        checkpoint = replace(checkpoint, freezes=freezes)
    return checkpoint


def _is_too_long(freeze: Freeze, now: Now) -> bool:
    """Whether it would still last longer than it was to last from its beginning."""
    if freeze.ends is None or freeze.until is None:
        return False
    return freeze.ends - now.boot > freeze.until - freeze.since + CLOCK_SLACK_S


def _carry_over_boot(checkpoint: Checkpoint, now: Now) -> Checkpoint:
    """Let every moment of another clock go; what does not lie on that clock stays.

    Of waits that protect somebody (pace, back-off, the GPUs' freeze) none is known to be over: they
    start again.
    """
    return Checkpoint(
        boot_id=now.boot_id,
        engine=checkpoint.engine,
        untrusted_engine=checkpoint.untrusted_engine,
        inventory=checkpoint.inventory,
        inventory_conditions=checkpoint.inventory_conditions,
        devices=checkpoint.devices,
        has_baseline=checkpoint.has_baseline,
        slots=checkpoint.slots,
        identities={
            n: replace(i, alive_at=None, unborn_at=None) for n, i in checkpoint.identities.items()
        },
        resolved=checkpoint.resolved,
        # Decision 39: how long the host was down is not known, so waits that protect somebody start
        # again instead of being forgotten.
        appeared={
            name: replace(booking, at=now.boot, inherited=True, missed_at=None)
            for name, booking in checkpoint.appeared.items()
        },
        inventory_changed=now.boot if checkpoint.inventory_changed is not None else None,
        released=(now.boot,) * len(checkpoint.released),
        repairs={k: _restart_backoff(r, now.boot) for k, r in checkpoint.repairs.items()},
        freezes={s: anchor_freeze(f, now) for s, f in checkpoint.freezes.items()},
        undone=checkpoint.undone,
    )


def _restart_backoff(repair: Repair, now: Boot) -> Repair:
    """A back-off of another clock: its wait starts again."""
    wait = min(max(0.0, repair.not_before - repair.last), LONGEST_BACKOFF_S)
    return replace(repair, last=now, not_before=Boot(now + wait))


def list_freezes_in_force(checkpoint: Checkpoint, now: Now) -> tuple[Freeze, ...]:
    """Every freeze that has not ended."""
    if not checkpoint.freezes:
        return ()
    # Times in the checkpoint count from boot, so after a reboot freezes go by the wall clock.
    same_clock = checkpoint.boot_id == now.boot_id and not is_ahead_of_clock(checkpoint, now)
    freezes = (
        freeze if same_clock else anchor_freeze(freeze, now)
        for freeze in checkpoint.freezes.values()
    )
    return tuple(freeze for freeze in freezes if is_in_force(freeze, now))
