"""Every kind of change, each on a disk of its own, right before it is made; and who judges it.

The judges share no code with what decides: they compare bytes, read the history as JSON, and ask
`mended`, which looks at who is booked where.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from ds01d.adapters.files import atomic_write
from ds01d.adapters.state_dir import StateDirectory
from ds01d.cli.ctl.main import main as ds01ctl
from ds01d.config import AllocatorConfig
from ds01d.model.allocation import Allocated
from ds01d.model.drift import Kind, Outcome
from ds01d.model.primitives import BookingId, ContainerName, UserName, Wall
from ds01d.model.reservation import ProcessState, ReservingProcess, make_reserved_name
from ds01d.reconcile import booking_ids
from ds01d.reconcile.allocator import Allocator
from ds01d.reconcile.booking_history import BookingHistory
from ds01d.reconcile.docker_books import DockerBooks
from ds01d.reconcile.sync_slots import sync_slot_table
from ds01d.reconcile.undo import Undoer
from tests.decide.test_diff import Fault, Place, host_with, live, places, running
from tests.reconcile.test_undo import EVERY
from tests.support.build import mig, with_docker_books
from tests.support.commands import Desk
from tests.verification.crash.disk import Disk

Json = dict[str, Any]


@dataclass(kw_only=True)
class Scene:
    """A change that is about to be made. `after`: the books once it is; `rest`: once all is quiet.

    `known`: the entries that were there before. `act` makes it; `judge` looks at what is left after
    a crash, and after what follows.
    """

    name: str
    disk: Disk
    place: Place
    act: Callable[[], object]
    judge: Callable[[Scene], None]
    mended: Callable[[Place], bool] = lambda _: True
    before: dict[str, bytes] = field(default_factory=dict)
    after: dict[str, bytes] = field(default_factory=dict)
    rest: object = None
    known: frozenset[str] = frozenset()


def due(root: Path, fault: Fault) -> tuple[Disk, Place]:
    """A disk on which a drift is due in this very moment."""
    life = host_with(1)
    (place,) = places(life, [fault.kind])
    fault.before(place)
    live(life, 300.0)
    fault.fault(place)
    disk = Disk(root, life)
    disk.write()
    for _ in range(100):
        if any(one.outcome is Outcome.DUE for one in disk.plan().drifts):
            return disk, place
        disk.pass_()
        life.host.pass_time(30.0)
    raise AssertionError(f"{fault.kind} is never due")


def quiet(disk: Disk) -> None:
    """Passes until nothing is due and nothing waits for time alone."""
    for _ in range(60):
        report = disk.pass_()
        disk.life.host.pass_time(30.0)
        moving = (Outcome.DUE, Outcome.DONE)
        if not any(d.waits_for_time or d.outcome in moving for d in report.drifts):
            return
    raise AssertionError("it never comes to rest")


NEW, RESERVED = BookingId("r-0123456789ab"), BookingId("r-ba9876543210")
Unbuilt = tuple[str, Callable[[], Scene]]
"""A scene's name, and what builds it: that takes as long as to try it."""


def repairs(root: Path) -> Iterator[Unbuilt]:
    for fault in EVERY:
        name = f"repair-{fault.kind}-{fault.about}"
        yield name, partial(repair, root / name, fault)


def repair(root: Path, fault: Fault) -> Scene:
    disk, place = due(root, fault)
    return Scene(
        name=root.name,
        disk=disk,
        place=place,
        act=disk.pass_,
        judge=repaired,
        mended=fault.mended,
    )


def undos(root: Path) -> Iterator[Unbuilt]:
    for fault in EVERY:
        name = f"undo-{fault.kind}-{fault.about}"
        yield name, partial(undo_of, root / name, fault)


def undo_of(root: Path, fault: Fault) -> Scene:
    disk, place = due(root, fault)
    disk.pass_()
    quiet(disk)
    entry = next(e["id"] for e in begun(disk) if not e.get("undoes"))
    return Scene(
        name=root.name,
        disk=disk,
        place=place,
        act=partial(undo, disk, entry),
        judge=undone,
    )


def undo(disk: Disk, entry: str) -> None:
    done = Undoer(disk.world(), disk.life.config).undo(entry, "ada")
    assert done.refused is None, done.refused
    assert not done.warnings


