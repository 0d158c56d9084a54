"""Names that are swapped or rotated: everything that is a container's follows its ID."""

from __future__ import annotations

import copy
import json
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ds01d.model.books import AllocatorState, Record
from ds01d.model.checkpoint import Freeze
from ds01d.model.containers import State
from ds01d.model.drift import Kind, Outcome, WaitReason
from ds01d.model.holding import Free, Holds, Verdict
from ds01d.model.limits import HoldRule, Limits
from ds01d.model.primitives import Boot, ContainerId, ContainerName, UserName, Wall
from ds01d.reconcile.checkpoint_store import CheckpointStore
from ds01d.reconcile.reconciler import Reconciler
from ds01d.reconcile.report import Report
from tests.support.build import HOUR, NAME, OTHER, Life, config
from tests.support.world import Died
from tests.verification.crash.disk import Disk

pytestmark = pytest.mark.timeout(300)

BLUE, GREEN = ContainerName("blue._.1001"), ContainerName("green._.1002")
ALICE, BOB = UserName("alice"), UserName("bob")
LONG, SHORT = 48 * HOUR, 1.0
RULES = Limits(
    holds={
        ALICE: HoldRule(seconds=LONG, source="user_overrides.alice"),
        BOB: HoldRule(seconds=SHORT, source="user_overrides.bob"),
    },
    unknown_user=HoldRule(seconds=None, source="defaults"),
)


def labels(user: str) -> dict[str, str]:
    return {"aime.mlc": user, "aime.mlc.USER": user}


def blue_and_green(places: tuple[str, str] = ("0.0", "1.0"), **settings: Any) -> Life:
    """Alice's container (a hold of 48 h) and bob's (1 s), each on a slot of its own."""
    life = Life(config(pace_count=100, **settings), limits=RULES)
    for name, user, place in zip((BLUE, GREEN), (ALICE, BOB), places, strict=True):
        life.book(place, name=name, user=user)
        life.run(f"MIG-{place.replace('.', '-')}", name=name, labels=labels(user), id=f"id-{user}")
    life.host.state = counted(life)
    return life.after(120.0)


def counted(life: Life) -> AllocatorState:
    """The state with the counters that follow from the records."""
    state = life.host.state
    assert isinstance(state, AllocatorState)
    slots = {}
    for one in state.slots.values():
        users: dict[str, int] = {}
        for name in one.containers:
            there = life.host.records.get(name)
            user = there.user if isinstance(there, Record) and there.user else "alice"
            users[user] = users.get(user, 0) + 1
        slots[one.id] = replace(one, users=users)
    return replace(state, slots=slots)


def permute(life: Life, names: dict[ContainerId, ContainerName]) -> Life:
    """Rename all at once: what `docker rename` does by way of a temporary name."""
    for container, name in names.items():
        life.host.containers[container] = replace(life.host.containers[container], name=name)
    return life


def swap(life: Life) -> Life:
    return permute(life, {ContainerId("id-alice"): GREEN, ContainerId("id-bob"): BLUE})


def pass_over(life: Life, *names: ContainerName) -> Report:
    return Reconciler(life.host.world(), life.config).run(frozenset(names) or None)


def of(life: Life, name: ContainerName) -> Record:
    found = life.host.records[name]
    assert isinstance(found, Record)
    return found


def settled(life: Life) -> Life:
    pass_over(life)
    life.host.pass_time(6.0)
    pass_over(life)
    return life


def test_slots_users_and_records_follow_the_container() -> None:
    life = blue_and_green()
    life.host.records[BLUE] = replace(of(life, BLUE), priority=70)
    settled(swap(life))
    assert life.host.bookings() == {(GREEN, "0.0"), (BLUE, "1.0")}
    assert (of(life, GREEN).user, of(life, GREEN).gpu_id, of(life, GREEN).priority) == (
        ALICE,
        "0.0",
        70,
    )
    assert (of(life, BLUE).user, of(life, BLUE).gpu_id, of(life, BLUE).priority) == (BOB, "1.0", 10)
    assert not life.plan().drifts
    assert isinstance(life.host.state, AllocatorState)
    assert [dict(s.users) for s in life.host.state.slots.values() if s.containers] == [
        {"alice": 1},
        {"bob": 1},
    ]


