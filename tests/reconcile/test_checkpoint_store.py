"""What passes remember, on a disk that takes nothing: the process keeps it, and waits go on."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ds01d.model.checkpoint import Checkpoint, DriftFirstSeen, Freeze, Repair, Undone
from ds01d.model.drift import DriftKey, GatedDrift, Outcome, RepairKey, WaitReason
from ds01d.model.primitives import Boot, ContainerName, SlotId, Wall
from ds01d.reconcile.checkpoint_store import CheckpointStore
from ds01d.reconcile.reconciler import Reconciler
from ds01d.reconcile.report import Report
from tests.support.build import NAME, Life, config


class Daemon:
    """Passes of one process over the host of a life, as the daemon makes them."""

    def __init__(self, life: Life) -> None:
        self.life = life
        self.reconciler = Reconciler(life.host.world(), life.config)

    def sweep(self, after: float = 0.0) -> Report:
        self.life.host.pass_time(after)
        return self.reconciler.run()


def stale() -> Life:
    """A booking of two hours ago whose container is gone, and nobody saw it go."""
    return Life(config()).book("1.0", allocated_at_ago=7200)


def only(report: Report) -> GatedDrift:
    (gated,) = report.drifts
    return gated


def test_on_a_full_disk_waits_go_on_and_the_repair_fails_with_its_reason() -> None:
    life = stale()
    life.host.unwritable = {"memory", "history"}
    daemon = Daemon(life)
    waiting = [only(daemon.sweep(50)) for _ in range(2)]
    assert {one.gate for one in waiting} == {WaitReason.PROOF}
    assert waiting[0].until == waiting[1].until, "the wait began again"
    daemon.sweep(50)
    report = daemon.sweep(50)
    assert only(report).outcome is Outcome.FAILED
    assert "memory was not written: no space left on device" in only(report).reason
    assert "this process keeps it" in report.checkpoint_unsaved
    assert not report.checkpoint_lost
    assert life.host.bookings() == {(NAME, "1.0")}
    life.host.unwritable.clear()
    assert only(daemon.sweep(6)).outcome is Outcome.DONE
    assert life.host.bookings() == set()


@pytest.mark.parametrize("left", [None, b"", b'{"version": 7, "memory": {}}'])
def test_a_file_that_was_removed_or_spoilt_takes_nothing_from_the_process(
    left: bytes | None,
) -> None:
    life = stale()
    daemon = Daemon(life)
    first = only(daemon.sweep())
    life.host.memory = left
    report = daemon.sweep(60)
    assert only(report).until == first.until
    assert not report.checkpoint_lost
    saved, trouble = CheckpointStore(life.host.world().state_dir).load()
    assert (saved.absent, trouble) == (report.checkpoint.absent, "")


def test_what_somebody_else_wrote_meanwhile_counts() -> None:
    life = stale()
    daemon = Daemon(life)
    life.host.unwritable = {"memory"}
    daemon.sweep()
    life.host.unwritable.clear()
    freeze = Freeze(subject="*", by="root", reason="", since=Wall(life.host.wall), until=None)
    other = CheckpointStore(life.host.world().state_dir)
    other.save(replace(other.load()[0], freezes={"*": freeze}))
    assert daemon.sweep(300).checkpoint.freezes == {"*": freeze}
    assert only(daemon.sweep(300)).gate is WaitReason.FREEZE


def test_another_process_starts_with_what_is_in_the_file() -> None:
    life = stale()
    life.host.memory = b"{"
    report = Daemon(life).sweep()
    assert "waiting times start again" in report.checkpoint_lost


def test_what_an_earlier_version_wrote_is_read_under_its_former_names() -> None:
    life = stale()
    daemon = Daemon(life)
    daemon.sweep()
    document = json.loads(life.host.memory or b"")
    fields = document["memory"]
    fields["acquainted"], fields["stranger"] = fields.pop("has_baseline"), fields["engine"]
    assert fields["acquainted"]
    assert fields["stranger"]
    del fields["untrusted_engine"]
    life.host.memory = json.dumps(document).encode()
    checkpoint, problem = Daemon(life).reconciler.checkpoints.load()
    assert problem == ""
    assert checkpoint.has_baseline
    assert checkpoint.untrusted_engine == checkpoint.engine


@pytest.mark.parametrize("container", ["a", "a|b", "a%7Cb", "|", ""])
@pytest.mark.parametrize("fingerprint", ["f", "f|g", ""])
def test_drift_keys_survive_the_file_whatever_the_container_is_called(
    container: str, fingerprint: str
) -> None:
    key = DriftKey("stale-allocation", ContainerName(container), SlotId("1.0"))
    repair = Repair(times=1, last=Boot(1.0), not_before=Boot(2.0))
    checkpoint = Checkpoint(
        sightings={key: DriftFirstSeen(first=Boot(1.0), fingerprint=fingerprint)},
        repairs={RepairKey(key, fingerprint): repair},
        undone={"1": Undone(by="ada", since=Wall(1.0), drifts={key: fingerprint})},
    )
    state_dir = stale().host.world().state_dir
    CheckpointStore(state_dir).save(checkpoint)
    assert CheckpointStore(state_dir).load() == (checkpoint, "")


def test_a_container_with_a_separator_in_its_name_waits_across_a_restart_and_is_released() -> None:
    life = Life(config()).book("1.0", name=ContainerName("a|b"), allocated_at_ago=7200)
    first = only(Daemon(life).sweep())
    assert (first.outcome, first.drift.key.container) == (Outcome.WAITING, "a|b")
    settle_s = life.config.policy.absence_grace_s + life.config.policy.settle_s
    assert only(Daemon(life).sweep(settle_s)).outcome is Outcome.DONE
    assert life.host.bookings() == set()
