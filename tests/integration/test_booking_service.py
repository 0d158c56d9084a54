"""Bookings through the socket of a real daemon, by root and by two users in no group."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import docker
import pytest

import simulation.fake_engine as fake_engine_module
from ds01d.adapters.state_dir import StateDirectory
from ds01d.errors import Ds01Error
from ds01d.model.allocation import Allocated, MarkedStopped, Rejected, Released
from ds01d.model.primitives import ContainerName, UserName
from ds01d.service.allocator_client import RemoteAllocator, Waiting
from ds01d.service.exchange import ServiceUnreachable
from ds01d.service.operations_client import RemoteOperations
from simulation.debian_packages import PackagesUnavailable
from simulation.fake_engine import FakeEngine, request
from simulation.varlinkctl import Varlinkctl
from tests.support import forked
from tests.support.books import until
from tests.support.daemon import ROOT, RunningDaemon, Site
from tests.support.peers import BIN, DAEMON, call_as, public_socket, read_error
from tests.support.processes import interrupt
from tests.support.proofs import PROOFS

LIMITS = """\
defaults: {gpu_hold_after_stop: null, priority: 1, max_mig_instances: 1}
default_group: student
groups:
  student: {members: [daemon, bin, alice, bob], priority: 10, max_mig_instances: 2}