def others(root: Path) -> Iterator[Unbuilt]:
    """What admins and the allocator do."""
    freeze = ("freeze", "--for", "2h", "--reason", "disks")
    yield "freeze", partial(admin, root / "freeze", freeze)
    yield "thaw", partial(admin, root / "thaw", ("thaw",), after=freeze)
    for name, before, act in (
        ("allocate", nobody, lambda a, p: a.allocate(UserName("zoe"), p.name, 9)),
        ("allocate-another", alive, lambda a, p: a.allocate(p.user, p.name, 9, another=True)),
        ("reserve-two", nobody, lambda a, _: a.allocate(UserName("zoe"), None, 9, count=2)),
        ("give-up", reserved, lambda a, _: a.release(None, RESERVED)),
        ("release", stopped, lambda a, p: a.release(p.name)),
        ("join", reserved_for_process, join_reservation),
        ("mark-stopped", alive, lambda a, p: a.mark_stopped(p.name, started=None)),
    ):
        yield name, partial(booking, root / name, before, act, allocator, booked)
        # As the service books: with an entry in the history.
        yield (
            f"served-{name}",
            partial(booking, root / f"served-{name}", before, act, served_allocator, served),
        )
    yield "sync", partial(sync, root / "sync")
    # With Docker as the books only reservations are written.
    for name, before, act in (
        ("reserve", nobody, lambda a, p: a.allocate(UserName("zoe"), p.name, 9)),
        ("give-up", reserved, lambda a, _: a.release(None, RESERVED)),
    ):
        place = root / f"docker-{name}"
        yield place.name, partial(booking, place, before, act, docker_allocator, served)
    yield "docker-turned", partial(turned, root / "docker-turned")
    # What a process reserved: it ends; a container of another name is made for it.
    for name in ("docker-abandoned", "abandoned", "docker-used", "used"):
        yield name, partial(of_process, root / name, is_used=name.endswith("used"))


def admin(root: Path, words: tuple[str, ...], *, after: tuple[str, ...] = ()) -> Scene:
    stale = next(fault for fault in EVERY if fault.kind is Kind.STALE_ALLOCATION)
    disk, place = due(root, stale)
    if after:
        ctl(disk, *after)
    return Scene(
        name=root.name,
        disk=disk,
        place=place,
        act=partial(ctl, disk, *words),
        judge=frozen,
        mended=stale.mended,
    )


def booking(
    root: Path,
    before: Callable[[Booker], None],
    act: Callable[[Allocator, Booker], object],
    make: Callable[[Disk], Allocator],
    judge: Callable[[Scene], None],
) -> Scene:
    disk, place = booked_disk(root, before)
    return Scene(
        name=root.name,
        disk=disk,
        place=place,
        act=lambda: act_with_one_id(partial(act, make(disk), place)),
        judge=judge,
    )


def act_with_one_id(act: Callable[[], object]) -> object:
    """IDs are random, and the files of two runs are compared."""
    with patched(booking_ids, "_new_booking_id", lambda: NEW):
        return act()


def turned(root: Path) -> Scene:
    """With Docker as the books: the container of a reservation exists."""
    disk, place = booked_disk(root, reserved)
    life = place.life
    life.start_now(place.uuid, name=place.name, created=Wall(life.host.wall))
    while not any(one.outcome is Outcome.DUE for one in disk.plan().drifts):
        disk.pass_()
        life.host.pass_time(30.0)
    return Scene(
        name=root.name,
        disk=disk,
        place=place,
        act=disk.pass_,
        judge=repaired,
        mended=lambda p: not p.life.host.records and not p.life.host.bookings(),
    )


def of_process(root: Path, *, is_used: bool) -> Scene:
    """A process that reserved a slot has ended, or a container was made with its device."""
    disk, place = booked_disk(root, reserved_for_process)
    life = place.life
    if is_used:
        life.start_now(place.uuid, name="plain", labels={}, created=Wall(life.host.wall))
    else:
        life.host.processes[PROCESS] = ProcessState.ENDED
    while not any(one.outcome is Outcome.DUE for one in disk.plan().drifts):
        disk.pass_()
        life.host.pass_time(5.0)
    holder = {("plain", place.first)} if is_used and not root.name.startswith("docker-") else set()
    return Scene(
        name=root.name,
        disk=disk,
        place=place,
        act=disk.pass_,
        judge=repaired,
        mended=lambda p: (
            p.life.host.bookings() == holder
            and p.life.host.records.keys() == ({"plain"} if is_used else set())
        ),
    )


def sync(root: Path) -> Scene:
    disk, place = booked_disk(root, alive)
    devices = (mig(0, 0, uuid="MIG-0-1"), mig(0, 1, uuid="MIG-0-0"), mig(0, 2))
    disk.life.set_gpu(migs=devices)
    return Scene(
        name=root.name,
        disk=disk,
        place=place,
        act=lambda: sync_slot_table(disk.world(), disk.life.config),
        judge=booked,
    )


