"""Remembering: the memory that follows from the last one and what is seen now. Pure.

All waiting is counted on CLOCK_BOOTTIME from moments set here, once, at first sight. Nothing here
judges a container; it only notes when what was seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain

from ds01d.config import Config
from ds01d.decide.absence import to_boot_time
from ds01d.decide.device_resolution import index_devices, is_lasting, resolve_devices
from ds01d.decide.engine_identity import is_upgraded, same_engine
from ds01d.decide.gaps import longest_break_s, note_gap
from ds01d.decide.gate import LONGEST_BACKOFF_S, anchor_freeze, is_in_force
from ds01d.decide.limits_age import note_limits
from ds01d.decide.remembered_devices import inventory_conditions
from ds01d.decide.renames import Renames, find_bound_container, find_renames
from ds01d.decide.slot_table import inventory_fingerprint
from ds01d.model.books import AllocatorState, Record
from ds01d.model.checkpoint import (
    AnchoredTime,
    BookingFirstSeen,
    Checkpoint,
    Freeze,
    Identity,
    Repair,
    Resolved,
)
from ds01d.model.containers import Container, Destroyed, Engine, GpuRequestKind, State
from ds01d.model.devices import Inventory
from ds01d.model.primitives import Boot, ContainerId, ContainerName, Now, SlotId, Unknown, Wall
from ds01d.model.snapshot import Snapshot


def update_checkpoint(
    snapshot: Snapshot, checkpoint: Checkpoint, config: Config, names: Iterable[ContainerName]
) -> Checkpoint:
    """The memory with what `snapshot` adds for `names`, before anything is decided."""
    now = snapshot.now
    # Before the clock is rebased, which replaces the boot ID.
    same_boot = checkpoint.boot_id == now.boot_id
    checkpoint = note_gap(_rebase_clock(checkpoint, now), now, config)
    freezes = {s: f for s, f in checkpoint.freezes.items() if is_in_force(f, now)}
    if len(freezes) < len(checkpoint.freezes):
        checkpoint = replace(checkpoint, freezes=freezes)
    checkpoint = _update_inventory(snapshot, checkpoint)
    checkpoint = replace(checkpoint, limits=note_limits(snapshot, checkpoint.limits, config.policy))
    # Decision 3: without Docker no absence is observed; the next answer starts every grace again
    # (`asked_at` None).
    if isinstance(snapshot.docker, Unknown):
        return replace(checkpoint, asked_at=None)
    checkpoint = _update_engine(snapshot.docker, checkpoint, now, config, same_boot=same_boot)
    return _update_names(snapshot, snapshot.docker, checkpoint, config, tuple(names))


def _rebase_clock(checkpoint: Checkpoint, now: Now) -> Checkpoint:
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
    --time`, CRIU), in a restored snapshot of a machine, or with a memory that was copied from
    elsewhere. How much time has really passed is then not known.
    """
    latest = max(_list_past_times(checkpoint), default=None)
    return latest is not None and latest > now.boot


def _list_past_times(checkpoint: Checkpoint) -> Iterator[Boot]:
    """Every moment that is remembered, but for the ends of waits, which may lie ahead."""
    times = (
        checkpoint.passed_at,
        checkpoint.asked_at,
        checkpoint.swept_at,
        checkpoint.since,
        checkpoint.inventory_seen,
        checkpoint.inventory_changed,
    )
    yield from (moment for moment in times if moment is not None)
    yield from chain.from_iterable(checkpoint.gaps)
    yield from (item.first for item in checkpoint.sightings.values())
    yield from checkpoint.absent.values()
    yield from (item.at for item in checkpoint.starts.values())
    for identity in checkpoint.identities.values():
        seen_at = (identity.alive_at, identity.unborn_at)
        yield from (moment for moment in seen_at if moment is not None)
    yield from (item.at for item in checkpoint.appeared.values())
    yield from checkpoint.unlabelled.values()
    yield from (at for _, at in checkpoint.destroyed.values())
    yield from checkpoint.removing.values()
    yield from checkpoint.released
    yield from (item.last for item in checkpoint.repairs.values())


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
    return freeze.ends - now.boot > freeze.until - freeze.since + _CLOCK_SLACK_S


