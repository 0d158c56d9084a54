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
    seen: Snapshot, memory: Checkpoint, config: Config, names: Iterable[ContainerName]
) -> Checkpoint:
    """The memory with what `seen` adds for `names`, before anything is decided."""
    now = seen.now
    same_boot = memory.boot_id == now.boot_id
    memory = note_gap(_rebase_clock(memory, now), now, config)
    standing = {s: f for s, f in memory.freezes.items() if is_in_force(f, now)}
    if len(standing) < len(memory.freezes):
        memory = replace(memory, freezes=standing)
    memory = _update_inventory(seen, memory)
    memory = replace(memory, limits=note_limits(seen, memory.limits, config.policy))
    if isinstance(seen.docker, Unknown):
        return replace(memory, asked_at=None)
    memory = _update_engine(seen.docker, memory, now, config, same_boot=same_boot)
    return _update_names(seen, seen.docker, memory, config, tuple(names))


def _rebase_clock(memory: Checkpoint, now: Now) -> Checkpoint:
    if memory.boot_id != now.boot_id:
        return _carry_over_boot(memory, now)
    if is_ahead_of_clock(memory, now):
        return replace(_carry_over_boot(memory, now), limits=memory.limits)
    return _bound_waits(memory, now)


def is_ahead_of_clock(memory: Checkpoint, now: Now) -> bool:
    """Whether something is remembered that has not happened yet, by the clock as it is now.

    CLOCK_BOOTTIME is smaller than it was under the same boot ID in a time namespace (`unshare
    --time`, CRIU), in a restored snapshot of a machine, or with a memory that was copied from
    elsewhere. How much time has really passed is then not known.
    """
    latest = max(_list_past_times(memory), default=None)
    return latest is not None and latest > now.boot


def _list_past_times(memory: Checkpoint) -> Iterator[Boot]:
    """Every moment that is remembered, but for the ends of waits, which may lie ahead."""
    single = (
        memory.passed_at,
        memory.asked_at,
        memory.swept_at,
        memory.since,
        memory.inventory_seen,
        memory.inventory_changed,
    )
    yield from (moment for moment in single if moment is not None)
    yield from chain.from_iterable(memory.gaps)
    yield from (one.first for one in memory.sightings.values())
    yield from memory.absent.values()
    yield from (one.at for one in memory.starts.values())
    for identity in memory.identities.values():
        both = (identity.alive_at, identity.unborn_at)
        yield from (moment for moment in both if moment is not None)
    yield from (one.at for one in memory.appeared.values())
    yield from memory.unlabelled.values()
    yield from (at for _, at in memory.destroyed.values())
    yield from memory.removing.values()
    yield from memory.released
    yield from (one.last for one in memory.repairs.values())


def _bound_waits(memory: Checkpoint, now: Now) -> Checkpoint:
    """No wait that is remembered by its end lasts longer than the longest of its kind."""
    latest = Boot(now.boot + LONGEST_BACKOFF_S)
    if any(repair.not_before > latest for repair in memory.repairs.values()):
        repairs = {
            key: replace(one, not_before=min(one.not_before, latest))
            for key, one in memory.repairs.items()
        }
        memory = replace(memory, repairs=repairs)
    if any(_is_too_long(freeze, now) for freeze in memory.freezes.values()):
        freezes = {
            subject: anchor_freeze(freeze, now) if _is_too_long(freeze, now) else freeze
            for subject, freeze in memory.freezes.items()
        }
        memory = replace(memory, freezes=freezes)
    return memory


def _is_too_long(freeze: Freeze, now: Now) -> bool:
    """Whether it would still last longer than it was to last from its beginning."""
    if freeze.ends is None or freeze.until is None:
        return False
    return freeze.ends - now.boot > freeze.until - freeze.since + _CLOCK_SLACK_S


