"""Which slots can be offered, and why the others are not. Pure.

Offered is what surely can be used: a slot whose device is there and sound, which is not kept for
somebody else and which no other container or process uses. Bookings there do not count here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ds01d.decide.boot_layout import PartialLayout
from ds01d.decide.inventory_places import Position, device_positions
from ds01d.decide.slot_table import WholeGpus
from ds01d.model.allocation import Refusal
from ds01d.model.books import AllocatorState, BadRecord, Record, Slot, SlotType
from ds01d.model.devices import Gpu, Inventory, MigDevice
from ds01d.model.limits import Limits
from ds01d.model.primitives import ContainerName, DeviceUuid, SlotId, Unknown, UserName, Wall


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """All that is known when somebody asks.

    `gpu` None: the slots in the state are the inventory. `foreign`: who uses a slot without being
    booked there (`usage.users_by_slot`). `now` is for reservations. `partial`: what is not there
    yet, soon after a boot.
    """

    state: AllocatorState
    records: Mapping[ContainerName, Record | BadRecord]
    gpu: Inventory | Unknown | None
    limits: Limits | Unknown
    now: Wall
    foreign_users: Mapping[SlotId, tuple[str, ...]] = field(default_factory=dict)
    sharing: Literal["when-full", "never"] = "when-full"
    whole_gpus: WholeGpus = "without-mig"
    partial: PartialLayout | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotRejection:
    """Why a slot is not offered: a word for everybody, a summary, and the whole reason."""

    refusal: Refusal
    short: str
    reason: str


def find_reservations(slot: Slot, limits: Limits | Unknown, now: Wall) -> Mapping[UserName, str]:
    """For whom a slot is kept now: the user, and until when as far as that is known."""
    reservations: dict[UserName, str] = {}
    if slot.reserved_for and (slot.reserved_end is None or now <= slot.reserved_end):
        reservations[slot.reserved_for] = slot.reserved_until or ""
    place = str(slot.gpu_index) if slot.mig_index is None else f"{slot.gpu_index}.{slot.mig_index}"
    for reservation in limits.reservations if isinstance(limits, Limits) else ():
        begun = reservation.start is None or reservation.start <= now
        over = reservation.end is not None and reservation.end < now
        if begun and not over and reservation.gpus & {place, str(slot.gpu_index)}:
            reservations.setdefault(reservation.user, "")
    return reservations


class PoolIndex:
    """A pool with the device and the holders of each slot."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        gpu = self._gpu = pool.gpu if isinstance(pool.gpu, Inventory) else None
        self._at: Mapping[Position, DeviceUuid] = {} if gpu is None else device_positions(gpu)
        self._gpus: Mapping[DeviceUuid, Gpu] = {} if gpu is None else {g.uuid: g for g in gpu.gpus}
        self._migs: Mapping[DeviceUuid, MigDevice] = (
            {} if gpu is None else {m.uuid: m for m in gpu.migs}
        )
        self._divided = {mig.gpu for mig in self._migs.values()} | {
            candidate.uuid for candidate in self._gpus.values() if candidate.mig
        }
        self._busy = set() if gpu is None else {process.device for process in gpu.processes}
        self._cut = {s.gpu_index for s in pool.state.slots.values() if s.type is SlotType.MIG}
        self._holders: dict[DeviceUuid | SlotId, tuple[ContainerName, ...]] = {}
        for slot in pool.state.slots.values():
            # By device, since two slots can mean one device after a renumbering: the holders of
            # both use it.
            key = self.find_device(slot) or slot.id
            more = tuple(dict.fromkeys(slot.containers))
            self._holders[key] = (*self._holders.get(key, ()), *more)

    def find_device(self, slot: Slot) -> DeviceUuid | None:
        return slot.uuid or self._at.get((slot.gpu_index, slot.mig_index))

    def find_profile(self, slot: Slot) -> str:
        """Its MIG profile, as NVML knows it or else the state; else its type."""
        device = self.find_device(slot)
        mig = None if device is None else self._migs.get(device)
        return (mig.profile if mig else "") or slot.profile or slot.type.value

    def find_holders(self, slot: Slot) -> tuple[ContainerName, ...]:
        return self._holders[self.find_device(slot) or slot.id]

    def measure_memory(self, slot: Slot) -> float:
        """The share of its memory that is used; what is not known counts as none."""
        device = self.find_device(slot)
        reading = None if device is None else self._migs.get(device) or self._gpus.get(device)
        if reading is None or not reading.memory_total or reading.memory_used is None:
            return 0.0
        return reading.memory_used / reading.memory_total

    def find_rejection(
        self, slot: Slot, container: ContainerName, user: UserName
    ) -> SlotRejection | None:
        """Why a slot is not offered to a container of `user`, held or not; None if it is."""
        unusable = self.explain_unusable(slot) or self._explain_whole_gpu(slot)
        if unusable is not None:
            return SlotRejection(refusal=Refusal.SLOT_UNUSABLE, short="unusable", reason=unusable)
        reservations = find_reservations(slot, self._pool.limits, self._pool.now)
        if reservations and user not in reservations:
            holders = ", ".join(
                f"{owner} until {until}" if until else str(owner)
                for owner, until in reservations.items()
            )
            return SlotRejection(
                refusal=Refusal.SLOT_RESERVED,
                short="reserved",
                reason=f"{slot.id} is reserved for {holders}",
            )
        # Decision 66: who uses a blind device cannot be known, and its release could never be
        # proven.
        if (unseen := self._explain_blind(slot)) is not None:
            return SlotRejection(refusal=Refusal.SLOT_UNUSABLE, short="unusable", reason=unseen)
        users = self._pool.foreign_users.get(slot.id, ())
        others = [other for other in users if other != container]
        if others:
            reason = f"{slot.id} is used by {', '.join(others)}"
        elif not users and not self.find_holders(slot) and self.find_device(slot) in self._busy:
            reason = f"{slot.id} is not booked, and a process uses it"
        else:
            return None
        return SlotRejection(refusal=Refusal.SLOT_IN_USE, short="used by others", reason=reason)

    def _explain_blind(self, slot: Slot) -> str | None:
        """Why nobody knows who uses the slot's device; None if it is known."""
        device = self.find_device(slot)
        if self._gpu is None or device is None:
            return None
        reason = self._gpu.blind.get(device)
        return None if reason is None else f"{slot.id}: {reason}"

    def explain_unusable(self, slot: Slot) -> str | None:
        """Why there is no such device that could be handed out; None if there is.

        Soon after a boot it may come back, and a place alone does not yet say which device it is.
        """
        missing, partial = self._explain_missing(slot), self._pool.partial
        if partial is None or missing is not None or slot.uuid is not None:
            return missing
        # Decision 133: soon after a boot a UUID is certain, a place is not.
        if partial.is_settled((slot.gpu_index, slot.mig_index)):
            return None
        return f"which device {slot.id} is cannot be known: {partial.reason}"

    def _explain_missing(self, slot: Slot) -> str | None:
        """Why NVML has no such device that works; None if it has."""
        if self._gpu is None:
            return None
        device = self.find_device(slot)
        is_listed = device in self._gpus or device in self._migs
        if not is_listed and (failure := self._gpu.incomplete.get(slot.gpu_index)) is not None:
            return f"GPU {slot.gpu_index}: {failure}"
        if device is None:
            return f"there is no device {slot.id}"
        if slot.mig_index is None:
            gpu = self._gpus.get(device)
            if gpu is None:
                return f"{slot.id} was {device}, which is gone"
            if device in self._divided:
                return f"GPU {slot.id} is divided into MIG devices"
        else:
            mig = self._migs.get(device)
            if mig is None:
                return f"{slot.id} was {device}, which is gone"
            gpu = self._gpus.get(mig.gpu)
        return f"{slot.id}: {gpu.failed}" if gpu is not None and gpu.failed else None

    def _explain_whole_gpu(self, slot: Slot) -> str | None:
        """Why a whole GPU is not handed out beside MIG devices; None if it is."""
        if slot.type is not SlotType.PHYSICAL:
            return None
        if slot.gpu_index in self._cut:
            return f"GPU {slot.id} is divided into MIG devices"
        if (self._cut or self._migs) and self._pool.whole_gpus != "always":
            return f'{slot.id} is a whole GPU beside MIG devices (books.whole_gpus = "without-mig")'
        return None