"""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="acts as other users, which root can")


@pytest.fixture
def site(tmp_path: Path, fake_engine: FakeEngine) -> Iterator[Site]:
    with public_socket() as path:
        site = Site(
            tmp_path,
            fake_engine.url,
            service={"socket": str(path)},
            policy={"creation_grace": "10m"},
            allocator={"sharing": "never"},
        )
        site.limits.write_text(LIMITS, encoding="utf-8")
        yield site


def socket_of(site: Site) -> Path:
    return Path(str(site.tables["service"]["socket"]))


def allocate(site: Site, user: str, container: str) -> Allocated | Rejected:
    return RemoteAllocator(socket_of(site)).allocate(UserName(user), ContainerName(container))


def run_allocator(site: Site, *words: str) -> subprocess.CompletedProcess[str]:
    return forked.call("ds01d.cli.allocator.main", words, env=site.environment())


def test_a_booking_from_the_first_call_to_the_release(site: Site) -> None:
    with RunningDaemon(site) as daemon:
        given = allocate(site, "alice", "train._.1001")
        assert isinstance(given, Allocated)
        assert not given.already
        daemon.booked(("train._.1001", given.slot))
        again = allocate(site, "alice", "train._.1001")
        assert isinstance(again, Allocated)
        assert (again.already, again.slot) == (True, given.slot)
        allocator = RemoteAllocator(socket_of(site))
        stopped = allocator.mark_stopped(ContainerName("train._.1001"))
        assert isinstance(stopped, MarkedStopped)
        released = allocator.release(ContainerName("train._.1001"))
        assert isinstance(released, Released)
        assert released.slots == (given.slot,)
        daemon.booked()
    changes = [(entry["action"], entry["outcome"]) for entry in site.history()]
    assert changes == [("allocate", "done"), ("mark-stopped", "done"), ("release", "done")]
    assert {entry["actor"]["login"] for entry in site.history()} == {"root"}
    lines = [line[0] for line in site.operation_lines("train._.1001")]
    assert lines == ["allocate", "mark-stopped", "release"]


def test_status_is_as_new_as_the_last_booking(site: Site) -> None:
    with RunningDaemon(site):
        for number in range(3):
            given = allocate(site, f"user{number}", f"job{number}")
            assert isinstance(given, Allocated)
            reply = call_as(DAEMON, socket_of(site), "Status")
            slots = {slot["id"]: slot for slot in reply["parameters"]["status"]["slots"]}
            holders = [holder["container"] for holder in slots[given.slot]["holders"]]
            assert holders == [f"job{number}"]


class TestUsers:
    """Two users in no group: what is one's own works, what is another's is refused."""

    def test_a_user_books_for_oneself_only(self, site: Site) -> None:
        with RunningDaemon(site):
            mine = call_as(DAEMON, socket_of(site), "Allocate", container="job._.1")
            assert mine["parameters"]["booking"]["user"] == "daemon"
            named = call_as(DAEMON, socket_of(site), "Allocate", container="b", user="bin")
            assert read_error(named) == ("NotPermitted", {"needs": "root or group ds01-operators"})
        assert [entry["actor"]["uid"] for entry in site.history()] == [DAEMON]
        assert site.record("job._.1")["user"] == "daemon"  # type: ignore[index]

    @pytest.mark.parametrize("method", ["Release", "MarkStopped", "Allocate"])
    def test_anothers_booking_stays(self, site: Site, method: str) -> None:
        with RunningDaemon(site) as daemon:
            given = call_as(BIN, socket_of(site), "Allocate", container="theirs")
            slot = given["parameters"]["booking"]["slot"]
            refused = call_as(DAEMON, socket_of(site), method, container="theirs")
            assert read_error(refused) == ("NotYours", {"owner": "bin"})
            daemon.sweeps(1)
            assert site.bookings() == {("theirs", slot)}
        assert len(site.history()) == 1

    def test_a_name_with_anothers_uid_is_theirs(self, site: Site) -> None:
        with RunningDaemon(site):
            refused = call_as(DAEMON, socket_of(site), "Allocate", container="job._.2")
            assert read_error(refused)[0] == "NotYours"

    def test_the_booking_of_an_unknown_user_stays(self, site: Site) -> None:
        run_allocator(site, "allocate", "unknown", "nobodys", "2", "10")
        run_allocator(site, "allocate", "alice", "lost", "2", "10")
        before = site.bookings()
        (site.metadata / "lost.json").unlink()
        with RunningDaemon(site) as daemon:
            for method in ("Release", "MarkStopped", "Allocate"):
                for name in ("nobodys", "lost"):
                    refused = call_as(DAEMON, socket_of(site), method, container=name)
                    assert read_error(refused)[0] == "NotYours", (method, refused)
                daemon.sweeps(1)
                assert site.bookings() == before, method
            assert not [entry for entry in site.history() if entry["kind"] == "booking"]

    def test_a_booking_that_root_makes_meanwhile_stays(self, site: Site) -> None:
        answers: list[dict[str, Any]] = []

        def release() -> None:
            answers.append(call_as(DAEMON, socket_of(site), "Release", container="job"))

        with RunningDaemon(site) as daemon:
            calls = threading.Thread(target=release, daemon=True)
            with StateDirectory(site.state_dir, 10.0).lock():
                calls.start()
                time.sleep(1.0)  # until it waits for the lock
                site.allocator.allocate("job", "bin", "1.0")
            calls.join(60)
            assert read_error(answers[0]) == ("NotYours", {"owner": "bin"})
            daemon.sweeps(1)
            assert site.bookings() == {("job", "1.0")}

    def test_another_slot_counts_also_where_root_is_recorded(self, site: Site) -> None:
        run_allocator(site, "allocate", "root", "job._.1", "2", "10")
        with RunningDaemon(site):
            answers = [
                call_as(DAEMON, socket_of(site), "Allocate", container="job._.1", another=True)
                for _ in range(3)
            ]
            codes = [read_error(answer)[1].get("code") for answer in answers]
            assert codes == [None, "USER_AT_LIMIT", "USER_AT_LIMIT"]

    def test_numbers_and_texts_are_bounded(self, site: Site) -> None:
        with RunningDaemon(site):
            for name, value in (("priority", -(10**30)), ("most", 2**31), ("slot", "1" * 257)):
                refused = call_as(
                    DAEMON, socket_of(site), "Allocate", container="j", **{name: value}
                )
                assert read_error(refused) == ("InvalidParameter", {"parameter": name})

    def test_a_release_of_nothing_is_no_entry(self, site: Site) -> None:
        with RunningDaemon(site):
            refused = call_as(DAEMON, socket_of(site), "Release", container="x" * 60_000)
            assert read_error(refused)[1]["code"] == "NOT_ALLOCATED"
        assert site.history() == []

    def test_the_limits_are_the_servers(self, site: Site) -> None:
        with RunningDaemon(site):
            for number in range(2):
                given = call_as(
                    DAEMON, socket_of(site), "Allocate", container=f"j{number}", most=50
                )
                assert "error" not in given
            refused = call_as(
                DAEMON, socket_of(site), "Allocate", container="j2", most=50, priority=99
            )
            assert read_error(refused)[1]["code"] == "USER_AT_LIMIT"
            lowered = call_as(BIN, socket_of(site), "Allocate", container="k", priority=99)
            assert lowered["parameters"]["booking"]["priority"] == 10
            site.limits.write_text("groups: [", encoding="utf-8")
            refused = call_as(BIN, socket_of(site), "Allocate", container="l", most=1)
            assert read_error(refused)[1]["code"] == "LIMITS_UNREADABLE"

    def test_quota_is_ones_own(self, site: Site) -> None:
        with RunningDaemon(site):
            call_as(DAEMON, socket_of(site), "Allocate", container="j")

            def is_published() -> bool:
                quota = call_as(DAEMON, socket_of(site), "Quota")["parameters"]["quota"]
                return bool(quota["reserved"])

            until(is_published)
            quota = call_as(DAEMON, socket_of(site), "Quota")["parameters"]["quota"]
            assert quota == {
                "user": "daemon",
                "max_slots": 2,
                "priority": 10,
                "booked": 1,
                "gpus": None,
                "max_gpus": None,
                "group": "student",
                "unit": "slots",
                "limit": 2.0,
                "held": 0.0,
                "reserved": 1.0,
                "left": 1.0,
                "slots_per_container": None,
                "source": f"{site.limits}: groups.student.max_mig_instances",
                "waiting": 0,
                "ahead": 0,
                "requests": [],
                "other_hosts": None,
            }
            shown = json.loads(site.ctl("quota", "daemon", "--json").stdout)
            assert shown.pop("schema") == "quota/1.1"
            assert shown.items() <= quota.items()
            refused = call_as(DAEMON, socket_of(site), "Quota", user="bin")
            assert read_error(refused)[0] == "NotPermitted"


BROKEN = {
    "error": "groups: [",
    "empty": "",
    "null": "defaults: {max_gpu_equivalents: 3}\ngroups:\n  # student: {}\n",
}


@pytest.mark.parametrize("how", BROKEN)
def test_limits_that_break_leave_the_last_good_ones_else_refuse_at_once(
    site: Site, how: str
) -> None:
    site.limits.write_text("defaults: {max_gpu_equivalents: 0.28571429}\n", encoding="utf-8")
    with RunningDaemon(site):
        first = call_as(DAEMON, socket_of(site), "Allocate", container="j0")
        assert "error" not in first
        site.limits.write_text(BROKEN[how], encoding="utf-8")
        second = call_as(DAEMON, socket_of(site), "Allocate", container="j1")
        assert "error" not in second
        refused = call_as(DAEMON, socket_of(site), "Allocate", container="j2", most=50)
        held = "daemon holds 1.0 (j0), 1.1 (j1)"
        reason = {
            "code": "USER_AT_LIMIT",
            "detail": "0.285714/0.285714",
            "held": held,
            "warnings": [],
        }
        assert read_error(refused)[1] == reason
        quota = call_as(DAEMON, socket_of(site), "Quota")["parameters"]["quota"]
        assert (round(quota["gpus"], 3), round(quota["max_gpus"], 3)) == (0.286, 0.286)
        plan = site.plan()
        (finding,) = (one for one in plan["findings"] if one["kind"] == "unclear-limits")
        assert finding["reason"].startswith(f"{site.limits}: ")
        assert finding["reason"].endswith("; the last good limits count, and no hold ends")
        assert plan["sources"]["limits"] in finding["reason"]
    with RunningDaemon(site):  # which knows them from before
        refused = call_as(DAEMON, socket_of(site), "Allocate", container="j2")
        assert read_error(refused)[1]["code"] == "USER_AT_LIMIT"
    (site.state_dir / "limits.json").unlink()
    with RunningDaemon(site):
        refused = call_as(DAEMON, socket_of(site), "Allocate", container="j2", wait=True)
        assert read_error(refused)[1]["code"] == "LIMITS_UNREADABLE"


def test_mode_observe_books_nothing_and_answers(site: Site) -> None:
    site.configure(daemon={"mode": "observe"})
    with RunningDaemon(site):
        state = site.state.read_bytes()
        for method in ("Allocate", "Release", "MarkStopped"):
            refused = call_as(DAEMON, socket_of(site), method, container="job")
            assert "observe" in read_error(refused)[1]["reason"]
        assert site.state.read_bytes() == state
        assert call_as(DAEMON, socket_of(site), "Quota")["parameters"]["quota"]["booked"] == 0
        # Who may write the books goes on without the service.
        booked = run_allocator(site, "allocate", "alice", "job", "2", "10")
        assert booked.stdout.startswith("✓ Allocated GPU/MIG "), booked.stderr
    assert site.history() == []


def test_the_commands_use_the_service(site: Site) -> None:
    with RunningDaemon(site) as daemon:
        booked = run_allocator(site, "allocate", "alice", "job", "2", "10")
        assert booked.returncode == 0, booked.stderr
        assert booked.stdout.startswith("✓ Allocated GPU/MIG ")
        released = run_allocator(site, "release", "job")
        assert released.stdout.startswith("✓ Released GPU/MIG ")
        assert run_allocator(site, "release", "job").stdout == "✗ No GPU allocated to job\n"
        answer = site.ctl("allocate", "alice", "job", "--json", check=True)
        assert json.loads(answer.stdout)["allocated"]
        assert site.ctl("allocate", "alice", "other", "--max", "1").returncode == 3
        daemon.sweeps(1)
    assert {entry["kind"] for entry in site.history()} == {"booking"}


def test_without_a_daemon_root_books_by_itself(site: Site) -> None:
    with pytest.raises(ServiceUnreachable):
        allocate(site, "alice", "job")
    booked = run_allocator(site, "allocate", "alice", "job", "2", "10")
    assert booked.stdout.startswith("✓ Allocated GPU/MIG ")
    with RunningDaemon(site) as daemon:
        daemon.kill()
    assert socket_of(site).is_socket()  # left behind
    booked = run_allocator(site, "allocate", "alice", "job2", "2", "10")
    assert booked.stdout.startswith("✓ Allocated GPU/MIG ")
    with RunningDaemon(site):  # takes the place of the one left behind
        assert isinstance(allocate(site, "alice", "job"), Allocated)


def test_an_undo_takes_a_release_back(site: Site) -> None:
    with RunningDaemon(site) as daemon:
        given = allocate(site, "alice", "job")
        assert isinstance(given, Allocated)
        RemoteAllocator(socket_of(site)).release(ContainerName("job"))
        daemon.booked()
        released = site.history()[-1]
        assert released["action"] == "release"
        undone = site.ctl("undo", released["id"])
        assert undone.returncode == 0, undone.stdout + undone.stderr
        assert site.bookings() == {("job", given.slot)}
        assert site.record("job")["user"] == "alice"  # type: ignore[index]


SLOTS, CALLS, USERS, KILLS = (56, 500, 50, 10) if PROOFS else (24, 120, 20, 4)


def widen(site: Site) -> None:
    """Give the books `SLOTS` slots, eight MIG devices to a GPU."""

    def change(state: dict[str, Any]) -> None:
        model = next(iter(state["gpus"].values()))
        names = [f"{number // 8}.{number % 8}" for number in range(SLOTS)]
        state["gpus"] = {
            name: {
                **model,
                "uuid": f"MIG-{number:08d}-0000-4000-8000-000000000000",
                "docker_id": f"MIG-{number:08d}-0000-4000-8000-000000000000",
                "device_id": name.partition(".")[2],
                "physical_gpu": name.partition(".")[0],
                "containers": [],
                "users": {},
            }
            for number, name in enumerate(names)
        }

    site.write_state(change)


@pytest.mark.proof
@pytest.mark.timeout(600)
def test_a_storm_with_kills_books_each_slot_once(site: Site) -> None:
    """Everybody is answered, no slot is given twice, no quota exceeded, nothing is lost."""
    widen(site)
    names = [(f"user{number % USERS}", f"job{number}") for number in range(CALLS)]
    given: dict[str, str] = {}
    problems: list[str] = []
    answered: set[str] = set()
    left = iter(names)
    lock = threading.Lock()

    def book() -> None:
        while True:
            with lock:
                user, name = next(left, ("", ""))
            if not name:
                return
            until(partial(is_answered, user, name), 300, what=f"an answer for {name}")

    def is_answered(user: str, name: str) -> bool:
        try:
            answer = allocate(site, user, name)
        except Ds01Error:  # killed in the middle, or not there yet
            return False
        with lock:
            answered.add(name)
            if isinstance(answer, Allocated):
                if answer.user != user or answer.shared_with:
                    problems.append(f"{name}: {answer}")
                given[name] = answer.slot
        return True

    daemon = RunningDaemon(site)
    with daemon:
        threads = [threading.Thread(target=book) for _ in range(20)]
        for thread in threads:
            thread.start()
        for number in range(KILLS):
            wanted = (number + 1) * CALLS // (KILLS + 1)
            until(lambda wanted=wanted: len(answered) >= wanted, 300)  # type: ignore[misc]
            daemon.kill()
            daemon.start()
        for thread in threads:
            thread.join(300)
        daemon.sweeps(2)
        assert not problems
        assert len(answered) == CALLS
        assert site.bookings() == set(given.items())
        assert len(given) == len(set(given.values())) == min(SLOTS, 2 * USERS)
        assert max(Counter(user for user, name in names if name in given).values()) <= 2
        assert not site.status()["drifts"]
        daemon.signal(signal.SIGTERM)
    assert all(entry["outcome"] != "open" for entry in site.history())


class TestReservation:
    """What is booked and has no container yet is a reservation, and ends."""

    def test_it_ends_with_the_creation_grace(self, site: Site) -> None:
        site.configure(policy={"creation_grace": "1s"})
        with RunningDaemon(site) as daemon:
            assert isinstance(allocate(site, "alice", "job"), Allocated)
            daemon.booked()
            assert isinstance(allocate(site, "alice", "job2"), Allocated)  # counts no more

    def test_it_ends_when_the_creation_failed(self, site: Site) -> None:
        with RunningDaemon(site) as daemon:
            given = allocate(site, "alice", "job")
            assert isinstance(given, Allocated)
            stamp = time.strftime("%Y-%m-%d %H:%M:%S")
            with site.operations.open("a", encoding="utf-8") as log:
                log.write(f"{stamp}|create_failed|alice|job|{given.slot}|failed|no image\n")
            daemon.booked()

    def test_it_outlives_a_restart_of_ds01d(self, site: Site) -> None:
        with RunningDaemon(site) as daemon:
            given = allocate(site, "alice", "job")
            assert isinstance(given, Allocated)
            daemon.kill()
            daemon.start()
            daemon.outlast(1.0)
            assert site.bookings() == {("job", given.slot)}

    def test_the_container_turns_it_into_a_booking(
        self, site: Site, fake_engine: FakeEngine
    ) -> None:
        site.configure(policy={"creation_grace": "3s"})
        with RunningDaemon(site) as daemon:
            given = allocate(site, "alice", "job")
            assert isinstance(given, Allocated)
            client = docker.APIClient(base_url=fake_engine.url)
            host = client.create_host_config(network_mode="none")
            host["DeviceRequests"] = [request(given.docker_id)]
            client.create_container("ds01d-test:latest", name="job", host_config=host)
            client.start("job")
            client.close()
            daemon.outlast(4.0)
            assert site.bookings() == {("job", given.slot)}

    def test_a_label_turns_it_into_the_booking_of_a_container_of_any_name(
        self, site: Site, fake_engine: FakeEngine
    ) -> None:
        site.configure(policy={"creation_grace": "1m"})
        with RunningDaemon(site) as daemon:
            parameters = {"count": 2, "reason": "a course"}
            reply = call_as(DAEMON, socket_of(site), "Allocate", **parameters)
            booking = reply["parameters"]["booking"]
            name, slots = booking["container"], {one["slot"] for one in booking["slots"]}
            assert name == f"{booking['id']}._.1"
            assert len(slots) == 2
            assert 0.0 < booking["until"] - time.time() <= 60.0
            assert site.bookings() == {(name, slot) for slot in slots}
            daemon.kill()
            daemon.start()
            docker_ids = [one["docker_id"] for one in booking["slots"]]
            run_labelled(fake_engine, "theirs._.2", booking["id"], docker_ids[:1])
            run_labelled(fake_engine, "train._.1", booking["id"], docker_ids)
            until(lambda: {("train._.1", slot) for slot in slots} <= site.bookings())
            daemon.kill()
            site.configure(policy={"creation_grace": "1s"})
            daemon.start()
            daemon.outlast(2.0)
            assert {("train._.1", slot) for slot in slots} <= site.bookings()
            assert name not in {booked for booked, _ in site.bookings()}
            again = call_as(DAEMON, socket_of(site), "Allocate", container="train._.1", count=2)
            assert again["parameters"]["booking"]["id"] == booking["id"]
            assert again["parameters"]["booking"]["until"] is None
        allocated, *moved = [entry for entry in site.history() if entry.get("booking")]
        assert allocated["reason"].endswith(": a course")
        assert {entry["booking"] for entry in (allocated, *moved)} == {booking["id"]}
        (finding,) = [one for one in site.plan()["findings"] if one["container"] == "theirs._.2"]
        assert finding["kind"] == "label-contradiction"

    def test_it_is_released_by_its_id_and_by_its_owner_only(self, site: Site) -> None:
        with RunningDaemon(site):
            reply = call_as(DAEMON, socket_of(site), "Allocate")
            booking = reply["parameters"]["booking"]
            release = partial(call_as, path=socket_of(site), method="Release")
            assert read_error(release(BIN, id=booking["id"])) == ("NotYours", {"owner": "daemon"})
            assert read_error(release(DAEMON))[0] == "InvalidParameter"
            for unknown in ("r-ffffffffffff", "../x", ""):
                code = read_error(release(DAEMON, id=unknown))[1]["code"]
                assert code == "NOT_ALLOCATED"
            assert site.bookings() == {(booking["container"], booking["slot"])}
            released = release(DAEMON, id=booking["id"])["parameters"]
            assert (released["container"], released["slots"]) == (
                booking["container"],
                [booking["slot"]],
            )
            assert site.bookings() == set()

    def test_who_waits_for_more_than_there_is_keeps_nobody_waiting(self, site: Site) -> None:
        site.limits.write_text("defaults: {max_mig_instances: null}\n", encoding="utf-8")
        with RunningDaemon(site):
            fill(site)
            allocate_as = partial(call_as, DAEMON, socket_of(site), "Allocate")
            assert read_error(allocate_as(count=13, wait=True))[1]["code"] == "NO_GPU_AVAILABLE"

    def test_each_slot_counts_for_the_quota_and_all_are_given_or_none(self, site: Site) -> None:
        with RunningDaemon(site):
            allocate_as = partial(call_as, DAEMON, socket_of(site), "Allocate")
            refused = read_error(allocate_as(count=3))[1]
            assert refused["code"] == "USER_AT_LIMIT"
            assert refused["detail"] == "0/2, 3 more asked for"
            refused = read_error(allocate_as(count=2, slot="1.0"))[1]
            assert refused["detail"] == "invalid count 2: expected 1 with a slot, else 1 or more"
            for wrong in ({"count": 0}, {"reason": "x" * 300}, {"profile": 7}):
                assert read_error(allocate_as(**wrong))[0] == "InvalidParameter"
            refused = read_error(allocate_as(reason="two\nlines"))[1]
            assert "invalid reason" in refused["detail"]
            refused = read_error(allocate_as(profile="9g.90gb"))[1]
            assert refused["code"] == "NO_SUCH_PROFILE"
            assert site.bookings() == set()
            assert "parameters" in allocate_as(count=2)
            assert read_error(allocate_as())[1]["detail"] == "2/2"


def run_labelled(engine: FakeEngine, name: str, booking: str, docker_ids: list[str]) -> None:
    client = docker.APIClient(base_url=engine.url)
    host = client.create_host_config(network_mode="none")
    host["DeviceRequests"] = [request(*docker_ids)]
    labels = {"ds01.booking": booking}
    client.create_container("ds01d-test:latest", name=name, host_config=host, labels=labels)
    client.start(name)
    client.close()


class Wait:
    """A caller in a thread of its own that waits for a slot."""

    def __init__(
        self,
        site: Site,
        user: str,
        container: str,
        priority: int | None = None,
        *,
        another: bool = False,
        count: int = 1,
    ) -> None:
        self._allocator = RemoteAllocator(socket_of(site))
        self.places: list[Waiting] = []
        self.answer: Allocated | Rejected | Ds01Error | None = None
        self._call = partial(
            self._allocator.allocate,
            UserName(user),
            ContainerName(container),
            priority=priority,
            another=another,
            count=count,
            on_waiting=self.places.append,
        )
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        until(lambda: self.places or self.answer, what=f"{container} to wait")

    def _run(self) -> None:
        try:
            self.answer = self._call()
        except Ds01Error as error:
            self.answer = error

    def leave(self) -> None:
        """What Ctrl-C does."""
        self._allocator.cancel_wait()
        self._thread.join(60)

    def end(self) -> Allocated | Rejected | Ds01Error | None:
        self._thread.join(60)
        return self.answer


def fill(site: Site) -> list[str]:
    """Book every slot, two for each user; the containers."""
    names = [f"full{number}" for number in range(12)]
    for number, name in enumerate(names):
        assert isinstance(allocate(site, f"user{number}", name), Allocated)
    return names


def test_calls_that_take_long_leave_time_for_passes(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_answer = threading.Event()
    handle_call = fake_engine_module._Handler.handle_call

    def hang(handler: fake_engine_module._Handler) -> None:
        may_answer.wait(30)
        handle_call(handler)

    with RunningDaemon(site) as daemon:
        monkeypatch.setattr(fake_engine_module._Handler, "handle_call", hang)
        since = time.time()
        calls = [threading.Thread(target=allocate, args=(site, "a", f"j{n}")) for n in range(16)]
        for call in calls:
            call.start()
        try:
            daemon.sweeps(1, since=since + 1.0)
            assert any(call.is_alive() for call in calls)
        finally:
            may_answer.set()
            for call in calls:
                call.join(60)


class TestWaiting:
    """The queue: by priority, then first come; who leaves is gone."""

    def test_the_order_of_the_queue(self, site: Site) -> None:
        with RunningDaemon(site):
            full = fill(site)
            first = Wait(site, "carl", "first", 10)
            second = Wait(site, "dora", "second", 10)
            urgent = Wait(site, "emil", "urgent", 90)
            until(
                lambda: [wait.places[-1].position for wait in (urgent, first, second)] == [1, 2, 3]
            )
            assert first.places[0].reason.startswith("NO_GPU_AVAILABLE")
            gone = Wait(site, "fred", "gone", 50)
            until(lambda: second.places[-1].position == 4)
            gone.leave()
            allocator = RemoteAllocator(socket_of(site))
            for name, wait in zip(full, (urgent, first, second), strict=False):
                released = allocator.release(ContainerName(name))
                assert isinstance(released, Released)
                answer = wait.end()
                assert isinstance(answer, Allocated), answer
                assert answer.slot == released.slots[0]
            assert "gone" not in {name for name, _ in site.bookings()}

    def test_who_waits_for_several_is_not_passed_by_those_after(self, site: Site) -> None:
        with RunningDaemon(site):
            full = fill(site)
            both, one = Wait(site, "carl", "both", 10, count=2), Wait(site, "dora", "one", 10)
            allocator = RemoteAllocator(socket_of(site))
            allocator.release(ContainerName(full[0]))
            until(lambda: "2 asked for, 1 free" in one.places[-1].reason)
            allocator.release(ContainerName(full[1]))
            answer = both.end()
            assert isinstance(answer, Allocated)
            assert len(answer.all_slots) == 2
            assert one.answer is None
            allocator.release(ContainerName(full[2]))
            assert isinstance(one.end(), Allocated)

    def test_who_does_not_wait_does_not_pass_who_does(self, site: Site) -> None:
        with RunningDaemon(site):
            full = fill(site)
            waits = Wait(site, "carl", "waits", 10)
            RemoteAllocator(socket_of(site)).release(ContainerName(full[0]))
            late = allocate(site, "dora", "late")
            assert isinstance(late, Rejected), late
            assert isinstance(waits.end(), Allocated)

    def test_a_user_at_the_limit_waits_for_their_own(self, site: Site) -> None:
        with RunningDaemon(site):
            for name in ("a", "b"):
                assert isinstance(allocate(site, "alice", name), Allocated)
            waits = Wait(site, "alice", "c")
            assert waits.places[0].reason == "USER_AT_LIMIT (2/2)"
            RemoteAllocator(socket_of(site)).release(ContainerName("a"))
            assert isinstance(waits.end(), Allocated)

    def test_another_slot_is_waited_for(self, site: Site) -> None:
        site.limits.write_text(LIMITS.replace("instances: 2", "instances: 3"), encoding="utf-8")
        with RunningDaemon(site):
            full = fill(site)
            waits = Wait(site, "user0", full[0], another=True)
            released = RemoteAllocator(socket_of(site)).release(ContainerName(full[1]))
            assert isinstance(released, Released)
            answer = waits.end()
            assert isinstance(answer, Allocated), answer
            assert (answer.already, answer.slot) == (False, released.slots[0])

    def test_a_docker_that_fails_costs_nobody_the_place(
        self, site: Site, fake_engine: FakeEngine
    ) -> None:
        with RunningDaemon(site) as daemon:
            full = fill(site)
            answers: list[dict[str, Any]] = []

            def wait() -> None:
                answers.append(
                    call_as(DAEMON, socket_of(site), "Allocate", container="c", wait=True)
                )

            waits = threading.Thread(target=wait, daemon=True)
            waits.start()
            until(lambda: "c|" in site.operations.read_text(encoding="utf-8"))
            fake_engine.stop()
            daemon.outlast(1.5)
            assert not answers
            fake_engine.start()
            daemon.sweeps(2)
            RemoteAllocator(socket_of(site)).release(ContainerName(full[0]))
            waits.join(60)
            assert "error" not in answers[0]

    def test_limits_that_are_lowered_meanwhile_count(self, site: Site) -> None:
        with RunningDaemon(site) as daemon:
            for name in ("a", "b"):
                call_as(DAEMON, socket_of(site), "Allocate", container=name)
            waits = threading.Thread(
                target=call_as,
                args=(DAEMON, socket_of(site), "Allocate"),
                kwargs={"container": "c", "wait": True, "most": 2},
                daemon=True,
            )
            waits.start()
            until(lambda: "c|" in site.operations.read_text(encoding="utf-8"))
            site.limits.write_text(LIMITS.replace("instances: 2", "instances: 1"), encoding="utf-8")
            call_as(DAEMON, socket_of(site), "Release", container="a")
            daemon.outlast(1.5)
            assert {name for name, _ in site.bookings()} == {"b"}

    def test_waiting_outlives_a_restart_and_a_reload(self, site: Site) -> None:
        with RunningDaemon(site) as daemon:
            full = fill(site)
            waits = Wait(site, "carl", "waits")
            site.configure(policy={"settle": "300ms"})
            daemon.reload()
            RemoteAllocator(socket_of(site)).release(ContainerName(full[0]))
            assert isinstance(waits.end(), Allocated)

    def test_who_waits_finds_the_call_in_the_quota(self, site: Site) -> None:
        with RunningDaemon(site):
            fill(site)
            waits = Wait(site, "carl", "first", 10), Wait(site, "dora", "second", 10)
            quota = json.loads(site.ctl("quota", "dora", "--json").stdout)
            remote = RemoteOperations(socket_of(site)).read_quota("dora")
            (request,) = remote.requests
            assert (request.container, request.position, request.count) == ("second", 2, 1)
            assert abs(time.time() - request.since.at) < 600
            assert request.reason.startswith("NO_GPU_AVAILABLE")
            assert quota["requests"][0]["since"].endswith("+00:00")
            shown = site.ctl("me", check=True).stdout
            assert shown.startswith("root holds 0 of 2 slots, 2 slots left")
            for wait in waits:
                wait.leave()

    def test_the_end_of_ds01d_ends_the_wait(self, site: Site) -> None:
        with RunningDaemon(site) as daemon:
            fill(site)
            waits = Wait(site, "carl", "waits")
            daemon.stop()
            answer = waits.end()
            assert isinstance(answer, ServiceUnreachable), answer

    def test_the_command_shows_the_place(self, site: Site) -> None:
        with RunningDaemon(site):
            fill(site)
            waits = subprocess.Popen(
                [sys.executable, "-m", "ds01d.cli.ctl.main", "allocate", "carl", "w", "--wait"],
                env=site.environment(),
                cwd=ROOT,
                stderr=subprocess.PIPE,
                text=True,
            )
            assert waits.stderr is not None
            with waits.stderr:
                assert waits.stderr.readline().startswith("waiting for a slot (next): NO_GPU_AVAIL")
                assert interrupt(waits) == 130
            RemoteAllocator(socket_of(site)).release(ContainerName("full0"))
            assert isinstance(allocate(site, "dora", "other"), Allocated)

    def test_without_ds01d_there_is_no_queue(self, site: Site) -> None:
        done = site.ctl("allocate", "carl", "w", "--wait")
        assert done.returncode == 1
        assert "cannot wait for a slot without ds01d" in done.stderr


@pytest.fixture(scope="module")
def varlinkctl() -> Varlinkctl:
    try:
        return Varlinkctl()
    except PackagesUnavailable as error:
        pytest.skip(str(error))  # on CI that is a failure


def test_varlinkctl_introspects_and_calls(site: Site, varlinkctl: Varlinkctl) -> None:
    """Systemd's own client understands the description, and is answered."""
    path, interface = str(socket_of(site)), "io.github.ds01.Booking"
    with RunningDaemon(site):
        listed = varlinkctl.run("list-interfaces", path)
        assert listed.stdout.split() == [interface, "org.varlink.service"], listed.stderr
        for name in listed.stdout.split():
            described = varlinkctl.run("introspect", path, name)
            assert described.returncode == 0, described.stderr
            assert f"interface {name}" in described.stdout
        given = varlinkctl.run(
            *("call", path, f"{interface}.Allocate", '{"container": "x", "user": "alice"}')
        )
        assert json.loads(given.stdout)["booking"]["user"] == "alice", given.stderr
        refused = varlinkctl.run("call", path, f"{interface}.Release", '{"container": "none"}')
        assert refused.returncode == 1
        assert f"{interface}.Refused" in refused.stderr
