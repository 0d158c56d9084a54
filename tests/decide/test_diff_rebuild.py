"""An unreadable state is rebuilt late, whole, and from everything that is there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ds01d.model.books import Unreadable
from ds01d.model.drift import Outcome, WaitReason
from ds01d.model.primitives import Digest, Source
from ds01d.reconcile.reconciler import Reconciler
from tests.support.build import NAME, OTHER, four_slots
from tests.support.repairs import life, only, state, unreadable


def test_an_unreadable_state_is_rebuilt_after_the_settle_time_from_its_last_good_copy() -> None:
    one = life()
    good = state(one)
    unreadable(one)
    assert only(one.sweep()).gate is WaitReason.SETTLE
    one.host.pass_time(5.0)
    assert only(one.sweep()).outcome is Outcome.DONE
    assert state(one).slots == good.slots
    assert not one.sweep().drifts


def test_bytes_that_change_begin_the_wait_anew() -> None:
    one = unreadable(life())
    one.sweep()
    one.host.pass_time(4.0)
    assert isinstance(one.host.state, Unreadable)
    one.host.state = replace(one.host.state, digest=Digest("other"))
    one.sweep()
    one.host.pass_time(4.0)
    assert only(one.sweep()).gate is WaitReason.SETTLE


def test_a_state_that_was_well_in_between_begins_the_wait_anew() -> None:
    """A writer empties the file and fills it again: the same bytes, a minute later, are new."""
    one = life()
    good = state(one)
    unreadable(one).sweep()
    one.host.state = good
    one.host.pass_time(10.0)
    Reconciler(one.host.world(), one.config).run(frozenset({OTHER}))
    unreadable(one)
    assert only(one.sweep()).gate is WaitReason.SETTLE


def test_without_a_last_good_copy_it_is_rebuilt_from_docker_nvml_and_metadata() -> None:
    one = life()
    one.book("0.0", name=OTHER).run("MIG-0-0", name=OTHER).stop(OTHER).after(60.0)
    before = one.host.bookings()
    unreadable(one, last_good=False).sweep()
    one.host.pass_time(6.0)
    assert only(one.sweep()).outcome is Outcome.DONE
    assert one.host.bookings() == before
    assert {s.uuid for s in state(one).slots.values()} == {
        s.uuid for s in four_slots().slots.values()
    }
    one.host.pass_time(60.0)
    one.after(60.0)
    assert not one.sweep().drifts


def test_nothing_in_the_last_good_copy_is_lost_in_a_rebuild() -> None:
    """Reservations: whoever is in the copy stays, what is wrong in it is found afterwards."""
    one = life().remove(told=False)
    unreadable(one).sweep()
    one.host.pass_time(200.0)
    one.sweep()
    assert one.host.bookings() == {(NAME, "1.0")}


@pytest.mark.parametrize("source", [Source.DOCKER, Source.NVML, Source.METADATA])
def test_a_rebuild_waits_for_every_source_it_needs(source: Source) -> None:
    one = unreadable(life())
    one.fail(source).sweep()
    one.host.pass_time(200.0)
    gated = only(one.sweep())
    assert (gated.outcome, gated.gate) == (Outcome.WAITING, WaitReason.BLOCKED)
    assert str(source) in gated.reason
    assert only(one.mend().sweep()).outcome is Outcome.DONE


def test_without_nvml_on_purpose_and_without_a_copy_nobody_knows_the_slots() -> None:
    one = unreadable(life(), last_good=False)
    one.host.gpu = None
    one.sweep()
    one.host.pass_time(600.0)
    gated = only(one.sweep())
    assert gated.gate is WaitReason.BLOCKED
    assert "no last good copy" in gated.reason


def test_a_state_that_is_not_there_for_us_is_unknown_and_not_rebuilt() -> None:
    one = life().fail(Source.STATE)
    one.after(600.0)
    report = one.sweep()
    assert report.drifts == ()
    assert not report.is_consistent