def _carry_over_boot(memory: Checkpoint, now: Now) -> Checkpoint:
    """Let every moment of another clock go; what does not lie on that clock stays.

    Of waits that protect somebody (pace, back-off, the GPUs' freeze) none is known to be over: they
    start anew.
    """
    return Checkpoint(
        boot_id=now.boot_id,
        engine=memory.engine,
        stranger=memory.stranger,
        inventory=memory.inventory,
        inventory_conditions=memory.inventory_conditions,
        devices=memory.devices,
        acquainted=memory.acquainted,
        slots=memory.slots,
        identities={
            n: replace(i, alive_at=None, unborn_at=None) for n, i in memory.identities.items()
        },
        resolved=memory.resolved,
        appeared={n: BookingFirstSeen(at=now.boot, inherited=True) for n in memory.appeared},
        inventory_changed=now.boot if memory.inventory_changed is not None else None,
        released=(now.boot,) * len(memory.released),
        repairs={k: _restart_backoff(r, now.boot) for k, r in memory.repairs.items()},
        freezes={s: anchor_freeze(f, now) for s, f in memory.freezes.items()},
        undone=memory.undone,
    )


def _restart_backoff(repair: Repair, now: Boot) -> Repair:
    """A back-off of another clock: its wait starts again."""
    wait = min(max(0.0, repair.not_before - repair.last), LONGEST_BACKOFF_S)
    return replace(repair, last=now, not_before=Boot(now + wait))


def _update_inventory(seen: Snapshot, memory: Checkpoint) -> Checkpoint:
    if not isinstance(seen.gpu, Inventory) or seen.gpu.incomplete:
        return replace(memory, inventory_seen=None)
    now = seen.now.boot
    fingerprint = inventory_fingerprint(seen.gpu)
    memory = replace(memory, inventory_conditions=inventory_conditions(seen.gpu, seen.now))
    count = len(seen.gpu.gpus) + len(seen.gpu.migs)
    if fingerprint == memory.inventory:
        known = memory.inventory_seen if memory.inventory_seen is not None else now
        return replace(memory, inventory_seen=known, devices=count)
    return replace(
        memory,
        inventory=fingerprint,
        inventory_seen=now,
        inventory_changed=now if memory.inventory else None,
        devices=count,
    )


def _update_engine(
    engine: Engine, memory: Checkpoint, now: Now, config: Config, *, same_boot: bool
) -> Checkpoint:
    """Trust the first engine; notice another; start the waiting anew after a gap."""
    trusted = memory.engine or engine.identity
    recognized = any(known.id in engine.containers for known in memory.identities.values())
    same = same_engine(trusted, engine.identity, same_boot=same_boot) or is_upgraded(
        trusted, engine.identity, same_boot=same_boot, recognized=recognized
    )
    gap = (
        memory.asked_at is None
        or now.boot - memory.asked_at > longest_break_s(config)
        or (memory.instance and engine.instance and memory.instance != engine.instance)
    )
    since = now.boot if gap else max(memory.since or Boot(0.0), engine.since)
    return replace(
        memory,
        asked_at=now.boot,
        since=since,
        instance=engine.instance or memory.instance,
        engine=engine.identity if same else trusted,
        stranger=None if same else engine.identity,
    )


def _update_names(
    seen: Snapshot,
    engine: Engine,
    memory: Checkpoint,
    config: Config,
    names: tuple[ContainerName, ...],
) -> Checkpoint:
    now, sighted = seen.now.boot, seen.sighted
    booked = list_booked_names(seen)
    records = frozenset() if isinstance(seen.metadata, Unknown) else seen.metadata.keys()
    renames = find_renames(memory, engine, booked, records)
    destroyed_ids = {event.id: event for event in engine.destroyed.values()}
    identities = dict(memory.identities)
    absent = dict(memory.absent)
    destroyed = dict(memory.destroyed)
    unlabelled = dict(memory.unlabelled)
    resolved = dict(memory.resolved)
    appeared = {
        name: at
        for name, at in memory.appeared.items()
        if name in booked or isinstance(seen.state, Unknown)
    }
    for name in names:
        container, known = find_bound_container(name, memory, engine, renames), identities.get(name)
        if container is None:
            if name not in absent and name in unlabelled:
                unlabelled[name] = sighted  # its last sight, if not before
            absent.setdefault(name, sighted)
            last = engine.destroyed.get(name)
            event = last if known is None else destroyed_ids.get(known.id)
            if event is not None:
                destroyed[name] = (event.id, event.at)
            if last is not None and (known is None or known.id != last.id):
                _note_unlisted(last, absent, unlabelled, identities)
        else:
            absent.pop(name, None)
            destroyed.pop(name, None)
            if not container.labelled and _is_creation_step(container, known, unlabelled.get(name)):
                unlabelled[name] = sighted
            if not _lives_elsewhere(name, known, container, engine, seen):
                identities[name] = _update_identity(container, known, engine, memory, now)
        if name in booked:
            appeared.setdefault(name, BookingFirstSeen(at=sighted, inherited=not memory.acquainted))
    for container in _containers_in_scope(seen, engine):
        before = resolved.get(container.id)
        if container.state.alive and _to_resolve(container, before):
            resolved[container.id] = _resolve_request(container, seen, memory)
    memory = replace(
        memory,
        acquainted=memory.acquainted
        or (seen.names is None and isinstance(seen.state, AllocatorState)),
        identities=identities,
        absent=absent,
        destroyed=destroyed,
        unlabelled=unlabelled,
        resolved=resolved,
        removing=_track_removals(engine, memory, sighted),
        appeared=appeared,
        starts={**memory.starts, **dict(_anchor_creations(seen, engine, memory, names))},
    )
    if seen.names is not None:
        return memory
    return _forget_gone(seen, engine, replace(memory, swept_at=now), config, renames)


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
    engine: Engine, memory: Checkpoint, sighted: Boot
) -> Mapping[ContainerId, Boot]:
    """Since when containers are being removed, or left half removed."""
    return {
        container.id: memory.removing.get(container.id, sighted)
        for container in engine.containers.values()
        if container.state in (State.REMOVING, State.DEAD)
    }


