"""When a name was there, gone, destroyed or without labels, as lists of Docker show it."""

from __future__ import annotations

import pytest

from ds01d.model.containers import Destroyed
from ds01d.model.drift import Kind, Outcome
from ds01d.model.primitives import Boot, Source
from ds01d.reconcile.reconciler import Reconciler
from tests.support.build import NAME, Life, container
from tests.support.repairs import memory, watched

TRAIN = f"id-{NAME}"


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
