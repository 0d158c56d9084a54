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

    tools: CommandContext
    caller: Caller
    user_of: Callable[[int], str]

    def named(self, text: str) -> ContainerName:
        """The container that is meant: the caller's of that name, else one called just so."""
        name = full_name(text, self.caller)
        if name == text or self.tools.hands.find(name) is not None:
            return name
        exactly = self.tools.hands.find(text)
        return name if exactly is None else exactly.name

    # --- start

    def start(self, name: ContainerName) -> tuple[Allocated, ...]:
        """Start a container; what had to be booked again for it. Raises `Ds01Error`."""
        there = self._find(name)
        if there.state is State.PAUSED:
            raise Refused(f"{name} is paused: docker unpause {name}")
        if there.state.alive:
            self.tools.tell(f"{name} runs already")
            return ()
        booked = self._book_again(there)
        try:
            self.tools.interrupt.check()
            self.tools.hands.start(there.id)
        except Ds01Error as error:
            self._note("start", there, "failed", str(error))
            raise Ds01Error(f"{error}{self._give_back(there, booked)}") from error
        if not booked and self._asks(there) and not self.tools.booked(name):
            booked = self._book_or_stop(there)
        self._forget_stop(name)
        self._note("start", there, "success", "")
        return booked

    def _book_again(self, there: Container) -> tuple[Allocated, ...]:
        """Book what its hold has lost, all of it or nothing."""
        if not self._asks(there) or self.tools.booked(there.name):
            return ()
        booked: list[Allocated] = []
        for slot in self._slots_of(there):
            answer = self.tools.allocator.allocate(
                UserName(self._user(there)), there.name, slot=slot, another=bool(booked)
            )
            for warning in answer.warnings:
                self.tools.tell(warning)
            if isinstance(answer, Rejected):
                self._release(there.name, booked)
                raise Refused(
                    f"{there.name} has lost GPU {slot}, its hold is over, and it cannot have it"
                    f" again now: {answer.reason}; wait, or have another one:"
                    f" {self._anew(there)}"
                )
            if answer.shared_with:
                self.tools.tell(f"GPU {slot} is shared with {', '.join(answer.shared_with)}")
            booked.append(answer)
        return tuple(one for one in booked if not one.already)

    def _book_or_stop(self, there: Container) -> tuple[Allocated, ...]:
        """Its hold ended in the very moment of its start: book it again, or stop it again."""
        try:
            return self._book_again(there)
        except Refused:
            self.tools.hands.stop(there.id, 0)
            raise

    def _give_back(self, there: Container, booked: Sequence[Allocated]) -> str:
        """After a start that failed: "" or what is left of it."""
        if not booked:
            return ""
        kept = f"; GPU {', '.join(one.slot for one in booked)} stays booked, ds01d settles it"
        try:
            now = self.tools.hands.find(there.id)
            if now is not None and (now.state.alive or now.state is State.REMOVING):
                return kept
            self._release(there.name, booked)
        except Ds01Error:
            return kept
        return ""

    def _release(self, name: ContainerName, booked: Sequence[Allocated]) -> None:
        """Give back what was booked just now; a booking from before stays."""
        if booked and not any(one.already for one in booked):
            self.tools.allocator.release(name)

    def _asks(self, there: Container) -> bool:
        """Whether it wants GPUs that can be booked."""
        request = there.request
        if isinstance(request, Unknown):
            raise Refused(f"{there.name}: what GPUs it asks for is not known: {request.reason}")
        broad = request.ask in {GpuRequestKind.ALL, GpuRequestKind.COUNT, GpuRequestKind.UNCLEAR}
        if broad and not self.tools.booked(there.name):
            raise Refused(
                f"{there.name} asks for {request.describe()}, so none can be booked for it:"
                f" {self._anew(there)}"
            )
        return request.ask is GpuRequestKind.NAMED

    def _slots_of(self, there: Container) -> list[SlotId]:
        state = self.tools.world.state.read()
        if not isinstance(state, AllocatorState):
            raise Ds01Error(f"the books cannot be read: {state.reason}")
        found: list[SlotId] = []
        devices = () if isinstance(there.request, Unknown) else there.request.devices
        for device in devices:
            slot = next((one.id for one in state.slots.values() if _is_slot_of(one, device)), None)
            if slot is None:
                slot = self._slot_by_inventory(device, state)
            if slot is None or slot not in state.slots:
                raise Refused(
                    f"{there.name} asks for {device.text}, which is no slot any more:"
                    f" {self._anew(there)}"
                )
            found.append(slot)
        return found

    def _slot_by_inventory(self, device: DeviceRef, state: AllocatorState) -> SlotId | None:
        """Whole GPUs have no UUID in the books; NVML knows theirs. None unless just one fits."""
        world = self.tools.world
        seen = None
        if world.gpu is not None:
            seen = world.gpu.sample(not_before=world.clock.now().boot)
            if not isinstance(seen, Inventory):
                raise Ds01Error(f"which slot {device.text} is, is not known: {seen.reason}")
        index = index_devices(seen, state)
        fitting = find_candidates(device, index)
        places = index.at.items() if index is not None and len(fitting) == 1 else ()
        return next((slot_id_at(place) for place, uuid in places if uuid in fitting), None)

    def _anew(self, there: Container) -> str:
        """What to type. It is copied into a shell, so that of labels only a plain word is taken."""
        short, label = split_name(there.name)[0], there.labels.get("aime.mlc.FRAMEWORK", "")
        framework = label.lower() if _WORD.fullmatch(label) else "FRAMEWORK"
        return f"container-remove {short}, then container-create {short} {framework}"

    def _forget_stop(self, name: ContainerName) -> None:
        """A stop that is over must not end the next hold at once; ds01d would mend it too."""
        world = self.tools.world
        with suppress(Ds01Error), world.state.lock():
            record = self._record(name)
            if record is not None and record.stopped_text is not None:
                changed = replace(record, stopped_at=None, stopped_text=None)
                world.metadata.write(changed, onto=record.digest)

    # --- stop

    def stop(self, name: ContainerName, patience_s: int) -> Stopped:
        """Stop a container, which starts its hold; a second stop does not start it again."""
        there = self._find(name)
        alive = there.state.alive
        try:
            ran = self.tools.hands.stop(there.id, patience_s) if alive else False
        except Ds01Error as error:
            self._note("stop", there, "failed", str(error))
            raise
        if ran:
            self._note("stop", there, "success", "")
            self._mark_stopped(there)
        rule = None
        limits = self.tools.world.limits.read()
        if isinstance(limits, Limits):
            rule = limits.hold(UserName(self._user(there)))
        slots: frozenset[SlotId] = frozenset()
        with suppress(Ds01Error):
            slots = self.tools.booked(name)
        return Stopped(
            name=name,
            ran=ran,
            slots=tuple(sorted(slots)),
            hold_s=rule.seconds if rule is not None else None,
            hold_problem=rule.problem if rule is not None else getattr(limits, "reason", ""),
        )

    def _mark_stopped(self, there: Container) -> None:
        """Docker's own time counts for ds01d; this is for those who read the metadata alone."""
        try:
            answer = self.tools.allocator.mark_stopped(there.name, there.started)
        except Ds01Error as error:
            self.tools.tell(f"the stop is not in its metadata: {error}")
            return
        for warning in getattr(answer, "warnings", ()):
            self.tools.tell(warning)

    # --- remove

    def remove(self, name: ContainerName, *, force: bool) -> tuple[SlotId, ...]:
        """Remove a container and give back its slots, which are returned. Raises `Ds01Error`."""
        there = self._find(name)
        if there.pinned and not force:
            raise Refused(f"{name} is protected (ds01.protected=true): --force removes it anyway")
        if there.state.alive and not force:
            raise Refused(f"{name} is {there.state}: container-stop it first, or use --force")
        if there.state.alive:
            self._kill(there)
        try:
            self._remove(there, force=force)
        except Ds01Error as error:
            self._note("remove", there, "failed", str(error))
            raise
        try:
            answer = self.tools.allocator.release(name)
        except Ds01Error as error:
            self._note("remove", there, "success", f"not released: {error}")
            raise Ds01Error(
                f"{name} is removed, but its booking stays, and ds01d settles it: {error}"
            ) from error
        for warning in answer.warnings:
            self.tools.tell(warning)
        slots: tuple[SlotId, ...] = getattr(answer, "slots", ())
        self._note("remove", there, "success", "", slots)
        return slots

    def _kill(self, there: Container) -> None:
        """End it before it is removed, as Docker would, so that its stop is logged before that."""
        with suppress(Ds01Error):
            if self.tools.hands.stop(there.id, 0):
                self._note("stop", there, "success", "")

    def _remove(self, there: Container, *, force: bool) -> None:
        """Remove it, and have Docker say that nothing of this id and this name is there."""
        hands, kept = self.tools.hands, "its booking stays until it is gone, and ds01d settles it"
        try:
            hands.remove(there.id, force=force)
        except EngineFailed as error:
            raise Ds01Error(f"{error}; {kept}") from error
        try:
            if hands.find(there.id) is not None:
                raise Ds01Error(f"{there.name} is not gone yet; {kept}")
            if hands.find(there.name) is not None:
                raise Ds01Error(f"{there.name} is removed and there again: its booking stays")
        except EngineFailed as error:
            told = f"whether {there.name} is gone is not known: {error}; {kept}"
            raise Ds01Error(told) from error

    # --- what they have in common

    def _find(self, name: ContainerName) -> Container:
        there = self.tools.hands.find(name)
        if there is None:
            told = f"there is no container {name}"
            with suppress(Ds01Error):
                if slots := self.tools.booked(name):
                    told += (
                        f", though GPU {', '.join(sorted(slots))} is booked for it: it is being"
                        f" created, or ds01d will release it (ds01ctl explain {name})"
                    )
            raise Refused(told)
        check_owner(there, self.caller)
        return there

    def _user(self, there: Container) -> str:
        """Whom the books know as its user."""
        record = self._record(there.name)
        if record is not None and record.user:
            return record.user
        owner = owner_of(there)
        if isinstance(owner, int):
            return self.user_of(owner)
        return owner or "unknown"

    def _record(self, name: ContainerName) -> Record | None:
        records = self.tools.world.metadata.read(frozenset((name,)))
        record = None if isinstance(records, Unknown) else records.get(name)
        return record if isinstance(record, Record) else None

    def _note(
        self,
        operation: str,
        there: Container,
        status: str,
        details: str,
        slots: Sequence[SlotId] | None = None,
    ) -> None:
        if slots is None:
            slots = ()
            with suppress(Ds01Error):
                slots = sorted(self.tools.booked(there.name))
        words = f"container-{operation}" + (f": {details}" if details else "")
        self.tools.note(
            operation,
            status,
            user=self._user(there),
            name=there.name,
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
