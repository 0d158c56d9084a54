"""Starts, stops and removes a container together with its booking.

A booking is released only if Docker confirms that the container is gone. Anything unknown is
reported and left to ds01d.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from ds01d.containers.context import CommandContext
from ds01d.containers.names import check_owner
from ds01d.containers.rebooking import Rebooking
from ds01d.decide.booking_record import identify_booking
from ds01d.errors import Ds01Error, EngineFailed, EngineRefused, Refused
from ds01d.model.allocation import Allocated
from ds01d.model.containers import Container, State
from ds01d.model.creation import Caller
from ds01d.model.limits import Limits
from ds01d.model.primitives import ContainerName, SlotId, UserName
from ds01d.service.allocator_client import RemoteAllocator


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """The result of a stop. `hold_s` None: without end; `hold_problem`: why it is unknown."""

    name: ContainerName
    ran: bool
    slots: tuple[SlotId, ...]
    hold_s: float | None
    hold_problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerLifecycle:
    """Changes containers for one caller."""

    context: CommandContext
    caller: Caller
    rebooking: Rebooking

    # --- start

    def start_container(self, name: ContainerName) -> tuple[Allocated, ...]:
        """Start a container; returns what was booked again for it. Raises `Ds01Error`."""
        container = self._find_container(name)
        if container.state is State.PAUSED:
            raise Refused(f"{name} is paused: docker unpause {name}")
        if container.state.alive:
            self.context.warn(f"{name} is already running")
            return ()
        booked = self.rebooking.book_again(container)
        try:
            self.context.interrupt.raise_if_interrupted()
            self.context.engine.start_container(container.id)
        except Ds01Error as error:
            self._log_operation("start", container, "failed", str(error))
            # Decision 373: without an answer Docker may be starting it.
            if isinstance(error, EngineFailed) and not isinstance(error, EngineRefused):
                remaining = _describe_unanswered(booked)
            else:
                # Docker may report a failed start of a container that runs: then it stays, too.
                remaining = self.rebooking.release_new(container, booked)
            raise Ds01Error(f"{error}{remaining}") from error
        # The hold may have ended between the check and the start; ds01d then released the slot.
        if (
            not booked
            and self.rebooking.requests_slots(container)
            and not self.context.booked_slots(name)
        ):
            booked = self._book_or_stop(container)
        self._forget_stop(name)
        self._log_operation("start", container, "success", "")
        return booked

    def _book_or_stop(self, container: Container) -> tuple[Allocated, ...]:
        """Book again or stop, since its hold ended during the start."""
        try:
            return self.rebooking.book_again(container)
        except Refused:
            self.context.engine.stop_container(container.id, 0)
            raise

    def _forget_stop(self, name: ContainerName) -> None:
        """Clear the stop time, which would end the next hold at once; ds01d would repair it too."""
        world = self.context.world
        if isinstance(self.context.allocator, RemoteAllocator):
            return  # ds01d is the writer
        with suppress(Ds01Error), world.state.lock():
            record = self.rebooking.read_record(name)
            if record is not None and record.stopped_text is not None:
                changed = replace(record, stopped_at=None, stopped_text=None)
                world.metadata.write(changed, onto=record.digest)

    # --- stop

    def stop_container(self, name: ContainerName, patience_s: int) -> Stopped:
        """Stop a container, which starts its hold; a second stop does not start it again."""
        container = self._find_container(name)
        alive = container.state.alive
        try:
            ran = self.context.engine.stop_container(container.id, patience_s) if alive else False
        except Ds01Error as error:
            self._log_operation("stop", container, "failed", str(error))
            raise
        if ran:
            self._log_operation("stop", container, "success", "")
            self._mark_stopped(container)
        rule = None
        limits = self.context.world.limits.read()
        if isinstance(limits, Limits):
            user = UserName(self.rebooking.booked_user(container))
            # Decision 226: containers of some types keep nothing after a stop.
            rule = limits.find_hold(user, container.type)
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
        """Record the stop for tools that read only the metadata; ds01d goes by Docker's time."""
        try:
            answer = self.context.allocator.mark_stopped(container.name, container.started)
        except Ds01Error as error:
            self.context.warn(f"cannot record the stop in the metadata: {error}")
            return
        for warning in getattr(answer, "warnings", ()):
            self.context.warn(warning)

    # --- remove

    def remove_container(self, name: ContainerName, *, force: bool) -> tuple[SlotId, ...]:
        """Remove a container and give back its slots, which are returned. Raises `Ds01Error`."""
        container = self._find_container(name)
        if container.pinned and not force:
            raise Refused(f"{name} is protected (ds01.protected=true): --force removes it anyway")
        if container.state.alive and not force:
            raise Refused(f"{name} is {container.state}: container-stop it first, or use --force")
        if container.state.alive:
            self._stop_running(container)
        # Before the removal: what is booked for that name afterwards may be somebody else's.
        booking = identify_booking(name, self.rebooking.read_record(name))
        try:
            self._remove_confirmed(container, force=force)
        except Ds01Error as error:
            self._log_operation("remove", container, "failed", str(error))
            raise
        # Before the release: ds01d logs by then what it has seen of a container and nobody logged.
        self._log_operation("remove", container, "success", "")
        try:
            answer = self.context.release_gone(name, booking)
            again = self.context.describe_booked_again(name, answer)
        except Ds01Error as error:
            self._log_operation("remove", container, "failed", f"not released: {error}")
            until = "" if isinstance(error, Refused) else " until ds01d repairs it"
            raise Ds01Error(f"{name} is removed, but its booking stays{until}: {error}") from error
        for warning in filter(None, (*answer.warnings, again)):
            self.context.warn(warning)
        return getattr(answer, "slots", ())

    def _stop_running(self, container: Container) -> None:
        """Stop it before the removal, as Docker would, so that the stop is logged first."""
        with suppress(Ds01Error):
            if self.context.engine.stop_container(container.id, 0):
                self._log_operation("stop", container, "success", "")

    def _remove_confirmed(self, container: Container, *, force: bool) -> None:
        """Remove it and make Docker confirm that its ID and its name are gone."""
        engine, remaining = (
            self.context.engine,
            "its booking stays until ds01d finds it gone",
        )
        try:
            engine.remove_container(container.id, force=force)
        except EngineFailed as error:
            raise Ds01Error(f"{error}; {remaining}") from error
        try:
            if engine.find_container(container.id) is not None:
                raise Ds01Error(f"{container.name} is not gone yet; {remaining}")
            # By name, too: a new container of that name needs the booking.
            if engine.find_container(container.name) is not None:
                raise Ds01Error(
                    f"{container.name} is removed, but its name is in use again: its booking stays"
                )
        except EngineFailed as error:
            message = f"{container.name} may still exist: {error}; {remaining}"
            raise Ds01Error(message) from error

    # --- shared

    def _find_container(self, name: ContainerName) -> Container:
        container = self.context.engine.find_container(name)
        if container is None:
            message = f'no container "{name}"'
            with suppress(Ds01Error):
                if slots := self.context.booked_slots(name):
                    message += (
                        f", though GPU {', '.join(sorted(slots))} is booked for it: it is being"
                        f" created, or ds01d will release it (ds01ctl explain {name})"
                    )
            raise Refused(message)
        check_owner(container, self.caller)
        return container

    def _log_operation(
        self,
        operation: str,
        container: Container,
        status: str,
        details: str,
    ) -> None:
        slots: Sequence[SlotId] = ()
        with suppress(Ds01Error):
            slots = sorted(self.context.booked_slots(container.name))
        words = f"container-{operation}" + (f": {details}" if details else "")
        self.context.log_operation(
            operation,
            status,
            user=self.rebooking.booked_user(container),
            name=container.name,
            slots=slots,
            details=words,
        )


def _describe_unanswered(booked: Sequence[Allocated]) -> str:
    """What stays booked after a start that Docker did not answer; "" if nothing was booked."""
    slots = ", ".join(booking.slot for booking in booked)
    return f"; GPU {slots} stays booked, since Docker may still start it" if booked else ""
