"""Lookups by name: each answers for the container that has the name now."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ds01d.decide.index import BooksIndex
from ds01d.model.books import AllocatorState
from ds01d.model.primitives import ContainerName, SlotId, UserName
from tests.support.build import NAME, OTHER, Life, record

NEW = ContainerName("new._.1001")
BOB = UserName("bob")


def index(life: Life) -> BooksIndex:
    made = life.plan().decision.index
    assert made is not None
    return made


def two() -> Life:
    """Two containers run on their slots; the second is bob's."""
    life = Life().book("1.0").run("MIG-1-0").book("1.1", name=OTHER, user=BOB)
    return life.run("MIG-1-1", name=OTHER).after(60.0)


def test_bookings_are_counted_by_container_and_slot() -> None:
    assert index(two()).count_bookings() == 2
    assert index(two().list_in("0.0")).count_bookings() == 3


def test_after_a_swap_each_name_answers_for_the_container_that_has_it() -> None:
    life = two().rename(NAME, "tmp").rename(OTHER, NAME).rename("tmp", OTHER)
    made = index(life)
    assert made.find_booked_slots(NAME) == {SlotId("1.1")}
    assert made.find_booked_slots(ContainerName(OTHER)) == {SlotId("1.0")}
    assert (made.find_user(NAME), made.find_user(ContainerName(OTHER))) == (BOB, "alice")
    assert (made.find_booker(NAME), made.find_booker(ContainerName(OTHER))) == ("alice", BOB)


def test_what_is_booked_again_under_the_new_name_counts_with_the_old() -> None:
    life = two().rename(NAME, NEW).list_in("0.0", name=NEW)
    made = index(life)
    assert made.find_booked_slots(NEW) == {SlotId("0.0"), SlotId("1.0")}
    assert made.renames.name_in_books(NEW) == NAME


def test_a_booking_that_was_overwritten_counts_where_its_slot_exists() -> None:
    life = Life().run("MIG-1-0").after(60.0)
    assert isinstance(life.host.state, AllocatorState)
    merge = frozenset({(NAME, SlotId("1.0")), (NAME, SlotId("9.9"))})
    life.host.state = replace(life.host.state, merge=merge)
    made = index(life)
    assert made.find_booked_slots(NAME) == {SlotId("1.0")}
    assert made.booked_slots == {}


@pytest.mark.parametrize("booked", [True, False])
def test_a_container_is_managed_if_it_is_labelled_named_or_booked(*, booked: bool) -> None:
    life = Life().run("MIG-1-0", name="plain", labels={})
    if booked:
        life.list_in("1.0", name="plain")
    made = index(life)
    plain = made.containers.get(ContainerName("plain"))
    assert plain is not None
    assert made.is_managed(plain) is booked


def test_the_user_of_a_record_counts_for_its_name_only() -> None:
    life = two()
    life.host.records[NAME] = record(NAME, user=BOB)
    assert index(life).find_user(NAME) == BOB
