"""Remembering: what a pass notes for the next one, and what boots, gaps and engines do to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ds01d.decide.deadlines import to_boot_time
from ds01d.decide.engine_identity import same_engine
from ds01d.decide.update_checkpoint import update_checkpoint
from ds01d.model.books import AllocatorState, HoldRule
from ds01d.model.checkpoint import BookingFirstSeen, Checkpoint, Freeze, Repair, Resolved, Undone
from ds01d.model.containers import Destroyed, EngineIdentity, GpuRequestKind
from ds01d.model.drift import Kind, Outcome, RepairKey, drift_key
from ds01d.model.primitives import Boot, DeviceUuid, Digest, SlotId, Source, Unknown, Wall
from ds01d.reconcile.checkpoint_store import CheckpointStore
from ds01d.reconcile.reconciler import Reconciler
from tests.support.build import (
    ALL,
    HOUR,
    LIMITS,
    NAME,
    OTHER,
    Life,
    container,
    count,
    gpu,
    inventory,
    mig,
    named,
)
from tests.support.world import BOOT, IDENTITY

TRAIN = f"id-{NAME}"


def memory(life: Life) -> Checkpoint:
    new, trouble = CheckpointStore(life.host.world().state_dir).load()
    assert not trouble
    return new


def watched() -> Life:
    """A booked container runs; a daemon has watched for an hour."""
    return Life().book("1.0").run("MIG-1-0").after(HOUR)


# --- since when the limits count ---------------------------------------------------------------


def settled_in(life: Life, version: str, size: int, *, after: float = 0.0) -> float:
    """Let the limits be another version; how long until they may end a hold."""
    life.host.pass_time(after)
    life.host.limits = replace(LIMITS, version=version, size=size)
    noted = memory(life.after(0)).limits
    assert noted is not None
    return noted.settled - life.host.boot


def test_limits_count_once_they_stay_as_they_are() -> None:
    life = Life()
    assert settled_in(life, "a", 1000) == 5
    assert settled_in(life, "a", 1000, after=3) == 2
    assert settled_in(life, "b", 1000, after=1) == 5
    assert settled_in(life, "a", 1000, after=4) == 5
    assert settled_in(life, "a", 1000, after=60) == -55


def test_each_part_that_a_slow_writer_adds_is_compared_with_the_whole_before() -> None:
    life = Life()
    settled_in(life, "a", 1000)
    settled_in(life, "a", 1000, after=60)
    assert settled_in(life, "half", 500, after=60) == 120
    assert settled_in(life, "more", 700, after=20) == 120
    assert settled_in(life, "b", 1100, after=20) == 5


def test_a_part_at_the_first_sight_is_compared_with_nothing() -> None:
    life = Life()
    assert settled_in(life, "half", 500) == 5
    assert settled_in(life, "whole", 1000, after=3) == 5
    assert settled_in(life, "half", 500, after=3) == 120


def test_a_quarter_less_is_more_than_an_edit() -> None:
    life = Life()
    settled_in(life, "a", 1000)
    assert settled_in(life, "b", 750, after=60) == 5
    assert settled_in(life, "c", 562, after=60) == 120


def test_so_is_a_user_who_is_named_no_more() -> None:
    life = Life()
    settled_in(life, "a", 1000)
    life.host.pass_time(60)
    life.host.limits = replace(LIMITS, holds={}, version="b", size=1000)
    noted = memory(life.after(0)).limits
    assert noted is not None
    assert noted.settled - life.host.boot == 120


def test_what_was_not_understood_ended_no_hold_and_is_no_loss() -> None:
    life = Life()
    unclear = HoldRule(seconds=None, source="groups.a", problem="groups.a.members: no list")
    life.host.limits = replace(LIMITS, unnamed=unclear, version="a", size=1000)
    life.after(60)
    assert settled_in(life, "b", 100) == 5


def test_limits_that_fail_and_come_back_as_they_were_have_not_changed() -> None:
    life = Life()
    settled_in(life, "a", 1000)
    life.fail(Source.LIMITS).after(60).mend()
    assert settled_in(life, "a", 1000) == -55


def test_over_a_boot_the_limits_are_new() -> None:
    life = Life()
    settled_in(life, "a", 1000)
    assert settled_in(rebooted(life), "a", 1000) == 5


def test_a_moment_too_far_ahead_counts_no_longer_than_the_longest_wait() -> None:
    """CLOCK_BOOTTIME is smaller in a container, or in a time namespace."""
    life = Life()
    settled_in(life, "a", 1000)
    life.host.boot -= 400
    assert settled_in(life, "a", 1000) == 120


# --- since when waiting counts ----------------------------------------------------------------


def test_the_first_pass_begins_the_waiting() -> None:
    assert memory(Life().after(0)).since == BOOT


def test_answers_without_a_gap_keep_it() -> None:
    assert memory(watched()).since == BOOT


def test_an_engine_that_fails_once_begins_it_anew() -> None:
    life = watched().fail(Source.DOCKER).after(0).mend()
    life.host.pass_time(60.0)
    assert memory(life.after(0)).since == life.host.boot


def test_a_daemon_that_did_not_look_for_a_while_begins_it_anew() -> None:
    life = watched()
    life.host.pass_time(241.0)
    assert memory(life.after(0)).since == life.host.boot


@pytest.mark.parametrize("seconds", [60.0, 239.0])
def test_one_that_was_only_late_does_not(seconds: float) -> None:
    life = watched()
    life.host.pass_time(seconds)
    assert memory(life.after(0)).since == BOOT


def test_another_dockerd_process_begins_it_anew() -> None:
    life = watched()
    life.host.instance = "2:2"
    assert memory(life.after(0)).since == life.host.boot


def test_one_whose_process_cannot_be_told_does_not() -> None:
    life = watched()
    life.host.instance = ""
    new = memory(life.after(0))
    assert (new.since, new.instance) == (BOOT, "1:1")


def test_a_broken_event_stream_begins_it_where_it_broke() -> None:
    life = watched()
    life.host.since = life.host.boot - 10.0
    assert memory(life.after(0)).since == life.host.boot - 10.0


def rebooted(life: Life, boot: float = 500.0) -> Life:
    life.host.pass_time(300.0)
    life.host.boot, life.host.boot_id = boot, "boot-2"
    life.host.destroyed.clear()
    return life.after(0)


def test_over_a_boot_what_protects_begins_anew() -> None:
    """Pace, back-off, the GPUs' freeze, an admin's and what was taken back: none is forgotten."""
    life = watched()
    store = CheckpointStore(life.host.world().state_dir)
    wall, boot = life.host.wall, life.host.boot
    freeze = Freeze(
        subject="*", by="ada", reason="", since=Wall(wall), until=Wall(wall + 9e9), ends=Boot(boot)
    )
    undone = {"x-u0": Undone(by="ada", since=Wall(wall), records={OTHER: None})}
    repair = Repair(times=5, last=Boot(boot - 10), not_before=Boot(boot + 70))
    store.save(
        replace(
            memory(life),
            released=(Boot(boot - 500), Boot(boot - 1)),
            repairs={RepairKey(drift_key("wrong-count", None, SlotId("1.0")), "f"): repair},
            inventory_changed=Boot(boot - 5),
            freezes={"*": freeze},
            undone=undone,
        )
    )
    new = memory(rebooted(life))
    assert new.released == (500.0, 500.0)
    (after,) = new.repairs.values()
    assert (after.times, after.last, after.not_before) == (5, 500.0, 580.0)
    assert new.inventory_changed == 500.0
    assert new.freezes["*"].ends == 500.0 + wall + 9e9 - life.host.wall
    assert new.undone == undone


def test_a_boot_drops_every_moment_and_keeps_what_is_not_one() -> None:
    before = watched().remove(told=True).after(0)
    old = memory(before)
    assert (old.absent, old.destroyed) != ({}, {})
    new = memory(rebooted(before))
    assert (new.boot_id, new.since) == ("boot-2", 500.0)
    assert new.absent == {NAME: 500.0}
    assert new.destroyed == {}
    assert new.identities[NAME].id == TRAIN
    assert new.identities[NAME].alive_at is None
    assert new.appeared == {NAME: BookingFirstSeen(at=Boot(500.0), inherited=True)}
    assert (new.engine, new.inventory, new.slots) == (
        old.engine,
        old.inventory,
        old.slots,
    )


# --- which engine -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "within_one_boot", "over_a_boot"),
    [
        pytest.param({}, True, True, id="the same"),
        pytest.param({"id": "x"}, False, False, id="another id"),
        pytest.param({"root_dir": "/mnt"}, False, False, id="another root"),
        pytest.param({"inode": 8}, False, False, id="another folder in its place"),
        pytest.param({"device": 9}, False, True, id="a device number changes over a boot"),
    ],
)
def test_an_engine_is_its_id_its_root_and_where_that_lies(
    changed: dict[str, Any], within_one_boot: bool, over_a_boot: bool
) -> None:
    other = replace(IDENTITY, **changed)
    assert same_engine(IDENTITY, other, same_boot=True) is within_one_boot
    assert same_engine(IDENTITY, other, same_boot=False) is over_a_boot


def test_the_first_engine_is_trusted_and_another_one_is_a_stranger() -> None:
    life = watched()
    assert memory(life).engine == IDENTITY
    other = EngineIdentity(id="OTHER", root_dir="/mnt", inode=1, device=1)
    life.host.identity = other
    new = memory(life.after(0))
    assert (new.engine, new.stranger) == (IDENTITY, other)
    life.host.identity = IDENTITY
    assert memory(life.after(0)).stranger is None


def test_after_a_boot_the_device_number_is_learned_anew() -> None:
    life = watched()
    life.host.identity = replace(IDENTITY, device=99)
    new = memory(rebooted(life))
    assert new.stranger is None
    assert new.engine == replace(IDENTITY, device=99)


# --- the inventory ----------------------------------------------------------------------------


def test_the_first_inventory_is_no_change() -> None:
    new = memory(watched())
    assert (new.inventory_seen, new.inventory_changed, new.devices) == (BOOT, None, 6)


def test_another_one_is() -> None:
    life = watched()
    life.host.gpu = inventory(gpu(0, mig=False), gpu(1, mig=False))
    new = memory(life.after(60.0))
    changed = life.host.boot - 60.0
    assert (new.inventory_seen, new.inventory_changed, new.devices) == (
        changed,
        changed,
        2,
    )


def test_nvml_failing_is_no_change_but_a_break() -> None:
    life = watched().fail(Source.NVML).after(60.0)
    assert memory(life).inventory_seen is None
    new = memory(life.mend().after(0))
    assert (new.inventory_seen, new.inventory_changed) == (life.host.boot, None)


# --- who was seen -----------------------------------------------------------------------------


def test_absence_counts_from_its_first_sight() -> None:
    life = watched().remove(told=False)
    gone = life.host.boot
    assert memory(life.after(120.0)).absent == {NAME: gone}


def test_a_container_that_is_there_is_not_absent() -> None:
    life = watched().remove().after(60.0).run("MIG-1-0", id="two").after(0)
    new = memory(life)
    assert (new.absent, new.destroyed) == ({}, {})
    assert new.identities[NAME].id == "two"


def test_absence_is_not_seen_while_docker_fails() -> None:
    life = watched().remove(told=False).fail(Source.DOCKER).after(120.0).mend()
    assert memory(life.after(0)).absent == {NAME: life.host.boot}


def test_a_destroy_event_counts_for_the_container_behind_the_booking() -> None:
    life = watched().remove(told=True)
    assert memory(life.after(0)).destroyed == {NAME: (TRAIN, life.host.boot)}


def test_a_destroy_event_of_another_container_of_that_name_does_not() -> None:
    life = watched().remove(told=False)
    other = Destroyed(id=container(id="two").id, name=NAME, at=Boot(life.host.boot))
    life.host.destroyed[NAME] = other
    assert memory(life.after(0)).destroyed == {}


@pytest.mark.parametrize("labelled", [True, False])
def test_who_came_and_went_between_two_lists_had_the_name_until_then(labelled: bool) -> None:
    """As while a stream of events was cut: the name was in use, perhaps by a creation's step."""
    life = watched()
    life.remove(told=False).after(100.0)
    first, at = memory(life).absent[NAME], Boot(life.host.boot - 5.0)
    assert first < at
    life.host.destroyed[NAME] = Destroyed(
        id=container(id="two").id, name=NAME, at=at, labelled=labelled
    )
    new = memory(life.after(0))
    assert new.absent[NAME] == at
    assert new.unlabelled == ({} if labelled else {NAME: at})
    reconciler = Reconciler(life.host.world(), life.config)
    policy = life.config.policy
    grace = policy.absence_grace_s if labelled else policy.creation_grace_s
    while life.host.boot < at + grace:
        assert not [
            present for present in reconciler.run().drifts if present.outcome is Outcome.DUE
        ]
        life.host.pass_time(10.0)
    reconciler.run()
    life.host.pass_time(10.0)  # the settle time
    (due,) = reconciler.run().drifts
    assert (due.drift.kind, due.outcome) == (Kind.STALE_ALLOCATION, Outcome.DUE)