@pytest.mark.parametrize("seen", [False, True], ids=["at the moment of the swap", "later"])
def test_the_retention_is_that_of_the_container(seen: bool) -> None:
    """Alice's hold is 48 h: it does not become bob's 1 s with the name that was bob's."""
    life = swap(blue_and_green())
    if seen:
        settled(life)
    life.stop(GREEN)
    life.after(HOUR)
    assert (GREEN, "0.0") in life.host.bookings()
    assert of(life, GREEN).user == ALICE


def test_stopped_before_and_swapped_while_nobody_watched() -> None:
    """The daemon was down for both; the hold goes on from the stop, not from the swap."""
    life = blue_and_green()
    life.stop(BLUE).after(60.0)
    before = life.plan().decision.verdicts[BLUE]
    assert isinstance(before, Holds)
    life.host.pass_time(2 * HOUR)
    swap(life)
    after = life.plan().decision.verdicts[GREEN]
    assert isinstance(after, Holds)
    assert (after.user, set(after.slots), after.until) == (ALICE, {"0.0"}, before.until)
    settled(life)
    after = life.plan().decision.verdicts[GREEN]
    assert isinstance(after, Holds)
    assert (after.user, set(after.slots), after.until) == (ALICE, {"0.0"}, before.until)


def test_a_step_of_the_wall_clock_after_the_swap_moves_no_deadline() -> None:
    life = blue_and_green()
    life.stop(BLUE).after(60.0)
    before = life.plan().decision.verdicts[BLUE]
    settled(swap(life)).set_wall(72 * HOUR)
    after = life.plan().decision.verdicts[GREEN]
    assert isinstance(before, Holds)
    assert isinstance(after, Holds)
    assert after.until == before.until


def test_a_pass_over_one_name_settles_the_whole_swap() -> None:
    life = swap(blue_and_green())
    pass_over(life, BLUE)
    life.host.pass_time(6.0)
    report = pass_over(life, BLUE)
    moved = {g.drift.container: g.outcome for g in report.drifts}
    assert moved == {BLUE: Outcome.DONE, GREEN: Outcome.DONE}
    assert life.host.bookings() == {(GREEN, "0.0"), (BLUE, "1.0")}


def test_a_container_without_a_booking_gets_none_by_a_swap() -> None:
    life = blue_and_green()
    life.host.remove(GREEN)
    life.after(300.0)
    life.run(name=GREEN, labels=labels(BOB), id="id-bob").stop(GREEN)
    life.after(60.0)
    settled(swap(life))
    assert life.host.bookings() == {(GREEN, "0.0")}
    assert of(life, GREEN).user == ALICE
    assert BLUE not in life.host.records


def test_a_chain_of_two_renames_moves_both() -> None:
    """Blue becomes old, green becomes blue: the usual way of a deployment."""
    old = ContainerName("old._.1001")
    life = blue_and_green()
    permute(life, {ContainerId("id-alice"): old, ContainerId("id-bob"): BLUE})
    settled(life)
    assert life.host.bookings() == {(old, "0.0"), (BLUE, "1.0")}
    assert (of(life, old).user, of(life, BLUE).user) == (ALICE, BOB)
    assert GREEN not in life.host.records
    assert not life.plan().drifts


def test_a_name_given_away_by_one_that_was_never_booked() -> None:
    """Only the old one was booked; the new one takes its name, not its booking."""
    old, new = ContainerName("old._.1001"), ContainerName("new._.1001")
    life = blue_and_green().run(name=new, labels=labels(BOB), id="id-new").stop(new).after(60.0)
    permute(life, {ContainerId("id-alice"): old, ContainerId("id-new"): BLUE})
    settled(life)
    assert life.host.bookings() == {(old, "0.0"), (GREEN, "1.0")}
    assert not life.plan().drifts


def test_swapped_back_before_anything_was_done() -> None:
    life = swap(blue_and_green())
    before = (life.host.bookings(), dict(life.host.records))
    pass_over(life)
    permute(life, {ContainerId("id-alice"): BLUE, ContainerId("id-bob"): GREEN})
    settled(life)
    assert (life.host.bookings(), dict(life.host.records)) == before


def test_one_that_goes_while_the_books_have_yet_to_follow() -> None:
    """It is removed under its new name: absent from then on, not from the swap."""
    life = swap(blue_and_green())
    pass_over(life)
    life.host.remove(GREEN, told=False)
    life.after(115.0)
    assert "0.0" in {place for _, place in life.host.bookings()}
    life.after(300.0)
    assert life.host.bookings() == {(BLUE, "1.0")}


