"""The published picture: devices with their readings, and what is wrong with each slot."""

from __future__ import annotations

from dataclasses import replace

from ds01d.daemon.status_builder import StatusBuilder
from ds01d.model.books import Unreadable
from ds01d.model.checkpoint import Freeze
from ds01d.model.devices import Inventory
from ds01d.model.drift import Outcome
from ds01d.model.primitives import Boot, ContainerName, Digest, Source, Unknown, Wall
from ds01d.reconcile.checkpoint_store import CheckpointStore
from ds01d.reconcile.reconciler import Reconciler
from ds01d.reporting.status import PassHealth, SlotStatus, Status
from ds01d.reporting.status_summary import format_summary
from tests.support.build import NAME, Life, books, config, four_slots, gpu, inventory, mig, slot


def painted(life: Life, picture: StatusBuilder | None = None) -> Status:
    picture = picture or StatusBuilder(life.config)
    report = life.sweep()
    picture.add_report(report)
    return picture.build(None, report.decision.snapshot.now)


def readings() -> Life:
    """A GPU that tells all, cut into two, and one that tells nothing."""
    talks = gpu(1, mig=True, name="A100", memory_used=3, memory_total=80, temperature=41)
    return Life(gpu=inventory(talks, mig(1, 0), mig(1, 1), gpu(2, mig=True), mig(2, 0)))


def test_gpus_are_told_with_their_readings() -> None:
    status = painted(readings())
    talks, silent = status.gpus
    assert (talks.name, talks.mig, talks.temperature) == ("A100", True, 41)
    assert (talks.memory_used, talks.memory_total, talks.utilization) == (3, 80, None)
    assert (silent.index, silent.temperature, silent.memory_used) == (2, None, None)


def test_while_nvml_is_silent_only_what_cannot_change_is_told() -> None:
    life = readings()
    picture = StatusBuilder(life.config)
    painted(life, picture)
    life.fail(Source.NVML)
    talks, _ = painted(life, picture).gpus
    assert (talks.name, talks.mig) == ("A100", True)
    assert (talks.memory_used, talks.temperature) == (None, None)
    assert all(slot.memory_total is None for slot in painted(life, picture).slots)


def test_a_host_without_nvml_has_no_gpus_to_tell_of() -> None:
    assert painted(Life(gpu=None, state=four_slots())).gpus == ()


def test_a_slot_tells_the_drifts_that_concern_it() -> None:
    life = Life().book("1.0").after(600)
    status = painted(life)
    told = {str(slot.id): slot.drifts for slot in status.slots}
    assert [drift.partition(" ")[0] for drift in told.pop("1.0")] == ["stale-allocation"]
    assert not any(told.values())
    assert NAME in {holder.container for slot in status.slots for holder in slot.holders}


def test_a_consistent_slot_tells_none() -> None:
    life = Life().book("1.0").run("MIG-1-0")
    assert all(not slot.drifts for slot in painted(life).slots)


def test_a_freeze_that_is_over_is_told_no_more() -> None:
    life = Life(gpu=None, state=four_slots())
    ends = Wall(life.host.wall + 60)
    freeze = Freeze(subject="*", by="root", reason="", since=Wall(life.host.wall), until=ends)
    store = CheckpointStore(life.host.world().state_dir)
    store.save(replace(life.sweep().checkpoint, freezes={"*": freeze}))
    assert painted(life).freezes == (freeze,)
    life.host.pass_time(60)
    assert painted(life).freezes == ()


def test_passes_that_fail_are_in_it_until_one_over_everything_succeeds() -> None:
    life = Life().book("1.0").run("MIG-1-0")
    picture = StatusBuilder(life.config)
    now = life.sweep().decision.snapshot.now
    picture.add_failed_pass("no lock", Wall(now.wall))
    first = picture.build(None, now)
    assert (first.ready, first.passes.last_success) == (False, None)
    painted(life, picture)
    life.host.pass_time(60)
    at = Wall(life.host.wall)
    for number in range(3):
        picture.add_failed_pass(f"no lock {number}", Wall(at + number))
    status = picture.build(Boot(now.boot + 160), replace(now, wall=Wall(at + 9)))
    assert status.passes == PassHealth(
        last_success=now.wall, failing_since=at, failures=3, reason="no lock 2"
    )
    assert status.written_at == at + 9
    assert format_summary(status, Wall(at + 9)).startswith("passes fail since ")
    of_one = Reconciler(life.host.world(), life.config).run(frozenset({ContainerName(NAME)}))
    picture.add_report(of_one)  # nothing is known of the others
    assert picture.is_failing
    assert not painted(life, picture).passes.failing


