"""What container commands release: their own booking, of a container that is gone or stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ds01d.containers.context import CommandContext
from ds01d.containers.create import Creation
from ds01d.containers.lifecycle import ContainerLifecycle
from ds01d.containers.rebooking import Rebooking
from ds01d.errors import Ds01Error, EngineFailed, EngineRefused
from ds01d.model.allocation import Allocated
from ds01d.model.containers import Container, State
from ds01d.model.creation import Caller, Order, Person, Plan
from ds01d.model.limits import HoldRule
from ds01d.model.primitives import ContainerId, ContainerName, SlotId, UserName, Wall
from ds01d.reconcile.allocator import Allocator
from ds01d.service.allocator_client import SlotAllocator
from ds01d.service.booking import BookingService
from ds01d.service.dispatch import serve_call
from ds01d.service.internal_calls import WorkerAllocator
from ds01d.service.requests import PendingCall
from ds01d.service.rules import Peer
from ds01d.service.waiting import WaitingQueue
from tests.service.test_status_calls import status
from tests.support.build import LIMITS, NAME, OTHER, Life, config

ALICE = Person(uid=1001, name="alice", gid=1001)
CONFLICT = EngineRefused("the name is in use", status=409, message="Conflict")
NO_ANSWER = EngineFailed("no answer within 10 s")


class Engine:
    """Docker of a host in memory. `fail`: raised by the next create or start.

    `on_find`: called before each answer to an inspect, with its number; `on_call`: before a create
    or start.
    """

    instance = "1:1"

    def __init__(self, life: Life) -> None:
        self.life = life
        self.fail: Exception | None = None
        self.on_call: Callable[[], object] = lambda: None
        self.on_find: Callable[[int], object] = lambda _: None
        self.finds = 0

    def find_container(self, reference: str) -> Container | None:
        self.finds += 1
        self.on_find(self.finds)
        containers = self.life.host.containers.values()
        return next((c for c in containers if reference in {c.id, c.name}), None)

    def has_image(self, _: str) -> bool:
        return True

    def create_container(self, _: Plan) -> tuple[ContainerId, list[str]]:
        self._act()
        raise AssertionError("nothing is created here")

    def start_container(self, _: ContainerId) -> None:
        self._act()

    def remove_container(self, container: ContainerId, *, force: bool) -> None:
        assert not force
        del self.life.host.containers[container]

    def _act(self) -> None:
        self.on_call()
        if self.fail is not None:
            raise self.fail


@pytest.fixture
def life() -> Life:
    limits = replace(
        LIMITS, unknown_user=HoldRule(seconds=None, source="defaults"), default_quota=9
    )
    life = Life(config(), limits=limits)
    life.host.passwd |= {1001: "alice", 1002: "bob"}
    return life


@pytest.fixture
def engine(life: Life) -> Engine:
    return Engine(life)


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture(params=["by itself", "a user of the service", "an operator of the service"])
def context(
    life: Life, engine: Engine, warnings: list[str], request: pytest.FixtureRequest
) -> CommandContext:
    docker: Any = engine
    world, way = life.host.world(), request.param
    allocator: SlotAllocator = Allocator(world, life.config)
    if way != "by itself":
        service = BookingService(life.config, world, lambda: status(1), WaitingQueue())
        peer = Peer(uid=1001, login="alice", pid=7, is_operator="operator" in way)
        allocator = WorkerAllocator(peer, lambda call: _serve(call, service))
    return CommandContext(engine=docker, allocator=allocator, world=world, warn=warnings.append)


def _serve(call: PendingCall, service: BookingService) -> None:
    assert call.take()
    serve_call(call, service.handlers)


@pytest.fixture
def lifecycle(context: CommandContext) -> ContainerLifecycle:
    rebooking = Rebooking(context=context, user_of=lambda _: "alice")
    caller = Caller(person=ALICE, root=True)
    return ContainerLifecycle(context=context, caller=caller, rebooking=rebooking)


def book(life: Life, name: ContainerName = NAME, slot: str | None = None) -> Allocated:
    """As a script does it meanwhile."""
    allocator = Allocator(life.host.world(), life.config)
    wanted = None if slot is None else SlotId(slot)
    answer = allocator.allocate(UserName("alice"), name, 9, slot=wanted, another=slot is not None)
    assert isinstance(answer, Allocated)
    return answer


def book_and_run(life: Life, state: State = State.RUNNING) -> Allocated:
    """As a script does it meanwhile, which gets the same booking if there is one."""
    answer = book(life)
    started = Wall(life.host.wall) if state is State.RUNNING else None
    device = f"MIG-{answer.slot.replace('.', '-')}"
    life.run(device, state=state, created_ago=0, started=started)
    return answer


def create(context: CommandContext) -> None:
    order = Order(name=NAME, owner=ALICE, image="image", framework="any")
    Creation(order, context).run()


def lose_hold(life: Life, *devices: str) -> None:
    """A stopped container whose hold is over, so that it has no booking."""
    life.run(*devices or ("MIG-0-0",)).change(state=State.EXITED, started_ago=600, finished_ago=500)
    assert life.host.bookings() == set()


# --- create


@pytest.mark.parametrize("state", [State.CREATED, State.RUNNING, State.EXITED])
def test_the_booking_stays_of_whoever_created_the_name_first(
    life: Life, engine: Engine, context: CommandContext, state: State
) -> None:
    given: list[Allocated] = []
    engine.fail, engine.on_call = CONFLICT, lambda: given.append(book_and_run(life, state))
    with pytest.raises(Ds01Error) as failed:
        create(context)
    assert given[0].already
    assert life.host.bookings() == {(NAME, given[0].slot)}
    assert str(failed.value) == (
        f"the name is in use; its booking of GPU {given[0].slot} stays: a container with the name"
        f" {NAME} exists"
    )


def test_a_creation_that_docker_refuses_gives_back_its_own_booking(
    life: Life, engine: Engine, context: CommandContext
) -> None:
    engine.fail = CONFLICT
    with pytest.raises(Ds01Error, match="nothing is left of it"):
        create(context)
    assert life.host.bookings() == set()


def test_without_an_answer_about_the_name_a_failed_creation_keeps_its_booking(
    life: Life, engine: Engine, context: CommandContext
) -> None:
    def fail_later(number: int) -> None:
        if number > 1:
            raise NO_ANSWER

    engine.fail, engine.on_find = CONFLICT, fail_later
    with pytest.raises(Ds01Error, match="stays until ds01d repairs it: no answer"):
        create(context)
    assert {name for name, _ in life.host.bookings()} == {NAME}


def test_a_failed_creation_releases_no_booking_that_was_made_after_its_own(
    life: Life, engine: Engine, context: CommandContext
) -> None:
    def book_again() -> None:
        Allocator(life.host.world(), life.config).release(NAME)
        book(life)

    engine.fail, engine.on_call = CONFLICT, book_again
    with pytest.raises(Ds01Error, match=r"stays booked for .*: it was booked again meanwhile"):
        create(context)
    assert {name for name, _ in life.host.bookings()} == {NAME}


# --- start


def test_a_start_without_an_answer_keeps_its_booking(
    life: Life, engine: Engine, lifecycle: ContainerLifecycle
) -> None:
    lose_hold(life)
    engine.fail = NO_ANSWER
    with pytest.raises(Ds01Error) as failed:
        lifecycle.start_container(NAME)
    assert str(failed.value) == (
        "no answer within 10 s; GPU 0.0 stays booked, since Docker may still start it"
    )
    # Docker goes on with it.
    life.change(state=State.RUNNING, started=Wall(life.host.wall), finished=None)
    life.after(60)
    assert life.host.bookings() == {(NAME, "0.0")}


def test_a_start_that_docker_refuses_gives_back_what_it_booked(
    life: Life, engine: Engine, lifecycle: ContainerLifecycle
) -> None:
    lose_hold(life)
    engine.fail = EngineRefused("no such device", status=500, message="no such device")
    with pytest.raises(Ds01Error) as failed:
        lifecycle.start_container(NAME)
    assert (str(failed.value), life.host.bookings()) == ("no such device", set())


def _start(life: Life) -> None:
    life.change(state=State.RUNNING)


def _remove_and_run_another(life: Life) -> None:
    life.remove()
    book_and_run(life)


def _rename_and_start(life: Life) -> None:
    life.rename(NAME, OTHER).change(OTHER, state=State.RUNNING)


def _book_one_more(life: Life) -> None:
    book(life, slot="0.1")


@pytest.mark.parametrize(
    "act", [_start, _remove_and_run_another, _rename_and_start, _book_one_more]
)
def test_a_start_that_fails_keeps_what_is_somebodys_by_then(
    life: Life, engine: Engine, lifecycle: ContainerLifecycle, act: Callable[[Life], None]
) -> None:
    lose_hold(life)
    engine.fail = EngineRefused("it fails", status=500, message="it fails")
    engine.on_call = lambda: act(life)
    with pytest.raises(Ds01Error, match=r"it fails; GPU 0\.0 stays booked until ds01d"):
        lifecycle.start_container(NAME)
    assert (NAME, "0.0") in life.host.bookings()


def test_of_two_slots_that_cannot_both_be_booked_again_one_stays_if_it_runs(
    life: Life, engine: Engine, lifecycle: ContainerLifecycle
) -> None:
    lose_hold(life, "MIG-0-0", "MIG-0-1")
    life.run("MIG-0-1", name=OTHER).book("0.1", name=OTHER)

    def start_it(number: int) -> None:
        if number > 1:
            life.change(NAME, state=State.RUNNING)

    engine.on_find = start_it
    with pytest.raises(Ds01Error, match=r"lost GPU 0\.1 .* GPU 0\.0 stays booked"):
        lifecycle.start_container(NAME)
    assert (NAME, "0.0") in life.host.bookings()


# --- remove


@pytest.mark.parametrize("has_id", [True, False])
def test_a_removal_gives_back_its_booking(
    life: Life, lifecycle: ContainerLifecycle, has_id: bool
) -> None:
    if has_id:
        book(life)
    else:  # of another writer
        life.book("0.0")
    life.run("MIG-0-0").stop()
    assert len(lifecycle.remove_container(NAME, force=False)) == 1
    assert (life.host.bookings(), life.host.records) == (set(), {})


def _act_behind_the_removal(life: Life, act: Callable[[], object]) -> None:
    """Do it once the removal is logged: both answers have said by then that the name is free."""
    pending = [act]

    class Log(list[str]):
        def append(self, line: str) -> None:
            super().append(line)
            if pending and not life.host.containers:
                pending.pop()()

    life.host.operations = Log()  # type: ignore[assignment]


@pytest.mark.parametrize("state", [State.CREATED, State.RUNNING])
def test_a_removal_keeps_the_booking_that_somebody_was_given_again(
    life: Life, lifecycle: ContainerLifecycle, state: State
) -> None:
    book(life)
    life.run("MIG-0-0").stop()
    _act_behind_the_removal(life, lambda: book_and_run(life, state))
    with pytest.raises(Ds01Error, match="is removed, but its booking stays: a container with the"):
        lifecycle.remove_container(NAME, force=False)
    assert len(life.host.bookings()) == 1


@pytest.mark.parametrize("has_id", [True, False])
def test_a_removal_keeps_a_booking_that_was_made_after_its_own(
    life: Life, lifecycle: ContainerLifecycle, warnings: list[str], has_id: bool
) -> None:
    if has_id:
        book(life)
    else:
        life.book("0.0")
    life.run("MIG-0-0").stop()

    def book_again() -> None:
        Allocator(life.host.world(), life.config).release(NAME)
        book(life)

    _act_behind_the_removal(life, book_again)
    assert lifecycle.remove_container(NAME, force=False) == ()
    assert {name for name, _ in life.host.bookings()} == {NAME}
    (warning,) = warnings
    assert warning.endswith(f"stays booked for {NAME}: it was booked again meanwhile")