def test_a_freeze_of_one_name_holds_the_swap() -> None:
    life = blue_and_green()
    store = CheckpointStore(life.host.world().state_dir)
    memory, _ = store.load()
    freeze = Freeze(subject=BLUE, by="ada", reason="", since=Wall(life.host.wall))
    store.save(replace(memory, freezes={BLUE: freeze}))
    before = (life.host.bookings(), dict(life.host.records))
    life = settled(swap(life).stop(GREEN).stop(BLUE)).after(HOUR)
    assert (life.host.bookings(), dict(life.host.records)) == before
    assert {g.gate for g in life.plan().drifts} == {WaitReason.FREEZE}


def test_no_count_is_changed_while_a_swap_waits() -> None:
    life = swap(blue_and_green())
    kinds = {g.drift.kind for g in pass_over(life).drifts}
    assert kinds == {Kind.RENAMED_CONTAINER}


def test_a_record_that_may_not_be_replaced_holds_both() -> None:
    life = blue_and_green()
    life.host.unwritable.add(f"metadata {GREEN}")
    settled(swap(life))
    life.host.pass_time(6.0)
    report = pass_over(life.stop(GREEN))
    assert report.warnings
    life.after(HOUR)
    assert (GREEN, "0.0") in life.host.bookings(), "bob's hold of 1 s ended alice's booking"
    life.host.unwritable.clear()
    settled(life)
    assert (of(life, GREEN).user, of(life, BLUE).user) == (ALICE, BOB)
    assert not life.plan().drifts


def test_a_swap_that_was_settled_is_not_settled_back_by_a_lost_memory() -> None:
    life = settled(swap(blue_and_green()))
    life.host.memory = None
    life.after(300.0)
    assert life.host.bookings() == {(GREEN, "0.0"), (BLUE, "1.0")}


def test_a_memory_that_cannot_be_saved_does_not_swap_it_back() -> None:
    life = swap(blue_and_green())
    worker = Reconciler(life.host.world(), life.config)
    worker.run()
    life.host.pass_time(6.0)
    life.host.before_write = lambda: life.host.unwritable.add("memory")
    worker.run()
    life.host.before_write = None
    for _ in range(3):
        life.host.pass_time(6.0)
        worker.run()
    assert life.host.bookings() == {(GREEN, "0.0"), (BLUE, "1.0")}
    life.host.unwritable.clear()
    settled(life)  # a new process
    assert life.host.bookings() == {(GREEN, "0.0"), (BLUE, "1.0")}
    assert (of(life, GREEN).user, of(life, BLUE).user) == (ALICE, BOB)
    assert not life.plan().drifts


@pytest.mark.parametrize("shared", [False, True], ids=["two slots", "one slot"])
def test_killed_at_any_write_the_swap_is_finished(shared: bool) -> None:
    start = blue_and_green(("1.0", "1.0") if shared else ("0.0", "1.0"))
    swap(start)
    pass_over(start)
    start.host.pass_time(6.0)
    died = True
    for at in range(60):
        if not died:
            break
        life = copy.deepcopy(start)
        life.host.steps, life.host.die_at = 0, at
        try:
            pass_over(life)
            died = False
        except Died:
            died = True
        life.host.die_at = None
        life.stop(GREEN).stop(BLUE)  # bob's hold is over at once
        life.after(30.0)
        wanted = {(GREEN, "1.0" if shared else "0.0")}
        life.after(300.0)
        assert life.host.bookings() == wanted, at
        assert of(life, GREEN).user == ALICE, at
        assert BLUE not in life.host.records, at
        assert not life.plan().drifts, at
    assert not died, "it was never run to its end"


def test_unknown_fields_go_along_on_real_files(tmp_path: Path) -> None:
    """What only a script of the lab knows of a container is still its own afterwards."""
    life = swap(blue_and_green())
    disk = Disk(tmp_path, life)
    disk.write()
    files = {name: disk.metadata / f"{name}.json" for name in (BLUE, GREEN)}
    for name, note in ((BLUE, "of alice"), (GREEN, "of bob")):
        document = json.loads(files[name].read_text()) | {"note": note}
        files[name].write_text(json.dumps(document))
    for _ in range(3):
        disk.pass_()
        life.host.pass_time(6.0)
    written = {name: json.loads(path.read_text()) for name, path in files.items()}
    assert {n: (d["container"], d["user"], d["note"]) for n, d in written.items()} == {
        GREEN: (GREEN, "alice", "of alice"),
        BLUE: (BLUE, "bob", "of bob"),
    }
    assert not disk.plan().drifts


# --- any permutation, of containers in any state ----------------------------------------------