def _anchor_creations(
    seen: Snapshot, engine: Engine, memory: Checkpoint, names: Iterable[ContainerName]
) -> Iterator[tuple[str, AnchoredTime]]:
    """Creations that the last sweep knew nothing of: they began after it, whatever the clock says.

    Of an allocation only while there is no container: one that is there tells more by itself. What
    an admin took back is none.
    """
    taken_back = {name for one in memory.undone.values() for name in one.records}
    operations = {} if isinstance(seen.operations, Unknown) else seen.operations
    records = {} if isinstance(seen.metadata, Unknown) else seen.metadata
    for name in names:
        attempt, record = operations.get(name), records.get(name)
        if attempt is not None and attempt.latest_start is not None:
            key = f"pending|{name}"
            yield from _anchor_start(key, str(attempt.started), attempt.latest_start, seen, memory)
        absent = name not in engine.by_name and name not in taken_back
        if absent and isinstance(record, Record) and record.allocated_at is not None:
            text = record.allocated_text or str(record.allocated_at)
            yield from _anchor_start(f"allocated|{name}", text, record.allocated_at, seen, memory)


def _anchor_start(
    key: str, anchor: str, at: Wall, seen: Snapshot, memory: Checkpoint
) -> Iterator[tuple[str, AnchoredTime]]:
    known = memory.starts.get(key)
    if known is None or known.anchor != anchor:
        # Who lost the memory, or has booted, cannot tell what is old from what has just begun.
        forgot = memory.swept_at is None and memory.acquainted
        not_before = seen.now.boot if forgot else memory.swept_at
        yield key, AnchoredTime(anchor=anchor, at=to_boot_time(at, seen, not_before))


def list_booked_names(seen: Snapshot) -> frozenset[ContainerName]:
    """Every name that the state lists, or that is to be merged into it."""
    if not isinstance(seen.state, AllocatorState):
        return frozenset()
    listed = (slot.containers for slot in seen.state.slots.values())
    return frozenset(chain.from_iterable(listed)) | {name for name, _ in seen.state.merge}


def _containers_in_scope(seen: Snapshot, engine: Engine) -> Iterable[Container]:
    """The containers that this pass is about, foreign ones too."""
    if seen.names is None:
        return engine.containers.values()
    return [engine.by_name[name] for name in seen.names if name in engine.by_name]


def _is_creation_step(container: Container, known: Identity | None, before: Boot | None) -> bool:
    """Whether an unlabelled container has just come or ended: a step of a creation, perhaps.

    One that merely stays is none, or it would be "being created" for as long as it exists.
    `before`: when one was last noted under that name.
    """
    if before is None or known is None or known.id != container.id:
        return True
    return not container.state.alive and known.alive_at is not None and known.alive_at > before