def _carry_over_boot(checkpoint: Checkpoint, now: Now) -> Checkpoint:
    """Let every moment of another clock go; what does not lie on that clock stays.

    Of waits that protect somebody (pace, back-off, the GPUs' freeze) none is known to be over: they
    start again.
    """
    return Checkpoint(
        boot_id=now.boot_id,
        engine=checkpoint.engine,
        stranger=checkpoint.stranger,
        inventory=checkpoint.inventory,
        inventory_conditions=checkpoint.inventory_conditions,
        devices=checkpoint.devices,
        acquainted=checkpoint.acquainted,
        slots=checkpoint.slots,
        identities={
            n: replace(i, alive_at=None, unborn_at=None) for n, i in checkpoint.identities.items()
        },
        resolved=checkpoint.resolved,
        # Decision 39: how long the host was down is not known, so waits that protect somebody start
        # again instead of being forgotten.
        appeared={n: BookingFirstSeen(at=now.boot, inherited=True) for n in checkpoint.appeared},
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
        stranger=None if is_trusted else engine.identity,
    )


def _update_names(
    snapshot: Snapshot,
    engine: Engine,
    checkpoint: Checkpoint,
    config: Config,
    names: tuple[ContainerName, ...],
) -> Checkpoint:
    now, sighted = snapshot.now.boot, snapshot.sighted
    booked = list_booked_names(snapshot)
    records = frozenset() if isinstance(snapshot.metadata, Unknown) else snapshot.metadata.keys()
    renames = find_renames(checkpoint, engine, booked, records)
    # By ID, because the name of a destroyed container may already belong to another one.
    destroyed_ids = {event.id: event for event in engine.destroyed.values()}
    identities = dict(checkpoint.identities)
    absent = dict(checkpoint.absent)
    destroyed = dict(checkpoint.destroyed)
    unlabelled = dict(checkpoint.unlabelled)
    resolved = dict(checkpoint.resolved)
    appeared = {
        name: at
        for name, at in checkpoint.appeared.items()
        if name in booked or isinstance(snapshot.state, Unknown)
    }
    for name in names:
        container, identity = (
            find_bound_container(name, checkpoint, engine, renames),
            identities.get(name),
        )
        # First sight only: a moment that is set again in each pass would never become a grace that
        # is over.
        if container is None:
            if name not in absent and name in unlabelled:
                unlabelled[name] = sighted  # its last sight, if not before
            absent.setdefault(name, sighted)
            last_destroyed = engine.destroyed.get(name)
            event = last_destroyed if identity is None else destroyed_ids.get(identity.id)
            if event is not None:
                destroyed[name] = (event.id, event.at)
            if last_destroyed is not None and (
                identity is None or identity.id != last_destroyed.id
            ):
                _note_unlisted(last_destroyed, absent, unlabelled, identities)
        else:
            absent.pop(name, None)
            destroyed.pop(name, None)
            # Decision 17: wrappers create, commit and create again; each step without labels shows
            # that the creation still runs.
            if not container.labelled and _is_creation_step(
                container, identity, unlabelled.get(name)
            ):
                unlabelled[name] = sighted
            # Decision 69: the old container may still run under its new name; until its booking has
            # followed, the name keeps pointing to it.
            if not _is_running_elsewhere(name, identity, container, engine, snapshot):
                identities[name] = _update_identity(container, identity, engine, checkpoint, now)
        if name in booked:
            appeared.setdefault(
                name, BookingFirstSeen(at=sighted, inherited=not checkpoint.acquainted)
            )
    for container in _containers_in_scope(snapshot, engine):
        previous = resolved.get(container.id)
        if container.state.alive and _to_resolve(container, previous):
            resolved[container.id] = _resolve_request(container, snapshot, checkpoint)
    checkpoint = replace(
        checkpoint,
        acquainted=checkpoint.acquainted
        or (snapshot.names is None and isinstance(snapshot.state, AllocatorState)),
        identities=identities,
        absent=absent,
        destroyed=destroyed,
        unlabelled=unlabelled,
        resolved=resolved,
        removing=_track_removals(engine, checkpoint, sighted),
        appeared=appeared,
        starts={
            **checkpoint.starts,
            **dict(_anchor_creations(snapshot, engine, checkpoint, names)),
        },
    )
    # A partial pass has not seen the other names, so it may forget none of them.
    if snapshot.names is not None:
        return checkpoint
    return _forget_gone(snapshot, engine, replace(checkpoint, swept_at=now), config, renames)


