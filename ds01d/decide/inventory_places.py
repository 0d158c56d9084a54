"""Where the devices of an inventory lie, as a table and as a text. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ds01d.model.devices import Inventory
from ds01d.model.primitives import DeviceUuid

Position = tuple[int, "int | None"]


def device_positions(gpu: Inventory) -> dict[Position, DeviceUuid]:
    """Where each device lies: (GPU index, MIG index or None) → UUID."""
    whole: dict[Position, DeviceUuid] = {(g.index, None): g.uuid for g in gpu.gpus}
    return whole | {(m.gpu_index, m.index): m.uuid for m in gpu.migs}


def inventory_fingerprint(gpu: Inventory) -> str:
    """A text that identifies a set of devices and their places."""
    # Sorted by place: the order in which NVML lists devices is no change of the layout.
    at = device_positions(gpu)
    return ";".join(
        f"{g}{'' if m is None else f'.{m}'}={uuid}"
        for (g, m), uuid in sorted(
            at.items(), key=lambda item: (item[0][0], item[0][1] is not None, item[0][1] or 0)
        )
    )


def parse_fingerprint(fingerprint: str) -> Iterator[tuple[Position, DeviceUuid]]:
    """Read what `inventory_fingerprint` wrote."""
    for part in fingerprint.split(";"):
        place, _, uuid = part.partition("=")
        index, _, mig = place.partition(".")
        if uuid and index.isdecimal() and (not mig or mig.isdecimal()):
            yield (int(index), int(mig) if mig else None), DeviceUuid(uuid)
