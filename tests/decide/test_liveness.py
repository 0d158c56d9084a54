"""Gone or stopped for Docker, alive for the kernel: nothing of it is released while it lives."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ds01d.model.books import AllocatorState
from ds01d.model.containers import State
from ds01d.model.devices import Inventory
from ds01d.model.drift import GatedDrift, Kind, Outcome, WaitReason
from ds01d.model.primitives import ContainerId, DeviceUuid, Source, Unknown, Wall
from ds01d.reconcile.report import Report
from tests.support.build import HOUR, NAME, OTHER, Life, config, process

TRAIN = ContainerId(f"id-{NAME}")
PID = 4711
HIDDEN = Unknown(source=Source.NVML, reason="/proc hides the processes of others")


def running() -> Life:
    """A host that ds01d repairs; one booked container runs on 1.0."""
    return Life(config()).book("1.0").run("MIG-1-0").after(120.0)


def stopped(state: State) -> Life:
    """Stopped for so long that its hold is over with the next sweep."""
    one = running().stop(state=state)
    one.sweep()
    one.host.pass_time(60.0)
    return one


def never_started() -> Life:
    one = Life(config()).book("1.0").run("MIG-1-0", state=State.CREATED, started=None)
    one.sweep()
    return one


def absent() -> Life:
    return running().remove(told=False)


def destroyed() -> Life:
    return running().remove(told=True)


ENDED = {
    "absent": absent,
    "destroyed": destroyed,
    "exited": lambda: stopped(State.EXITED),
    "dead": lambda: stopped(State.DEAD),
    "removing": lambda: stopped(State.REMOVING),
    "created": never_started,
}
STOPPED = [name for name in ENDED if name not in ("absent", "destroyed")]


def of_booking(report: Report) -> GatedDrift:
    (found,) = (g for g in report.drifts if g.drift.slot == "1.0" and g.drift.taken)
    return found


def booked(one: Life) -> set[tuple[str, str]]:
    assert isinstance(one.host.state, AllocatorState)
    return one.host.bookings()


@pytest.mark.parametrize("how", ENDED)
def test_while_a_process_of_it_lives_nothing_is_released(how: str) -> None:
    one = ENDED[how]()
    one.host.living = {TRAIN: PID}
    one.after(HOUR)
    report = one.sweep()
    held = of_booking(report)
    assert (held.outcome, held.gate) == (Outcome.WAITING, WaitReason.BLOCKED)
    assert f"process {PID} " in held.reason
    assert booked(one) == {(NAME, "1.0")}
    assert NAME in one.host.records
    assert not report.is_consistent
    assert of_booking(one.plan()).reason == held.reason, "and the plan says the same"
    one.host.living = {}
    one.after(HOUR)
    assert booked(one) == set()


@pytest.mark.parametrize("how", ENDED)
def test_where_processes_cannot_be_seen_nothing_is_released(how: str) -> None:
    one = ENDED[how]()
    one.host.living = HIDDEN
    one.after(HOUR)
    held = of_booking(one.sweep())
    assert held.gate is WaitReason.BLOCKED
    assert HIDDEN.reason in held.reason
    assert booked(one) == {(NAME, "1.0")}


@pytest.mark.parametrize("how", sorted(ENDED.keys() - {"destroyed"}))
@pytest.mark.parametrize("comes", [{TRAIN: PID}, HIDDEN])
def test_one_that_is_seen_only_right_before_the_write_keeps_its_slot(
    how: str, comes: dict[ContainerId, int] | Unknown
) -> None:
    """The decision found no process; the look right before the write does."""
    one = ENDED[how]()

    def look(number: int) -> None:
        one.host.living = comes if number % 2 == 0 else {}

    one.host.on_look = look
    one.after(HOUR)
    looks = len(one.host.looked_for_living)
    assert looks >= 2
    assert booked(one) == {(NAME, "1.0")}
    one.host.living, one.host.on_look = {}, None
    one.after(HOUR)
    assert booked(one) == set()


@pytest.mark.parametrize("comes", [{TRAIN: PID}, HIDDEN])
def test_of_a_destroyed_one_the_look_right_before_the_write_is_the_only_one(
    comes: dict[ContainerId, int] | Unknown,
) -> None:
    """Of which the verdict is made again, as if it had been known from the start."""
    one = destroyed()
    one.sweep()
    one.host.on_look = lambda _: setattr(one.host, "living", comes)
    one.host.pass_time(60.0)
    entries = len(one.host.history)
    held = of_booking(one.sweep())
    assert (held.outcome, held.gate) == (Outcome.WAITING, WaitReason.BLOCKED)
    assert len(one.host.looked_for_living) == 1
    assert booked(one) == {(NAME, "1.0")}
    assert len(one.host.history) == entries
    one.host.living, one.host.on_look = {}, None
    one.sweep()
    assert len(one.host.looked_for_living) == 2
    assert booked(one) == set()


def test_metadata_alone_stays_while_a_process_lives() -> None:
    one = running()
    one.host.state = Life(config()).host.state  # somebody took the booking out
    one.remove(told=False)
    one.host.living = {TRAIN: PID}
    one.after(HOUR)
    (held,) = one.sweep().drifts
    assert (held.drift.kind, held.gate) == (Kind.ORPHANED_METADATA, WaitReason.BLOCKED)
    assert NAME in one.host.records


def test_processes_of_others_prove_nothing_about_it() -> None:
    one = absent()
    one.host.living = {ContainerId("id-other"): 1}
    one.after(HOUR)
    assert booked(one) == set()


def test_processes_are_looked_at_only_where_something_is_due() -> None:
    one = running().stop()
    for _ in range(5):
        one.sweep()
        one.plan()
    assert one.host.looked_for_living == []
    one.after(HOUR)
    assert one.host.looked_for_living == [frozenset({TRAIN})] * 2, "to decide, and to prove it"
    assert booked(one) == set()


# --- what NVML shows on the slot of a stopped one ----------------------------------------------


@pytest.mark.parametrize("how", STOPPED)
@pytest.mark.parametrize(
    ("uses", "words"),
    [
        (TRAIN, f"its process {PID} (python) uses slot 1.0"),
        (Unknown(source=Source.NVML, reason="its cgroup is odd"), "its cgroup is odd"),
    ],
)
def test_a_process_on_the_slot_of_a_stopped_one_keeps_it(
    how: str, uses: ContainerId | Unknown, words: str
) -> None:
    one = ENDED[how]().set_gpu(processes=(process("MIG-1-0", uses, pid=PID),))
    one.after(HOUR)
    held = of_booking(one.sweep())
    assert held.gate is WaitReason.BLOCKED
    assert words in held.reason
    assert booked(one) == {(NAME, "1.0")}
    one.set_gpu(processes=())
    one.after(HOUR)
    assert booked(one) == set()


@pytest.mark.parametrize("how", STOPPED)
def test_on_a_blind_device_nothing_is_released(how: str) -> None:
    one = ENDED[how]().set_gpu(blind={DeviceUuid("MIG-1-0"): "its list is corrupt"})
    one.after(HOUR)
    assert "its list is corrupt" in of_booking(one.sweep()).reason
    assert booked(one) == {(NAME, "1.0")}
    one.set_gpu(blind={DeviceUuid("MIG-1-1"): "its list is corrupt"})
    one.after(HOUR)
    assert booked(one) == set(), "another device is not its own"


@pytest.mark.parametrize("user", [None, "id-other"])
def test_a_process_of_somebody_else_does_not_lengthen_its_hold(user: str | None) -> None:
    one = stopped(State.EXITED).set_gpu(processes=(process("MIG-1-0", user, pid=PID),))
    assert isinstance(one.host.gpu, Inventory)
    one.after(HOUR)
    assert booked(one) == set()


def test_without_nvml_on_purpose_only_the_kernel_is_asked() -> None:
    one = Life(config(), gpu=None).book("1.0").run(finished=Wall(0.0), state=State.EXITED)
    one.host.living = {TRAIN: PID}
    one.after(HOUR)
    assert booked(one) == {(NAME, "1.0")}
    one.host.living = {}
    one.after(HOUR)
    assert booked(one) == set()


# --- a container made anew under the name of one that lives on

GONE = ContainerId(f"id-{NAME}")


def replaced(*devices: str) -> Life:
    """The booked container is gone for Docker; another one has its name and asks for others."""
    one = running()
    one.run(*devices)
    assert next(iter(one.host.containers)) != GONE
    return one


def test_its_slot_stays_booked_while_its_process_uses_it() -> None:
    one = replaced("MIG-1-1").use("MIG-1-0", GONE)
    one.after(HOUR)
    assert booked(one) == {(NAME, "1.0"), (NAME, "1.1")}
    assert one.sweep().is_consistent
    one.set_gpu(processes=()).after(HOUR)
    assert booked(one) == {(NAME, "1.1")}


def test_its_slot_stays_booked_while_it_lives_wherever() -> None:
    one = running()
    one.host.living = {GONE: PID}
    one.run("MIG-1-1").after(HOUR)
    assert booked(one) == {(NAME, "1.0"), (NAME, "1.1")}
    one.host.living = {}
    one.after(HOUR)
    assert booked(one) == {(NAME, "1.1")}


def test_so_it_does_after_several_replacements() -> None:
    one = running()
    one.host.living = {GONE: PID}
    one.run("MIG-1-1").after(60.0).run("MIG-0-1").after(60.0).run("MIG-0-0").after(HOUR)
    assert (NAME, "1.0") in booked(one)


def test_so_it_does_when_its_successor_is_gone_too() -> None:
    one = running()
    one.host.living = {GONE: PID}
    one.run("MIG-1-1").after(60.0).remove().after(HOUR)
    assert (NAME, "1.0") in booked(one)
    one.host.living = {}
    one.after(HOUR)
    assert booked(one) == set()


@pytest.mark.parametrize("seen", ["process list", "kernel"])
def test_so_it_does_when_the_hold_of_its_successor_is_over(seen: str) -> None:
    one = running()
    if seen == "kernel":
        one.host.living = {GONE: PID}
    else:
        one.use("MIG-1-0", GONE)
    one.run("MIG-1-0", state=State.EXITED, finished=Wall(one.host.wall)).after(HOUR)
    assert booked(one) == {(NAME, "1.0")}
    assert of_booking(one.sweep()).gate is WaitReason.BLOCKED
    one.host.living = {}
    one.set_gpu(processes=()).after(HOUR)
    assert booked(one) == set()


def test_one_that_is_seen_only_right_before_the_write_keeps_its_slot_from_its_successor() -> None:
    one = running()

    def look(number: int) -> None:
        one.host.living = {GONE: PID} if number % 2 == 0 else {}

    one.host.on_look = look
    one.run("MIG-1-1").after(HOUR)
    assert (NAME, "1.0") in booked(one)


def test_one_that_is_listed_again_under_another_name_is_no_former_one() -> None:
    """It has a booking of its own then, and its living keeps nothing for this name."""
    one = running()
    hidden = one.host.containers[GONE]
    one.run("MIG-1-1").after(60.0)
    one.host.run(replace(hidden, name=OTHER))
    one.host.living = {GONE: PID}
    one.book("0.0", name=OTHER).list_in("0.1").after(HOUR)
    assert {slot for name, slot in booked(one) if name == NAME} == {"1.1"}


def test_where_nobody_lives_the_successor_decides() -> None:
    one = replaced("MIG-1-1").after(60.0)
    assert booked(one) == {(NAME, "1.1")}


# --- metadata of a slot on a sick GPU


def test_metadata_without_a_booking_does_not_wait_for_a_sick_gpu() -> None:
    """Nothing is taken from anybody by it; the GPU may be sick for weeks."""
    one = running()
    one.host.state = Life(config()).host.state
    one.remove(told=False)
    sick = dict.fromkeys(map(DeviceUuid, ("GPU-1", "MIG-1-0", "MIG-1-1")), "Unknown Error")
    one.set_gpu(blind=sick).after(HOUR)
    assert NAME not in one.host.records


def test_but_it_does_while_its_container_lives() -> None:
    one = running()
    one.host.state = Life(config()).host.state
    one.remove(told=False)
    one.host.living = {TRAIN: PID}
    sick = dict.fromkeys(map(DeviceUuid, ("GPU-1", "MIG-1-0", "MIG-1-1")), "Unknown Error")
    one.set_gpu(blind=sick).after(HOUR)
    assert NAME in one.host.records


def test_so_it_is_with_a_hold_that_is_over() -> None:
    one = running().stop(state=State.EXITED)
    sick = dict.fromkeys(map(DeviceUuid, ("GPU-1", "MIG-1-0", "MIG-1-1")), "Unknown Error")
    one.set_gpu(blind=sick).after(HOUR)
    assert booked(one) == {(NAME, "1.0")}, "who computes there is not known"
    one.host.state = Life(config()).host.state
    one.after(60.0)
    assert NAME not in one.host.records
