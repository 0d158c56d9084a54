"""Docker as the books: what containers have follows from their requests. Pure.

Only reservations are stored (decision 202). To them comes a booking for each device that a
container's request means, and the slot table of NVML; the rest of the program sees ordinary books.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ds01d.config import Config
from ds01d.decide.device_resolution import DeviceIndex, index_devices
from ds01d.decide.docker_owners import (
    count_charged,
    find_derived_owners,
    find_uncharged,
    make_records,
)
from ds01d.decide.docker_slots import list_slots
from ds01d.decide.usage import find_requested_devices
from ds01d.model.books import (
    MISSING,
    AllocatorState,
    BadRecord,
    Booking,
    Record,
    SlotType,
    Unreadable,
)
from ds01d.model.checkpoint import Checkpoint, Holding
from ds01d.model.containers import Container
from ds01d.model.devices import Inventory
from ds01d.model.primitives import ContainerId, ContainerName, DeviceUuid, SlotId, Unknown
from ds01d.model.reservation import ProcessState
from ds01d.model.snapshot import Snapshot

Records = Mapping[ContainerName, Record | BadRecord]


def derive_books(snapshot: Snapshot, checkpoint: Checkpoint, config: Config) -> Snapshot:
    """The snapshot with the books that follow from it; as it is where there are files.

    Derived books are derived again, from what is stored of them.
    """
    if config.books.kind != "docker":
        return snapshot
    state, metadata = _strip_derived(snapshot)
    # Without the reservations a slot of theirs would look free.
    if not isinstance(state, AllocatorState):
        return snapshot
    holdings = _find_holdings(snapshot, checkpoint, config)
    occupied = frozenset().union(*(holding.devices or () for holding in holdings.values()))
    slots = list_slots(state, snapshot.gpu, checkpoint, config.books.whole_gpus, occupied)
    slot_of = {slot.uuid: slot.id for slot in slots.values()}
    stored = {} if isinstance(metadata, Unknown) else metadata
    derived = frozenset(
        (holding.name, slot_of[device])
        for holding in holdings.values()
        for device in holding.devices or ()
        if device in slot_of
    ) - _list_reserved(state, stored, snapshot)
    listed: dict[SlotId, list[ContainerName]] = {
        id_: [*slot.containers] for id_, slot in slots.items() if slot.containers
    }
    for name, slot_id in sorted(derived):
        names = listed.setdefault(slot_id, [])
        if name not in names:
            names.append(name)
    owners = find_derived_owners({n for names in listed.values() for n in names}, snapshot, stored)
    with_bookings = {
        id_: replace(
            slots[id_],
            containers=tuple(names),
            users=count_charged(slots[id_], names, owners),
        )
        for id_, names in listed.items()
    }
    return replace(
        snapshot,
        state=replace(
            state,
            slots={**slots, **with_bookings},
            mig_enabled=any(slot.type is SlotType.MIG for slot in slots.values()),
            derived=derived,
            doubled=derived & replace(state, slots=slots).list_bookings(),
            uncharged=find_uncharged(owners, snapshot),
        ),
        metadata=metadata
        if isinstance(metadata, Unknown)
        else {**make_records(derived, owners, snapshot, stored), **stored},
        holdings=holdings,
    )


def list_inputs(snapshot: Snapshot, checkpoint: Checkpoint) -> tuple[object, ...]:
    """All that derived books depend on: the same inputs give the same state and records."""
    gpu: object = snapshot.gpu
    if isinstance(snapshot.gpu, Inventory):
        # Decision 218: which devices there are, not what was measured on them just now.
        gpu = (
            [(g.uuid, g.index, g.minor, g.pci, g.mig) for g in snapshot.gpu.gpus],
            [
                (m.uuid, m.gpu, m.gpu_index, m.index, m.profile, m.gi, m.ci)
                for m in snapshot.gpu.migs
            ],
            snapshot.gpu.incomplete,
        )
    return (
        gpu,
        snapshot.docker,
        snapshot.state,
        snapshot.metadata,
        snapshot.limits,
        snapshot.passwd,
        snapshot.logins,
        snapshot.owners,
        snapshot.processes,
        checkpoint.holdings,
        checkpoint.resolved,
        checkpoint.destroyed,
        checkpoint.slots,
    )


def explain_incomplete(snapshot: Snapshot, checkpoint: Checkpoint) -> Unknown | None:
    """Why derived books may lack something that a container has; None if they are complete."""
    # Invariant 1: nobody may be given a slot by books in which somebody's is missing.
    if isinstance(snapshot.docker, Unknown):
        return snapshot.docker
    for container in snapshot.docker.containers.values():
        if (
            isinstance(container.request, Unknown)
            and _recall_holding(container, checkpoint) is None
        ):
            reason = f"which GPUs {container.name} has is not known: {container.request.reason}"
            return replace(container.request, reason=reason)
    return None


def _strip_derived(
    snapshot: Snapshot,
) -> tuple[AllocatorState | Unreadable | Unknown, Records | Unknown]:
    """What is stored: the reservations."""
    state, metadata = snapshot.state, snapshot.metadata
    if isinstance(state, AllocatorState):
        state = state.without_derived()
    elif isinstance(state, Unreadable) and state.was_never_written:  # nothing was reserved yet
        state = AllocatorState(slots={}, mig_enabled=False, digest=MISSING)
        metadata = {} if isinstance(metadata, Unknown) else metadata
    if isinstance(metadata, Unknown):
        return state, metadata
    return state, {name: record for name, record in metadata.items() if record.digest}


def _list_reserved(
    state: AllocatorState, stored: Records, snapshot: Snapshot
) -> frozenset[Booking]:
    """What stays in the file while its container comes and goes: a process reserved it."""
    names = {
        name
        for name, record in stored.items()
        if isinstance(record, Record)
        and snapshot.find_process_state(record) in (ProcessState.RUNS, ProcessState.UNKNOWN)
    }
    return frozenset(pair for pair in state.list_bookings() if pair[0] in names) if names else _NONE


_NONE: frozenset[Booking] = frozenset()


# --- what containers have


def _find_holdings(
    snapshot: Snapshot, checkpoint: Checkpoint, config: Config
) -> Mapping[ContainerId, Holding]:
    """What each container has that exists, and each that vanished without a trace."""
    memory, engine = checkpoint.holdings, snapshot.docker
    # Unknown is never empty: without Docker each container has what it had.
    if isinstance(engine, Unknown):
        return memory
    device_index = index_devices(snapshot.gpu, snapshot.state)
    holdings = {}
    for container in engine.containers.values():
        devices = _find_devices(container, device_index, config, checkpoint)
        if devices is None or devices:
            holdings[container.id] = Holding(
                name=container.name, started=container.started, devices=devices
            )
    # Decision 203: one that Docker lost may still run. What it had stays its own until its absence
    # is proven; a destroy event proves it at once.
    destroyed = {event.id for event in engine.destroyed.values()}
    destroyed |= {id_ for id_, _ in checkpoint.destroyed.values()}
    lost = {
        id_: holding
        for id_, holding in memory.items()
        if id_ not in engine.containers and id_ not in destroyed
    }
    return holdings | lost


def _find_devices(
    container: Container, device_index: DeviceIndex | None, config: Config, checkpoint: Checkpoint
) -> frozenset[DeviceUuid] | None:
    """The devices of a container that exists; None: its hold is over."""
    before = _recall_holding(container, checkpoint)
    if before is not None and before.devices is None:
        return None
    had = before.devices or frozenset() if before is not None else frozenset()
    # Between an event and its inspect, and where that fails, it has what it had.
    if isinstance(container.request, Unknown):
        return had
    # At its start an index may have become another device's: what it had is no evidence.
    if before is not None and before.started != container.started:
        had = frozenset()
    use = find_requested_devices(container, device_index, config, checkpoint)
    if use is None:
        return frozenset()
    # Of an index that may mean another device today, each counts: one of them is its own.
    return frozenset(use.devices) if use.exact else had.union(use.devices)


def _recall_holding(container: Container, checkpoint: Checkpoint) -> Holding | None:
    """What it had in the last pass, unless that has ended with a start since."""
    before = checkpoint.holdings.get(container.id)
    if before is None:
        return None
    has_started = before.started != container.started or container.state.alive
    return None if before.devices is None and has_started else before
