"""What a pass leaves: one outcome for each due drift, and a checkpoint without what was done."""

from __future__ import annotations

from ds01d.config import Config
from ds01d.decide.decision import Decision
from ds01d.model.drift import DriftKey, Outcome
from ds01d.model.primitives import Boot
from ds01d.reconcile.pass_results import apply_results, build_checkpoint
from ds01d.reconcile.repair import RepairResult
from tests.support.build import NAME
from tests.support.repairs import stale

CONFIG = Config()
NOBODY_LATER: frozenset[DriftKey] = frozenset()


def decision() -> Decision:
    """One release is due."""
    return stale().plan().decision


def test_each_due_drift_has_the_outcome_of_its_repair() -> None:
    made, now = decision(), Boot(7.0)
    (drift,) = made.due_drifts
    for result, later, outcome, reason in (
        (RepairResult(done=(drift,), written=(drift,)), NOBODY_LATER, Outcome.DONE, ""),
        (RepairResult(failed={drift.key: "full"}), NOBODY_LATER, Outcome.FAILED, "full"),
        (RepairResult(postponed={drift.key: "it runs"}), NOBODY_LATER, Outcome.WAITING, "it runs"),
        (RepairResult(), NOBODY_LATER, Outcome.WAITING, "decided again in the next pass"),
        (RepairResult(), frozenset({drift.key}), Outcome.WAITING, "next pass: too many"),
    ):
        (gated,) = apply_results(made, result, later, now, CONFIG)
        assert gated.outcome is outcome
        assert gated.reason.startswith(reason)
        if outcome is not Outcome.DONE:
            wait_s = 0.0 if later else CONFIG.policy.settle_s
            assert gated.until == now + wait_s


def test_only_a_drift_that_is_done_is_seen_for_the_first_time_again() -> None:
    made = decision()
    (drift,) = made.due_drifts
    failed = RepairResult(failed={drift.key: "full"})
    assert drift.key in build_checkpoint(made, failed, CONFIG).sightings
    done = RepairResult(done=(drift,), written=(drift,))
    assert drift.key not in build_checkpoint(made, done, CONFIG).sightings


def test_what_was_written_counts_for_the_pace_also_if_it_failed_afterwards() -> None:
    made = decision()
    (drift,) = made.due_drifts
    result = RepairResult(written=(drift,), failed={drift.key: "its metadata was not removed"})
    assert len(build_checkpoint(made, result, CONFIG).released) == len(drift.taken) == 1
    assert build_checkpoint(made, RepairResult(), CONFIG).released == ()


def test_the_slots_are_remembered_with_their_devices_once_they_are_in_the_file() -> None:
    made = decision()
    assert made.index is not None
    checkpoint = build_checkpoint(made, RepairResult(), CONFIG)
    assert checkpoint.slots == made.index.table.device_of
    assert NAME not in checkpoint.appeared or checkpoint.appeared == made.checkpoint.appeared
