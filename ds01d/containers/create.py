"""Creates a container as a transaction: it exists with its booking, or nothing is left of it.

Pull if needed → create_start → book → create → start → create_success. A step that fails or is
interrupted undoes those before it in reverse order. The booking is released only if Docker confirms
that the container does not exist; otherwise it stays, and ds01d repairs it. Signals take effect
between two steps, never within one.
"""

from __future__ import annotations

from contextlib import nullcontext, suppress

from ds01d.containers.context import CommandContext
from ds01d.containers.labels import build_labels, device_of
from ds01d.containers.planned_container import PlannedContainer
from ds01d.errors import Ds01Error, EngineFailed, Interrupted, Refused
from ds01d.model.allocation import Allocated, NotAllocated, Refusal, Rejected
from ds01d.model.containers import State
from ds01d.model.creation import Created, Order, Plan
from ds01d.model.primitives import ContainerId, DeviceUuid, SlotId, UserName
from ds01d.service.exchange import ServiceUnanswered

COMMAND = "container-create"
_NO_GPU = "no GPU: "


def find_refusal(text: str) -> Refusal | None:
    """Why a creation got no slot, by the text of its `Refused`; None if that was not the reason."""
    # The text is what ds01d sends to users without Docker, too: there is one place for the word.
    if not text.startswith(_NO_GPU):
        return None
    word = text.removeprefix(_NO_GPU).partition(" ")[0].rstrip(";")
    return next((refusal for refusal in Refusal if refusal.value == word), None)


