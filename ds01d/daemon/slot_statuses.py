"""The slots of the published status: who has each of them, after the repairs of a pass."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from ds01d.daemon.device_readings import index_devices_by_uuid, measure_containers
from ds01d.daemon.open_drifts import OpenDrifts
from ds01d.decide.index import BooksIndex
from ds01d.decide.usage import uses_by_slot
from ds01d.model.books import AllocatorState
from ds01d.model.devices import Gpu, GpuProcess
from ds01d.model.drift import Drift, GatedDrift
from ds01d.model.holding import Holds, Verdict, Verdicts
from ds01d.model.primitives import ContainerId, ContainerName, Now, SlotId
from ds01d.model.usage import DeviceUse
from ds01d.reporting.status import Holder, SlotStatus


def build_slot_statuses(
    index: BooksIndex,
    drifts: OpenDrifts,
    verdicts: Verdicts,
    uses: Iterable[DeviceUse],
    now: Now,
) -> tuple[SlotStatus, ...]:
    """The slots of the table. `verdicts`: those of all containers, from earlier passes too."""
    table, gpu = index.table, index.snapshot.gpu
    repaired = [gated.drift for gated in drifts.repaired]
    bookings = list_holders(index, repaired)
    # The index is from before the repairs: there the books still have it under its old name.
    moved = frozenset().union(*(drift.names for drift in repaired if drift.renamed_to))
    slots = {id_: (table.device_of.get(id_), tuple(names)) for id_, names in bookings.items()}
    foreign = uses_by_slot(uses, slots, gpu)
    devices_by_uuid = index_devices_by_uuid(gpu)
    return tuple(
        SlotStatus(
            id=slot.id,
            type=slot.type,
            uuid=uuid,
            profile=slot.profile,
            holders=tuple(
                _build_holder(name, index, verdicts.get(name), now, moved=name in moved, used=used)
                for name in holders
            ),
            foreign=tuple(dict.fromkeys(use.user for use in foreign.get(slot.id, ()))),
            foreign_holders=tuple(
                _build_holder(name, index, verdicts.get(name), now, moved=False, used=used)
                for name in dict.fromkeys(use.container for use in foreign.get(slot.id, ()))
                if name is not None
            ),
            memory_used=device.memory_used if device is not None else None,
            memory_total=device.memory_total if device is not None else None,
            utilization=device.utilization if isinstance(device, Gpu) else None,
            processes=None if processes is None else len({process.pid for process in processes}),
            drifts=tuple(_describe_slot_drifts(slot.id, holders, drifts.by_key.values())),
        )
        for slot in table.slots.values()
        for uuid, holders in (slots[slot.id],)
        for device in (devices_by_uuid.get(uuid),)
        for processes in (_list_processes(slot.id, index),)
        for used in (measure_containers(processes),)
    )


def list_holders(
    index: BooksIndex, repaired: Sequence[Drift]
) -> dict[SlotId, dict[ContainerName, None]]:
    """The containers in each slot of the table, in their order, after repairs."""
    holders = {slot.id: dict.fromkeys(slot.containers) for slot in index.table.slots.values()}
    # First all that was taken: what one repair took, another may have given to the same name.
    for name, slot_id in (pair for drift in repaired for pair in drift.taken):
        holders.get(slot_id, {}).pop(name, None)
    for name, slot_id in (pair for drift in repaired for pair in drift.given):
        holders.get(slot_id, {})[name] = None
    return holders


def _list_processes(slot: SlotId, index: BooksIndex) -> tuple[GpuProcess, ...] | None:
    """The processes on the device of a slot; None where they cannot be listed."""
    processes = index.processes.find_processes(slot)
    # A slot whose device NVML does not list has an empty list, and may be in use.
    if not isinstance(processes, tuple) or not index.processes.has_process_list(slot):
        return None
    return processes


def _build_holder(
    name: ContainerName,
    index: BooksIndex,
    verdict: Verdict | None,
    now: Now,
    *,
    moved: bool,
    used: Mapping[ContainerId, tuple[int, int | None]] | None,
) -> Holder:
    """`moved`: its booking followed a rename in this pass, so it belongs to this container.

    `used`: processes and memory of each container on the device of the slot; None: not known.
    """
    container = index.containers.get(name)
    state = str(container.state) if container is not None else "absent"
    until = verdict.until if isinstance(verdict, Holds) else None
    owner = index.find_owner(name)
    user = index.find_user(name) if moved else index.find_booker(name)
    if user is None and owner is not None:
        user = owner.user
    # A booking of another container under this name is not what `owner` is about.
    booker = owner if owner is not None and owner.user == user else None
    books = index.snapshot.state
    count, memory = None, None
    if container is not None and used is not None:
        count, memory = used.get(container.id, (0, 0))
    run = None if container is None else index.checkpoint.idle.get(container.id)
    return Holder(
        container=name,
        user=user,
        # Without Docker a container that is not listed is not absent.
        state=state if index.engine is not None else "unknown",
        until=now.to_wall(until),
        user_by=None if booker is None else booker.source,
        is_guess=booker is not None and booker.is_guess,
        is_charged=not isinstance(books, AllocatorState) or name not in books.uncharged,
        processes=count,
        memory_used=memory,
        idle_since=None if run is None else run.began,
    )


def _describe_slot_drifts(
    slot: SlotId, holders: Collection[ContainerName], drifts: Iterable[GatedDrift]
) -> Iterator[str]:
    """The drifts of a slot, and those of its holders that name no other."""
    for gated in drifts:
        drift = gated.drift
        if drift.slot == slot or (drift.slot is None and drift.container in holders):
            yield f"{drift.kind} {gated.outcome}"