def booked_disk(root: Path, before: Callable[[Booker], None]) -> tuple[Disk, Booker]:
    """A disk at rest, on which `before` was done some minutes ago."""
    life = host_with(1)
    if root.name.startswith("docker-"):
        life.config = with_docker_books(life.config)
    place = Booker(life=life, g=0, name=ContainerName(f"{root.name}._.1000"))
    before(place)
    live(life, 300.0)
    disk = Disk(root, life)
    disk.write()
    quiet(disk)
    return disk, place


def planted(root: Path) -> Iterator[Unbuilt]:
    """Repairs as nobody should make them: they prove that the judges see."""
    for act in (in_place, without_history, without_an_end, without_a_sync):
        name = f"planted-{act.__name__}"
        yield name, partial(planted_repair, root / name, act)


def planted_repair(root: Path, act: Callable[[Disk], None]) -> Scene:
    count = next(fault for fault in EVERY if fault.kind is Kind.WRONG_COUNT)
    disk, place = due(root, count)
    return Scene(
        name=root.name,
        disk=disk,
        place=place,
        act=partial(act, disk),
        judge=repaired,
        mended=count.mended,
    )


def in_place(disk: Disk) -> None:
    """Written as the old allocator does."""
    with patched(atomic_write, "replace_file", lambda path, data, **_: path.write_bytes(data)):
        disk.pass_()


def without_history(disk: Disk) -> None:
    with patched(StateDirectory, "append_history", lambda *_, **__: None):
        disk.pass_()


def without_an_end(disk: Disk) -> None:
    """Nobody sweeps, and what is temporary is called otherwise."""
    with patched(atomic_write, "TEMPORARY", ".another-ds01d-tmp-"):
        disk.pass_()


def without_a_sync(disk: Disk) -> None:
    with patched(os, "fsync", lambda _: None):
        disk.pass_()


@contextmanager
def patched(where: object, name: str, what: object) -> Iterator[None]:
    before = getattr(where, name)
    setattr(where, name, what)
    yield
    setattr(where, name, before)


class Booker(Place):
    """A place, and whose container is there."""

    user = UserName("alice")


def nobody(p: Place) -> None:
    """Nobody is there yet."""


def alive(p: Place) -> None:
    running(p)


def reserved(p: Place) -> None:
    p.life.book(p.first, name=p.name, allocated_at_ago=0.0, booking=RESERVED)
    p.write_slot(p.first, users={"alice": 1})


PROCESS = ReservingProcess(pid=4242, started=99, boot_id="boot-1", command="docker")


SECOND = replace(PROCESS, pid=4243)


def join_reservation(allocator: Allocator, _: Booker) -> None:
    """A further process asks for what is reserved."""
    name = make_reserved_name(RESERVED, 1000)
    answer = allocator.allocate(UserName("alice"), name, 9, process=SECOND)
    assert isinstance(answer, Allocated)
    assert answer.already


def reserved_for_process(p: Place) -> None:
    p.life.host.processes[PROCESS] = ProcessState.RUNS
    name = make_reserved_name(RESERVED, 1000)
    p.life.book(p.first, name=name, allocated_at_ago=0.0, booking=RESERVED, processes=(PROCESS,))
    p.write_slot(p.first, users={"alice": 1})


def stopped(p: Place) -> None:
    running(p, user="bob")  # whose hold never ends
    p.life.stop(p.name)


def allocator(disk: Disk) -> Allocator:
    config = msgspec.structs.replace(disk.life.config, allocator=AllocatorConfig())
    return Allocator(disk.world(), config)


def served_allocator(disk: Disk) -> Allocator:
    config = msgspec.structs.replace(disk.life.config, allocator=AllocatorConfig())
    world = disk.world(is_shared=False)
    return Allocator(world, config, BookingHistory(world, {}))


def docker_allocator(disk: Disk) -> Allocator:
    config = disk.life.config
    world = DockerBooks(disk.world(), config).open_world()
    return Allocator(world, config, BookingHistory(world, {}))


def ctl(disk: Disk, *words: str) -> None:
    desk = Desk(host=disk.life.host, state_dir=disk.own)
    desk.open_world = lambda _: _Opened(disk)
    result = desk.call(*words, command=ds01ctl)
    assert result.exit_code == 0, result.output


