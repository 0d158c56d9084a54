"""The checkpoint that follows from the last one and a snapshot, before anything is decided. Pure.

All waiting is counted on CLOCK_BOOTTIME from moments set here, once, at first sight. Nothing here
judges a container; it only records when each thing was first seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from ds01d.config import Config
from ds01d.decide.booking_ages import note_bookings
from ds01d.decide.checkpoint_clock import rebase_clock
from ds01d.decide.creations import anchor_creations
from ds01d.decide.engine_identity import is_upgraded, same_engine
from ds01d.decide.freezes import is_in_force
from ds01d.decide.gaps import longest_break_s, note_gap
from ds01d.decide.inventory_places import inventory_fingerprint
from ds01d.decide.limits_age import note_limits
from ds01d.decide.name_history import NameHistory
from ds01d.decide.pass_scope import PassScope
from ds01d.decide.remembered_devices import inventory_conditions
from ds01d.decide.renames import find_bound_container
from ds01d.decide.request_resolution import needs_resolution, resolve_request
from ds01d.model.books import AllocatorState
from ds01d.model.checkpoint import Checkpoint, Resolved
from ds01d.model.containers import Container, Engine, State
from ds01d.model.devices import Inventory
from ds01d.model.primitives import Boot, ContainerId, Now, Unknown
from ds01d.model.snapshot import Snapshot


def update_checkpoint(
    snapshot: Snapshot, checkpoint: Checkpoint, config: Config, scope: PassScope
) -> Checkpoint:
    """The checkpoint with what `snapshot` adds for a pass, before anything is decided.

    `scope`: what `find_scope` gives for the two.
    """
    now = snapshot.now
    # Before the clock is rebased, which replaces the boot ID.
    same_boot = checkpoint.boot_id == now.boot_id
    checkpoint = note_gap(rebase_clock(checkpoint, now), now, config)
    freezes = {s: f for s, f in checkpoint.freezes.items() if is_in_force(f, now)}
    if len(freezes) < len(checkpoint.freezes):
        checkpoint = replace(checkpoint, freezes=freezes)
    checkpoint = _update_inventory(snapshot, checkpoint)
    checkpoint = replace(
        checkpoint,
        limits=note_limits(snapshot, checkpoint.limits, config.policy),
        appeared=note_bookings(snapshot, checkpoint, scope),
    )
    # Decision 3: without Docker no absence is observed; the next answer starts every grace again
    # (`asked_at` None).
    if isinstance(snapshot.docker, Unknown):
        return replace(checkpoint, asked_at=None)
    checkpoint = _update_engine(snapshot.docker, checkpoint, now, config, same_boot=same_boot)
    return _update_names(snapshot, snapshot.docker, checkpoint, config, scope)


def _update_inventory(snapshot: Snapshot, checkpoint: Checkpoint) -> Checkpoint:
    # A GPU that does not answer is no change of the layout: the last complete inventory stays the
    # reference.
    if not isinstance(snapshot.gpu, Inventory) or snapshot.gpu.incomplete:
        return replace(checkpoint, inventory_seen=None)
    now = snapshot.now.boot
    fingerprint = inventory_fingerprint(snapshot.gpu)
    checkpoint = replace(
        checkpoint, inventory_conditions=inventory_conditions(snapshot.gpu, snapshot.now)
    )
    count = len(snapshot.gpu.gpus) + len(snapshot.gpu.migs)
    if fingerprint == checkpoint.inventory:
        seen_since = checkpoint.inventory_seen if checkpoint.inventory_seen is not None else now
        return replace(checkpoint, inventory_seen=seen_since, devices=count)
    return replace(
        checkpoint,
        inventory=fingerprint,
        inventory_seen=now,
        inventory_changed=now if checkpoint.inventory else None,
        devices=count,
    )


def _update_engine(
    engine: Engine, checkpoint: Checkpoint, now: Now, config: Config, *, same_boot: bool
) -> Checkpoint:
    """Trust the first engine; notice another; restart every wait after a gap."""
    # The first engine is trusted. Another one replaces it only by `ds01ctl thaw --engine`, or as an
    # upgrade of the same engine (decision 143).
    trusted = checkpoint.engine or engine.identity
    recognized = any(
        identity.id in engine.containers for identity in checkpoint.identities.values()
    )
    is_trusted = same_engine(trusted, engine.identity, same_boot=same_boot) or is_upgraded(
        trusted, engine.identity, same_boot=same_boot, recognized=recognized
    )
    # A gap is more than a failed call: a restarted dockerd or a pause of ds01d can also hide a
    # removal and a new creation (decision 3).
    gap = (
        checkpoint.asked_at is None
        or now.boot - checkpoint.asked_at > longest_break_s(config)
        or (checkpoint.instance and engine.instance and checkpoint.instance != engine.instance)
    )
    since = now.boot if gap else max(checkpoint.since or Boot(0.0), engine.since)
    return replace(
        checkpoint,
        asked_at=now.boot,
        since=since,
        instance=engine.instance or checkpoint.instance,
        engine=engine.identity if is_trusted else trusted,
        untrusted_engine=None if is_trusted else engine.identity,
    )


def _update_names(
    snapshot: Snapshot,
    engine: Engine,
    checkpoint: Checkpoint,
    config: Config,
    scope: PassScope,
) -> Checkpoint:
    history = NameHistory(snapshot, engine, checkpoint)
    for name in scope.names:
        container = find_bound_container(name, checkpoint, engine, scope.renames)
        if container is None:
            history.note_absent(name)
        else:
            history.note_present(name, container)
    has_seen_all = snapshot.names is None and isinstance(snapshot.state, AllocatorState)
    starts = dict(anchor_creations(snapshot, engine, checkpoint, scope.names))
    checkpoint = replace(
        checkpoint,
        has_baseline=checkpoint.has_baseline or has_seen_all,
        identities=history.identities,
        absent=history.absent,
        destroyed=history.destroyed,
        unlabelled=history.unlabelled,
        resolved=_resolve_requests(snapshot, engine, checkpoint),
        holdings=snapshot.holdings,
        removing=_track_removals(engine, checkpoint, snapshot.observed_at),
        starts={**checkpoint.starts, **starts},
    )
    # A partial pass has not seen the other names, so it may forget none of them.
    if snapshot.names is not None:
        return checkpoint
    checkpoint = replace(checkpoint, swept_at=snapshot.now.boot)
    return _forget_gone(snapshot, engine, checkpoint, config, scope)


def _resolve_requests(
    snapshot: Snapshot, engine: Engine, checkpoint: Checkpoint
) -> Mapping[ContainerId, Resolved]:
    """What the requests of living containers meant, with those that can be known now."""
    resolved = dict(checkpoint.resolved)
    for container in _containers_in_scope(snapshot, engine):
        previous = resolved.get(container.id)
        if container.state.alive and needs_resolution(container, previous):
            resolved[container.id] = resolve_request(container, snapshot, checkpoint)
    return resolved


_BEING_REMOVED: Final = (State.REMOVING, State.DEAD)


def _track_removals(
    engine: Engine, checkpoint: Checkpoint, seen_at: Boot
) -> Mapping[ContainerId, Boot]:
    """Since when containers are being removed, or left half removed."""
    return {
        container.id: checkpoint.removing.get(container.id, seen_at)
        for container in engine.containers.values()
        if container.state in _BEING_REMOVED
    }


def _containers_in_scope(snapshot: Snapshot, engine: Engine) -> Iterable[Container]:
    """The containers that this pass is about, foreign ones too."""
    if snapshot.names is None:
        return engine.containers.values()
    return [engine.by_name[name] for name in snapshot.names if name in engine.by_name]


def _forget_gone(
    snapshot: Snapshot, engine: Engine, checkpoint: Checkpoint, config: Config, scope: PassScope
) -> Checkpoint:
    """On a sweep, drop what no source names any more, so that the checkpoint does not grow.

    Another engine hides the containers of the trusted one, which come back with it.
    """
    if not isinstance(snapshot.state, AllocatorState) or isinstance(snapshot.metadata, Unknown):
        return checkpoint
    renames = scope.renames
    names = (
        scope.booked.keys()
        | snapshot.metadata.keys()
        | engine.by_name.keys()
        | renames.current_name.keys()
    )
    is_other_engine = checkpoint.untrusted_engine is not None
    oldest = snapshot.now.boot - config.policy.creation_grace_s
    return replace(
        checkpoint,
        identities={
            n: i for n, i in checkpoint.identities.items() if is_other_engine or n in names
        },
        absent={n: at for n, at in checkpoint.absent.items() if n in names},
        destroyed={n: d for n, d in checkpoint.destroyed.items() if n in names},
        unlabelled={
            n: at
            for n, at in checkpoint.unlabelled.items()
            if at >= oldest or n in engine.by_name or n in renames.current_name
        },
        resolved={
            i: r
            for i, r in checkpoint.resolved.items()
            if is_other_engine or i in engine.containers
        },
    )
