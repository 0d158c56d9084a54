"""Docker as the books: whole passes and bookings on hosts that keep nothing but reservations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ds01d.config import Config
from ds01d.decide.docker_books import derive_books, explain_incomplete, list_inputs
from ds01d.errors import BooksUnreadable, Ds01Error, Refused
from ds01d.model.allocation import Allocated, NotAllocated, Refusal, Rejected, Released
from ds01d.model.books import MISSING, AllocatorState, Unreadable
from ds01d.model.checkpoint import Checkpoint
from ds01d.model.containers import Engine, EngineIdentity, GpuRequestKind, NotFound
from ds01d.model.devices import Inventory
from ds01d.model.drift import FindingKind, Kind, Outcome, WaitReason
from ds01d.model.limits import HoldRule
from ds01d.model.primitives import (
    Boot,
    ContainerName,
    Digest,
    SlotId,
    Source,
    Unknown,
    UserName,
    Wall,
)
from ds01d.model.reservation import BOOKING_LABEL, ProcessState, ReservingProcess
from ds01d.model.snapshot import Snapshot
from ds01d.model.usage import Running
from ds01d.reconcile.allocator import Allocator
from ds01d.reconcile.checkpoint_store import CheckpointStore
from ds01d.reconcile.docker_books import OTHER_ENGINE, DockerBooks, with_current_books
from ds01d.reconcile.observe import observe_host
from ds01d.reconcile.ports import EnginePort
from ds01d.reconcile.reconciler import Reconciler
from ds01d.reconcile.report import Report
from ds01d.reconcile.undo import Undoer
from tests.decide.test_renames import permute
from tests.reconcile.test_properties import FAULTS, strike
from tests.support.build import (
    ALL,
    LIMITS,
    NAME,
    OTHER,
    Life,
    config,
    container,
    gpu,
    inventory,
    mig,
    record,
    whole,
    with_docker_books,
)
from tests.support.reality import Reality, realities
from tests.support.world import Died

pytestmark = pytest.mark.timeout(600)  # many hosts, perhaps on a slow machine
ALICE, BOB = UserName("alice"), UserName("bob")
EXAMPLES = settings.get_profile("deciding").max_examples
NOTHING = Unreadable(reason="no such file", digest=MISSING)


def docker_kind(settings: Config | None = None) -> Config:
    return with_docker_books(settings or config())


def fresh_life(**fields: object) -> Life:
    """A host with three GPUs, on which nothing was ever booked."""
    known = {"gpu": whole(3), "state": NOTHING, "passwd": {1001: "alice", 1002: "bob"}}
    return Life(docker_kind(), **(known | fields))


def allocator(life: Life) -> Allocator:
    world = with_current_books(life.host.world(), life.config)
    return Allocator(world, life.config)


def booked(report: Report) -> dict[str, set[str]]:
    """What the books of a pass say: container → slots."""
    state = report.decision.snapshot.state
    assert isinstance(state, AllocatorState)
    names = {name for slot in state.slots.values() for name in slot.containers}
    return {str(name): set(map(str, state.find_slots(name))) for name in names}


def kinds(report: Report) -> list[tuple[Kind, Outcome]]:
    return [(gated.drift.kind, gated.outcome) for gated in report.drifts]


# --- what containers have


def test_what_a_container_requests_is_what_it_has() -> None:
    life = fresh_life().run("GPU-0", "GPU-2")
    life.run("1", name="plain", labels={})
    report = life.sweep()
    assert booked(report) == {NAME: {"0", "2"}, "plain": {"1"}}
    assert report.drifts == ()
    assert life.host.state == NOTHING
    assert life.host.history == []


def test_a_stopped_one_keeps_it_until_its_hold_is_over_and_has_it_again_when_it_starts() -> None:
    life = fresh_life().run("GPU-0").after(60)
    life.stop().after(800)
    assert booked(life.sweep()) == {NAME: {"0"}}
    life.after(200)
    assert booked(life.sweep()) == {}
    assert life.plan().drifts == ()
    answer = allocator(life).allocate(UserName("bob"), OTHER, slot=SlotId("0"))
    assert isinstance(answer, Allocated)
    life.start_now("GPU-0", id=f"id-{NAME}")
    report = life.sweep()
    assert booked(report) == {NAME: {"0"}, OTHER: {"0"}}
    assert FindingKind.SHARED_SLOT in {finding.kind for finding in report.findings}


def test_without_limits_a_stopped_one_keeps_it_as_long_as_it_exists() -> None:
    life = fresh_life().fail(Source.LIMITS).run("GPU-0").after(60).stop().after(5000)
    assert booked(life.sweep()) == {NAME: {"0"}}
    assert booked(life.remove().sweep()) == {}


def test_a_removed_one_has_nothing_at_once() -> None:
    life = fresh_life().run("GPU-0").after(60).remove()
    report = life.sweep()
    assert (booked(report), report.drifts) == ({}, ())


def test_one_that_docker_lost_keeps_its_slot_until_its_absence_is_proven() -> None:
    life = fresh_life().run("GPU-0").after(1000).remove(told=False)
    report = life.sweep()
    assert booked(report) == {NAME: {"0"}}
    assert kinds(report) == [(Kind.STALE_ALLOCATION, Outcome.WAITING)]
    life.host.living = {f"id-{NAME}": 77}  # type: ignore[dict-item]
    assert booked(life.after(1200).sweep()) == {NAME: {"0"}}
    life.host.living = {}
    assert booked(life.after(200).sweep()) == {}


HELD_FOR_EVER = replace(LIMITS, unknown_user=HoldRule(seconds=None, source="never"), holds={})
OLD = "old._.1001"


@pytest.mark.parametrize("each", [False, True], ids=["in one pass", "a pass for each"])
@pytest.mark.parametrize("told", [True, False], ids=["destroy", "no event"])
def test_a_stopped_one_keeps_its_slot_when_it_makes_room_for_another(
    *, told: bool, each: bool
) -> None:
    """`docker rm old; docker rename train old; docker run --name train`."""
    life = fresh_life(limits=HELD_FOR_EVER).run("GPU-2", name=OLD).run("GPU-0").after(60)
    life.stop(OLD).stop().after(60)

    def look_at(*names: str) -> None:
        if each:
            passed = Reconciler(life.host.world(), life.config)
            passed.run(frozenset(map(ContainerName, names)))
        life.host.pass_time(1.0)

    life.remove(OLD, told=told)
    look_at(OLD)
    life.rename(NAME, OLD)
    look_at(NAME, OLD)
    life.start_now("GPU-1")
    look_at(NAME)
    for _ in range(4):
        life.after(6)
    report = life.after(180).sweep()
    # Without an event the lost one keeps GPU-2 until the end of who has its name (decision 203).
    assert booked(report) == {OLD: {"0"} if told else {"0", "2"}, NAME: {"1"}}
    life.remove(OLD)
    assert booked(life.after(1200).sweep()) == {NAME: {"1"}}


@pytest.mark.parametrize("stopped", [False, True])
def test_swapped_names_take_no_slot_from_who_remains(*, stopped: bool) -> None:
    life = fresh_life(limits=HELD_FOR_EVER).run("GPU-0").run("GPU-1", name=OLD).after(60)
    if stopped:
        life.stop().stop(OLD).after(60)
    one, other = life.host.containers
    permute(life, {one: ContainerName(OLD), other: ContainerName(NAME)})
    assert booked(life.sweep()) == {OLD: {"0"}, NAME: {"1"}}
    assert booked(life.after(60).sweep()) == {OLD: {"0"}, NAME: {"1"}}
    life.remove()
    report = life.after(60).sweep()
    assert (booked(report), report.drifts) == ({OLD: {"0"}}, ())


@pytest.mark.parametrize("lives", [False, True])
def test_one_that_docker_lost_keeps_its_slot_though_another_one_has_its_name(
    *, lives: bool
) -> None:
    life = fresh_life().run("GPU-0").after(600)
    (lost,) = life.host.containers
    life.host.living = {lost: 4711} if lives else {}
    life.remove(told=False).after(30)
    life.start_now("GPU-1")
    life.sweep()
    answer = allocator(life).allocate(BOB, ContainerName("x._.1002"), slot=SlotId("0"))
    assert isinstance(answer, Rejected)
    for _ in range(20):
        life.after(60)
    assert booked(life.sweep()) == {NAME: {"0", "1"} if lives else {"1"}}


def test_renumbered_gpus_change_nothing_for_those_who_run() -> None:
    life = fresh_life()
    life.sweep()
    life.host.pass_time(10)
    life.start_now("0").after(60)
    life.host.gpu = inventory(gpu(0, uuid="GPU-1"), gpu(1, uuid="GPU-0"), gpu(2))
    assert booked(life.sweep()) == {NAME: {"1"}}


def test_of_an_index_that_may_mean_two_devices_both_are_taken() -> None:
    life = fresh_life().run("0")  # nobody watched when it started
    assert booked(life.sweep()) == {NAME: {"0"}}
    life.host.gpu = inventory(gpu(0, uuid="GPU-1"), gpu(1, uuid="GPU-0"), gpu(2))
    assert booked(life.sweep()) == {NAME: {"0", "1"}}


def test_a_reservation_of_a_whole_gpu_follows_it() -> None:
    life = fresh_life()
    life.sweep()
    allocator(life).allocate(ALICE, NAME, slot=SlotId("0"))
    life.host.gpu = inventory(gpu(0, uuid="GPU-1"), gpu(1, uuid="GPU-0"), gpu(2))
    assert booked(life.sweep()) == {NAME: {"1"}}


def test_mig_devices_have_the_slots_of_always() -> None:
    life = fresh_life(gpu=inventory(gpu(0, mig=True), gpu(1), mig(0, 0), mig(0, 1)))
    report = life.run("MIG-0-1").sweep()
    state = report.decision.snapshot.state
    assert isinstance(state, AllocatorState)
    assert list(state.slots) == ["0.0", "0.1", "1"]
    assert booked(report) == {NAME: {"0.1"}}


@pytest.mark.parametrize("always", [False, True])
def test_all_gpus_count_as_configured(*, always: bool) -> None:
    life = fresh_life()
    uses = msgspec.structs.replace(
        life.config.allocator, all_gpus="always" if always else "when-used"
    )
    life.config = msgspec.structs.replace(life.config, allocator=uses)
    life.host.run(container(NAME, ALL))
    report = life.sweep()
    assert booked(report) == ({NAME: {"0", "1", "2"}} if always else {})
    assert FindingKind.BROAD_REQUEST in {finding.kind for finding in report.findings}


def test_a_device_that_is_gone_is_a_finding() -> None:
    report = fresh_life().run("GPU-dead").sweep()
    assert booked(report) == {}
    assert [finding.kind for finding in report.findings] == [FindingKind.DEVICE_WITHOUT_SLOT]


def test_one_gpu_that_fails_takes_no_slot_from_its_containers() -> None:
    life = fresh_life().run("GPU-1")
    life.sweep()
    life.host.gpu = inventory(gpu(0), gpu(2), incomplete={1: "unknown error"})
    assert booked(life.sweep()) == {NAME: {"1"}}


def test_a_reservation_on_a_gpu_that_fails_is_never_another_gpus() -> None:
    life = fresh_life()
    life.host.gpu = inventory(gpu(0, uuid="GPU-1"), gpu(1, uuid="GPU-2"), gpu(2, uuid="GPU-0"))
    life.sweep()
    allocator(life).allocate(ALICE, NAME, slot=SlotId("2"))
    life.host.gpu = inventory(gpu(1), gpu(2), incomplete={0: "unknown error"})
    allocator(life).allocate(UserName("bob"), OTHER)
    life.host.gpu = whole(3)
    assert booked(life.sweep())[NAME] == {"0"}


@pytest.mark.parametrize("source", [Source.DOCKER, Source.NVML])
def test_a_source_that_fails_leaves_the_books_as_they_were(source: Source) -> None:
    life = fresh_life().run("0").after(60).fail(source)
    assert booked(life.sweep()) == {NAME: {"0"}}


# --- nobody gets a slot by books in which something may be missing


def test_without_docker_nobody_gets_a_slot() -> None:
    life = fresh_life().run("0").after(60).fail(Source.DOCKER)
    with pytest.raises(BooksUnreadable, match="docker does not answer"):
        allocator(life).allocate(ALICE, OTHER)


def test_without_nvml_nobody_gets_a_slot() -> None:
    life = fresh_life().run("0").after(60).fail(Source.NVML)
    answer = allocator(life).allocate(UserName("bob"), OTHER)
    assert isinstance(answer, Rejected)
    assert answer.refusal is Refusal.INVENTORY_UNKNOWN


@pytest.mark.parametrize(
    "running",
    [
        Unknown(source=Source.DOCKER, reason="it hangs"),
        Running(names={}, problem="what GPUs they have is not known: it hangs"),
    ],
)
def test_where_docker_cannot_be_asked_for_what_runs_now_nobody_gets_a_slot(
    running: Running | Unknown,
) -> None:
    life = fresh_life()
    life.sweep()
    world = replace(life.host.world(), running=_Runs(running))
    books = Allocator(with_current_books(world, life.config), life.config)
    with pytest.raises(BooksUnreadable, match="it hangs"):
        books.allocate(ALICE, NAME)


@dataclass
class _Runs:
    """What Docker answers to the allocator."""

    answer: Running | Unknown

    def read(self, known_ids: frozenset[str]) -> Running | Unknown:
        return self.answer


def test_by_another_engine_nobody_gets_a_slot() -> None:
    life = fresh_life().run("0").after(60)
    life.host.identity = EngineIdentity(id="OTHER", root_dir="/mnt", inode=1, device=1)
    life.host.containers.clear()
    with pytest.raises(BooksUnreadable, match=OTHER_ENGINE):
        allocator(life).allocate(ALICE, OTHER)
    assert booked(life.after(400).sweep()) == {NAME: {"0"}}


def test_beside_a_container_of_which_nothing_is_known_nobody_gets_a_slot() -> None:
    unknown = Unknown(source=Source.DOCKER, reason="inspect timed out")
    life = fresh_life()
    life.host.run(container(NAME, unknown))
    life.sweep()
    with pytest.raises(BooksUnreadable, match=f"which GPUs {NAME} has is not known: inspect"):
        allocator(life).allocate(ALICE, OTHER)
    life.run("GPU-0").after(60).change(request=unknown)
    answer = allocator(life).allocate(UserName("bob"), OTHER)
    assert isinstance(answer, Allocated)  # it is known from before
    assert answer.slot == "1"


# --- reservations


def test_a_reservation_is_kept_until_its_container_exists() -> None:
    life = fresh_life()
    answer = allocator(life).allocate(ALICE, NAME)
    assert isinstance(answer, Allocated)
    assert life.host.bookings() == {(NAME, "0")}
    life.host.pass_time(30)
    life.start_now("GPU-0", created=Wall(life.host.wall))
    report = life.sweep()
    assert kinds(report) == [(Kind.ORPHANED_METADATA, Outcome.WAITING)]
    assert booked(report) == {NAME: {"0"}}
    life.after(10)
    assert life.host.bookings() == set()
    assert life.host.records == {}
    assert booked(life.sweep()) == {NAME: {"0"}}
    assert booked(life.remove().sweep()) == {}


def test_only_where_it_says_whose_the_container_is_its_record_stays() -> None:
    life = fresh_life()
    allocator(life).allocate(ALICE, ContainerName("plain"))
    life.run("GPU-0", name="plain", labels={}, created=Wall(life.host.wall)).after(60)
    assert life.host.records.keys() == {"plain"}
    report = life.sweep()
    assert report.drifts == ()
    state = report.decision.snapshot.state
    assert isinstance(state, AllocatorState)
    assert state.slots[SlotId("0")].users == {"alice": 1}
    life.remove("plain").after(60)
    assert life.host.records == {}
    assert booked(life.sweep()) == {}


def test_a_label_gives_a_reservation_to_a_container_of_another_name() -> None:
    life = fresh_life().after(60)
    given = allocator(life).allocate(ALICE, None, 5, count=2)
    assert isinstance(given, Allocated)
    life.run("GPU-0", "GPU-1", labels={BOOKING_LABEL: given.id}, created_ago=0.0)
    (drift,) = life.sweep().drifts
    assert (drift.drift.kind, drift.drift.renamed_to) == (Kind.RENAMED_CONTAINER, NAME)
    life.host.pass_time(10)
    assert kinds(life.sweep()) == [(Kind.RENAMED_CONTAINER, Outcome.DONE)]
    assert booked(life.after(60).sweep()) == {NAME: {"0", "1"}}
    assert (life.host.bookings(), life.host.records) == (set(), {})


def test_a_reservation_without_a_container_ends() -> None:
    life = fresh_life()
    allocator(life).allocate(ALICE, NAME)
    assert booked(life.after(800).sweep()) == {NAME: {"0"}}
    assert booked(life.after(400).sweep()) == {}
    assert life.host.records == {}


def test_a_reservation_of_another_slot_than_the_container_got_ends() -> None:
    life = fresh_life()
    allocator(life).allocate(ALICE, NAME, slot=SlotId("2"))
    report = life.start_now("GPU-0", created=Wall(life.host.wall)).after(60).sweep()
    assert booked(report) == {NAME: {"0"}}
    assert life.host.bookings() == set()
    assert life.host.records == {}


def test_a_renamed_container_takes_the_record_along() -> None:
    life = fresh_life()
    allocator(life).allocate(ALICE, ContainerName("plain"))
    life.run("GPU-0", name="plain", labels={}, created=Wall(life.host.wall)).after(60)
    life.rename("plain", "other").after(60)
    assert life.host.records.keys() == {"other"}
    assert booked(life.sweep()) == {"other": {"0"}}


def test_a_reservation_is_released_and_what_a_container_has_is_not() -> None:
    life = fresh_life().run("GPU-1")
    life.sweep()
    books = allocator(life)
    books.allocate(UserName("bob"), OTHER)
    assert isinstance(books.release(OTHER), Released)
    assert (life.host.bookings(), life.host.records) == (set(), {})
    with pytest.raises(Refused, match=rf"{NAME} has 1 by its own request: docker rm {NAME}"):
        books.release(NAME)
    assert isinstance(books.release(ContainerName("nobody")), NotAllocated)


def test_a_removed_container_has_nothing_before_its_event_came() -> None:
    life = fresh_life().run("GPU-1").after(60)
    real = life.host.world()
    stale = _StaleEngine(real.engine, real.engine.observe(None))
    life.remove(told=False)
    world = DockerBooks(replace(real, engine=stale), life.config).open_world()
    books = Allocator(world, life.config)
    with pytest.raises(Refused):
        books.release(NAME)
    assert isinstance(world.engine.look_up(NAME, None), NotFound)
    assert isinstance(books.release(NAME), NotAllocated)


def test_what_is_made_under_a_name_that_was_free_is_in_the_books() -> None:
    life = fresh_life()
    life.sweep()
    world = DockerBooks(life.host.world(), life.config).open_world()
    assert isinstance(world.engine.look_up(NAME, None), NotFound)
    life.host.pass_time(0.1)
    life.start_now("GPU-1", created=Wall(life.host.wall))
    state = world.state.read()
    assert isinstance(state, AllocatorState)
    assert state.find_slots(NAME) == ("1",)


class _StaleEngine:
    """An engine whose list is older than its answers."""

    def __init__(self, engine: EnginePort, listed: Engine | Unknown) -> None:
        self.look_up, self.list_claimants = engine.look_up, engine.list_claimants
        self._listed = listed

    def observe(self, names: frozenset[ContainerName] | None) -> Engine | Unknown:
        return self._listed


def test_the_limit_counts_containers_and_reservations() -> None:
    life = fresh_life(limits=replace(LIMITS, quotas={ALICE: 2})).run("GPU-0")
    life.sweep()
    books = allocator(life)
    assert isinstance(books.allocate(ALICE, ContainerName("second._.1001")), Allocated)
    answer = books.allocate(ALICE, ContainerName("third._.1001"))
    assert isinstance(answer, Rejected)
    assert answer.reason == "USER_AT_LIMIT (2/2)"


def test_asking_for_what_the_container_has_reserves_nothing() -> None:
    life = fresh_life().run("GPU-1")
    life.sweep()
    answer = allocator(life).allocate(ALICE, NAME)
    assert isinstance(answer, Allocated)
    assert (answer.slot, answer.already) == ("1", True)
    assert life.host.state == NOTHING


def test_a_stop_needs_no_note() -> None:
    life = fresh_life().run("GPU-1").after(60).stop()
    answer = allocator(life).mark_stopped(NAME)
    assert getattr(answer, "already", None) is True
    assert life.host.records == {}


def test_a_broken_file_of_reservations_is_rebuilt_from_its_last_good_copy() -> None:
    life = fresh_life().run("GPU-0")
    life.sweep()
    allocator(life).allocate(UserName("bob"), OTHER)
    good = life.host.state
    assert isinstance(good, AllocatorState)
    life.host.state = Unreadable(reason="invalid JSON", digest=Digest("torn"), last_good=good)
    with pytest.raises(BooksUnreadable, match="ds01d rebuilds it"):
        allocator(life).allocate(UserName("bob"), ContainerName("more._.1002"))
    life.after(10)
    assert life.host.bookings() == {(OTHER, "1")}
    assert booked(life.sweep()) == {NAME: {"0"}, OTHER: {"1"}}


def test_an_ended_hold_and_an_ended_reservation_can_be_undone() -> None:
    life = fresh_life().run("GPU-0").after(60).stop().after(1000)
    assert booked(life.sweep()) == {}
    ids = [line.partition(b'"id":"')[2].partition(b'"')[0].decode() for line in life.host.history]
    done = Undoer(life.host.world(), life.config).undo(ids[0], "root")
    assert done.refused is None
    assert booked(life.after(60).sweep()) == {NAME: {"0"}}


# --- from one kind to the other


def test_from_files_to_docker_and_back() -> None:
    life = fresh_life()
    there = life.config
    life.config, life.host.state = config(), replace(_empty(), digest=Digest("files"))
    life.sweep()
    life.run("GPU-0", name="plain", labels={}).run("GPU-1").after(300)
    assert life.host.bookings() == {(NAME, "1")}  # a container without labels is foreign
    files, life.host.state, life.host.records = life.host.state, NOTHING, {}
    life.config = there
    assert booked(life.sweep()) == {NAME: {"1"}, "plain": {"0"}}
    life.remove()
    life.run("GPU-2", name=OTHER, labels={"aime.mlc": "bob"})
    assert booked(life.after(60).sweep()) == {OTHER: {"2"}, "plain": {"0"}}
    life.config, life.host.state = config(), files
    life.host.records[NAME] = record(NAME, "1")
    life.after(1200)
    assert life.host.bookings() == {(OTHER, "2")}
    assert life.host.records.keys() == {OTHER}


def _empty() -> AllocatorState:
    return AllocatorState(slots={}, mig_enabled=False, digest=Digest("0"))


# --- whatever happens


def in_docker_kind(real: Reality) -> Reality:
    """The host with what it had booked as reservations."""
    real.config = docker_kind(real.config)
    return real


@settings(max_examples=int(EXAMPLES * 0.2))
@given(realities())
def test_nothing_that_a_container_has_drifts(real: Reality) -> None:
    in_docker_kind(real)
    real.host.state, real.host.records = NOTHING, {}
    report = Reconciler(real.host.world(), real.config).run()
    ended = {gated.drift.kind for gated in report.drifts}
    assert ended <= {Kind.EXPIRED_HOLD}
    for gated in report.drifts:
        assert not gated.drift.given


def look(real: Reality, names: frozenset[ContainerName] | None = None) -> AllocatorState:
    """A pass, as it begins; what a living container has is in its books."""
    state = Reconciler(real.host.world(), real.config).run(names).decision.snapshot.state
    assert isinstance(state, AllocatorState)
    return state


@settings(max_examples=int(EXAMPLES * 0.1))
@given(realities())
def test_passes_converge_and_take_nothing_that_is_in_use(real: Reality) -> None:
    in_docker_kind(real)
    before = look(real)
    for _ in range(40):
        real.host.pass_time(230.0)
        after = look(real)
        for name, place, device in real.lost(before, after):
            assert not real.needs(name, device), f"{name} lost {place}"
        before = after
    plan = Reconciler(real.host.world(), real.config).plan()
    assert [g for g in plan.drifts if g.gate is not WaitReason.BLOCKED] == []


@settings(max_examples=int(EXAMPLES * 0.2))
@given(realities(), st.lists(FAULTS, max_size=20), st.integers(0, 40))
def test_no_fault_hands_out_what_somebody_has(
    real: Reality, faults: list[str], die_at: int
) -> None:
    """Failing sources, clocks, boots, engines, kills: nobody gets what a living container has."""
    in_docker_kind(real)
    real.config = msgspec.structs.replace(
        real.config, allocator=msgspec.structs.replace(real.config.allocator, sharing="never")
    )
    host = real.host
    for number, what in enumerate(faults):
        names = strike(real, what)
        host.steps, host.die_at = 0, die_at if number % 3 == 0 else None
        with suppress(Died):
            Reconciler(host.world(), real.config).run(names)
        host.die_at = None
        name = ContainerName(f"new{number}._.1009")
        try:
            world = with_current_books(host.world(), real.config)
            answer = Allocator(world, real.config).allocate(UserName("eve"), name, 9, 1)
        except Ds01Error:
            continue
        if isinstance(answer, Allocated):
            assert not host.failing & {Source.DOCKER, Source.NVML, Source.STATE}
            assert answer.device is not None
            _require_free(real, answer)


def _require_free(real: Reality, answer: Allocated) -> None:
    for one in real.host.containers.values():
        if not one.state.alive or isinstance(one.request, Unknown):
            continue
        if one.request.ask is GpuRequestKind.ALL:
            assert answer.device not in real.used(one.id)
            continue
        assert answer.device not in real.got[one.id], f"{one.name} has {answer.slot}"
    assert not real.haunted(answer.slot)


# --- deriving once (decision 218) ----------------------------------------------------------------

Seen = tuple[Snapshot, Checkpoint]


@cache
def seen() -> Seen:
    """Three containers, one of them by an index, and a reservation."""
    life = fresh_life(gpu=whole(4)).run("GPU-1").run("0", name="plain", labels={"ds01.user": "bob"})
    life.run("GPU-2", name="job._.1002").stop("job._.1002")
    life.sweep()
    assert isinstance(allocator(life).allocate(ALICE, OTHER, 9), Allocated)
    world = life.host.world()
    checkpoint, _ = CheckpointStore(world.state_dir).load()
    return observe_host(world, checkpoint, life.config, frozenset()), checkpoint


def of_snapshot(**fields: Any) -> Callable[[Seen], Seen]:
    return lambda seen: (replace(seen[0], **fields), seen[1])


def of_checkpoint(**fields: Any) -> Callable[[Seen], Seen]:
    return lambda seen: (seen[0], replace(seen[1], **fields))


def of_gpu(change: Callable[[Inventory], Inventory]) -> Callable[[Seen], Seen]:
    def act(seen: Seen) -> Seen:
        gpu = seen[0].gpu
        return (replace(seen[0], gpu=change(gpu)) if isinstance(gpu, Inventory) else seen[0]), seen[
            1
        ]

    return act


def of_docker(change: Callable[[Engine], Engine]) -> Callable[[Seen], Seen]:
    def act(seen: Seen) -> Seen:
        docker = seen[0].docker
        docker = change(docker) if isinstance(docker, Engine) else docker
        return replace(seen[0], docker=docker), seen[1]

    return act


def without_plain(engine: Engine) -> Engine:
    return replace(
        engine,
        containers={i: c for i, c in engine.containers.items() if c.name != "plain"},
        by_name={n: c for n, c in engine.by_name.items() if n != "plain"},
    )


def renumber(gpu: Inventory) -> Inventory:
    last = len(gpu.gpus) - 1
    return replace(gpu, gpus=tuple(replace(g, index=last - g.index) for g in gpu.gpus))


def measure(gpu: Inventory) -> Inventory:
    return replace(gpu, gpus=tuple(replace(g, memory_used=7, temperature=50) for g in gpu.gpus))


DOWN = Unknown(source=Source.NVML, reason="no answer")
PROCESS = ReservingProcess(pid=7, started=7, boot_id="boot-1", command="python")
MATTERS: Mapping[str, Callable[[Seen], Seen]] = {
    "a container is gone": of_docker(without_plain),
    "Docker is down": of_snapshot(docker=replace(DOWN, source=Source.DOCKER)),
    "GPUs are renumbered": of_gpu(renumber),
    "a GPU is missing": of_gpu(lambda gpu: replace(gpu, gpus=gpu.gpus[:-1])),
    "a GPU is silent": of_gpu(lambda gpu: replace(gpu, gpus=gpu.gpus[1:], incomplete={0: "lost"})),
    "NVML is down": of_snapshot(gpu=DOWN),
    "the reservation is gone": of_snapshot(state=NOTHING, metadata={}),
    "its record is gone": of_snapshot(metadata={}),
    "another limit": of_snapshot(limits=replace(LIMITS, ranks={ALICE: 3, UserName("bob"): 4})),
    "no logins": of_snapshot(passwd={}),
    "a login of another uid": of_snapshot(logins={"bob": 7}),
    "the owners file": lambda seen: (
        replace(seen[0], owners=dict.fromkeys(seen[1].holdings, ALICE)),
        seen[1],
    ),
    "a process ended": of_snapshot(processes={PROCESS: ProcessState.ENDED}),
    "nothing was held": of_checkpoint(holdings={}),
    "nothing was resolved": of_checkpoint(resolved={}),
    "no slot was known": of_checkpoint(slots={}),
}
IRRELEVANT: Mapping[str, Callable[[Seen], Seen]] = {
    "measured again": of_gpu(measure),
    "sampled again": of_gpu(lambda gpu: replace(gpu, sampled_at=Boot(9e9), driver="2")),
    "nothing computes": of_gpu(lambda gpu: replace(gpu, processes=(), blind={})),
    "no operations": of_snapshot(operations={}, faults={"0000:3b:00": "xid 79"}, living=DOWN),
    "another pass": of_checkpoint(passed_at=Boot(1.0), sightings={}, starts={}),
}


def see(changes: Iterable[str]) -> Seen:
    now = seen()
    for change in sorted(changes):
        now = (MATTERS.get(change) or IRRELEVANT[change])(now)
    return now


@given(
    st.sets(st.sampled_from(sorted(MATTERS)), max_size=3),
    st.sets(st.sampled_from(sorted(MATTERS)), max_size=1),
    st.sets(st.sampled_from(sorted(IRRELEVANT))),
)
def test_the_same_inputs_give_the_same_books(
    changes: set[str], more: set[str], irrelevant: set[str]
) -> None:
    before, after = see(changes), see(changes ^ more | irrelevant)
    if list_inputs(*before) == list_inputs(*after):
        one, two = (derive_books(*moment, docker_kind()) for moment in (before, after))
        assert (one.state, one.metadata) == (two.state, two.metadata)
        assert explain_incomplete(*before) == explain_incomplete(*after)
    else:
        assert more


@pytest.mark.parametrize("change", MATTERS)
def test_what_matters_is_an_input(change: str) -> None:
    assert list_inputs(*see([change])) != list_inputs(*see([]))


def test_within_a_booking_books_are_derived_again_only_for_what_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    life = fresh_life().run("GPU-1")
    life.sweep()
    derived: list[Snapshot] = []

    def derive(snapshot: Snapshot, checkpoint: Checkpoint, config: Config) -> Snapshot:
        derived.append(snapshot)
        return derive_books(snapshot, checkpoint, config)

    monkeypatch.setattr("ds01d.reconcile.docker_books.derive_books", derive)
    world = with_current_books(life.host.world(), life.config)
    world.state.read()
    assert isinstance(life.host.gpu, Inventory)
    life.host.gpu = measure(life.host.gpu)
    life.host.pass_time(1)
    with world.state.lock():
        world.state.read()
        world.metadata.read()
    assert len(derived) == 1
    life.host.gpu = renumber(life.host.gpu)
    world.state.read()
    assert len(derived) == 2
