"""What people do by hand with containers, and what becomes of the books: one daemon for all."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from simulation.engine import PrivateEngine
from tests.support.books import until
from tests.support.daemon import RunningDaemon, Site

pytestmark = pytest.mark.docker

HOLD_S = 1.0  # of henry's containers
LONG_HOLD_S = 6.0  # of paula's: no slow start of a container outlasts it
GRACE_S = 5.0  # of a creation: nor does it outlast this
ABSENCE_S = 0.7


@dataclass
class Host:
    """One engine with one daemon. Each test takes slots of its own, and leaves nothing behind."""

    engine: PrivateEngine
    site: Site
    daemon: RunningDaemon
    free: list[str] = field(default_factory=list)

    def slot(self) -> str:
        return self.free.pop(0)

    def run(self, name: str, slot: str | None, *, user: str = "alice", **options: Any) -> str:
        """Run a finished DS01 container on the device of a slot."""
        labels = {"aime.mlc": user, "aime.mlc.USER": user} | options.pop("labels", {})
        devices = options.pop("devices", None if slot is None else self.site.uuid(slot))
        return self.engine.run(name, devices=devices, labels=labels, **options)

    def book_and_run(self, name: str, *, user: str = "alice", **options: Any) -> str:
        """Book as the allocator does and run the container; gives the slot."""
        slot = self.slot()
        self.site.allocator.allocate(name, user, slot)
        self.run(name, slot, user=user, **options)
        return slot

    def slots_of(self, name: str) -> set[str]:
        return {slot for booked, slot in self.site.bookings() if booked == name}

    def becomes(self, name: str, *slots: str) -> None:
        """Wait until `name` holds exactly these."""
        until(
            lambda: self.slots_of(name) == set(slots),
            what=lambda: f"{name} to hold {slots}: {self.slots_of(name)}",
        )

    def never_taken(self, name: str) -> None:
        assert [slot for taken, slot in self.site.taken() if taken == name] == []

    def changes(self, name: str) -> list[Mapping[str, Any]]:
        return [entry for entry in self.site.history() if entry.get("container") == name]

    def findings(self, kind: str) -> set[str]:
        return {f["container"] for f in self.site.status()["findings"] if f["kind"] == kind}

    def logged(self, words: str) -> None:
        """Wait for a line of the allocations log: it is written after the books."""
        until(lambda: words in self.site.allocations.read_text(encoding="utf-8"), what=words)

    def found(self, kind: str, name: str) -> None:
        until(lambda: name in self.findings(kind), what=f"{kind} {name}")


@pytest.fixture(scope="module")
def whole(one_engine: PrivateEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    one_engine.reset()
    policy = {"creation_grace": f"{GRACE_S:g}s"}
    site = Site(tmp_path_factory.mktemp("site"), one_engine.url, policy=policy)
    with RunningDaemon(site) as daemon:
        yield Host(engine=one_engine, site=site, daemon=daemon)


@pytest.fixture
def host(whole: Host) -> Iterator[Host]:
    whole.free = sorted(whole.site.read_state()["gpus"])
    try:
        yield whole
    finally:
        whole.engine.clear()
        whole.daemon.booked()


def boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def test_what_is_removed_by_hand_is_released(host: Host) -> None:
    host.book_and_run("hand._.1001")
    host.daemon.reload()
    host.never_taken("hand._.1001")
    host.engine.remove("hand._.1001")
    host.becomes("hand._.1001")
    until(lambda: host.site.record("hand._.1001") is None, what="its metadata to go")
    host.logged("RELEASED|alice|hand._.1001")


def test_a_stopped_container_keeps_its_slot_until_its_hold_is_over(host: Host) -> None:
    slot = host.book_and_run("held._.1003", user="paula")
    began = boottime()
    host.engine.stop_container("held._.1003")
    until(lambda: "stopped_at" in (host.site.record("held._.1003") or {}), what="stopped_at")
    host.becomes("held._.1003")
    (released,) = [e for e in host.changes("held._.1003") if e["action"] == "release"]
    assert released["kind"] == "expired-hold"
    assert released["slot"] == slot
    assert released["boot"] - began >= LONG_HOLD_S
    assert host.engine.client.inspect_container("held._.1003")["State"]["Status"] == "exited"


def test_a_container_that_is_started_again_within_its_hold_keeps_its_slot(host: Host) -> None:
    slot = host.book_and_run("again._.1003", user="paula")
    host.engine.stop_container("again._.1003")
    until(lambda: "stopped_at" in (host.site.record("again._.1003") or {}), what="stopped_at")
    host.engine.client.start("again._.1003")
    until(lambda: "stopped_at" not in (host.site.record("again._.1003") or {}), what="runs again")
    host.daemon.outlast(LONG_HOLD_S)
    host.becomes("again._.1003", slot)
    host.never_taken("again._.1003")


def test_a_stop_by_a_user_whose_hold_is_for_ever_changes_nothing(host: Host) -> None:
    slot = host.book_and_run("ever._.1001")
    host.engine.stop_container("ever._.1001")
    until(lambda: "stopped_at" in (host.site.record("ever._.1001") or {}), what="stopped_at")
    host.daemon.outlast(HOLD_S)
    host.becomes("ever._.1001", slot)
    host.never_taken("ever._.1001")


def test_a_paused_container_keeps_its_slot(host: Host) -> None:
    slot = host.book_and_run("paused._.1003", user="paula")
    host.engine.client.restart("paused._.1003", timeout=0)  # so that it has ended once
    host.engine.client.pause("paused._.1003")
    host.daemon.outlast(LONG_HOLD_S)
    host.becomes("paused._.1003", slot)
    host.engine.client.unpause("paused._.1003")
    host.daemon.reload()
    host.becomes("paused._.1003", slot)
    host.never_taken("paused._.1003")


def test_the_booking_follows_a_renamed_container_and_comes_back(host: Host) -> None:
    slot = host.book_and_run("before._.1001")
    until(lambda: host.slots_of("before._.1001"))
    host.daemon.reload()
    allocated_at = (host.site.record("before._.1001") or {})["allocated_at"]
    host.engine.client.rename("before._.1001", "after._.1001")
    host.becomes("after._.1001", slot)
    host.becomes("before._.1001")
    record = until(lambda: host.site.record("after._.1001"))
    assert (record["container"], record["allocated_at"]) == ("after._.1001", allocated_at)
    until(lambda: host.site.record("before._.1001") is None)

    host.engine.client.rename("after._.1001", "before._.1001")
    host.becomes("before._.1001", slot)
    host.becomes("after._.1001")
    assert (until(lambda: host.site.record("before._.1001")))["user"] == "alice"


def test_a_name_that_is_used_again_at_once_keeps_its_booking(host: Host) -> None:
    slot = host.book_and_run("reused._.1001")
    host.daemon.reload()
    for _ in range(2):
        host.engine.remove("reused._.1001")
        host.run("reused._.1001", slot)
    host.daemon.outlast(ABSENCE_S)
    host.becomes("reused._.1001", slot)
    host.never_taken("reused._.1001")
    host.engine.remove("reused._.1001")
    host.becomes("reused._.1001")


def test_a_name_that_is_used_again_on_another_device_moves(host: Host) -> None:
    host.book_and_run("moved._.1001")
    host.daemon.reload()
    host.engine.remove("moved._.1001")
    other = host.slot()
    host.run("moved._.1001", other)
    host.becomes("moved._.1001", other)
    assert until(lambda: (host.site.record("moved._.1001") or {}).get("gpu_id") == other)


def test_compose_renames_the_old_one_before_it_creates_the_new_one(host: Host) -> None:
    slot = host.book_and_run("web._.1001")
    host.daemon.reload()
    old = host.engine.client.inspect_container("web._.1001")["Id"]
    host.engine.client.stop(old, timeout=0)
    host.engine.client.rename(old, f"{old[:12]}_web._.1001")
    host.run("web._.1001", slot)
    host.engine.client.remove_container(old)
    host.becomes("web._.1001", slot)
    host.daemon.outlast(ABSENCE_S)
    host.becomes("web._.1001", slot)
    assert {name for name, booked in host.site.bookings() if booked == slot} == {"web._.1001"}
    assert host.site.users(slot) == {"alice": 1}


def test_two_containers_that_swap_their_names_swap_their_bookings(host: Host) -> None:
    first, second = host.book_and_run("one._.1001"), host.book_and_run("two._.1001")
    host.daemon.reload()
    for before, after in (("one", "tmp"), ("two", "one"), ("tmp", "two")):
        host.engine.client.rename(f"{before}._.1001", f"{after}._.1001")
    host.becomes("one._.1001", second)
    host.becomes("two._.1001", first)
    host.becomes("tmp._.1001")
    host.daemon.at_rest(force=True)
    host.becomes("one._.1001", second)
    host.becomes("two._.1001", first)


def test_users_and_holds_go_with_the_container_when_names_rotate(host: Host) -> None:
    """Three users, each container under its neighbour's name; henry's hold of 1 s stays henry's."""
    users = {"one._.1001": "alice", "two._.1002": "henry", "three._.1003": "bob"}
    slots = {name: host.book_and_run(name, user=user) for name, user in users.items()}
    host.daemon.reload()
    ring = ("tmp", "one._.1001", "two._.1002", "three._.1003", "tmp")
    for after, before in pairwise(ring):
        host.engine.client.rename(before, after)
    host.engine.client.stop("three._.1003", timeout=0)  # alice's, under the name that was bob's
    host.becomes("three._.1003", slots["one._.1001"])
    host.becomes("one._.1001", slots["two._.1002"])
    host.becomes("two._.1002", slots["three._.1003"])
    host.engine.client.stop("two._.1002", timeout=0)  # bob's, under the name that was henry's
    host.daemon.outlast(HOLD_S + GRACE_S)
    host.becomes("two._.1002", slots["three._.1003"])
    host.becomes("three._.1003", slots["one._.1001"])
    recorded = {name: (host.site.record(name) or {})["user"] for name in users}
    assert recorded == {"three._.1003": "alice", "one._.1001": "henry", "two._.1002": "bob"}
    host.engine.client.stop("one._.1001", timeout=0)
    host.becomes("one._.1001")


