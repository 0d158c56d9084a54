"""Which slot a request gets, or why it gets none. Pure.

Offered is what surely can be used: a slot whose device is there and sound, which is not kept for
somebody else and which no stranger uses. Of these the free ones come first, those of the user's
own reservation before all others; only if none is free, and sharing is allowed, one that is held.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ds01d.decide.bookings import count_bookings, find_owners
from ds01d.decide.boot_layout import PartialLayout
from ds01d.decide.inventory_places import Position, device_positions
from ds01d.decide.slot_table import WholeGpus
from ds01d.model.allocation import Allocated, Refusal, Rejected
from ds01d.model.books import AllocatorState, BadRecord, Limits, Record, Slot, SlotType
from ds01d.model.devices import Gpu, Inventory, MigDevice
from ds01d.model.primitives import ContainerName, DeviceUuid, SlotId, Unknown, UserName, Wall


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocationRequest:
    """What is asked for. `most`: how many slots the user may hold, None = any number.

    `slot`: this one and no other. `another`: besides those that the container has already.
    """

    container: ContainerName
    user: UserName
    max_slots: int | None
    priority: int
    slot: SlotId | None = None
    additional: bool = False


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


def choose_slot(request: AllocationRequest, pool: Pool) -> Allocated | Rejected:
    """The slot, or the refusal. Total: every wish gets one of them."""
    selection = _SlotSelection(request, pool)
    # Asking twice must not book twice: the answer is the slot that the container has already.
    if not request.additional and (already := selection.find_booked()) is not None:
        return already
    booking_count = count_bookings(request.user, pool.state, pool.records)
    if request.max_slots is not None and booking_count >= request.max_slots:
        return selection.make_rejection(
            Refusal.USER_AT_LIMIT, f"{booking_count}/{request.max_slots}"
        )
    # A limits file that is broken would lift every limit and reservation; a host without one has
    # none.
    if isinstance(pool.limits, Unknown) and not pool.limits.missing:
        return selection.make_rejection(Refusal.LIMITS_UNREADABLE, pool.limits.reason)
    # A slot of an unknown inventory may be a device that is gone, or in use.
    if isinstance(pool.gpu, Unknown):
        return selection.make_rejection(Refusal.INVENTORY_UNKNOWN, pool.gpu.reason)
    return selection.choose_best()


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


def docker_id(slot: Slot, device: DeviceUuid | None) -> str:
    """What a device request names: a MIG device's UUID, a whole GPU's index."""
    if slot.mig_index is None:
        return str(slot.gpu_index)
    return device or slot.uuid or f"{slot.gpu_index}:{slot.mig_index}"


class _SlotSelection:
    """What one wish finds in the pool."""

    def __init__(self, request: AllocationRequest, pool: Pool) -> None:
        self._wish = request
        self._pool = pool
        gpu = pool.gpu if isinstance(pool.gpu, Inventory) else None
        self._gpu = gpu
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
            key = self._find_device(slot) or slot.id
            more = tuple(dict.fromkeys(slot.containers))
            self._holders[key] = (*self._holders.get(key, ()), *more)

    def find_booked(self) -> Allocated | Rejected | None:
        """The answer where the container has a slot already; None where it has none."""
        for slot in self._pool.state.slots.values():
            if self._wish.container in slot.containers:
                unusable = (
                    None if isinstance(self._pool.gpu, Unknown) else self._explain_unusable(slot)
                )
                if unusable is not None:
                    return self.make_rejection(
                        Refusal.SLOT_UNUSABLE, f"{slot.id} is booked already: {unusable}"
                    )
                return self._make_allocated(slot, already=True)
        return None

    def choose_best(self) -> Allocated | Rejected:
        """The slot that suits best."""
        rejections: dict[SlotId, SlotRejection] = {}
        free: list[Slot] = []
        taken: list[Slot] = []
        for slot in self._pool.state.slots.values():
            if self._wish.container in self._find_holders(slot):
                continue  # another one is asked for
            rejection = self._find_rejection(slot)
            if rejection is not None:
                rejections[slot.id] = rejection
            else:
                (taken if self._find_holders(slot) else free).append(slot)
        shareable = [] if free or self._pool.sharing == "never" else taken
        if self._wish.slot is not None:
            return self._choose_requested(self._wish.slot, free + shareable, rejections)
        if not free and not shareable:
            return self.make_rejection(
                Refusal.NO_GPU_AVAILABLE, self._summarize_rejections(taken, rejections)
            )
        return self._make_allocated(min(free or shareable, key=self._rank_slot))

    def make_rejection(self, refusal: Refusal, detail: str) -> Rejected:
        return Rejected(
            container=self._wish.container, user=self._wish.user, refusal=refusal, detail=detail
        )

    def _make_allocated(self, slot: Slot, *, already: bool = False) -> Allocated:
        device = self._find_device(slot)
        owner = find_owners([self._wish.container], self._pool.records)[0] if already else None
        return Allocated(
            container=self._wish.container,
            user=owner or self._wish.user,
            slot=slot.id,
            docker_id=docker_id(slot, device),
            device=device,
            priority=self._wish.priority,
            already=already,
            shared_with=tuple(n for n in self._find_holders(slot) if n != self._wish.container),
        )

    def _choose_requested(
        self, slot_id: SlotId, offered: Iterable[Slot], rejections: Mapping[SlotId, SlotRejection]
    ) -> Allocated | Rejected:
        slot = self._pool.state.slots.get(slot_id)
        if slot is None:
            slot_ids = ", ".join(self._pool.state.slots) or "none"
            return self.make_rejection(Refusal.NO_SUCH_SLOT, f"{slot_id}; there are {slot_ids}")
        if slot in offered:
            return self._make_allocated(slot)
        if (rejection := rejections.get(slot_id)) is not None:
            return self.make_rejection(rejection.refusal, rejection.reason)
        holders = ", ".join(self._find_holders(slot))
        return self.make_rejection(Refusal.SLOT_TAKEN, f"{slot_id} is held by {holders}")

    def _rank_slot(self, slot: Slot) -> tuple[bool, bool, int, int, float, Position]:
        """Its own already, reserved for the user, fewest neighbours above, fewest, least memory."""
        neighbours = self._find_holders(slot)
        higher = sum(self._find_priority(name) > self._wish.priority for name in neighbours)
        is_reserved = self._wish.user in find_reservations(slot, self._pool.limits, self._pool.now)
        place = (slot.gpu_index, -1 if slot.mig_index is None else slot.mig_index)
        is_in_use = self._wish.container in self._pool.foreign_users.get(slot.id, ())
        return (
            not is_in_use,
            not is_reserved,
            higher,
            len(neighbours),
            self._used_memory(slot),
            place,
        )

    def _find_holders(self, slot: Slot) -> tuple[ContainerName, ...]:
        return self._holders[self._find_device(slot) or slot.id]

    def _find_priority(self, name: ContainerName) -> int:
        record = self._pool.records.get(name)
        return (record.priority or 0) if isinstance(record, Record) else 0

    def _used_memory(self, slot: Slot) -> float:
        """The share of its memory that is used; what is not known counts as none."""
        device = self._find_device(slot)
        reading = None if device is None else self._migs.get(device) or self._gpus.get(device)
        if reading is None or not reading.memory_total or reading.memory_used is None:
            return 0.0
        return reading.memory_used / reading.memory_total

    def _find_device(self, slot: Slot) -> DeviceUuid | None:
        return slot.uuid or self._at.get((slot.gpu_index, slot.mig_index))

    def _find_rejection(self, slot: Slot) -> SlotRejection | None:
        """Why a slot is not offered, held or not; None if it is."""
        unusable = self._explain_unusable(slot) or self._explain_whole_gpu(slot)
        if unusable is not None:
            return SlotRejection(refusal=Refusal.SLOT_UNUSABLE, short="unusable", reason=unusable)
        reservations = find_reservations(slot, self._pool.limits, self._pool.now)
        if reservations and self._wish.user not in reservations:
            holders = ", ".join(
                f"{user} until {until}" if until else str(user)
                for user, until in reservations.items()
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
        others = [user for user in users if user != self._wish.container]
        if others:
            reason = f"{slot.id} is used by {', '.join(others)}"
        elif not users and not self._find_holders(slot) and self._is_used(slot):
            reason = f"{slot.id} is not booked, and a process uses it"
        else:
            return None
        return SlotRejection(refusal=Refusal.SLOT_IN_USE, short="used by others", reason=reason)

    def _explain_blind(self, slot: Slot) -> str | None:
        """Why nobody knows who uses the slot's device; None if it is known."""
        device = self._find_device(slot)
        if self._gpu is None or device is None:
            return None
        reason = self._gpu.blind.get(device)
        return None if reason is None else f"{slot.id}: {reason}"

    def _explain_unusable(self, slot: Slot) -> str | None:
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
        device = self._find_device(slot)
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

    def _is_used(self, slot: Slot) -> bool:
        return self._find_device(slot) in self._busy

    def _summarize_rejections(
        self, taken: Sequence[Slot], rejections: Mapping[SlotId, SlotRejection]
    ) -> str:
        """In numbers: "12 slots: 11 held, 1 reserved"; with the reasons where there are few."""
        slots = len(self._pool.state.slots)
        count_by_reason = Counter(rejection.short for rejection in rejections.values())
        counts = [f"{len(taken)} held"] if taken else []
        counts += [f"{number} {short}" for short, number in sorted(count_by_reason.items())]
        summary = f"{slots} slot{'' if slots == 1 else 's'}"
        summary += f": {', '.join(counts)}" if counts else ""
        reasons = "; ".join(dict.fromkeys(rejection.reason for rejection in rejections.values()))
        summary += f"; {reasons}" if 0 < len(rejections) <= 3 else ""
        partial = self._pool.partial
        return (
            summary
            if partial is None or partial.reason in summary
            else f"{summary}; {partial.reason}"
        )
