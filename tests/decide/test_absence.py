"""Absence: what an NVML sample proves, and from when on."""

from __future__ import annotations

from dataclasses import replace

from ds01d.decide.decision import decide
from ds01d.model.devices import Inventory
from ds01d.model.holding import Free, Proof, Undecided, Verdict
from ds01d.model.primitives import Boot, ContainerName
from ds01d.reconcile.checkpoint_store import CheckpointStore
from tests.support.build import HOUR, NAME, Life

TRAIN = f"id-{NAME}"
SETTLE_S = 5.0


def removed(seconds_ago: float) -> Life:
    """A container that used its device until it was removed; its process is still in the sample."""
    life = Life().book("1.0").run("MIG-1-0").use("MIG-1-0", TRAIN).after(HOUR).remove()
    life.host.pass_time(seconds_ago)
    return life


def verdict(life: Life, *, sample_age_s: float) -> Verdict:
    report = life.plan()
    seen, gpu = report.decision.snapshot, report.decision.snapshot.gpu
    assert isinstance(gpu, Inventory)
    older = replace(gpu, sampled_at=Boot(life.host.boot - sample_age_s))
    memory, _ = CheckpointStore(life.host.world().state_dir).load()
    return decide(replace(seen, gpu=older), memory, life.config).verdicts[ContainerName(NAME)]


def test_a_sample_from_before_the_end_does_not_speak_against_it_while_it_waits() -> None:
    """Or nothing would look again when the settle time is over, until the next sweep."""
    said = verdict(removed(1.0), sample_age_s=2.0)
    assert isinstance(said, Free)
    assert (said.proof, said.due) == (Proof.DESTROYED, said.since + SETTLE_S)


def test_a_sample_from_after_the_end_does() -> None:
    assert isinstance(verdict(removed(1.0), sample_age_s=0.5), Undecided)


def test_nothing_is_due_by_a_sample_from_before_the_end() -> None:
    assert isinstance(verdict(removed(SETTLE_S), sample_age_s=SETTLE_S + 1.0), Undecided)