def test_when_it_last_lived_is_known() -> None:
    life = watched()
    alive = life.host.boot
    life.stop().after(300.0)
    assert memory(life).identities[NAME].alive_at == alive


def test_what_is_new_since_a_sweep_was_not_there_at_that_sweep() -> None:
    life = Life().after(60.0)
    before = life.host.boot
    life.host.pass_time(30.0)
    life.start_now("MIG-1-0").after(60.0)
    assert memory(life).identities[NAME].unborn_at == before


def test_a_rename_makes_nobody_younger() -> None:
    life = Life().after(60.0).start_now("MIG-1-0").after(60.0)
    born = memory(life).identities[NAME].unborn_at
    life.rename(NAME, OTHER).after(0)
    assert born is not None
    assert memory(life).identities[OTHER].unborn_at == born


def test_the_old_name_keeps_its_container_until_the_booking_has_followed() -> None:
    life = watched().rename(NAME, OTHER).run("MIG-0-0", id="two").after(0)
    assert memory(life).identities[NAME].id == TRAIN
    assert memory(life).identities[OTHER].id == TRAIN


def test_also_while_the_state_cannot_be_read() -> None:
    life = watched().rename(NAME, OTHER).run("MIG-0-0", id="two").fail(Source.STATE).after(0)
    assert memory(life).identities[NAME].id == TRAIN