def test_names_swapped_and_containers_stopped_while_the_daemon_is_down(host: Host) -> None:
    kept = host.book_and_run("blue._.1001", user="alice")
    gone = host.book_and_run("green._.1002", user="henry")
    host.daemon.at_rest(force=True)
    host.daemon.stop()
    for before, after in (("blue._.1001", "tmp"), ("green._.1002", "blue._.1001")):
        host.engine.client.rename(before, after)
    host.engine.client.rename("tmp", "green._.1002")
    for name in ("blue._.1001", "green._.1002"):
        host.engine.client.stop(name, timeout=0)
    host.daemon.start()
    host.becomes("blue._.1001")
    host.becomes("green._.1002", kept)
    host.daemon.outlast(HOLD_S + GRACE_S)
    host.becomes("green._.1002", kept)
    assert (host.site.record("green._.1002") or {})["user"] == "alice"
    assert host.site.record("blue._.1001") is None
    assert gone not in {slot for _, slot in host.site.bookings()}
    host.daemon.at_rest(force=True)


def test_a_container_that_crashes_again_and_again_keeps_its_slot(host: Host) -> None:
    slot = host.book_and_run(
        "crash._.1003", user="henry", command=("sh", "-c", "sleep 0.05; false"), restart="always"
    )
    began, spent = boottime(), cpu_s(host.daemon.pid)
    host.daemon.outlast(HOLD_S + 1.0)
    host.becomes("crash._.1003", slot)
    host.never_taken("crash._.1003")
    assert cpu_s(host.daemon.pid) - spent < 0.5 * (boottime() - began), "it spins"


