"""Remembering: what a pass notes for the next one, and what boots, gaps and engines do to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ds01d.decide.deadlines import to_boot_time
from ds01d.decide.engine_identity import same_engine
from ds01d.decide.pass_scope import find_scope
from ds01d.decide.update_checkpoint import update_checkpoint
from ds01d.model.books import AllocatorState
from ds01d.model.checkpoint import BookingFirstSeen, Freeze, Repair, Resolved, Undone
from ds01d.model.containers import EngineIdentity, GpuRequestKind
from ds01d.model.drift import RepairKey, drift_key
from ds01d.model.primitives import Boot, DeviceUuid, Digest, SlotId, Source, Unknown, Wall
from ds01d.reconcile.checkpoint_store import CheckpointStore
from ds01d.reconcile.reconciler import Reconciler
from tests.support.build import (
    ALL,
    HOUR,
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
from tests.support.repairs import memory, rebooted, watched
from tests.support.world import BOOT, IDENTITY

TRAIN = f"id-{NAME}"
ONE = frozenset((SlotId("1.0"),))
TWO = ONE | {SlotId("0.0")}


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
    assert new.appeared == {NAME: BookingFirstSeen(at=Boot(500.0), inherited=True, slots=ONE)}
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
    assert (new.engine, new.untrusted_engine) == (IDENTITY, other)
    life.host.identity = IDENTITY
    assert memory(life.after(0)).untrusted_engine is None


def test_after_a_boot_the_device_number_is_learned_anew() -> None:
    life = watched()
    life.host.identity = replace(IDENTITY, device=99)
    new = memory(rebooted(life))
    assert new.untrusted_engine is None
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


# --- bookings that appear ---------------------------------------------------------------------


def test_bookings_of_the_first_sweep_were_there_before() -> None:
    first = BookingFirstSeen(at=Boot(BOOT), inherited=True, slots=ONE)
    assert memory(watched()).appeared == {NAME: first}


def test_later_ones_are_new() -> None:
    life = watched().list_in("0.0", name=OTHER).after(60.0)
    at = Boot(life.host.boot - 60.0)
    assert memory(life).appeared[OTHER] == BookingFirstSeen(
        at=at, inherited=False, slots=TWO - ONE, missed_at=at
    )


def test_one_more_of_the_same_name_is_new_and_one_less_is_not() -> None:
    life = watched().list_in("0.0").after(60.0)
    at = Boot(life.host.boot - 60.0)
    two = BookingFirstSeen(at=at, inherited=False, slots=TWO, missed_at=at)
    assert memory(life).appeared[NAME] == two
    life.host.state = replace(watched().host.state, digest=Digest("x"))
    assert memory(life.after(60.0)).appeared[NAME] == replace(two, slots=ONE)


def test_one_more_while_the_host_was_down_is_new() -> None:
    life = rebooted(watched().list_in("0.0"))
    assert memory(life).appeared[NAME] == BookingFirstSeen(
        at=Boot(life.host.boot), inherited=False, slots=TWO
    )


def test_what_an_earlier_version_had_seen_is_not_new() -> None:
    life = watched()
    store = CheckpointStore(life.host.world().state_dir)
    before = memory(life)
    seen = {NAME: replace(before.appeared[NAME], slots=None)}
    store.save(replace(before, appeared=seen))
    life.list_in("0.0").after(60.0)
    assert memory(life).appeared == {NAME: replace(seen[NAME], slots=TWO)}


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
    before, scope = memory(life), replace(find_scope(noted, memory(life)), names=(OTHER,))
    after = update_checkpoint(replace(noted, looked=looked), before, life.config, scope)
    assert after.absent[OTHER] == looked
    assert after.appeared[OTHER].at == looked
    assert to_boot_time(Wall(noted.now.wall + 20.0), replace(noted, looked=looked)) == looked - 30.0
    assert to_boot_time(Wall(noted.now.wall + 99.0), replace(noted, looked=looked)) == looked
    assert to_boot_time(Wall(noted.now.wall + 20.0), noted) == noted.observed_at


def test_memory_survives_its_file() -> None:
    life = watched().stop().remove(told=True).run("1:0", name=OTHER).after(60.0)
    new = memory(life)
    assert new.resolved
    assert new.identities
    assert new.destroyed
    assert isinstance(new.inventory_seen, float)
    assert all(isinstance(name, str) for name in new.identities)
    assert memory(life) == new
