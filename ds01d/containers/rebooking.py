"""Books again what a stopped container lost at the end of its hold: the slots of its request."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ds01d.containers.context import CommandContext
from ds01d.containers.names import owner_of
from ds01d.decide.device_resolution import find_candidates, index_devices
from ds01d.decide.short_names import split_name
from ds01d.decide.slot_table import slot_id_at
from ds01d.errors import Ds01Error, Refused
from ds01d.model.allocation import Allocated, Rejected, Released
from ds01d.model.books import AllocatorState, Record, Slot
from ds01d.model.containers import Container, DeviceRef, GpuRequestKind, RefKind, State
from ds01d.model.devices import Inventory
from ds01d.model.primitives import ContainerName, SlotId, Unknown, UserName

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebooking:
    """`user_of` returns the name of a uid."""

    context: CommandContext
    user_of: Callable[[int], str]

    def book_again(self, container: Container) -> tuple[Allocated, ...]:
        """Book again what it lost at the end of its hold, all of it or nothing."""
        if not self.requests_slots(container) or self.context.booked_slots(container.name):
            return ()
        booked: list[Allocated] = []
        for slot in self._find_slots(container):
            answer = self.context.allocator.allocate(
                UserName(self.booked_user(container)),
                container.name,
                slot=slot,
                another=bool(booked),
            )
            for warning in answer.warnings:
                self.context.warn(warning)
            if isinstance(answer, Rejected):
                remaining = self.release_new(container, booked)
                raise Refused(
                    f"{container.name} lost GPU {slot} at the end of its hold, and it cannot be"
                    f" booked again: {answer.reason}; wait, or get another one:"
                    f" {self._recreate_commands(container)}{remaining}"
                )
            if answer.shared_with:
                self.context.warn(f"GPU {slot} is shared with {', '.join(answer.shared_with)}")
            booked.append(answer)
        return tuple(booking for booking in booked if not booking.already)

    def require_own_slots(self, container: Container) -> None:
        """Refuse a container that requests another slot than those that are booked for it."""
        booked = self.context.booked_slots(container.name)
        # Its booking may have been released, and another one made under its name.
        if booked and self.requests_slots(container):
            others = sorted({*self._find_slots(container)} - booked)
            if others:
                raise Refused(
                    f"{container.name} requests GPU {', '.join(others)}, which is not booked for"
                    f" it: {self._recreate_commands(container)}"
                )

    def release_new(self, container: Container, booked: Sequence[Allocated]) -> str:
        """Release what was booked just now for a container that does not run; "" or what stays."""
        if not booked:
            return ""
        with suppress(Ds01Error):
            if self._is_releasable(container, booked):
                answer = self.context.allocator.release(container.name, booked[-1].id)
                if isinstance(answer, Released):
                    return ""
        slots = ", ".join(booking.slot for booking in booked)
        return f"; GPU {slots} stays booked until ds01d repairs it"

    def _is_releasable(self, container: Container, booked: Sequence[Allocated]) -> bool:
        """Whether all that is booked for it is new, and it is stopped. Raises `Ds01Error`."""
        # A release takes all that a container has, so an older slot would go with the new ones.
        slots = {booking.slot for booking in booked if not booking.already}
        if booked[-1].id is None or self.context.booked_slots(container.name) != slots:
            return False
        # Decision 373: it may run by now, or have another name, or another one may have its name.
        answers = map(self.context.engine.find_container, (container.id, container.name))
        return all(current is None or _is_stopped(current, container) for current in answers)

    def requests_slots(self, container: Container) -> bool:
        """Whether its GPU request names slots. Raises `Refused` if it cannot be booked."""
        request = container.request
        if isinstance(request, Unknown):
            raise Refused(f"cannot read the GPU request of {container.name}: {request.reason}")
        # `--gpus all` or a count names no device, so there is no slot to book.
        broad = request.ask in {GpuRequestKind.ALL, GpuRequestKind.COUNT, GpuRequestKind.UNCLEAR}
        if broad and not self.context.booked_slots(container.name):
            raise Refused(
                f"{container.name} requests {request.describe()}, which cannot be booked:"
                f" {self._recreate_commands(container)}"
            )
        return request.ask is GpuRequestKind.NAMED

    def _find_slots(self, container: Container) -> list[SlotId]:
        state = self.context.world.state.read()
        if not isinstance(state, AllocatorState):
            raise Ds01Error(f"cannot read the books: {state.reason}")
        slots: list[SlotId] = []
        devices = () if isinstance(container.request, Unknown) else container.request.devices
        for device in devices:
            slot = next(
                (
                    candidate.id
                    for candidate in state.slots.values()
                    if _is_slot_of(candidate, device)
                ),
                None,
            )
            if slot is None:
                slot = self._slot_by_inventory(device, state)
            if slot is None or slot not in state.slots:
                raise Refused(
                    f"{container.name} requests {device.text}, which is not a slot any more:"
                    f" {self._recreate_commands(container)}"
                )
            slots.append(slot)
        return slots

    def _slot_by_inventory(self, device: DeviceRef, state: AllocatorState) -> SlotId | None:
        """The slot of a whole GPU, whose UUID only NVML knows. None unless exactly one matches."""
        world = self.context.world
        inventory = None
        if world.gpu is not None:
            inventory = world.gpu.sample(not_before=world.clock.now().boot)
            if not isinstance(inventory, Inventory):
                raise Ds01Error(f"cannot find the slot of {device.text}: {inventory.reason}")
        index = index_devices(inventory, state)
        fitting = find_candidates(device, index)
        places = index.at.items() if index is not None and len(fitting) == 1 else ()
        return next((slot_id_at(place) for place, uuid in places if uuid in fitting), None)

    def _recreate_commands(self, container: Container) -> str:
        """Commands to copy into a shell; a label is used only if it is a plain word."""
        short, label = split_name(container.name)[0], container.labels.get("aime.mlc.FRAMEWORK", "")
        framework = label.lower() if _WORD.fullmatch(label) else "FRAMEWORK"
        return f"container-remove {short}, then container-create {short} {framework}"

    def booked_user(self, container: Container) -> str:
        """Its user in the books, else its owner."""
        record = self.read_record(container.name)
        if record is not None and record.user:
            return record.user
        owner = owner_of(container)
        if isinstance(owner, int):
            return self.user_of(owner)
        return owner or "unknown"

    def read_record(self, name: ContainerName) -> Record | None:
        records = self.context.world.metadata.read(frozenset((name,)))
        record = None if isinstance(records, Unknown) else records.get(name)
        return record if isinstance(record, Record) else None


def _is_stopped(current: Container, container: Container) -> bool:
    is_same = (current.id, current.name) == (container.id, container.name)
    return is_same and not current.state.alive and current.state is not State.REMOVING


def _is_slot_of(slot: Slot, device: DeviceRef) -> bool:
    """Whether a request for this device means this slot."""
    if device.kind is RefKind.UUID:
        return slot.uuid is not None and slot.uuid.lower() == device.text.lower()
    if device.kind is RefKind.INDEX:
        return slot.mig_index is None and str(slot.gpu_index) == device.text
    if device.kind is RefKind.MIG_INDEX:
        return f"{slot.gpu_index}:{slot.mig_index}" == device.text
    return False
