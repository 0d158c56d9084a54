"""The open drifts of the host are those of a sweep, whatever passes over names came between."""

from __future__ import annotations

import pytest

from ds01d.daemon.open_drifts import OpenDrifts
from ds01d.model.drift import Outcome
from ds01d.model.primitives import ContainerName
from ds01d.reconcile.reconciler import Reconciler
from ds01d.reconcile.report import Report
from tests.support.build import NAME, OTHER, Life, books, config, four_slots, slot


@pytest.fixture
def life() -> Life:
    """Two old bookings without a container; their absence is not proven yet."""
    return Life(config()).book("1.0").book("1.1", name=OTHER)


def run_pass(life: Life, *names: str) -> Report:
    """A pass over these names, or a sweep."""
    reconciler = Reconciler(life.host.world(), life.config)
    return reconciler.run(frozenset(map(ContainerName, names)) or None)


def containers(drifts: OpenDrifts) -> set[str]:
    return {key.container for key in drifts.by_key}


def test_a_pass_over_one_name_leaves_the_drifts_of_the_others(life: Life) -> None:
    drifts = OpenDrifts().merge(run_pass(life))
    assert containers(drifts) == {NAME, OTHER}
    life.run("MIG-1-0")
    drifts = drifts.merge(run_pass(life, NAME))
    assert containers(drifts) == {OTHER}
    life.run("MIG-1-1", name=OTHER)
    assert not drifts.merge(run_pass(life)).by_key


def test_a_drift_of_which_nothing_is_left_is_gone_with_the_pass_over_its_name(life: Life) -> None:
    drifts = OpenDrifts().merge(run_pass(life))
    life.host.state = four_slots(_1_1=OTHER)
    del life.host.records[ContainerName(NAME)]
    drifts = drifts.merge(run_pass(life, NAME))
    assert containers(drifts) == {OTHER}


def test_a_repaired_drift_is_not_open_and_listed_for_one_pass(life: Life) -> None:
    drifts = OpenDrifts().merge(run_pass(life))
    life.host.pass_time(130.0)  # longer than the absence grace
    drifts = drifts.merge(run_pass(life, NAME))
    assert [gated.outcome for gated in drifts.repaired] == [Outcome.DONE]
    assert containers(drifts) == {OTHER} == {key.container for key in drifts.first_seen}
    assert not drifts.merge(run_pass(life, OTHER, NAME)).by_key


def test_it_is_known_since_when_a_drift_is_open(life: Life) -> None:
    began = life.host.boot
    drifts = OpenDrifts().merge(run_pass(life))
    life.host.pass_time(30.0)
    for later in (drifts.merge(run_pass(life)), OpenDrifts().merge(run_pass(life))):
        assert set(later.first_seen.values()) == {began}, "from the checkpoint after a restart"


def test_a_slot_that_moves_and_one_that_is_new_in_its_place_are_repaired_in_one_pass() -> None:
    """A GPU comes back before the others: all slots move, and the first places get new ones."""
    life = Life(config())
    life.host.state = books(*(slot(f"0.{part}", uuid=f"MIG-1-{part}") for part in (0, 1)))
    drifts, repaired = OpenDrifts(), []
    for _ in range(4):
        drifts = drifts.merge(run_pass(life))
        repaired += [gated.drift.slot for gated in drifts.repaired]
        life.host.pass_time(130.0)
    assert sorted(repaired, key=str) == ["0.0", "0.0", "0.1", "0.1"]
    assert not drifts.by_key
