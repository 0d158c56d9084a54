"""The moments at which the next passes come, as real passes decide them."""

from __future__ import annotations

import pytest

from ds01d.daemon.dirty_set import EVERYTHING
from ds01d.daemon.wakeups import Wakeups
from ds01d.model.drift import Outcome, WaitReason
from ds01d.model.primitives import Boot, ContainerName
from ds01d.reconcile.reconciler import Reconciler
from ds01d.reconcile.report import Report
from tests.support.build import NAME, OTHER, Life, config, two_by_two

ONE = frozenset((ContainerName(NAME),))
NAMES = frozenset((ContainerName(NAME), ContainerName(OTHER)))
HOLD_S = 900.0
"""As the limits of the host have it."""


@pytest.fixture
def life() -> Life:
    """Two booked containers that run. When one stops, its metadata is written two seconds later."""
    one = Life(config(settle_s=2.0)).book("1.0").run("MIG-1-0")
    return one.book("1.1", name=OTHER).run("MIG-1-1", name=OTHER).after(120.0)


def now(one: Life) -> Boot:
    return Boot(one.host.boot)


def look(one: Life, *names: str, most: int | None = None) -> Report:
    """Make a pass over these names, or a sweep."""
    reconciler = Reconciler(one.host.world(), one.config, most_records=most)
    return reconciler.run(frozenset(map(ContainerName, names)) or None)


def test_what_is_held_has_its_moment_and_what_is_done_has_none(life: Life) -> None:
    moments = Wakeups()
    moments.add_report(look(life))
    assert moments.next_wakeup(now(life)) is None
    moments.add_report(look(life.stop(), NAME))
    assert moments.next_wakeup(now(life)) == (2.0, ONE)
    life.host.pass_time(2.0)
    moments.add_report(look(life, NAME))
    assert moments.next_wakeup(now(life)) == (HOLD_S - 2.0, ONE)


def test_all_whose_moment_has_passed_go_together(life: Life) -> None:
    moments = Wakeups()
    moments.add_report(look(life.stop(), NAME))
    life.host.pass_time(1.0)
    moments.add_report(look(life.stop(OTHER), OTHER))
    assert moments.next_wakeup(now(life)) == (1.0, ONE)
    life.host.pass_time(60.0)
    assert moments.next_wakeup(now(life)) == (-59.0, NAMES)


def test_a_sweep_forgets_what_it_does_not_find_again(life: Life) -> None:
    moments = Wakeups()
    moments.add_report(look(life.stop(), NAME))
    moments.add_report(look(life.start_now("MIG-1-0")))
    assert list(moments) == []


def test_what_concerns_the_host_asks_for_a_sweep(life: Life) -> None:
    moments = Wakeups()
    life.set_gpu(migs=two_by_two().migs[:1])
    report = look(life)
    moments.add_report(report)
    assert any(one.drift.container is None for one in report.drifts)
    told = moments.next_wakeup(now(life))
    assert told is not None
    assert told[1] is EVERYTHING


def test_of_very_much_metadata_some_is_written_now_and_the_rest_at_once_after(life: Life) -> None:
    life.stop().stop(OTHER)
    look(life)
    life.host.pass_time(2.0)
    moments = Wakeups()
    report = look(life, most=1)
    moments.add_report(report)
    done, waits = sorted(report.drifts, key=lambda one: one.outcome is not Outcome.DONE)
    assert done.outcome is Outcome.DONE
    assert (waits.outcome, waits.gate, waits.reason) == (
        Outcome.WAITING,
        WaitReason.PROOF,
        "next pass: too many metadata files for one",
    )
    assert waits.drift.container is not None
    assert moments.next_wakeup(now(life)) == (0.0, frozenset((waits.drift.container,)))
    assert [one.outcome for one in look(life, *NAMES, most=1).drifts] == [Outcome.DONE]
    assert look(life).is_consistent