def test_a_name_that_nobody_booked_belongs_to_who_has_it() -> None:
    life = Life().run("MIG-1-0").after(HOUR).rename(NAME, OTHER).run("MIG-0-0", id="two").after(0)
    assert memory(life).identities[NAME].id == "two"


def test_an_unlabelled_container_is_noted_when_it_comes_ends_and_goes() -> None:
    life = Life().book("1.0").run("MIG-1-0", labels={}).after(300.0)
    came = life.host.boot - 300.0
    assert memory(life).unlabelled == {NAME: came}
    life.stop().after(0)
    ended = life.host.boot
    assert memory(life.after(300.0)).unlabelled == {NAME: ended}
    life.remove().after(0)
    gone = life.host.boot
    assert memory(life.after(899.0)).unlabelled == {NAME: gone}
    assert NAME not in memory(life.after(60.0)).unlabelled


def test_one_that_merely_stays_is_not_being_created_for_ever() -> None:
    life = Life().run("MIG-1-0", labels={}).after(60.0).stop().after(0)
    for _ in range(40):
        life.after(60.0)
    assert memory(life).unlabelled == {NAME: life.host.boot - 2400.0}


# --- bookings that appear ---------------------------------------------------------------------


def test_bookings_of_the_first_sweep_were_there_before() -> None:
    assert memory(watched()).appeared == {NAME: BookingFirstSeen(at=Boot(BOOT), inherited=True)}