class Creation:
    """One creation, from its first step to its last, or until it is undone."""

    def __init__(self, order: Order, context: CommandContext) -> None:
        self._order, self._context = order, context
        self.container = PlannedContainer(context.engine, order.name, context.warn)
        self._booked: list[Allocated] = []

    def run(self) -> Created:
        """Create the container. The `Ds01Error` raised on failure names what is left of it."""
        self._check_name()
        try:
            return self._run_steps()
        except BaseException as error:
            # BaseException: Ctrl-C must not leave a booking without a container.
            remaining = self._undo_steps(str(error) or type(error).__name__)
            if isinstance(error, Interrupted):
                raise Interrupted(f"{error}: {remaining}", signal=error.signal) from error
            if isinstance(error, Ds01Error):
                kind = Refused if isinstance(error, Refused) else Ds01Error
                raise kind(f"{error}; {remaining}") from error
            raise

    # --- forward

    def _check_name(self) -> None:
        """Refuse a name in use. Not logged: the line would belong to another creation."""
        name = self._order.name
        self._context.interrupt.raise_if_interrupted()
        if self._context.engine.find_container(name) is not None:
            raise Refused(
                f'container "{name}" already exists: container-start it, or choose another name'
            )
        if slots := self._context.booked_slots(name):
            raise Refused(
                f"slot {', '.join(sorted(slots))} is already booked for {name}, which does not"
                " exist: it is being created, or ds01d will release the slot (ds01ctl explain"
                f" {name}); choose another name, or wait"
            )

    def _run_steps(self) -> Created:
        order, context = self._order, self._context
        self._pull_image()
        self._log_step("create_start", "pending", order.image)
        context.interrupt.raise_if_interrupted()
        self._book_slots()
        context.interrupt.raise_if_interrupted()
        container = self._create_container()
        context.interrupt.raise_if_interrupted()
        if order.start:
            context.engine.start_container(container)
            context.interrupt.raise_if_interrupted()
            self._warn_if_ended(container)
        self._require_booked()
        self._log_step("create_success", "success", "started" if order.start else "not started")
        return Created(name=order.name, id=container, booked=tuple(self._booked))

    def _warn_if_ended(self, container: ContainerId) -> None:
        """Warn of a command that ends at once; the container stays, for what it has written."""
        started = self._context.engine.find_container(container)
        if started is not None and started.state is State.EXITED:
            name = self._order.name
            self._context.warn(
                f"{name} has ended already: container-logs {name} shows what it wrote"
            )

    def _pull_image(self) -> None:
        context, image = self._context, self._order.image
        if context.engine.has_image(image):
            return
        context.interrupt.raise_if_interrupted()
        try:
            context.show_pull(context.engine.pull_image(image), image)
        except EngineFailed as error:
            context.interrupt.raise_if_interrupted()  # our own abort makes the pull fail, too
            raise EngineFailed(f'cannot pull image "{image}": {error}') from error
        context.interrupt.raise_if_interrupted()

    def _book_slots(self) -> None:
        order = self._order
        unnamed = sum(slot is None for slot in order.slots)
        # All that may be any slot at once: with only some of them the creation would fail.
        calls = [(slot, 1) for slot in order.slots if slot is not None]
        for slot, count in [*calls, (None, unnamed)] if unnamed else calls:
            answer = self._book_slot(slot, count)
            for warning in answer.warnings:
                self._context.warn(warning)
            if isinstance(answer, Rejected):
                raise Refused(f"{_NO_GPU}{answer.reason}")
            if answer.already:
                raise Refused(
                    f"slot {answer.slot} is already booked for {order.name} by another process"
                )
            self._booked += answer.all_slots
            for given in answer.all_slots:
                if given.shared_with:
                    others = ", ".join(given.shared_with)
                    self._context.warn(f"GPU {given.slot} is shared with {others}")
            self._context.interrupt.raise_if_interrupted()

    def _book_slot(self, slot: SlotId | None, count: int) -> Allocated | Rejected:
        order, context = self._order, self._context
        waiting = nullcontext() if context.show_waiting is None else context.show_waiting()
        try:
            with waiting as on_waiting:
                return context.allocator.allocate(
                    UserName(order.owner.name),
                    order.name,
                    slot=slot,
                    another=bool(self._booked),
                    count=count,
                    on_waiting=on_waiting,
                )
        except ServiceUnanswered:
            context.interrupt.raise_if_interrupted()  # our own abort ends the wait
            raise

    def _create_container(self) -> ContainerId:
        order, context = self._order, self._context
        plan = Plan(
            name=order.name,
            image=order.image,
            labels=build_labels(
                name=order.name,
                owner=order.owner,
                framework=order.framework,
                architecture=order.architecture,
                custom_image=order.custom_image,
                setup=order.setup,
                booked=self._booked,
                at=context.world.clock.now().wall,
                creation=self.container.token,
            ),
            devices=[DeviceUuid(device_of(booking)) for booking in self._booked],
            setup=order.setup,
            resources=order.resources,
            confinement=order.confinement,
        )
        return self.container.create(plan)

    def _require_booked(self) -> None:
        """Raise `Refused` if a slot was released meanwhile: it would be used beside the quota."""
        booked = {booking.slot for booking in self._booked}
        missing = booked and booked - self._context.booked_slots(self._order.name)
        if missing:
            raise Refused(f"slot {', '.join(sorted(missing))} was released meanwhile")

    # --- backward

    def _undo_steps(self, reason: str) -> str:
        """Undo the steps and describe what is left. Signals have no effect."""
        remaining = self._remove_container()
        # decision 29: no release while the container may still exist.
        if not remaining and self._booked:
            remaining = self._release_slots()
        # decision 27: a create_failed for another attempt would end its creation grace.
        if self._is_own_attempt():
            self._log_step("create_failed", "failed", "; ".join(filter(None, (reason, remaining))))
        return remaining or "nothing is left of it"

    def _remove_container(self) -> str:
        """Remove the container; "" once Docker confirms that it is gone, else what is left."""
        reason = self.container.remove()
        if not reason:
            return ""
        name, booked = self._order.name, ", ".join(booking.slot for booking in self._booked)
        remaining = f"its booking of GPU {booked} stays until ds01d repairs it" if booked else ""
        return "; ".join(filter(None, (f"{name} may still exist ({reason})", remaining)))

    def _release_slots(self) -> str:
        context, name = self._context, self._order.name
        try:
            # The last: a record that was lost meanwhile has the ID of what was booked after that.
            answer = context.release_gone(name, self._booked[-1].id)
            again = context.describe_booked_again(name, answer)
        except Ds01Error as error:
            booked = ", ".join(booking.slot for booking in self._booked)
            until = "" if isinstance(error, Refused) else " until ds01d repairs it"
            return f"its booking of GPU {booked} stays{until}: {error}"
        for warning in answer.warnings:
            context.warn(warning)
        if isinstance(answer, NotAllocated) and not again:
            context.warn("its booking was already released")
        return again

    def _log_step(self, operation: str, status: str, details: str) -> None:
        self._context.log_operation(
            operation,
            status,
            user=self._order.owner.name,
            name=self._order.name,
            slots=[booking.slot for booking in self._booked],
            details=f"{COMMAND}: {details}",
        )

    def _is_own_attempt(self) -> bool:
        """Whether the attempt logged under this name is ours: no other one has booked."""
        if self._booked:
            return True
        with suppress(Ds01Error):
            return not self._context.booked_slots(self._order.name)
        return True
