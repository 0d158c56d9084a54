"""Devices that were there before the host booted and are not listed yet. Pure.

A MIG layout is lost at a reboot unless something restores it, and GPUs may come up late: for the
first minutes NVML lists less than there will be. A pass then takes the whole inventory for unknown
(`check_plausible`). Booking need not wait that long: a slot whose UUID is listed is that device,
now and later. What a slot means by its place alone is not known until the places are as before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ds01d.decide.inventory_places import Position, device_positions, parse_fingerprint
from ds01d.model.books import AllocatorState
from ds01d.model.devices import Inventory
from ds01d.model.primitives import DeviceUuid, Now, Unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialLayout:
    """Fewer places than before the boot. `before`: the devices then, None = not known which.

    `reason`: what is missing, and how long it may take, for people.
    """

    before: Mapping[Position, DeviceUuid | None]
    listed: Mapping[Position, DeviceUuid]
    reason: str

    def is_settled(self, place: Position) -> bool:
        """Whether a place means the same device now as once the rest is there.

        A GPU whose MIG devices are missing is not free as a whole; while a GPU is missing, the
        others may have moved up into its index.
        """
        gpu, mig = place
        missing = self.before.keys() - self.listed.keys()
        # The same UUID at the same place is certain now; a place whose device differs may still
        # receive another one.
        device = self.before.get(place)
        if device is not None and device == self.listed.get(place):
            return mig is not None or all(index != gpu for index, _ in missing)
        return all(index != gpu and part is not None for index, part in missing)


def find_partial_layout(
    gpu: Inventory | Unknown | None,
    state: AllocatorState,
    fingerprint: str,
    now: Now,
    *,
    boot_grace_s: float,
) -> PartialLayout | None:
    """What is missing within the grace after a boot; None if nothing is.

    `fingerprint`: the devices that ds01d knew last (`inventory_fingerprint`); "" = none, then
    those of the slot table count. A GPU that is known to be sick (`incomplete`) is not missing.
    """
    if not isinstance(gpu, Inventory) or now.boot >= boot_grace_s:
        return None
    listed = device_positions(gpu)
    before: dict[Position, DeviceUuid | None] = {
        place: uuid
        for place, uuid in (dict(parse_fingerprint(fingerprint)) or _devices_of(state)).items()
        if place[0] not in gpu.incomplete
    }
    # Compared by place, not by number: a GPU that is missing and one that is new would cancel out.
    missing = before.keys() - listed.keys()
    if not missing:
        return None
    reason = (
        f"{len(missing)} of {len(before)} devices are not listed yet, {now.boot:.0f} s after boot:"
        f" the MIG layout may still be restored; try again, in {boot_grace_s - now.boot:.0f} s at"
        " the latest"
    )
    return PartialLayout(before=before, listed=listed, reason=reason)


def _devices_of(state: AllocatorState) -> Mapping[Position, DeviceUuid | None]:
    """The devices that a slot table means, and the GPUs of its MIG devices."""
    slots = state.slots.values()
    gpus: dict[Position, DeviceUuid | None] = {(slot.gpu_index, None): None for slot in slots}
    return gpus | {(slot.gpu_index, slot.mig_index): slot.uuid for slot in slots}