def test_later_ones_are_new() -> None:
    life = watched().list_in("0.0", name=OTHER).after(60.0)
    assert memory(life).appeared[OTHER] == BookingFirstSeen(
        at=Boot(life.host.boot - 60.0), inherited=False
    )


def test_a_first_pass_over_one_name_does_not_make_all_others_new() -> None:
    life = Life().book("1.0").book("0.0", name=OTHER)
    Reconciler(life.host.world(), life.config).run(frozenset({NAME}))
    new = memory(life.after(0))
    assert new.appeared[OTHER].inherited


def test_a_booking_that_goes_and_comes_is_new() -> None:
    life = watched()
    state = life.host.state
    assert isinstance(state, AllocatorState)
    life.host.state = replace(Life().host.state, digest=Digest("x"))
    life.after(60.0)
    assert memory(life).appeared == {}
    life.host.state = replace(state, digest=Digest("y"))
    assert not memory(life.after(0)).appeared[NAME].inherited


def test_also_where_nothing_named_it_in_between() -> None:
    life = watched().remove().after(60.0)
    state = life.host.state
    assert isinstance(state, AllocatorState)
    life.host.state = replace(Life().host.state, digest=Digest("x"))
    life.host.records.clear()
    Reconciler(life.host.world(), life.config).run(frozenset({NAME}))
    life.host.state = replace(state, digest=Digest("y"))
    assert not memory(life.after(0)).appeared[NAME].inherited