def cpu_s(pid: int) -> float:
    """The processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_managed_container_that_nobody_booked_is_adopted(host: Host) -> None:
    slot = host.slot()
    host.run("found._.1002", slot, user="bob")
    host.becomes("found._.1002", slot)
    record = until(lambda: host.site.record("found._.1002"))
    assert (record["user"], record["gpu_id"], record["priority"]) == ("bob", slot, 10)
    assert host.site.users(slot) == {"bob": 1}
    host.logged("ALLOCATED|bob|found._.1002")


@pytest.mark.parametrize("devices", ["all", 2])
def test_a_broad_request_is_reported_and_not_booked(host: Host, devices: str | int) -> None:
    name = f"broad-{devices}._.1001"
    host.run(name, None, devices=devices)
    host.found("broad-request", name)
    host.daemon.reload()
    host.becomes(name)
    assert host.changes(name) == []


def test_a_booking_in_the_wrong_slot_moves_to_where_the_request_says(host: Host) -> None:
    wrong, right = host.slot(), host.slot()
    host.run("wrong._.1001", right)
    host.site.allocator.allocate("wrong._.1001", "alice", wrong)
    host.becomes("wrong._.1001", right)
    assert host.site.users(wrong) == {}
    assert host.site.users(right) == {"alice": 1}


def test_a_pinned_container_keeps_its_booking_whatever_it_asks_for(host: Host) -> None:
    wrong, right = host.slot(), host.slot()
    host.site.allocator.allocate("pinned._.1003", "henry", wrong)
    host.run("pinned._.1003", right, user="henry", labels={"ds01.protected": "true"})
    host.found("label-contradiction", "pinned._.1003")
    host.engine.stop_container("pinned._.1003")
    host.daemon.outlast(HOLD_S)
    host.becomes("pinned._.1003", wrong)
    host.never_taken("pinned._.1003")


def test_created_and_never_started_is_held_for_the_creation_grace_only(host: Host) -> None:
    began = boottime()
    host.book_and_run("never._.1003", user="henry", start=False)
    host.becomes("never._.1003")
    (released,) = [e for e in host.changes("never._.1003") if e["action"] == "release"]
    assert released["kind"] == "expired-hold"
    assert released["boot"] - began >= GRACE_S
    assert host.engine.client.inspect_container("never._.1003")["State"]["Status"] == "created"


def test_a_foreign_container_is_left_alone_and_reported(host: Host) -> None:
    slot = host.slot()
    host.engine.run("vscode", devices=host.site.uuid(slot))
    host.found("foreign-use", "vscode")
    assert host.site.bookings() == set()
    statuses = {entry["id"]: entry for entry in host.site.status()["slots"]}
    assert statuses[slot]["foreign"] == ["vscode"]
    assert host.engine.client.inspect_container("vscode")["State"]["Running"]


def wait_lines(host: Host, name: str, wanted: Callable[[list[list[str]]], bool]) -> None:
    until(
        lambda: wanted(host.site.operation_lines(name)),
        what=lambda: f"lines of {name}: {host.site.operation_lines(name)}",
    )


def test_what_is_done_by_hand_is_in_the_operations_log_once(host: Host) -> None:
    slot = host.book_and_run("told._.1001", labels={"ds01.gpu.slots": "1.0"})
    # A wrapper that writes its own line around what it does.
    host.engine.stop_container("told._.1001")
    host.site.allocator.log_operation("stop", "told._.1001", "alice", slot, "success", "wrapper")
    host.engine.remove("told._.1001")
    wait_lines(host, "told._.1001", lambda lines: "remove" in [line[0] for line in lines])
    lines = host.site.operation_lines("told._.1001")
    by_hand = [line for line in lines if line[0] in {"start", "stop", "remove"}]
    assert sorted(line[0] for line in by_hand) == ["remove", "start", "stop"]
    assert [line[5] for line in by_hand if line[0] == "stop"] == ["wrapper"]
    assert ["start", "alice", "told._.1001", "1.0", "success"] in [line[:5] for line in by_hand]


def test_one_that_somebody_else_released_does_not_keep_the_next_waiting(
    tmp_path: Path, engine: PrivateEngine
) -> None:
    """What was found of it has a moment at which it is due; by then nothing is left of it."""
    site = Site(
        tmp_path,
        engine.url,
        daemon={"sweep_interval": "60s"},
        policy={"settle": "3s", "absence_grace": "4s"},
    )
    for name, slot in (("a._.1001", "1.0"), ("b._.1001", "1.1")):
        engine.run(name, devices=site.uuid(slot), labels={"ds01.managed": "true"})
        site.allocator.allocate(name, "alice", slot)
    with RunningDaemon(site) as daemon:
        engine.remove("a._.1001")
        until(lambda: site.status()["drifts"])
        site.allocator.release("a._.1001")
        engine.remove("b._.1001")
        daemon.booked(deadline_s=15)  # a sweep is a minute away
