"""Creating a container, as a transaction: it is there with its booking, or nothing is left of it.

Pull if needed → create_start → book → create → start → create_success. Whatever fails or is
interrupted on the way is undone in the reverse order, and the booking is given back only where
Docker itself says that there is no such container. Where Docker does not say, the booking stays,
and ds01d settles it. A signal is heard between two steps, never within one.
"""

from __future__ import annotations

import secrets
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from ds01d.containers.labels import CREATION, build_labels, device_of
from ds01d.containers.ports import ContainerEngine, OperationsLogPort
from ds01d.errors import Ds01Error, EngineFailed, EngineRefused, Interrupted, Refused, WriteFailed
from ds01d.model.allocation import Allocated, NotAllocated, Rejected
from ds01d.model.books import AllocatorState, LogLine
from ds01d.model.creation import Person, Plan, Progress, Setup
from ds01d.model.primitives import ContainerId, ContainerName, DeviceUuid, SlotId, UserName
from ds01d.reconcile.allocator import Allocator
from ds01d.reconcile.ports import BooksWorld

COMMAND = "container-create"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be created. `slots` has an entry for each GPU: a slot, or None for the best."""

    name: ContainerName
    owner: Person
    image: str
    framework: str
    architecture: str = ""
    custom_image: str = ""
    slots: Sequence[SlotId | None] = (None,)
    setup: Setup = field(default_factory=Setup)
    start: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """What was created."""

    name: ContainerName
    id: ContainerId
    booked: tuple[Allocated, ...]


class Interrupt:
    """What a signal leaves behind, for whoever is at work to find between two steps."""

    def __init__(self) -> None:
        self.signal = 0

    def raise_if_interrupted(self) -> None:
        """Raises `Interrupted` if there was a signal."""
        if self.signal:
            name = signal.Signals(self.signal).name
            raise Interrupted(f"interrupted by {name}", signal=self.signal)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandContext:
    """What commands work with. `tell` takes a line for the person in front of them."""

    engine: ContainerEngine
    allocator: Allocator
    world: BooksWorld
    log: OperationsLogPort
    warn: Callable[[str], None] = lambda _: None
    show_pull: Callable[[Iterator[Progress], str], None] = lambda steps, _: _drain_steps(steps)
    interrupt: Interrupt = field(default_factory=Interrupt)

    def booked_slots(self, name: ContainerName) -> frozenset[SlotId]:
        """The slots that the books have for a container. Raises `Ds01Error` if they do not say."""
        state = self.world.state.read()
        if not isinstance(state, AllocatorState):
            raise Ds01Error(f"the books cannot be read: {state.reason}")
        return frozenset(slot.id for slot in state.slots.values() if name in slot.containers)

    def log_operation(
        self,
        operation: str,
        status: str,
        *,
        user: str,
        name: str,
        slots: Sequence[str] = (),
        details: str,
    ) -> None:
        """A line in the operations log; what goes wrong with it is told and harms nothing."""
        try:
            self.log.append(
                LogLine(
                    at=self.world.clock.now().wall,
                    operation=operation,
                    user=user,
                    container=name,
                    gpu=",".join(slots) or "N/A",
                    status=status,
                    details=details,
                    actor=self.world.actor,
                )
            )
        except WriteFailed as error:
            self.warn(f"not in the operations log: {error}")


class Creation:
    """One creation, from its first step to its last, or to the end of undoing it."""

    def __init__(self, order: Order, tools: CommandContext) -> None:
        self._order, self._tools = order, tools
        self._mark = secrets.token_hex(16)
        self._booked: list[Allocated] = []
        self._lost: str | None = None  # the dockerd that was asked to create, and did not answer
        self._made: ContainerId | None = None

    def run(self) -> Created:
        """All of it. Raises `Ds01Error` that says what is left, mostly nothing."""
        self._check_name()
        try:
            return self._steps()
        except BaseException as error:
            remaining = self._undo(str(error) or type(error).__name__)
            if isinstance(error, Interrupted):
                raise Interrupted(f"{error}: {remaining}", signal=error.signal) from error
            if isinstance(error, Ds01Error):
                raise Ds01Error(f"{error}; {remaining}") from error
            raise

    # --- forward

    def _check_name(self) -> None:
        """Nothing has begun, so nothing is logged: it would speak of somebody else's attempt."""
        name = self._order.name
        self._tools.interrupt.raise_if_interrupted()
        if self._tools.engine.find_container(name) is not None:
            raise Refused(f"{name} exists already: container-start it, or choose another name")
        if slots := self._tools.booked_slots(name):
            raise Refused(
                f"{', '.join(sorted(slots))} is booked for {name} already, though it does not"
                " exist: it is being created, or ds01d will release it (ds01ctl explain"
                f" {name}); choose another name, or wait"
            )

    def _steps(self) -> Created:
        order, context = self._order, self._tools
        self._fetch()
        self._note("create_start", "pending", order.image)
        context.interrupt.raise_if_interrupted()
        self._book()
        context.interrupt.raise_if_interrupted()
        container = self._create()
        context.interrupt.raise_if_interrupted()
        if order.start:
            context.engine.start_container(container)
            context.interrupt.raise_if_interrupted()
        self._note("create_success", "success", "started" if order.start else "not started")
        return Created(name=order.name, id=container, booked=tuple(self._booked))

    def _fetch(self) -> None:
        context, image = self._tools, self._order.image
        if context.engine.has_image(image):
            return
        context.interrupt.raise_if_interrupted()
        try:
            context.show_pull(context.engine.pull_image(image), image)
        except EngineFailed as error:
            context.interrupt.raise_if_interrupted()  # It was us who broke it off.
            raise EngineFailed(f"{image} could not be pulled: {error}") from error
        context.interrupt.raise_if_interrupted()

    def _book(self) -> None:
        order = self._order
        for slot in order.slots:
            answer = self._tools.allocator.allocate(
                UserName(order.owner.name), order.name, slot=slot, another=bool(self._booked)
            )
            for warning in answer.warnings:
                self._tools.warn(warning)
            if isinstance(answer, Rejected):
                raise Refused(f"no GPU: {answer.reason}")
            if answer.already:
                raise Refused(
                    f"{answer.slot} was booked for {order.name} meanwhile: somebody else creates it"
                )
            self._booked.append(answer)
            if answer.shared_with:
                others = ", ".join(answer.shared_with)
                self._tools.warn(f"GPU {answer.slot} is shared with {others}")
            self._tools.interrupt.raise_if_interrupted()

    def _create(self) -> ContainerId:
        order, context = self._order, self._tools
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
                creation=self._mark,
            ),
            devices=[DeviceUuid(device_of(booking)) for booking in self._booked],
            setup=order.setup,
        )
        try:
            self._made = context.engine.create_container(plan)
        except EngineRefused as refusal:
            if refusal.status >= 500:  # Docker undoes what it fails at; this is to be sure of it.
                with suppress(Ds01Error):
                    self._made = self._ours_by_mark()
            raise
        except EngineFailed:
            self._lost = context.engine.instance
            raise
        return self._made

    # --- backward

    def _undo(self, reason: str) -> str:
        """Take back what was done; says what is left. Hears no signal."""
        remaining = self._remove()
        if not remaining and self._booked:
            remaining = self._release()
        if self._ours():
            self._note("create_failed", "failed", "; ".join(filter(None, (reason, remaining))))
        return remaining or "nothing is left of it"

    def _remove(self) -> str:
        """Remove the container; "" once there surely is none, else what is not known."""
        if self._made is None and self._lost is None:
            return ""
        try:
            container = self._made or self._look_for_it()
            if container is None:
                return ""
            self._tools.engine.remove_container(container, force=True)
            if self._tools.engine.find_container(container) is None:
                return ""
            reason = "Docker has not removed it yet"
        except Ds01Error as error:
            reason = str(error)
        name, booked = self._order.name, ", ".join(booking.slot for booking in self._booked)
        remaining = f"its booking of GPU {booked} stays, and ds01d settles it" if booked else ""
        return "; ".join(
            filter(None, (f"whether {name} exists is not known ({reason})", remaining))
        )

    def _look_for_it(self) -> ContainerId | None:
        """Docker was asked and did not answer: what became of it. Raises if that is open."""
        container = self._ours_by_mark()
        # If somebody else's has that name, ours could not be created.
        if container is not None or self._tools.engine.find_container(self._order.name) is not None:
            return container
        answering = self._tools.engine.instance
        if not answering or answering == self._lost:
            raise Ds01Error("Docker may still be creating it")
        return None

    def _ours_by_mark(self) -> ContainerId | None:
        container = self._tools.engine.find_container(self._order.name)
        is_own = container is not None and container.labels.get(CREATION) == self._mark
        return container.id if container is not None and is_own else None

    def _release(self) -> str:
        try:
            answer = self._tools.allocator.release(self._order.name)
        except Ds01Error as error:
            booked = ", ".join(booking.slot for booking in self._booked)
            return f"its booking of GPU {booked} stays, and ds01d settles it: {error}"
        for warning in answer.warnings:
            self._tools.warn(warning)
        if isinstance(answer, NotAllocated):
            self._tools.warn("its booking was gone already")
        return ""

    def _note(self, operation: str, status: str, details: str) -> None:
        self._tools.log_operation(
            operation,
            status,
            user=self._order.owner.name,
            name=self._order.name,
            slots=[booking.slot for booking in self._booked],
            details=f"{COMMAND}: {details}",
        )

    def _ours(self) -> bool:
        """Whether the attempt that is logged under this name is ours: no other one has booked.

        The creation grace of another would end by our create_failed.
        """
        if self._booked:
            return True
        with suppress(Ds01Error):
            return not self._tools.booked_slots(self._order.name)
        return True


def _drain_steps(steps: Iterator[Progress]) -> None:
    for _ in steps:
        pass


def fill_setup(setup: Setup, owner: Person) -> Setup:
    """The setup for one owner."""

    def fill(text: str) -> str:
        return text.format(user=owner.name, uid=owner.uid, gid=owner.gid, home=owner.home)

    mounts = tuple(
        ":".join((str(PurePosixPath(host)), *rest))
        for host, *rest in (fill(mount).split(":") for mount in setup.mounts)
    )
    return replace(setup, mounts=mounts, user=fill(setup.user))
