"""Starting, stopping and removing a container, together with what becomes of its booking.

A booking is given back only where Docker itself says that the container is gone. Whatever is not
known is left to ds01d, and said.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from ds01d.containers.create import CommandContext
from ds01d.containers.names import check_owner, full_name, owner_of, split_name
from ds01d.decide.device_resolution import find_candidates, index_devices
from ds01d.decide.slot_table import slot_id_at
from ds01d.errors import Ds01Error, EngineFailed, Refused
from ds01d.model.allocation import Allocated, Rejected
from ds01d.model.books import AllocatorState, Limits, Record, Slot
from ds01d.model.containers import Container, DeviceRef, GpuRequestKind, RefKind, State
from ds01d.model.creation import Caller
from ds01d.model.devices import Inventory
from ds01d.model.primitives import ContainerName, SlotId, Unknown, UserName

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """What became of a stop. `hold_s` None = for ever; `hold_problem` why nobody knows better."""

    name: ContainerName
    ran: bool
    slots: tuple[SlotId, ...]
    hold_s: float | None
    hold_problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerLifecycle:
    """What one caller may do to containers. `user_of` gives the name of a uid."""

    context: CommandContext
    caller: Caller
    user_of: Callable[[int], str]

    def resolve_name(self, text: str) -> ContainerName:
        """The container that is meant: the caller's of that name, else one called just so."""
        name = full_name(text, self.caller)
        if name == text or self.context.engine.find_container(name) is not None:
            return name
        exact = self.context.engine.find_container(text)
        return name if exact is None else exact.name

    # --- start

    def start(self, name: ContainerName) -> tuple[Allocated, ...]:
        """Start a container; what had to be booked again for it. Raises `Ds01Error`."""
        container = self._find(name)
        if container.state is State.PAUSED:
            raise Refused(f"{name} is paused: docker unpause {name}")
        if container.state.alive:
            self.context.warn(f"{name} runs already")
            return ()
        booked = self._book_again(container)
        try:
            self.context.interrupt.raise_if_interrupted()
            self.context.engine.start_container(container.id)
        except Ds01Error as error:
            self._note("start", container, "failed", str(error))
            raise Ds01Error(f"{error}{self._give_back(container, booked)}") from error
        if not booked and self._asks(container) and not self.context.booked_slots(name):
            booked = self._book_or_stop(container)
        self._forget_stop(name)
        self._note("start", container, "success", "")
        return booked

    def _book_again(self, container: Container) -> tuple[Allocated, ...]:
        """Book what its hold has lost, all of it or nothing."""
        if not self._asks(container) or self.context.booked_slots(container.name):
            return ()
        booked: list[Allocated] = []
        for slot in self._slots_of(container):
            answer = self.context.allocator.allocate(
                UserName(self._user(container)), container.name, slot=slot, another=bool(booked)
            )
            for warning in answer.warnings:
                self.context.warn(warning)
            if isinstance(answer, Rejected):
                self._release(container.name, booked)
                raise Refused(
                    f"{container.name} has lost GPU {slot}, its hold is over, and it cannot have it"
                    f" again now: {answer.reason}; wait, or have another one:"
                    f" {self._anew(container)}"
                )
            if answer.shared_with:
                self.context.warn(f"GPU {slot} is shared with {', '.join(answer.shared_with)}")
            booked.append(answer)
        return tuple(booking for booking in booked if not booking.already)

    def _book_or_stop(self, container: Container) -> tuple[Allocated, ...]:
        """Its hold ended in the very moment of its start: book it again, or stop it again."""
        try:
            return self._book_again(container)
        except Refused:
            self.context.engine.stop_container(container.id, 0)
            raise

    def _give_back(self, container: Container, booked: Sequence[Allocated]) -> str:
        """After a start that failed: "" or what is left of it."""
        if not booked:
            return ""
        remaining = (
            f"; GPU {', '.join(booking.slot for booking in booked)} stays booked, ds01d settles it"
        )
        try:
            current = self.context.engine.find_container(container.id)
            if current is not None and (current.state.alive or current.state is State.REMOVING):
                return remaining
            self._release(container.name, booked)
        except Ds01Error:
            return remaining
        return ""

    def _release(self, name: ContainerName, booked: Sequence[Allocated]) -> None:
        """Give back what was booked just now; a booking from before stays."""
        if booked and not any(booking.already for booking in booked):
            self.context.allocator.release(name)

    def _asks(self, container: Container) -> bool:
        """Whether it wants GPUs that can be booked."""
        request = container.request
        if isinstance(request, Unknown):
            raise Refused(f"{container.name}: what GPUs it asks for is not known: {request.reason}")
        broad = request.ask in {GpuRequestKind.ALL, GpuRequestKind.COUNT, GpuRequestKind.UNCLEAR}
        if broad and not self.context.booked_slots(container.name):
            raise Refused(
                f"{container.name} asks for {request.describe()}, so none can be booked for it:"
                f" {self._anew(container)}"
            )
        return request.ask is GpuRequestKind.NAMED

    def _slots_of(self, container: Container) -> list[SlotId]:
        state = self.context.world.state.read()
        if not isinstance(state, AllocatorState):
            raise Ds01Error(f"the books cannot be read: {state.reason}")
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
                    f"{container.name} asks for {device.text}, which is no slot any more:"
                    f" {self._anew(container)}"
                )
            slots.append(slot)
        return slots

    def _slot_by_inventory(self, device: DeviceRef, state: AllocatorState) -> SlotId | None:
        """Whole GPUs have no UUID in the books; NVML knows theirs. None unless just one fits."""
        world = self.context.world
        inventory = None
        if world.gpu is not None:
            inventory = world.gpu.sample(not_before=world.clock.now().boot)
            if not isinstance(inventory, Inventory):
                raise Ds01Error(f"which slot {device.text} is, is not known: {inventory.reason}")
        index = index_devices(inventory, state)
        fitting = find_candidates(device, index)
        places = index.at.items() if index is not None and len(fitting) == 1 else ()
        return next((slot_id_at(place) for place, uuid in places if uuid in fitting), None)

    def _anew(self, container: Container) -> str:
        """What to type. It is copied into a shell, so that of labels only a plain word is taken."""
        short, label = split_name(container.name)[0], container.labels.get("aime.mlc.FRAMEWORK", "")
        framework = label.lower() if _WORD.fullmatch(label) else "FRAMEWORK"
        return f"container-remove {short}, then container-create {short} {framework}"

    def _forget_stop(self, name: ContainerName) -> None:
        """A stop that is over must not end the next hold at once; ds01d would mend it too."""
        world = self.context.world
        with suppress(Ds01Error), world.state.lock():
            record = self._record(name)
            if record is not None and record.stopped_text is not None:
                changed = replace(record, stopped_at=None, stopped_text=None)
                world.metadata.write(changed, onto=record.digest)

    # --- stop

    def stop(self, name: ContainerName, patience_s: int) -> Stopped:
        """Stop a container, which starts its hold; a second stop does not start it again."""
        container = self._find(name)
        alive = container.state.alive
        try:
            ran = self.context.engine.stop_container(container.id, patience_s) if alive else False
        except Ds01Error as error:
            self._note("stop", container, "failed", str(error))
            raise
        if ran:
            self._note("stop", container, "success", "")
            self._mark_stopped(container)
        rule = None
        limits = self.context.world.limits.read()
        if isinstance(limits, Limits):
            rule = limits.hold(UserName(self._user(container)))
        slots: frozenset[SlotId] = frozenset()
        with suppress(Ds01Error):
            slots = self.context.booked_slots(name)
        return Stopped(
            name=name,
            ran=ran,
            slots=tuple(sorted(slots)),
            hold_s=rule.seconds if rule is not None else None,
            hold_problem=rule.problem if rule is not None else getattr(limits, "reason", ""),
        )

    def _mark_stopped(self, container: Container) -> None:
        """Docker's own time counts for ds01d; this is for those who read the metadata alone."""
        try:
            answer = self.context.allocator.mark_stopped(container.name, container.started)
        except Ds01Error as error:
            self.context.warn(f"the stop is not in its metadata: {error}")
            return
        for warning in getattr(answer, "warnings", ()):
            self.context.warn(warning)

    # --- remove

    def remove(self, name: ContainerName, *, force: bool) -> tuple[SlotId, ...]:
        """Remove a container and give back its slots, which are returned. Raises `Ds01Error`."""
        container = self._find(name)
        if container.pinned and not force:
            raise Refused(f"{name} is protected (ds01.protected=true): --force removes it anyway")
        if container.state.alive and not force:
            raise Refused(f"{name} is {container.state}: container-stop it first, or use --force")
        if container.state.alive:
            self._kill(container)
        try:
            self._remove(container, force=force)
        except Ds01Error as error:
            self._note("remove", container, "failed", str(error))
            raise
        try:
            answer = self.context.allocator.release(name)
        except Ds01Error as error:
            self._note("remove", container, "success", f"not released: {error}")
            raise Ds01Error(
                f"{name} is removed, but its booking stays, and ds01d settles it: {error}"
            ) from error
        for warning in answer.warnings:
            self.context.warn(warning)
        slots: tuple[SlotId, ...] = getattr(answer, "slots", ())
        self._note("remove", container, "success", "", slots)
        return slots

    def _kill(self, container: Container) -> None:
        """End it before it is removed, as Docker would, so that its stop is logged before that."""
        with suppress(Ds01Error):
            if self.context.engine.stop_container(container.id, 0):
                self._note("stop", container, "success", "")

    def _remove(self, container: Container, *, force: bool) -> None:
        """Remove it, and have Docker say that nothing of this id and this name is there."""
        engine, remaining = (
            self.context.engine,
            "its booking stays until it is gone, and ds01d settles it",
        )
        try:
            engine.remove_container(container.id, force=force)
        except EngineFailed as error:
            raise Ds01Error(f"{error}; {remaining}") from error
        try:
            if engine.find_container(container.id) is not None:
                raise Ds01Error(f"{container.name} is not gone yet; {remaining}")
            if engine.find_container(container.name) is not None:
                raise Ds01Error(f"{container.name} is removed and there again: its booking stays")
        except EngineFailed as error:
            message = f"whether {container.name} is gone is not known: {error}; {remaining}"
            raise Ds01Error(message) from error

    # --- what they have in common

    def _find(self, name: ContainerName) -> Container:
        container = self.context.engine.find_container(name)
        if container is None:
            message = f"there is no container {name}"
            with suppress(Ds01Error):
                if slots := self.context.booked_slots(name):
                    message += (
                        f", though GPU {', '.join(sorted(slots))} is booked for it: it is being"
                        f" created, or ds01d will release it (ds01ctl explain {name})"
                    )
            raise Refused(message)
        check_owner(container, self.caller)
        return container

    def _user(self, container: Container) -> str:
        """Whom the books know as its user."""
        record = self._record(container.name)
        if record is not None and record.user:
            return record.user
        owner = owner_of(container)
        if isinstance(owner, int):
            return self.user_of(owner)
        return owner or "unknown"

    def _record(self, name: ContainerName) -> Record | None:
        records = self.context.world.metadata.read(frozenset((name,)))
        record = None if isinstance(records, Unknown) else records.get(name)
        return record if isinstance(record, Record) else None

    def _note(
        self,
        operation: str,
        container: Container,
        status: str,
        details: str,
        slots: Sequence[SlotId] | None = None,
    ) -> None:
        if slots is None:
            slots = ()
            with suppress(Ds01Error):
                slots = sorted(self.context.booked_slots(container.name))
        words = f"container-{operation}" + (f": {details}" if details else "")
        self.context.log_operation(
            operation,
            status,
            user=self._user(container),
            name=container.name,
            slots=slots,
            details=words,
        )


def _is_slot_of(slot: Slot, device: DeviceRef) -> bool:
    """Whether a request for this device means this slot."""
    if device.kind is RefKind.UUID:
        return slot.uuid is not None and slot.uuid.lower() == device.text.lower()
    if device.kind is RefKind.INDEX:
        return slot.mig_index is None and str(slot.gpu_index) == device.text
    if device.kind is RefKind.MIG_INDEX:
        return f"{slot.gpu_index}:{slot.mig_index}" == device.text
    return False