class _Opened:
    """The world of one command."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def __enter__(self) -> Any:
        return self._disk.world()

    def __exit__(self, *_: object) -> None:
        pass


# --- judging ----------------------------------------------------------------------------------


def repaired(scene: Scene) -> None:
    """Made or not made, and the history says which; then it is made, once and for all."""
    entered(scene)
    quiet(scene.disk)
    assert rest(scene.disk) == scene.rest, "it came to another rest"
    scene.disk.take_in()
    assert scene.mended(scene.place)
    assert not scene.disk.plan().drifts


def entered(scene: Scene) -> None:
    """The history says whether the change was made; after a pass no entry stays open."""
    made, open_then = told_by_files(scene), {e["id"] for e in begun(scene.disk)}
    scene.disk.pass_()
    outcomes = closed(scene.disk)
    assert outcomes.keys() == {e["id"] for e in begun(scene.disk)}, "an entry stays open"
    new = open_then - scene.known
    assert {outcomes[one] for one in new} <= {"done" if made else "failed"}, (made, outcomes)
    if made:
        assert new, "made without an entry"


def undone(scene: Scene) -> None:
    told_by_files(scene)
    scene.disk.pass_()
    outcomes = closed(scene.disk)
    entries = begun(scene.disk)
    assert outcomes.keys() == {e["id"] for e in entries}, "an entry stays open"
    new = [e["id"] for e in entries if e["id"] not in scene.known]
    done = bool(new) and outcomes[new[0]] == "done"
    assert len(new) <= 1, "more was done than asked for"
    expected = scene.after if done else scene.before
    assert scene.disk.books() == expected, f"half: {outcomes}"
    for _ in range(4):
        scene.disk.life.host.pass_time(100.0)
        scene.disk.pass_()
        assert scene.disk.books() == expected, "it is not left as it is"
    held = {str(one.gate) for one in scene.disk.plan().drifts}
    assert held == ({"undone"} if done else set()), f"{held} holds it"
    if done:
        ctl(scene.disk, "thaw", new[0])
        quiet(scene.disk)
        assert rest(scene.disk) == rest_of(scene.before), "thawed, it is not done again"


def frozen(scene: Scene) -> None:
    told_by_files(scene)
    is_frozen = bool(
        json.loads((scene.disk.own / "checkpoint.json").read_bytes())["memory"]["freezes"]
    )
    scene.disk.pass_()
    scene.disk.take_in()
    assert scene.mended(scene.place) is not is_frozen


def booked(scene: Scene) -> None:
    """Booked with its metadata or not at all, within the settle time."""
    told_by_files(scene)
    for _ in range(4):
        scene.disk.pass_()
        scene.disk.life.host.pass_time(6.0)
    assert rest(scene.disk) in (rest_of(scene.before), rest_of(scene.after)), "half"
    drifts = [d for d in scene.disk.plan().drifts if str(d.gate) != "inventory"]
    assert not drifts, drifts


def served(scene: Scene) -> None:
    """As `booked`, and the history says whether it was made; no entry stays open."""
    entered(scene)
    booked(scene)


def told_by_files(scene: Scene) -> bool:
    """Right after the crash every file is the old or the new one, whole. True: the change is made.

    Made is a change with its first file: the state, where that changes.
    """
    now = scene.disk.books()
    names = sorted({*scene.before, *scene.after})
    for name in names:
        assert now.get(name) in (scene.before.get(name), scene.after.get(name)), f"{name} is torn"
    assert set(now) <= set(names)
    for name in ("checkpoint.json", "gpu-state.last-good.json"):
        json.loads((scene.disk.own / name).read_bytes())
    changed = [
        n
        for n in sorted({*scene.before, *scene.after})
        if scene.before.get(n) != scene.after.get(n)
    ]
    first = (
        scene.disk.state.name if scene.disk.state.name in changed else changed[0] if changed else ""
    )
    return bool(first) and now.get(first) == scene.after.get(first)


def lines(disk: Disk) -> list[Json]:
    """The history, read as anybody may; a torn last line tells nothing."""
    found = []
    path = disk.own / "history.jsonl"
    for line in path.read_bytes().splitlines() if path.exists() else ():
        with suppress(ValueError):
            found.append(json.loads(line))
    return found


def begun(disk: Disk) -> list[Json]:
    return [line for line in lines(disk) if line["phase"] == "begin"]


def closed(disk: Disk) -> dict[str, str]:
    return {line["id"]: line["phase"] for line in lines(disk) if line["phase"] != "begin"}


def rest(disk: Disk) -> object:
    return rest_of(disk.books())


def rest_of(books: dict[str, bytes]) -> object:
    """What the books say, without the times that had to be made up.

    Nor the IDs of bookings: who was killed between state and record has told nobody.
    """
    said = {}
    for name, data in books.items():
        try:
            document = json.loads(data)
        except ValueError:
            document = data
        if isinstance(document, dict):
            document.pop("allocated_at", None)
            if name != f"{NEW}.json":  # a name that was made up has the ID, too
                document.pop("booking_id", None)
        said[name] = document
    return said