def test_a_state_that_cannot_be_read_makes_nothing_new() -> None:
    life = watched().fail(Source.STATE).after(60.0).mend().after(0)
    assert memory(life).appeared[NAME].inherited


# --- what a request meant ---------------------------------------------------------------------


def meant(life: Life) -> set[str] | None:
    present = next(c for c in life.host.containers.values() if c.name == NAME)
    new: Resolved = memory(life).resolved[present.id]
    return None if new.devices is None else {str(device) for device in new.devices}


def renumber(life: Life) -> Life:
    return life.set_gpu(migs=(mig(0, 0), mig(0, 1), mig(1, 0, "MIG-1-1"), mig(1, 1, "MIG-1-0")))


@pytest.mark.parametrize(
    ("request_", "devices"),
    [
        pytest.param(named("1:0"), {"MIG-1-0"}, id="MIG index"),
        pytest.param(named("0", "1:1"), {"GPU-0", "MIG-1-1"}, id="two indices"),
        pytest.param(named("/dev/nvidia1"), {"GPU-1"}, id="device node, by minor number"),
        pytest.param(named("MIG-GPU-1/7/0"), {"MIG-1-0"}, id="the old MIG name"),
        pytest.param(named("MIG-1-0", "1:1"), {"MIG-1-0", "MIG-1-1"}, id="UUID and index"),
        pytest.param(count(2), {"GPU-0", "GPU-1"}, id="a count"),
        pytest.param(named("5"), None, id="an index of nothing"),
        pytest.param(count(9), None, id="a count of more than there are"),
        pytest.param(named("one"), None, id="no number at all"),
    ],
)
def test_a_request_is_understood_when_its_container_starts(
    request_: Any, devices: set[str] | None
) -> None:
    life = Life().book("1.0").after(HOUR).start_now(request=request_).after(0)
    assert meant(life) == devices


def test_all_means_all_of_that_moment() -> None:
    life = Life().book("1.0").after(HOUR).start_now(request=ALL).after(0)
    assert len(meant(life) or ()) == 6


def test_what_was_understood_stays_when_indices_change() -> None:
    life = renumber(Life().book("1.0").after(HOUR).start_now("1:0").after(60.0)).after(HOUR)
    assert meant(life) == {"MIG-1-0"}


def test_a_new_start_is_understood_anew() -> None:
    life = renumber(Life().book("1.0").after(HOUR).start_now("1:0").after(60.0)).after(HOUR)
    life.change(started_ago=0).after(0)
    assert meant(life) == {"MIG-1-1"}


def test_who_ran_before_ds01d_is_not_understood_but_by_uuid() -> None:
    assert meant(Life().run("1:0").after(HOUR)) is None
    assert meant(Life().run("MIG-1-0").after(HOUR)) == {"MIG-1-0"}
    assert meant(Life().run("MIG-dead").after(HOUR)) == {"MIG-dead"}


def test_nor_who_started_in_a_gap() -> None:
    life = Life().after(HOUR)
    life.host.pass_time(600.0)
    life.run("1:0", started_ago=300.0)
    assert meant(life.after(60.0)) is None


def test_nor_who_started_before_the_layout_changed_and_was_seen_only_after() -> None:
    life = Life().after(HOUR)
    life.host.pass_time(10.0)
    life.start_now("1:0")
    life.host.pass_time(10.0)
    renumber(life)
    Reconciler(life.host.world(), life.config).run(frozenset({OTHER}))
    life.host.pass_time(10.0)
    assert meant(life.after(0)) is None


def test_without_nvml_an_index_means_its_slot() -> None:
    life = Life().book("1.0").run("1:0")
    life.host.gpu = None
    assert meant(life.after(0)) == {"MIG-1-0"}


def test_a_foreign_container_is_understood_too() -> None:
    life = Life().after(HOUR).start_now("0:1", name="vscode", labels={}, id="f").after(0)
    (new,) = memory(life).resolved.values()
    assert new.devices == frozenset({DeviceUuid("MIG-0-1")})