def _note_unlisted(
    event: Destroyed,
    absent: dict[ContainerName, Boot],
    unlabelled: dict[ContainerName, Boot],
    identities: dict[ContainerName, Identity],
) -> None:
    """A container that came and went between two lists: its name was in use until then.

    One without labels is the step of a creation, which is not ended by a container of before.
    """
    name, at = event.name, event.at
    absent[name] = max(absent[name], at)
    if not event.labelled:
        unlabelled[name] = max(unlabelled.get(name, at), at)
        if name in identities:
            identities[name] = replace(identities[name], labelled=False, created=None)


def _track_removals(
    engine: Engine, checkpoint: Checkpoint, sighted: Boot
) -> Mapping[ContainerId, Boot]:
    """Since when containers are being removed, or left half removed."""
    return {
        container.id: checkpoint.removing.get(container.id, sighted)
        for container in engine.containers.values()
        if container.state in (State.REMOVING, State.DEAD)
    }


def _anchor_creations(
    snapshot: Snapshot, engine: Engine, checkpoint: Checkpoint, names: Iterable[ContainerName]
) -> Iterator[tuple[str, AnchoredTime]]:
    """Creations that the last sweep did not see: they began after it, whatever the clock shows.

    An allocation counts only while there is no container, which would be better evidence.
    """
    # What an admin took back has an old `allocated_at` in its restored record; it must not look
    # like a creation that has just begun.
    taken_back = {
        name for undone_change in checkpoint.undone.values() for name in undone_change.records
    }
    operations = {} if isinstance(snapshot.operations, Unknown) else snapshot.operations
    records = {} if isinstance(snapshot.metadata, Unknown) else snapshot.metadata
    for name in names:
        attempt, record = operations.get(name), records.get(name)
        if attempt is not None and attempt.latest_start is not None:
            key = f"pending|{name}"
            yield from _anchor_start(
                key, str(attempt.started), attempt.latest_start, snapshot, checkpoint
            )
        absent = name not in engine.by_name and name not in taken_back
        if absent and isinstance(record, Record) and record.allocated_at is not None:
            text = record.allocated_text or str(record.allocated_at)
            yield from _anchor_start(
                f"allocated|{name}", text, record.allocated_at, snapshot, checkpoint
            )


def _anchor_start(
    key: str, anchor: str, at: Wall, snapshot: Snapshot, checkpoint: Checkpoint
) -> Iterator[tuple[str, AnchoredTime]]:
    anchored = checkpoint.starts.get(key)
    if anchored is None or anchored.anchor != anchor:
        # After a lost checkpoint or a reboot, an old creation looks like a new one; the later
        # time only prolongs a protection.
        is_forgotten = checkpoint.swept_at is None and checkpoint.acquainted
        not_before = snapshot.now.boot if is_forgotten else checkpoint.swept_at
        yield key, AnchoredTime(anchor=anchor, at=to_boot_time(at, snapshot, not_before))


def list_booked_names(snapshot: Snapshot) -> frozenset[ContainerName]:
    """Every name that the state lists, or that is to be merged into it."""
    if not isinstance(snapshot.state, AllocatorState):
        return frozenset()
    listed = (slot.containers for slot in snapshot.state.slots.values())
    return frozenset(chain.from_iterable(listed)) | {name for name, _ in snapshot.state.merge}


def _containers_in_scope(snapshot: Snapshot, engine: Engine) -> Iterable[Container]:
    """The containers that this pass is about, foreign ones too."""
    if snapshot.names is None:
        return engine.containers.values()
    return [engine.by_name[name] for name in snapshot.names if name in engine.by_name]


def _is_creation_step(
    container: Container, identity: Identity | None, noted_at: Boot | None
) -> bool:
    """Whether an unlabelled container has just come or ended: a step of a creation, perhaps.

    One that merely stays is none, or it would be "being created" for as long as it exists.
    `before`: when one was last noted under that name.
    """
    if noted_at is None or identity is None or identity.id != container.id:
        return True
    return (
        not container.state.alive and identity.alive_at is not None and identity.alive_at > noted_at
    )


