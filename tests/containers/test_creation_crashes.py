"""ds01d killed at each step of a creation or removal: all of the container is left, or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from ds01d.containers.context import CommandContext
from ds01d.containers.create import Creation
from ds01d.containers.lifecycle import ContainerLifecycle
from ds01d.containers.pending_creations import PendingCreations
from ds01d.containers.rebooking import Rebooking
from ds01d.errors import EngineFailed
from ds01d.model.allocation import Allocated, Released
from ds01d.model.books import AllocatorState, Slot, SlotType
from ds01d.model.confinement import Confinement
from ds01d.model.containers import Container, State
from ds01d.model.creation import Caller, Order, Person, Plan
from ds01d.model.primitives import (
    BookingId,
    ContainerId,
    ContainerName,
    Digest,
    SlotId,
    UserName,
    Wall,
)

NAME = ContainerName("train._.2001")
AMY = Person(uid=2001, name="amy", gid=2001)


@pytest.fixture(autouse=True)
def _no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was killed has none, and the next one is made to clean at once."""
    monkeypatch.setattr(PendingCreations, "_start_cleaner", lambda _: None)


class Killed(BaseException):
    """The process is gone: nothing of it runs any more."""


@dataclass
class Ground:
    """What outlives a process: containers, bookings, and a file. `killed_at`: half steps."""

    killed_at: int = -1
    error: type[BaseException] = Killed
    steps: int = 0
    containers: dict[str, Container] = field(default_factory=dict)
    booked: set[str] = field(default_factory=set)
    file: bytes = b""

    @contextmanager
    def step(self) -> Iterator[None]:
        """Something that changes the ground; a process is killed right before it, or behind it."""
        self._reach()
        yield
        self._reach()

    def _reach(self) -> None:
        self.steps += 1
        if self.steps == self.killed_at or (
            self.error is Killed and 0 < self.killed_at < self.steps
        ):
            raise self.error("killed")

    # --- the store

    def load(self, _: str) -> bytes:
        return self.file

    def save(self, _: str, data: bytes, *, durable: bool = False) -> None:
        assert durable
        with self.step():
            self.file = data

    # --- the engine

    instance = "1:1"

    def find_container(self, reference: str) -> Container | None:
        found = (c for c in self.containers.values() if reference in {c.name, c.id})
        return next(found, None)

    def find_excess(self, *_: object) -> tuple[str, ...]:
        return ()

    def has_image(self, _: str) -> bool:
        return True

    def create_container(self, plan: Plan) -> tuple[ContainerId, list[str]]:
        with self.step():
            made = Container(
                id=ContainerId("1" * 64), name=plan.name, state=State.CREATED, labels=plan.labels
            )
            self.containers[plan.name] = made
        return made.id, []

    def start_container(self, container: ContainerId) -> None:
        with self.step():
            for name, found in self.containers.items():
                if found.id == container:
                    started = replace(found, state=State.RUNNING, started=Wall(1.0))
                    self.containers[name] = started

    def remove_container(self, container: ContainerId, *, force: bool) -> None:
        assert force
        with self.step():
            self.containers = {n: c for n, c in self.containers.items() if c.id != container}

    # --- the allocator

    def allocate(self, user: UserName, container: ContainerName, **_: object) -> Allocated:
        with self.step():
            self.booked.add(container)
        return Allocated(
            container=container,
            user=user,
            slot=SlotId("1.0"),
            docker_id="MIG-1",
            priority=1,
            id=BookingId("r-000000000001"),
        )

    def release(
        self, container: ContainerName, _: BookingId | None = None, *, if_gone: bool = False
    ) -> Released:
        assert if_gone
        with self.step():
            self.booked.discard(container)
        return Released(container=container, user=None, slots=())


def context_of(ground: Ground) -> CommandContext:
    def read_state() -> AllocatorState:
        slot = Slot(
            id=SlotId("1.0"),
            type=SlotType.MIG,
            gpu_index=1,
            mig_index=0,
            containers=tuple(map(ContainerName, ground.booked)),
        )
        return AllocatorState(slots={slot.id: slot}, mig_enabled=True, digest=Digest(""))

    clock = SimpleNamespace(now=lambda: SimpleNamespace(wall=Wall(0.0)))
    world: Any = SimpleNamespace(
        state=SimpleNamespace(read=read_state),
        metadata=SimpleNamespace(read=lambda _: {}),
        clock=clock,
    )
    parts: Any = ground
    return CommandContext(engine=parts, allocator=parts, world=world, keeps_log=False)


def create(ground: Ground, *, start: bool) -> None:
    """As the service does it."""
    order = Order(
        name=NAME,
        owner=AMY,
        image="img",
        framework="x",
        confinement=Confinement(user="2001:2001"),
        start=start,
    )
    creation = Creation(order, context_of(ground))
    pending = pending_of(ground)
    pending.begin_creation(NAME, creation.container.token, starts=start)
    pending.run_creation(creation)


def pending_of(ground: Ground) -> PendingCreations:
    @contextmanager
    def open_engine() -> Iterator[Any]:
        yield ground

    return PendingCreations(ground, open_engine)


def moments(error: type[BaseException], *, start: bool) -> Iterator[Ground]:
    """A ground for each moment at which something can happen."""
    whole = Ground()
    create(whole, start=start)
    for number in range(1, whole.steps + 1):
        ground = Ground(killed_at=number, error=error)
        with suppress(Killed, Exception):
            create(ground, start=start)
        ground.killed_at = -1
        yield ground


@pytest.mark.parametrize("start", [True, False])
def test_killed_at_each_step(start: bool) -> None:
    count = 0
    for ground in moments(Killed, start=start):
        count += 1
        pending = pending_of(ground)
        pending.remove_leftovers()
        pending.clean_once()
        container = ground.find_container(NAME)
        if container is not None:
            assert container.state is (State.RUNNING if start else State.CREATED)
            assert NAME in ground.booked
    assert count >= 6


@pytest.mark.parametrize("start", [True, False])
def test_an_engine_that_fails_at_each_step(start: bool) -> None:
    for ground in moments(EngineFailed, start=start):
        pending = pending_of(ground)
        pending.remove_leftovers()
        pending.clean_once()
        container = ground.find_container(NAME)
        assert container is None or container.state is State.RUNNING or not start
        if container is not None:
            assert NAME in ground.booked


def remove(ground: Ground) -> None:
    """As the service does it."""
    context = context_of(ground)
    rebooking = Rebooking(context=context, user_of=str)
    caller = Caller(person=AMY, root=False)
    ContainerLifecycle(context=context, caller=caller, rebooking=rebooking).remove_container(
        NAME, force=True
    )


@pytest.mark.parametrize("error", [Killed, EngineFailed])
def test_a_removal_releases_no_slot_of_a_container_that_is_there(
    error: type[BaseException],
) -> None:
    for number in range(1, 10):
        ground = Ground()
        create(ground, start=False)
        ground.steps, ground.killed_at, ground.error = 0, number, error
        with suppress(Killed, Exception):
            remove(ground)
        if ground.find_container(NAME) is not None:
            assert NAME in ground.booked
