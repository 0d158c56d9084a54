"""Retention ends only by a known stop and by limits that were read, and never on a slot in use."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ds01d.decide.deadlines import Deadlines
from ds01d.decide.retention import decide_stopped
from ds01d.decide.subject import gather_subject
from ds01d.model.containers import State
from ds01d.model.holding import Free, Holds, Proof, Undecided, Verdict, VerdictReason
from ds01d.model.limits import HoldRule, Limits
from ds01d.model.primitives import Source, Unknown, Wall
from tests.support.build import LIMITS, NAME, Life, process
from tests.support.repairs import watched

FAILED = Unknown(source=Source.LIMITS, reason="no such group")


def limit(seconds: float | None) -> Limits:
    return replace(LIMITS, unknown_user=HoldRule(seconds=seconds, source="defaults"), holds={})


def decide(life: Life) -> Verdict:
    """The verdict on a stopped container, by this rule alone."""
    index = life.plan().decision.index
    assert index is not None
    subject = gather_subject(NAME, index)
    assert subject.container is not None
    clock = Deadlines(index.snapshot, index.checkpoint)
    return decide_stopped(subject, subject.container, index, clock)


@pytest.mark.parametrize("hold_s", [0.0, 59.0, 60.0, 61.0, 200.0, 900.0])
@pytest.mark.parametrize("passed_s", [0.0, 1.0, 139.0, 140.0, 200.0])
def test_it_ends_when_the_hold_of_its_user_is_over(hold_s: float, passed_s: float) -> None:
    life = watched().stop()
    life.host.limits = limit(hold_s)
    life.after(60.0).host.pass_time(passed_s)
    verdict = decide(life)
    assert isinstance(verdict, Holds if 60.0 + passed_s < hold_s else Free)
    if isinstance(verdict, Free):
        assert verdict.proof is Proof.EXPIRED
        assert verdict.since == life.host.boot - 60.0 - passed_s + hold_s


def test_decision_3_after_a_gap_it_lasts_for_the_absence_grace_at_least() -> None:
    life = watched().stop()
    life.host.limits = limit(0.0)
    life.after(60.0).host.pass_time(10_000.0)
    verdict = decide(life)
    assert isinstance(verdict, Holds)
    assert verdict.until == life.host.boot + life.config.policy.absence_grace_s


@pytest.mark.parametrize("limits", [FAILED, limit(None)], ids=["unread", "for ever"])
def test_without_an_end_in_the_limits_it_holds_for_ever(limits: Limits | Unknown) -> None:
    life = watched().stop().after(60.0)
    if isinstance(limits, Unknown):
        life.fail(Source.LIMITS)
    else:
        life.host.limits = limits
    life.host.pass_time(1e7)
    verdict = decide(life)
    assert isinstance(verdict, Holds)
    assert verdict.slots == {"1.0"}
    assert verdict.until is None


def test_without_a_stop_time_nothing_is_decided() -> None:
    assert isinstance(decide(watched().stop(finished=None)), Undecided)


def test_one_that_never_started_holds_through_its_creation_whatever_the_limits_say() -> None:
    life = watched()
    life.change(state=State.CREATED, started=None, created=Wall(life.host.wall))
    life.host.limits = limit(0.0)
    verdict = decide(life)
    assert isinstance(verdict, Holds)
    assert verdict.until == life.host.boot + life.config.policy.creation_grace_s


def test_nothing_booked_and_nothing_recorded_is_nothing_to_hold() -> None:
    verdict = decide(Life().run("MIG-1-0").stop())
    assert isinstance(verdict, Holds)
    assert (verdict.slots, verdict.why) == (frozenset(), VerdictReason.HOLD)


@pytest.mark.parametrize("blind", [False, True])
def test_over_but_in_use_or_perhaps_in_use_it_is_blocked(*, blind: bool) -> None:
    life = watched().stop().after(60.0)
    life.host.limits = limit(0.0)
    if blind:
        life.set_gpu(blind={"MIG-1-0": "not supported"})
    else:
        assert life.host.gpu is not None
        life.set_gpu(processes=(process("MIG-1-0", f"id-{NAME}"),))
    verdict = decide(life)
    assert isinstance(verdict, Free)
    assert verdict.blocked