def _is_running_elsewhere(
    name: ContainerName,
    identity: Identity | None,
    container: Container,
    engine: Engine,
    snapshot: Snapshot,
) -> bool:
    """A booked name was taken by a new container while its own lives on under another one.

    Until that one is booked in all that is booked under the old name.
    """
    if identity is None or identity.id == container.id or identity.id not in engine.containers:
        return False
    if not isinstance(snapshot.state, AllocatorState):
        return isinstance(snapshot.state, Unknown)
    current_name = engine.containers[identity.id].name
    booked = _booked_slots(name, snapshot.state)
    return bool(booked) and not booked <= _booked_slots(current_name, snapshot.state)


def _booked_slots(name: ContainerName, state: AllocatorState) -> frozenset[SlotId]:
    listed = (slot.id for slot in state.slots.values() if name in slot.containers)
    return frozenset((*listed, *(slot for booked_name, slot in state.merge if booked_name == name)))


_MOST_FORMER = 4  # of a name; who replaces a container daily has no end of them


def _update_identity(
    container: Container,
    previous: Identity | None,
    engine: Engine,
    checkpoint: Checkpoint,
    now: Boot,
) -> Identity:
    former = previous.former if previous is not None else ()
    if previous is None or previous.id != container.id:
        if previous is not None and previous.id not in engine.containers:
            former = (previous.id, *former)[:_MOST_FORMER]
        previous = next((i for i in checkpoint.identities.values() if i.id == container.id), None)
    if previous is not None and not container.state.alive:
        facts = (container.labelled, container.created)
        if facts == (previous.labelled, previous.created):  # as nearly all in each sweep
            return previous
    return Identity(
        id=container.id,
        labelled=container.labelled,
        created=container.created,
        alive_at=now
        if container.state.alive
        else previous.alive_at
        if previous is not None
        else None,
        unborn_at=checkpoint.swept_at if previous is None else previous.unborn_at,
        former=former,
    )


def _to_resolve(container: Container, previous: Resolved | None) -> bool:
    """Whether what its request means has yet to be found out, or can be now though not before."""
    if previous is None or previous.started != container.started:
        return True
    request = container.request
    return previous.devices is None and not isinstance(request, Unknown) and is_lasting(request)


def _resolve_request(container: Container, snapshot: Snapshot, checkpoint: Checkpoint) -> Resolved:
    """What a living container's request means, if it can be known now.

    Names by UUID and PCI address always can. Indices and counts mean what they meant at the start:
    known only if it started while Docker and this very inventory were watched. (The observer
    takes a fresh sample for a container that was not seen living since it started.)
    """
    unresolved = Resolved(started=container.started, devices=None)
    if isinstance(container.request, Unknown) or container.request.ask is GpuRequestKind.NONE:
        return unresolved
    devices, is_lasting_request = resolve_devices(
        container.request, index_devices(snapshot.gpu, snapshot.state)
    )
    if devices is None:
        return unresolved
    is_certain = (
        is_lasting_request
        or snapshot.gpu is None
        or _was_watched(container, snapshot.now, checkpoint)
    )
    return Resolved(started=container.started, devices=devices) if is_certain else unresolved


def _was_watched(container: Container, now: Now, checkpoint: Checkpoint) -> bool:
    """Whether a container started while Docker and the inventory of now were watched."""
    if container.started is None or checkpoint.since is None or checkpoint.inventory_seen is None:
        return False
    started = now.boot - (now.wall - container.started)
    # Decision 5: an index means a device only by the inventory at the start; a renumbering before
    # it was watched would go unnoticed.
    return max(checkpoint.since, checkpoint.inventory_seen) <= started <= now.boot + _CLOCK_SLACK_S


_CLOCK_SLACK_S = 1.0  # `now` is read before Docker is asked


def _forget_gone(
    snapshot: Snapshot, engine: Engine, checkpoint: Checkpoint, config: Config, renames: Renames
) -> Checkpoint:
    """On a sweep, drop what no source names any more, so that memory does not grow.

    Another engine hides the containers of the trusted one, which come back with it.
    """
    if not isinstance(snapshot.state, AllocatorState) or isinstance(snapshot.metadata, Unknown):
        return checkpoint
    names = (
        list_booked_names(snapshot)
        | snapshot.metadata.keys()
        | engine.by_name.keys()
        | renames.current_name.keys()
    )
    is_other_engine = checkpoint.stranger is not None
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
