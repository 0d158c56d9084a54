"""What the container commands work with: Docker, the books, the user, and a signal received."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TypeAlias

from ds01d.containers.ports import ContainerEngine, SessionEngine
from ds01d.errors import Ds01Error, Interrupted, Refused, WriteFailed
from ds01d.model.allocation import NotAllocated, Released
from ds01d.model.books import AllocatorState, LogLine
from ds01d.model.creation import Progress
from ds01d.model.primitives import BookingId, ContainerName, SlotId
from ds01d.reconcile.books_ports import BooksWorld
from ds01d.reconcile.ports import World
from ds01d.service.allocator_client import SlotAllocator, Waiting


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerServices:
    """The host's books and containers, what changes containers in Docker, and what enters them."""

    world: World
    engine: ContainerEngine
    sessions: SessionEngine


ShowWaiting: TypeAlias = Callable[[], AbstractContextManager[Callable[[Waiting], None]]]
"""Shows a place in the queue, and the next one, until the wait ends."""


class Interrupt:
    """The first signal received, checked between two steps; 0 if there was none."""

    def __init__(self) -> None:
        self.signal = 0

    def raise_if_interrupted(self) -> None:
        """Raises `Interrupted` if there was a signal."""
        if self.signal:
            name = signal.Signals(self.signal).name
            raise Interrupted(f"interrupted by {name}", signal=self.signal)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandContext:
    """What the commands work with. `warn` shows a line to the user.

    `show_waiting`: wait for a slot, and call what this gives with each place in the queue, until
    the wait ends; None: do not wait.
    `keeps_log`: not where only ds01d may write the log, which logs what it sees by itself.
    """

    engine: ContainerEngine
    allocator: SlotAllocator
    world: BooksWorld
    keeps_log: bool = True
    warn: Callable[[str], None] = lambda _: None
    show_pull: Callable[[Iterator[Progress], str], None] = lambda steps, _: _drain_steps(steps)
    interrupt: Interrupt = field(default_factory=Interrupt)
    show_waiting: ShowWaiting | None = None

    def booked_slots(self, name: ContainerName) -> frozenset[SlotId]:
        """The slots booked for a container. Raises `Ds01Error` if the books cannot be read."""
        state = self.world.state.read()
        if not isinstance(state, AllocatorState):
            raise Ds01Error(f"cannot read the books: {state.reason}")
        return frozenset(state.find_slots(name))

    def release_gone(
        self, name: ContainerName, booking: BookingId | None
    ) -> Released | NotAllocated:
        """Release one booking of a container that is gone. Raises `Ds01Error` where it stays."""
        # Decision 373: somebody else may have got the booking of that name, or made another one.
        if booking is None:
            raise Refused("its ID is unknown")
        if self.engine.find_container(name) is not None:
            raise Refused(f"a container with the name {name} exists")
        return self.allocator.release(name, booking, if_gone=True)

    def describe_booked_again(self, name: ContainerName, answer: Released | NotAllocated) -> str:
        """What is booked for a name whose own booking was not found any more; "" if nothing is."""
        slots = self.booked_slots(name) if isinstance(answer, NotAllocated) else ()
        gpus = ", ".join(sorted(slots))
        return f"GPU {gpus} stays booked for {name}: it was booked again meanwhile" if gpus else ""

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
        """Append to the operations log; a failure is only a warning."""
        if not self.keeps_log:
            return
        try:
            self.world.operations.append(
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


def _drain_steps(steps: Iterator[Progress]) -> None:
    for _ in steps:
        pass
