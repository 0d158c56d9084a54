"""Reservations that last as long as the process that asked: whole passes, both kinds of books."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ds01d.config import Config
from ds01d.decide.bookings import count_bookings
from ds01d.model.allocation import Allocated, Released
from ds01d.model.books import AllocatorState, Attempt, BadRecord, Record
from ds01d.model.drift import Kind, Outcome, WaitReason
from ds01d.model.primitives import ContainerName, Digest, Source, Unknown, UserName, Wall
from ds01d.model.reservation import (
    BOOKING_LABEL,
    MOST_PROCESSES,
    ProcessState,
    ReservingProcess,
)
from ds01d.reconcile.reconciler import Reconciler
from tests.reconcile.test_docker_books import NOTHING, allocator, booked, kinds
from tests.support.build import NAME, Life, config, slot, whole, with_docker_books
from tests.support.build import books as make_books
from tests.support.repairs import at_look_up
from tests.support.world import Died

ALICE, BOB = UserName("alice"), UserName("bob")
DOCKER = ReservingProcess(pid=4242, started=99, boot_id="boot-1", command="docker")
SECOND = replace(DOCKER, pid=4243)
AUTO = ContainerName("ds01-auto-1700000000-4242")
LIMIT_S = 7200.0
GRACE_S = 900.0


def docker_life(settings: Config | None = None) -> Life:
    settings = with_docker_books(settings or config())
    return _life(settings, NOTHING)


def files_life(settings: Config | None = None) -> Life:
    slots = [slot(str(index), uuid=f"GPU-{index}") for index in range(3)]
    return _life(settings or config(whole_gpus="always"), make_books(*slots))


def _life(settings: Config, state: object) -> Life:
    passwd = {1001: "alice", 1002: "bob"}
    life = Life(settings, gpu=whole(3), state=state, passwd=passwd)
    life.host.processes[DOCKER] = ProcessState.RUNS
    return life.after(60)


@pytest.fixture(params=[docker_life, files_life], ids=["docker", "files"])
def life(request: pytest.FixtureRequest) -> Life:
    made: Life = request.param()
    return made


def reserve(life: Life, name: str | None = None, **fields: object) -> Allocated:
    chosen = None if name is None else ContainerName(name)
    answer = allocator(life).allocate(ALICE, chosen, 5, process=DOCKER, **fields)  # type: ignore[arg-type]
    assert isinstance(answer, Allocated)
    assert answer.until == pytest.approx(life.host.wall + LIMIT_S)
    life.sweep()
    return answer


def end(life: Life, state: ProcessState = ProcessState.ENDED) -> Life:
    life.host.processes[DOCKER] = state
    return life


def create(life: Life, *devices: str, name: str = NAME, **fields: object) -> Life:
    life.host.pass_time(1.0)
    return life.run(*devices, name=name, created=Wall(life.host.wall), **fields)


def counted(life: Life, user: UserName) -> int:
    snapshot = life.sweep().decision.snapshot
    assert isinstance(snapshot.state, AllocatorState)
    assert not isinstance(snapshot.metadata, Unknown)
    return count_bookings(user, snapshot.state, snapshot.metadata)


class TestEnd:
    def test_it_stays_while_the_process_runs_and_goes_within_seconds_of_its_end(
        self, life: Life
    ) -> None:
        given = reserve(life)
        assert booked(life.after(3 * GRACE_S).sweep()) == {given.container: {"0"}}
        (drift,) = end(life).sweep().drifts
        assert (drift.drift.kind, drift.gate) == (Kind.STALE_ALLOCATION, WaitReason.SETTLE)
        reason = "reserved for process 4242 (docker) of alice, which ended without a container"
        assert drift.drift.reason == reason
        life.host.pass_time(5.0)
        assert kinds(life.sweep()) == [(Kind.STALE_ALLOCATION, Outcome.DONE)]
        assert (booked(life.sweep()), life.host.records) == ({}, {})

    def test_many_go_at_once(self, life: Life) -> None:
        """The pace is for what an absence or a time proves."""
        for _ in range(3):  # without it: two
            reserve(life)
        end(life).sweep()
        life.host.pass_time(5.0)
        assert [outcome for _, outcome in kinds(life.sweep())] == [Outcome.DONE] * 3

    def test_what_cannot_be_seen_has_not_ended(self, life: Life) -> None:
        given = reserve(life)
        end(life, ProcessState.UNKNOWN)
        assert booked(life.after(GRACE_S - 120).sweep()) == {given.container: {"0"}}
        assert booked(life.after(300).sweep()) == {}

    def test_nobody_keeps_a_slot_for_ever_by_a_process_that_sleeps(self, life: Life) -> None:
        given = reserve(life)
        assert booked(life.after(LIMIT_S - 180).sweep()) == {given.container: {"0"}}
        assert booked(life.after(300).sweep()) == {}

    def test_a_reboot_ends_it(self, life: Life) -> None:
        reserve(life)
        end(life)
        life.host.boot, life.host.boot_id = 500.0, "boot-2"
        life.after(180)
        assert booked(life.sweep()) == {}

    def test_while_docker_fails_it_stays(self, life: Life) -> None:
        given = reserve(life)
        end(life).fail(Source.DOCKER)
        life.after(60)
        assert life.host.bookings() == {(given.container, "0")}
        life.mend()
        assert booked(life.after(180).sweep()) == {}

    def test_a_container_that_comes_at_the_last_moment_is_seen(self, life: Life) -> None:
        given = reserve(life)
        end(life).sweep()
        life.host.pass_time(5.0)

        def come() -> None:
            if not life.host.containers:
                create(life, "GPU-0", name="late", labels={})

        report = at_look_up(life, come).run()
        assert [outcome for _, outcome in kinds(report)] == [Outcome.WAITING]
        assert given.container in booked(report)
        assert booked(life.after(60).sweep()) == {"late": {"0"}}

    def test_a_second_process_that_asks_for_the_name_keeps_it_too(self, life: Life) -> None:
        """Two terminals, one command: who was answered last still pulls when the first is gone."""
        reserve(life, NAME)
        life.host.processes[SECOND] = ProcessState.RUNS
        joined = allocator(life).allocate(ALICE, ContainerName(NAME), 5, process=SECOND)
        assert isinstance(joined, Allocated)
        assert (joined.already, joined.slot) == (True, "0")
        end(life).after(60)
        assert booked(life.sweep()) == {NAME: {"0"}}
        life.host.processes[SECOND] = ProcessState.ENDED
        assert booked(life.after(60).sweep()) == {}

    def test_who_asks_again_and_again_prolongs_nothing_and_fills_no_record(
        self, life: Life
    ) -> None:
        reserve(life, NAME)
        for number in range(2 * MOST_PROCESSES):
            another = replace(DOCKER, pid=5000 + number)
            life.host.processes[another] = ProcessState.RUNS
            allocator(life).allocate(ALICE, ContainerName(NAME), 5, process=another)
        record = life.host.records[ContainerName(NAME)]
        assert isinstance(record, Record)
        assert len(record.processes) == MOST_PROCESSES
        assert booked(life.after(LIMIT_S + 180).sweep()) == {}

    def test_a_container_in_between_does_not_prolong_its_limit(self, life: Life) -> None:
        reserve(life, NAME)
        create(life, "GPU-0").after(LIMIT_S + 60)
        assert booked(life.remove().after(60).sweep()) == {}

    def test_a_failure_in_the_log_ends_it(self) -> None:
        life = files_life()
        reserve(life, NAME)
        life.host.attempts[ContainerName(NAME)] = Attempt(failed=Wall(life.host.wall + 1))
        life.after(240)
        assert booked(life.sweep()) == {}


class TestContainer:
    @pytest.mark.parametrize("name", [None, AUTO])
    def test_one_of_any_name_gets_it_by_its_device(self, life: Life, name: str | None) -> None:
        given = reserve(life, name, count=2)
        assert {one.slot for one in given.all_slots} == {"0", "1"}
        report = create(life, "GPU-0", "GPU-1", name="plain", labels={}).sweep()
        (drift,) = report.drifts
        assert (drift.drift.kind, drift.drift.renamed_to) == (Kind.RENAMED_CONTAINER, "plain")
        expected = "plain has what was reserved for process 4242 (docker); the booking follows"
        assert drift.drift.reason == expected
        assert booked(life.after(60).sweep()) == {"plain": {"0", "1"}}
        record = life.host.records[ContainerName("plain")]
        assert isinstance(record, Record)
        assert (record.user, record.processes) == (ALICE, ())
        # From here on its own life counts, and not that of the process.
        # With files one without labels may be a step of a creation, as ever.
        assert booked(life.remove("plain").after(GRACE_S).sweep()) == {}

    @pytest.mark.parametrize(
        "other",
        [
            {"name": "theirs._.1002"},
            {"devices": ("GPU-1",)},
            {"devices": ()},
            {"created_ago": 3600.0},
            {"labels": {"ds01.protected": "true"}},
        ],
        ids=["foreign", "another-device", "no-device", "older", "monitoring"],
    )
    def test_another_container_does_not(self, life: Life, other: dict[str, object]) -> None:
        given = reserve(life)
        known: dict[str, object] = {"name": "plain", "devices": ("GPU-0",), "labels": {}}
        fields = known | {"created_ago": 0.0} | other
        life.host.pass_time(1.0)
        devices = fields.pop("devices")
        life.run(*devices, name=fields.pop("name"), **fields)  # type: ignore[misc, arg-type]
        life.after(120)
        assert "0" in booked(life.sweep())[given.container]

    def test_one_whose_record_cannot_be_read_may_have_a_booking_of_its_own(self) -> None:
        life = files_life()
        given = reserve(life)
        name = ContainerName("plain")
        life.host.records[name] = BadRecord(
            container=name, reason="it cannot be read", digest=Digest(""), replaceable=False
        )
        create(life, "GPU-0", name=name, labels={}).after(60)
        assert booked(life.sweep())[given.container] == {"0"}

    def test_a_label_takes_nothing_from_somebody_else(self, life: Life) -> None:
        """The wrapper lets anybody write a label, and puts them into their own slice."""
        given = reserve(life)
        theirs = {"ds01.user": "alice", BOOKING_LABEL: str(given.id)}
        bobs = "ds01-student-bob.slice"
        create(life, "GPU-0", name="theirs", labels=theirs, cgroup_parent=bobs).after(60)
        report = life.sweep()
        assert booked(report)[given.container] == {"0"}
        own = {"ds01.user": "alice"}
        create(life, "GPU-0", name="own", labels=own, cgroup_parent="ds01-student-alice.slice")
        assert given.container not in booked(life.after(60).sweep())
        assert counted(life, ALICE) == 1

    @pytest.mark.parametrize("name", ["mine", "mine._.1002"])
    def test_no_name_or_label_takes_anything_out_of_ones_own_quota(
        self, life: Life, name: str
    ) -> None:
        reserve(life)
        bobs = {"ds01.user": "bob"}
        create(life, "GPU-0", name=name, labels=bobs, cgroup_parent="ds01-student-alice.slice")
        end(life.after(60)).after(60)
        assert booked(life.sweep()) == {name: {"0"}}
        assert (counted(life, ALICE), counted(life, BOB)) == (1, 0)

    @pytest.mark.parametrize("forward", [-30.0, -7200.0, 7200.0])
    def test_a_clock_that_is_set_in_between_keeps_no_container_from_it(
        self, life: Life, forward: float
    ) -> None:
        reserve(life)
        life.set_wall(forward)
        create(life, "GPU-0", name="plain", labels={}).after(60)
        assert booked(life.sweep()) == {"plain": {"0"}}
        assert counted(life, ALICE) == 1

    def test_two_reservations_are_not_one_containers(self, life: Life) -> None:
        first, second = reserve(life), reserve(life)
        create(life, "GPU-0", "GPU-1", name="plain", labels={}).after(60)
        names = {first.container, second.container}
        assert len(names & booked(life.sweep()).keys()) == 1

    def test_after_the_end_of_the_process_one_of_another_name_gets_it(self, life: Life) -> None:
        """The name was chosen, and the container has another one all the same."""
        reserve(life, "chosen")
        create(life, "GPU-0", name="plain", labels={}).after(60)
        assert "chosen" in booked(life.sweep())
        end(life).after(60)
        assert booked(life.sweep()) == {"plain": {"0"}}
        assert life.host.records.keys() == {"plain"}

    def test_its_name_makes_it_a_booking(self, life: Life) -> None:
        reserve(life, NAME)
        create(life, "GPU-0").after(60)
        end(life).after(60)
        assert booked(life.sweep()) == {NAME: {"0"}}
        assert life.plan().drifts == ()
        records = life.host.records.values()
        assert all(isinstance(one, Record) and one.processes == () for one in records)
        # Docker loses it: that takes the proofs of every booking, and not the end of a process.
        life.remove(told=False).sweep()
        life.host.pass_time(10.0)
        assert booked(life.sweep()) == {NAME: {"0"}}

    def test_its_loss_takes_the_proofs_of_every_booking(self, life: Life) -> None:
        """Only its record says whose it is, so that stays, and with it for which process."""
        reserve(life, "plain")
        end(create(life, "GPU-0", name="plain", labels={}).after(60)).after(GRACE_S)
        life.remove("plain", told=False).sweep()
        life.host.pass_time(10.0)
        life.sweep()
        life.host.pass_time(10.0)
        assert booked(life.sweep()) == {"plain": {"0"}}
        assert booked(life.after(GRACE_S + 240).sweep()) == {}


class TestGap:
    """A script removes the first container of a name, and creates the next one."""

    def test_the_gap_is_nobodys(self, life: Life) -> None:
        reserve(life, NAME)
        create(life, "GPU-0").after(120)
        life.remove().after(GRACE_S * 2)
        assert booked(life.sweep()) == {NAME: {"0"}}
        given = allocator(life).allocate(BOB, ContainerName("other._.1002"))
        assert isinstance(given, Allocated)
        assert given.slot == "1"
        create(life, "GPU-0").after(60)
        end(life).after(60)
        assert booked(life.sweep())[NAME] == {"0"}

    def test_a_stopped_one_changes_nothing(self, life: Life) -> None:
        reserve(life, NAME)
        create(life, "GPU-0").stop().after(120)
        life.remove().after(60)
        assert booked(life.sweep()) == {NAME: {"0"}}

    def test_death_in_the_gap_frees(self, life: Life) -> None:
        reserve(life, NAME)
        create(life, "GPU-0", labels={"ds01.managed": "true"}).after(60)
        end(life.remove()).after(30)
        assert booked(life.sweep()) == {}

    def test_it_is_released_by_hand(self) -> None:
        life = docker_life()
        reserve(life, NAME)
        create(life, "GPU-0").after(60)
        assert isinstance(allocator(life).release(ContainerName(NAME)), Released)
        assert booked(life.remove().after(60).sweep()) == {}


def test_every_instant_of_a_kill_is_finished_by_the_next_pass(life: Life) -> None:
    steps = 0
    while True:
        run = (docker_life if life.config.books.kind == "docker" else files_life)()
        reserve(run)
        end(run).sweep()
        run.host.pass_time(5.0)
        run.host.steps, run.host.die_at = 0, steps
        try:
            Reconciler(run.host.world(), run.config).run()
        except Died:
            run.host.die_at = None
            run.after(180)
            assert booked(run.sweep()) == {}
            assert run.host.records == {}
            steps += 1
            continue
        break
    assert steps > 3