def test_open_drifts_are_published_with_since_and_until_when_and_failed_ones_first() -> None:
    life = Life(config()).book("1.0").book("1.1", name="a._.1001", allocated_at_ago=7200)
    picture = StatusBuilder(life.config)
    (waiting,) = painted(life, picture).open_drifts[:1]
    report = life.sweep()
    (drift,) = (one for one in report.drifts if one.drift.container == "a._.1001")
    failed = replace(drift, outcome=Outcome.FAILED, gate=None, reason="no room", until=None)
    picture.add_report(replace(report, drifts=(failed, *report.drifts[1:])))
    status = picture.build(None, report.decision.snapshot.now)
    first = status.open_drifts[0]
    assert (first.key, first.outcome, first.reason) == (drift.drift.key, Outcome.FAILED, "no room")
    assert format_summary(status, Wall(life.host.wall)).startswith("1 repair failed: no room; ")
    assert waiting.first_seen == life.host.wall
    assert waiting.until is not None
    assert waiting.until > life.host.wall


def test_without_a_state_file_what_is_used_is_not_free() -> None:
    life = Life().run("MIG-1-0")  # observing: nothing is rebuilt
    life.host.state = Unreadable(reason="it is missing", digest=Digest("missing"))
    slots = {str(slot.id): slot for slot in painted(life).slots}
    assert [name for name in slots if slots[name].foreign] == ["1.0"]
    assert NAME in slots["1.0"].foreign[0]
    assert not slots["1.0"].holders


def test_while_passes_fail_no_drift_is_published_as_waiting_for_one() -> None:
    life = Life(config()).book("1.0").book("1.1", name="a._.1001", allocated_at_ago=7200)
    picture = StatusBuilder(life.config)
    before = painted(life, picture).open_drifts
    assert [one.outcome for one in before] == [Outcome.WAITING] * 2
    now = life.sweep().decision.snapshot.now
    picture.add_failed_pass("no lock", now.wall)
    told = picture.build(None, now).open_drifts
    assert [(one.key, one.outcome, one.reason, one.until) for one in told] == [
        (one.key, Outcome.FAILED, "passes fail: no lock", None) for one in before
    ]
    assert painted(life, picture).open_drifts == before, "they wait again as soon as passes work"


def test_a_checkpoint_that_was_not_saved_is_published_as_such() -> None:
    life = Life().book("1.0").run("MIG-1-0")
    picture = StatusBuilder(life.config)
    assert not painted(life, picture).unsaved
    report = life.sweep()
    picture.add_report(replace(report, checkpoint_unsaved="no room for it"))
    assert picture.build(None, report.decision.snapshot.now).unsaved == "no room for it"


def test_the_devices_of_before_a_boot_are_published_while_fewer_are_not_believed() -> None:
    life = Life().book("1.0").run("MIG-1-0")
    picture = StatusBuilder(life.config)
    before = painted(life, picture).inventory
    assert "1.0=MIG-1-0" in before.split(";")
    life.host.boot, life.host.boot_id = 60.0, "another"
    life.host.gpu = inventory(gpu(0, mig=True), gpu(1))
    status = painted(life, picture)
    assert not status.sources[Source.NVML].ok
    assert status.inventory == before


def slot_of(status: Status, place: str) -> SlotStatus:
    return next(candidate for candidate in status.slots if candidate.id == place)


def test_a_slot_has_the_utilization_of_its_gpu_and_a_mig_device_has_none() -> None:
    life = Life(gpu=inventory(gpu(0, utilization=83)), state=books(slot("0")))
    status = painted(life)
    assert slot_of(status, "0").utilization == 83
    assert status.readings_at is not None
    cut = Life(gpu=inventory(gpu(1, mig=True, utilization=7), mig(1, 0)), state=books(slot("1.0")))
    assert slot_of(painted(cut), "1.0").utilization is None


def test_a_holder_has_the_processes_of_its_own_container() -> None:
    life = Life().book("1.0").run("MIG-1-0").use("MIG-1-0", f"id-{NAME}").use("MIG-1-0", None)
    assert isinstance(life.host.gpu, Inventory)
    own, other = life.host.gpu.processes
    twice = replace(own, memory=5), replace(own, memory=5), replace(other, pid=9, memory=7)
    life.set_gpu(processes=twice)
    shown = slot_of(painted(life), "1.0")
    # One that computes and draws is in both lists of NVML.
    assert shown.processes == 2
    assert [(h.processes, h.memory_used) for h in shown.holders] == [(1, 5)]


def test_unknown_readings_of_a_holder_are_not_none() -> None:
    life = Life().book("1.0").run("MIG-1-0").use("MIG-1-0", f"id-{NAME}")
    (holder,) = slot_of(painted(life), "1.0").holders
    assert (holder.processes, holder.memory_used) == (1, None)  # the driver does not say how much
    life.use("MIG-1-0", Unknown(source=Source.NVML, reason="/proc does not have it"))
    (holder,) = slot_of(painted(life), "1.0").holders
    assert (holder.processes, holder.memory_used) == (None, None)
    life.set_gpu(blind={"MIG-1-0": "no permission"})
    shown = slot_of(painted(life), "1.0")
    assert (shown.processes, shown.holders[0].processes) == (None, None)
    life.fail(Source.NVML)
    status = painted(life)
    assert (status.readings_at, slot_of(status, "1.0").processes) == (None, None)
    assert slot_of(status, "1.0").holders[0].processes is None