def test_no_request_means_nothing() -> None:
    present = container(NAME)
    assert not isinstance(present.request, Unknown)
    assert present.request.ask is GpuRequestKind.NONE
    assert meant(Life().run().after(0)) is None


# --- deadlines --------------------------------------------------------------------------------


def hold_end(life: Life) -> float:
    verdict = life.plan().decision.verdicts[NAME]
    until = getattr(verdict, "until", None)
    assert until is not None, verdict
    return float(until)


@pytest.mark.parametrize("step", [-90_000.0, -3_600.0, 3_600.0, 90_000.0])
def test_a_deadline_does_not_move_with_the_wall_clock(step: float) -> None:
    life = watched().stop().after(60.0)
    before = hold_end(life)
    life.set_wall(step).after(60.0)
    assert hold_end(life) == before


@pytest.mark.parametrize(
    "source", [Source.DOCKER, Source.METADATA, Source.STATE, Source.LIMITS, Source.NVML]
)
def test_nor_if_a_source_failed_meanwhile(source: Source) -> None:
    life = watched().stop().after(60.0)
    before = hold_end(life)
    life.fail(source).after(60.0).set_wall(24 * HOUR).mend().after(60.0)
    assert hold_end(life) == before


def test_a_time_in_the_future_counts_from_its_first_sight() -> None:
    life = watched().stop(finished_ago=-HOUR).after(0)
    assert hold_end(life) == life.host.boot + 900.0
    first = hold_end(life)
    assert hold_end(life.after(300.0)) == first


def test_a_stop_that_the_clock_denies_counts_from_its_first_sight() -> None:
    """It was seen living a minute ago, and Docker says it stopped a day ago."""
    life = watched().stop(finished_ago=24 * HOUR).after(0)
    assert hold_end(life) == life.host.boot + 900.0


# --- memory does not grow ---------------------------------------------------------------------


def test_nothing_is_remembered_of_what_is_gone() -> None:
    life = watched().remove().after(60.0)
    life.host.records.clear()
    life.host.state = Life().host.state
    new = memory(life.after(HOUR))
    empty = (
        new.absent,
        new.identities,
        new.destroyed,
        new.resolved,
        new.appeared,
    )
    assert empty == ({}, {}, {}, {}, {})
    assert (new.starts, new.sightings, new.unlabelled) == ({}, {}, {})


def test_what_waits_from_its_first_sight_waits_from_when_it_had_been_seen() -> None:
    """A source may take a minute to answer; what it tells may have happened in that minute."""
    life = watched().book("0.0", name=OTHER)
    noted = life.plan().decision.snapshot
    looked = Boot(noted.now.boot + 50.0)
    after = update_checkpoint(replace(noted, looked=looked), memory(life), life.config, (OTHER,))
    assert after.absent[OTHER] == looked
    assert after.appeared[OTHER].at == looked
    assert to_boot_time(Wall(noted.now.wall + 20.0), replace(noted, looked=looked)) == looked - 30.0
    assert to_boot_time(Wall(noted.now.wall + 99.0), replace(noted, looked=looked)) == looked
    assert to_boot_time(Wall(noted.now.wall + 20.0), noted) == noted.observed_at


def test_a_pass_over_some_names_forgets_nothing_of_others() -> None:
    life = watched().book("0.0", name=OTHER).run("MIG-0-0", name=OTHER).after(60.0).stop(OTHER)
    life.after(0)
    before = memory(life)
    decision = life.plan().decision
    noted = replace(decision.snapshot, names=frozenset({NAME}))
    after = update_checkpoint(noted, before, life.config, (NAME,))
    assert after.identities == before.identities
    assert after.resolved == before.resolved
    assert after.absent == before.absent


def test_deadlines_of_others_survive_a_pass_over_one_name() -> None:
    life = watched().stop().after(60.0)
    before = hold_end(life)
    Reconciler(life.host.world(), life.config).run(frozenset({OTHER}))
    life.set_wall(24 * HOUR)
    assert hold_end(life.after(0)) == before


def test_memory_survives_its_file() -> None:
    life = watched().stop().remove(told=True).run("1:0", name=OTHER).after(60.0)
    new = memory(life)
    assert new.resolved
    assert new.identities
    assert new.destroyed
    assert isinstance(new.inventory_seen, float)
    assert all(isinstance(name, str) for name in new.identities)
    assert memory(life) == new
