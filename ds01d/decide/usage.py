"""Which devices are in use, and by whom: a request of something alive counts, booked or not. Pure.

The request of a living container takes its devices whether it computes or not: it may at any
moment. A container that asked for all GPUs (monitoring does) takes only those on which it computes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from ds01d.config import Config
from ds01d.decide.device_resolution import (
    DeviceIndex,
    index_devices,
    names_devices,
    possible_devices,
)
from ds01d.decide.exemptions import is_exempt
from ds01d.model.books import AllocatorState
from ds01d.model.checkpoint import Checkpoint
from ds01d.model.containers import Container, Engine, GpuRequestKind, State
from ds01d.model.devices import Inventory
from ds01d.model.primitives import ContainerId, ContainerName, DeviceUuid, SlotId, Unknown, Wall
from ds01d.model.snapshot import Snapshot
from ds01d.model.usage import DeviceUse

SHORT = 12  # characters of a container ID that Docker shows


def find_uses(
    snapshot: Snapshot,
    checkpoint: Checkpoint,
    config: Config,
    containers: Iterable[Container] | None = None,
) -> tuple[DeviceUse, ...]:
    """Everything in use in a snapshot; for containers (all by default), what Docker reports."""
    engine = snapshot.docker if isinstance(snapshot.docker, Engine) else None
    device_index = index_devices(snapshot.gpu, snapshot.state)
    by_container, others = _group_processes(snapshot, engine)
    if containers is None:
        containers = engine.containers.values() if engine is not None else ()
    uses = []
    for container in containers:
        computing = by_container.get(container.id, frozenset())
        use = container_use(container, device_index, config, snapshot.now.wall, checkpoint)
        if use is None:
            if computing:
                uses.append(_make_use(container, computing))
        elif computing <= {*use.devices}:  # as of nearly all
            uses.append(use)
        else:
            uses.append(replace(use, devices=tuple(sorted({*use.devices, *computing}))))
    return (*uses, *others)


def find_without_devices(
    snapshot: Snapshot, uses: Iterable[DeviceUse], config: Config
) -> frozenset[str]:
    """The living containers that are known to have no device by their request: short IDs."""
    if not isinstance(snapshot.docker, Engine):
        return frozenset()
    users = {use.id for use in uses}
    return frozenset(
        container.id[:SHORT]
        for container in snapshot.docker.containers.values()
        if container.id not in users
        and not isinstance(container.request, Unknown)
        and is_living(container, config, snapshot.now.wall)
    )


def container_use(
    container: Container,
    device_index: DeviceIndex | None,
    config: Config,
    now: Wall,
    checkpoint: Checkpoint | None = None,
) -> DeviceUse | None:
    """The devices that a living container has by its request; None: it has none of its own."""
    if not is_living(container, config, now):
        return None
    return find_requested_devices(container, device_index, config, checkpoint)


def find_requested_devices(
    container: Container,
    device_index: DeviceIndex | None,
    config: Config,
    checkpoint: Checkpoint | None,
) -> DeviceUse | None:
    """The devices that a request means, alive or not; None: none of its own.

    What it meant at the start, if that is remembered; else what it may mean today.
    """
    request = container.request
    if isinstance(request, Unknown) or request.ask is GpuRequestKind.NONE:
        return None
    if is_exempt(container, config.exempt):
        return None
    # Monitoring asks for all GPUs and computes on none; counting it as a user would leave nothing
    # to hand out.
    if request.ask is GpuRequestKind.ALL:
        if config.allocator.all_gpus == "when-used" or device_index is None:
            return None
        return _make_use(container, frozenset(device_index.at.values()))
    resolved = checkpoint.resolved.get(container.id) if checkpoint is not None else None
    # What its request meant when it started is what it has until it starts again.
    if (
        resolved is not None
        and resolved.started == container.started
        and resolved.devices is not None
    ):
        return _make_use(container, resolved.devices)
    # Decision 215: whole UUIDs mean the same at any time, so no booking has to look them up again.
    if container.requested_uuids is not None:
        return _make_use(container, container.requested_uuids)
    devices = possible_devices(request, device_index)
    return _make_use(container, devices, exact=names_devices(request))


def is_living(container: Container, config: Config, now: Wall) -> bool:
    """Whether it has its devices: it lives, or was created a moment ago and is about to start."""
    if container.state is not State.CREATED or container.created is None:
        return container.state.alive
    return now - container.created < config.policy.creation_grace_s


Slots = Mapping[SlotId, tuple[DeviceUuid | None, Collection[ContainerName]]]
"""The device behind each slot, and the containers that are booked there."""


def uses_by_slot(
    uses: Iterable[DeviceUse], slots: Slots, gpu: Inventory | Unknown | None
) -> Mapping[SlotId, tuple[DeviceUse, ...]]:
    """Every use of a slot by somebody who is not booked there; slots without any are left out.

    A GPU and the MIG devices it is divided into are in use together.
    """
    # Who has the whole GPU can use its MIG devices too, and a MIG device in use keeps the GPU
    # from being handed out whole.
    together: dict[DeviceUuid, list[DeviceUuid]] = {}
    for mig in gpu.migs if isinstance(gpu, Inventory) else ():
        together.setdefault(mig.gpu, []).append(mig.uuid)
        together.setdefault(mig.uuid, []).append(mig.gpu)
    uses = tuple(uses)
    users: dict[DeviceUuid, list[DeviceUse]] = {}
    for use in uses:
        for device in use.devices:
            users.setdefault(device, []).append(use)
    others_by_slot: dict[SlotId, tuple[DeviceUse, ...]] = {}
    for slot, (slot_device, booked) in slots.items():
        if slot_device is None:
            continue
        uses_of_device = users.get(slot_device, [])
        if any(device in users for device in together.get(slot_device, ())):
            devices = {slot_device, *together[slot_device]}
            uses_of_device = [use for use in uses if not devices.isdisjoint(use.devices)]
        holders = {*booked}  # a slot may be shared by dozens
        if other_uses := tuple(use for use in uses_of_device if use.container not in holders):
            others_by_slot[slot] = other_uses
    return others_by_slot


def users_by_slot(
    uses: Iterable[DeviceUse], slots: Slots, gpu: Inventory | Unknown | None
) -> Mapping[SlotId, tuple[str, ...]]:
    """Who they are: see `uses_by_slot`."""
    return {
        slot: tuple(dict.fromkeys(use.user for use in slot_uses))
        for slot, slot_uses in uses_by_slot(uses, slots, gpu).items()
    }


def slot_devices(state: AllocatorState, gpu: Inventory | Unknown | None) -> Slots:
    """The slots of a state."""
    device_index = index_devices(gpu, state)
    at = device_index.at if device_index is not None else {}
    return {
        slot.id: (slot.uuid or at.get((slot.gpu_index, slot.mig_index)), slot.containers)
        for slot in state.slots.values()
    }


def _make_use(
    container: Container, devices: Collection[DeviceUuid], *, exact: bool = True
) -> DeviceUse:
    return DeviceUse(
        user=container.name,
        devices=devices if isinstance(devices, tuple) else tuple(sorted(devices)),
        container=container.name,
        id=container.id,
        exact=exact,
    )


def _group_processes(
    snapshot: Snapshot, engine: Engine | None
) -> tuple[Mapping[ContainerId, frozenset[DeviceUuid]], list[DeviceUse]]:
    """The devices on which each container's processes are, and the processes of nobody listed."""
    by_container: dict[ContainerId, frozenset[DeviceUuid]] = {}
    others: list[DeviceUse] = []
    for process in snapshot.gpu.processes if isinstance(snapshot.gpu, Inventory) else ():
        container = process.container
        if isinstance(container, str) and engine is not None and container in engine.containers:
            by_container[container] = by_container.get(container, frozenset()) | {process.device}
            continue
        if isinstance(container, Unknown) or (isinstance(container, str) and engine is None):
            continue  # whose it is cannot be known now
        user = f"process {process.pid} ({process.command})"
        if container is not None:
            user += f" of container {container[:SHORT]}"
        others.append(DeviceUse(user=user, devices=(process.device,)))
    return by_container, others