NAMES = tuple(ContainerName(f"{word}._.{1001 + i}") for i, word in enumerate("abcd"))
PLACES = ("0.0", "0.1", "1.0", "1.1")


@dataclass(frozen=True)
class Held:
    """What a container holds, as a verdict says it."""

    slots: frozenset[str]
    user: str | None
    until: Boot | None


@st.composite
def crowds(draw: st.DrawFn) -> Life:
    """Up to four containers, booked or not, alone or shared, with users of their own."""
    life = Life(config(pace_count=100, adopt="off"))
    users = {n: UserName(f"user-{i}") for i, n in enumerate(NAMES)}
    life.host.limits = Limits(
        holds={
            user: HoldRule(seconds=draw(st.sampled_from([SHORT, LONG, None])), source=user)
            for user in users.values()
        },
        unknown_user=HoldRule(seconds=None, source="defaults"),
    )
    count = draw(st.integers(2, 4))
    for name in NAMES[:count]:
        place = draw(st.sampled_from(PLACES))
        device = f"MIG-{place.replace('.', '-')}"
        if draw(st.sampled_from([True, True, True, False])):
            allocated = Wall(life.host.wall - draw(st.sampled_from([5_000.0, 50_000.0])))
            life.book(place, name=name, user=users[name], allocated_at=allocated)
        life.run(device, name=name, labels=labels(users[name]), id=f"id-{name[0]}")
    life.host.state = counted(life)
    life.after(120.0)
    for name in NAMES[:count]:
        state = draw(st.sampled_from([State.RUNNING, State.PAUSED, State.EXITED]))
        if state is State.EXITED:
            life.stop(name)
        else:
            life.change(name, state=state)
    return life.after(draw(st.sampled_from([0.0, 30.0])))


def held(life: Life) -> dict[ContainerId, Held]:
    verdicts = life.plan().decision.verdicts
    return {one.id: _held(verdicts[one.name]) for one in life.host.containers.values()}


def _held(verdict: Verdict) -> Held:
    if isinstance(verdict, Free):
        return Held(frozenset(), None, verdict.due)
    assert isinstance(verdict, Holds)
    return Held(frozenset(verdict.slots), verdict.user, verdict.until)


def booked(life: Life) -> dict[ContainerId, tuple[frozenset[str], object]]:
    """The slots and the record of each container, by its present name."""
    found: dict[ContainerId, tuple[frozenset[str], object]] = {}
    for one in life.host.containers.values():
        there = life.host.records.get(one.name)
        said = (there.user, there.allocated_at) if isinstance(there, Record) else None
        slots = frozenset(place for name, place in life.host.bookings() if name == one.name)
        found[one.id] = (slots, said)
    return found


@settings(max_examples=int(settings.get_profile("deciding").max_examples * 0.2))
@given(crowds(), st.data())
def test_any_permutation_changes_what_nobody_holds(life: Life, data: st.DataObject) -> None:
    """Verdicts, deadlines, users and records are those of the ID, before and after the books."""
    reference = copy.deepcopy(life)
    before = held(life)
    ids = list(life.host.containers)
    free = data.draw(st.sampled_from([(), (ContainerName("e._.1005"),)]))
    names = [life.host.containers[one].name for one in ids]
    pool = data.draw(st.permutations([*names, *free]))
    permute(life, dict(zip(ids, pool, strict=False)))
    assert held(life) == before
    some = data.draw(st.sampled_from([(), (life.host.containers[ids[0]].name,)]))
    for one in (life, reference):
        pass_over(one)
        one.host.pass_time(6.0)
    kills = data.draw(st.lists(st.integers(0, 25), max_size=2))
    for at in kills:
        life.host.steps, life.host.die_at = 0, at
        with suppress(Died):
            pass_over(life, *some)
        life.host.die_at = None
    for one in (life, reference):
        pass_over(one)
        one.host.pass_time(6.0)
        one.after(60.0)
    assert booked(life) == booked(reference)
    assert not [g for g in life.plan().drifts if g.gate is not WaitReason.PACE]
    assert held(life) == held(reference)


def test_the_books_follow_one_without_labels_once_its_creation_is_over() -> None:
    """It was noted as new again once that was forgotten: "being created" for ever."""
    life = Life(config()).book("1.0").run("MIG-1-0", labels={}).after(60.0)
    life.rename(NAME, OTHER)
    for _ in range(40):
        life.sweep()
        life.host.pass_time(230.0)
    assert life.host.bookings() == {(OTHER, "1.0")}