def _lives_elsewhere(
    name: ContainerName,
    known: Identity | None,
    container: Container,
    engine: Engine,
    seen: Snapshot,
) -> bool:
    """A booked name was taken by a new container while its own lives on under another one.

    Until that one is booked in all that is booked under the old name.
    """
    if known is None or known.id == container.id or known.id not in engine.containers:
        return False
    if not isinstance(seen.state, AllocatorState):
        return isinstance(seen.state, Unknown)
    there = engine.containers[known.id].name
    left = _booked_slots(name, seen.state)
    return bool(left) and not left <= _booked_slots(there, seen.state)


def _booked_slots(name: ContainerName, state: AllocatorState) -> frozenset[SlotId]:
    listed = (slot.id for slot in state.slots.values() if name in slot.containers)
    return frozenset((*listed, *(slot for one, slot in state.merge if one == name)))


_MOST_FORMER = 4  # of a name; who replaces a container daily has no end of them


def _update_identity(
    container: Container, known: Identity | None, engine: Engine, memory: Checkpoint, now: Boot
) -> Identity:
    former = known.former if known is not None else ()
    if known is None or known.id != container.id:
        if known is not None and known.id not in engine.containers:
            former = (known.id, *former)[:_MOST_FORMER]
        known = next((i for i in memory.identities.values() if i.id == container.id), None)
    if known is not None and not container.state.alive:
        told = (container.labelled, container.created)
        if told == (known.labelled, known.created):  # as nearly all in each sweep
            return known
    return Identity(
        id=container.id,
        labelled=container.labelled,
        created=container.created,
        alive_at=now if container.state.alive else known.alive_at if known is not None else None,
        unborn_at=memory.swept_at if known is None else known.unborn_at,
        former=former,
    )


def _to_resolve(container: Container, before: Resolved | None) -> bool:
    """Whether what its request means has yet to be found out, or can be now though not before."""
    if before is None or before.started != container.started:
        return True
    request = container.request
    return before.devices is None and not isinstance(request, Unknown) and is_lasting(request)


def _resolve_request(container: Container, seen: Snapshot, memory: Checkpoint) -> Resolved:
    """What a living container's request means, if it can be known now.

    Names by UUID and PCI address always can. Indices and counts mean what they meant at the start:
    known only if it started while Docker and this very inventory were watched. (Whoever observes
    takes a fresh sample for a container that was not seen living since it started.)
    """
    unknown = Resolved(started=container.started, devices=None)
    if isinstance(container.request, Unknown) or container.request.ask is GpuRequestKind.NONE:
        return unknown
    devices, lasting = resolve_devices(container.request, index_devices(seen.gpu, seen.state))
    if devices is None:
        return unknown
    known = lasting or seen.gpu is None or _watched(container, seen.now, memory)
    return Resolved(started=container.started, devices=devices) if known else unknown


def _watched(container: Container, now: Now, memory: Checkpoint) -> bool:
    """Whether a container started while Docker and the inventory of now were watched."""
    if container.started is None or memory.since is None or memory.inventory_seen is None:
        return False
    started = now.boot - (now.wall - container.started)
    return max(memory.since, memory.inventory_seen) <= started <= now.boot + _CLOCK_SLACK_S


_CLOCK_SLACK_S = 1.0  # `now` is read before Docker is asked


def _forget_gone(
    seen: Snapshot, engine: Engine, memory: Checkpoint, config: Config, renames: Renames
) -> Checkpoint:
    """On a sweep, drop what no source names any more, so that memory does not grow.

    Another engine hides the containers of the trusted one, which come back with it.
    """
    if not isinstance(seen.state, AllocatorState) or isinstance(seen.metadata, Unknown):
        return memory
    named = (
        list_booked_names(seen)
        | seen.metadata.keys()
        | engine.by_name.keys()
        | renames.current_name.keys()
    )
    hidden = memory.stranger is not None
    old = seen.now.boot - config.policy.creation_grace_s
    return replace(
        memory,
        identities={n: i for n, i in memory.identities.items() if hidden or n in named},
        absent={n: at for n, at in memory.absent.items() if n in named},
        destroyed={n: d for n, d in memory.destroyed.items() if n in named},
        unlabelled={
            n: at
            for n, at in memory.unlabelled.items()
            if at >= old or n in engine.by_name or n in renames.current_name
        },
        resolved={i: r for i, r in memory.resolved.items() if hidden or i in engine.containers},
    )
