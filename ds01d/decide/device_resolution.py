"""From a request for GPUs to the devices it means. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ds01d.decide.inventory_places import Position, device_positions
from ds01d.model.books import AllocatorState, Unreadable
from ds01d.model.containers import DeviceRef, GpuRequestKind, RefKind, Request
from ds01d.model.devices import Gpu, Inventory, MigDevice
from ds01d.model.primitives import DeviceUuid, Unknown

# What these mean does not change while a container runs: no renumbering touches a UUID, its
# beginning (as long as one device fits) or the slot that a GPU is plugged into.
_LASTING = frozenset((RefKind.UUID, RefKind.SHORT_UUID, RefKind.PCI))

_MOST_DIGITS = 9
_PCI = re.compile(r"(?:([0-9a-f]+):)?([0-9a-f]{2}):([0-9a-f]{2})(?:\.[0-7])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceIndex:
    """The devices of one moment, to look requests up in. `at`: each device by its place.

    `incomplete`: there may be others, of GPUs that would not say which they are.
    """

    at: Mapping[Position, DeviceUuid]
    gpus: tuple[Gpu, ...] = ()
    migs: tuple[MigDevice, ...] = ()
    incomplete: bool = False


def index_devices(
    gpu: Inventory | Unknown | None, state: AllocatorState | Unreadable | Unknown
) -> DeviceIndex | None:
    """The devices of the inventory; of the state with `gpu.source = "none"`; None: not known."""
    if isinstance(gpu, Inventory):
        return DeviceIndex(
            at=device_positions(gpu), gpus=gpu.gpus, migs=gpu.migs, incomplete=bool(gpu.incomplete)
        )
    if gpu is None and isinstance(state, AllocatorState):
        at = {
            (slot.gpu_index, slot.mig_index): slot.uuid or DeviceUuid(f"slot:{slot.id}")
            for slot in state.slots.values()
        }
        return DeviceIndex(at=at)
    return None


def is_lasting(request: Request) -> bool:
    """Whether a request means the same devices for as long as its container runs."""
    return request.ask is GpuRequestKind.NAMED and all(
        ref.kind in _LASTING for ref in request.devices
    )


def names_devices(request: Request) -> bool:
    """Whether a request means the same devices at any time, by whatever inventory."""
    return request.ask is GpuRequestKind.NAMED and all(
        ref.kind is RefKind.UUID for ref in request.devices
    )


def resolve_devices(
    request: Request, device_index: DeviceIndex | None
) -> tuple[frozenset[DeviceUuid] | None, bool]:
    """The devices a request means by the inventory of now, and whether that is so for good.

    For good: it has meant them since the container's start, whatever was renumbered meanwhile.
    None where a part of the request fits no device or several, or is not understood, or there is no
    inventory. A whole UUID needs no inventory: it is the device, dead or alive.
    """
    if names_devices(request):
        return frozenset(DeviceUuid(ref.text) for ref in request.devices), True
    if request.ask is GpuRequestKind.UNCLEAR:
        return None, False
    if request.ask is GpuRequestKind.ALL:
        if device_index is None or device_index.incomplete:
            return None, False
        return frozenset(device_index.at.values()), False
    candidates = [find_candidates(ref, device_index) for ref in request.devices]
    # One device for each reference, or the request is not understood: half a request would move a
    # booking by guessing.
    exact = all(len(matches) == 1 for matches in candidates)
    # A UUID that fits one listed device may also fit one of the GPU that does not answer.
    if device_index is not None and device_index.incomplete:
        exact &= all(ref.kind is not RefKind.SHORT_UUID for ref in request.devices)
    for number in range(request.count):
        gpu = device_index.at.get((number, None)) if device_index is not None else None
        exact &= gpu is not None
        candidates.append(frozenset() if gpu is None else frozenset((gpu,)))
    return (frozenset().union(*candidates) if exact else None), is_lasting(request)


def possible_devices(request: Request, device_index: DeviceIndex | None) -> frozenset[DeviceUuid]:
    """Every device that a request may mean today; of `all`, which names none, nothing.

    What is not understood adds nothing; of a name that fits several devices, each of them.
    """
    candidates = [find_candidates(ref, device_index) for ref in request.devices]
    if device_index is not None:
        whole = (device_index.at.get((number, None)) for number in range(request.count))
        candidates.append(frozenset(uuid for uuid in whole if uuid is not None))
    return frozenset().union(*candidates)


def find_candidates(ref: DeviceRef, device_index: DeviceIndex | None) -> frozenset[DeviceUuid]:
    """The devices that one reference fits, by the inventory of now."""
    # A full UUID identifies its device without an inventory, even one that is gone.
    if ref.kind is RefKind.UUID:
        return frozenset((DeviceUuid(ref.text),))
    if device_index is None:
        return frozenset()
    match ref.kind:
        case RefKind.INDEX:
            number = _parse_number(ref.text)
            device = None if number is None else device_index.at.get((number, None))
            return frozenset() if device is None else frozenset((device,))
        case RefKind.MIG_INDEX:
            gpu, mig = map(_parse_number, ref.text.partition(":")[::2])
            device = None if gpu is None or mig is None else device_index.at.get((gpu, mig))
            return frozenset() if device is None else frozenset((device,))
        case RefKind.MINOR:
            return frozenset(g.uuid for g in device_index.gpus if str(g.minor) == ref.text)
        case RefKind.LEGACY_MIG:
            place = (*ref.text.removeprefix("MIG-").split("/"), "", "")[:3]
            return frozenset(
                m.uuid for m in device_index.migs if (m.gpu, str(m.gi), str(m.ci)) == tuple(place)
            )
        case RefKind.SHORT_UUID:
            start = ref.text.lower()
            return frozenset(u for u in device_index.at.values() if u.lower().startswith(start))
        case _:
            wanted = _normalize_pci(ref.text)
            return frozenset(
                g.uuid for g in device_index.gpus if wanted and _normalize_pci(g.pci) == wanted
            )


def _parse_number(text: str) -> int | None:
    """An index; None for what is none. Python refuses to read a number of thousands of digits."""
    return int(text) if text.isdecimal() and len(text) <= _MOST_DIGITS else None


def _normalize_pci(text: str) -> tuple[int, int, int] | None:
    """Domain, bus and device of a PCI address; the domain may be left out, and is 0 then."""
    match = _PCI.fullmatch(text.lower())
    if match is None:
        return None
    domain, bus, device = match.groups(default="0")
    return int(domain, 16), int(bus, 16), int(device, 16)
