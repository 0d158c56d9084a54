"""Counters of a slot that do not follow from its containers are wrong: one drift for each slot."""

from __future__ import annotations

from dataclasses import replace

from ds01d.decide.diff_counters import diff_counters
from ds01d.decide.index import BooksIndex
from ds01d.model.drift import Action, Kind
from ds01d.model.holding import Undecided
from ds01d.model.primitives import ContainerName, Source
from tests.support.build import NAME, OTHER, Life, books, slot


def index(*names: str, users: dict[str, int]) -> BooksIndex:
    """A host on which alice's container is in slot 1.0."""
    life = Life().book("1.0").run("MIG-1-0")
    life.host.state = books(slot("1.0", *names, users=users), slot("1.1"))
    made = life.plan().decision.index
    assert made is not None
    return made


def test_counters_that_follow_from_the_containers_are_no_drift() -> None:
    assert list(diff_counters(index(NAME, users={"alice": 1}), {})) == []


def test_counters_that_do_not_are_one_for_their_slot() -> None:
    (drift,) = diff_counters(index(NAME, users={"alice": 2, "eve": 1}), {})
    assert (drift.kind, drift.action) == (Kind.WRONG_COUNT, Action.RECOUNT)
    assert (drift.slot, drift.container) == ("1.0", None)


def test_a_double_listing_is_that_and_not_a_wrong_counter_too() -> None:
    (drift,) = diff_counters(index(NAME, NAME, users={"alice": 2}), {})
    assert (drift.kind, drift.action) == (Kind.DUPLICATE_ALLOCATION, Action.RECOUNT)
    assert NAME in drift.reason


def test_a_pass_over_other_names_looks_at_other_slots() -> None:
    made = index(NAME, users={})
    partial = replace(made, snapshot=replace(made.snapshot, names=frozenset({NAME})))
    unknown = Undecided(needs=Source.NVML, reason="")
    assert list(diff_counters(partial, {ContainerName(NAME): unknown}))
    assert not list(diff_counters(partial, {ContainerName(OTHER): unknown}))
