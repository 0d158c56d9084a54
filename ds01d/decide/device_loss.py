"""Which running containers cannot open the devices of their requests any more, since when. Pure.

By the rules of their device cgroups, where these can be read; elsewhere it is unknown, and nothing
is reported. What NVML lists proves neither: a process that has a device open keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ds01d.decide.index import BooksIndex
from ds01d.decide.verdict import find_resolved_devices
from ds01d.model.checkpoint import AccessSeen
from ds01d.model.containers import Container, State
from ds01d.model.device_access import CONTROL_MINOR, DeviceAccess
from ds01d.model.devices import Inventory
from ds01d.model.holding import Holds, Verdict, Verdicts
from ds01d.model.primitives import ContainerId, DeviceUuid, SlotId


def follow_access(index: BooksIndex, verdicts: Verdicts) -> Mapping[ContainerId, AccessSeen]:
    """Who could open its devices, and since when it cannot; a pass over names reads no rules."""
    former = index.checkpoint.device_access
    if index.snapshot.names is not None:
        return former
    accesses = index.snapshot.device_access
    followed: dict[ContainerId, AccessSeen] = {}
    if not accesses and not former:
        return followed
    nodes = _index_minors(index)
    for name, verdict in verdicts.items():
        container = index.containers.get(name)
        if container is None or not (minors := find_minors(container, verdict, index, nodes)):
            continue
        before = former.get(container.id)
        if before is not None and before.started != container.started:
            before = None
        after = _extend_access(before, container, frozenset(minors.values()), index)
        if after is not None:
            followed[container.id] = after
    return followed


def _extend_access(
    before: AccessSeen | None, container: Container, minors: frozenset[int], index: BooksIndex
) -> AccessSeen | None:
    """What was seen of a container, with what is known of it now."""
    access, needed = find_access(container, index), minors | {CONTROL_MINOR}
    if access is not None and any(map(access.denies, needed)):
        if before is None or before.lost is not None:
            return before
        now = index.snapshot.now
        return replace(before, lost=now.boot, lost_wall=now.wall)
    if access is not None and all(access.is_tried(minor) for minor in needed):
        return AccessSeen(started=container.started)
    # Unknown: what it could before, it could; that it cannot has to be seen again.
    return None if before is None else replace(before, lost=None, lost_wall=None)


def find_denied(container: Container, verdict: Verdict, index: BooksIndex) -> Mapping[SlotId, int]:
    """The held slots whose device the kernel denies a container: the minor of a denied node."""
    access = find_access(container, index)
    if access is None:
        return {}
    denied: dict[SlotId, int] = {}
    for slot, minor in find_minors(container, verdict, index).items():
        for node in (minor, CONTROL_MINOR):
            if access.denies(node):
                denied.setdefault(slot, node)
    return denied


def find_access(container: Container, index: BooksIndex) -> DeviceAccess | None:
    """What a container may open; None: that is not known of it as it runs now."""
    access = index.snapshot.device_access.get(container.id)
    if access is None or access.started not in (None, container.started):
        return None
    return access


def find_minors(
    container: Container,
    verdict: Verdict,
    index: BooksIndex,
    nodes: Mapping[DeviceUuid, int] | None = None,
) -> Mapping[SlotId, int]:
    """For each slot that a running container holds and requests: the minor of its GPU's node.

    `nodes`: the minors of all devices, where they are there already.
    """
    # One that asked for no device was never given any, which is no loss.
    if container.state is not State.RUNNING or not isinstance(verdict, Holds):
        return {}
    devices = find_resolved_devices(container, index)
    if not devices:
        return {}
    minors = _index_minors(index) if nodes is None else nodes
    return {
        slot: minors[device]
        for device in sorted(devices)
        if (slot := index.table.slot_of.get(device)) in verdict.slots and device in minors
    }


def _index_minors(index: BooksIndex) -> Mapping[DeviceUuid, int]:
    """The minor of each GPU, also by the UUIDs of its MIG devices."""
    inventory = index.snapshot.gpu
    if not isinstance(inventory, Inventory):
        return {}
    minors = {gpu.uuid: gpu.minor for gpu in inventory.gpus if gpu.minor is not None}
    return minors | {mig.uuid: minors[mig.gpu] for mig in inventory.migs if mig.gpu in minors}
