"""The books with one booking more or less: what others have in them stays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ds01d.decide.bookings import Bookings, revert_change
from ds01d.model.books import AllocatorState, BadRecord
from ds01d.model.primitives import ContainerName, Digest, SlotId, UserName, Wall
from tests.support.build import books, four_slots, record, slot

ME, OTHER = UserName("alice"), UserName("bob")
NAME = ContainerName("new._.1001")
NOW = Wall(1_800_000_000.0)


def ledger(state: AllocatorState, **users: str | None) -> Bookings:
    records: dict[ContainerName, Any] = {
        ContainerName(name): record(name, user=UserName(user))
        if user
        else BadRecord(
            container=ContainerName(name), reason="", digest=Digest(""), replaceable=True
        )
        for name, user in users.items()
    }
    return Bookings(state=state, records=records)


def test_a_booking_more_and_one_less_leave_the_books_as_they_were() -> None:
    books_before = ledger(four_slots(_0_0="a"), a="alice")
    more = books_before.with_booking(NAME, SlotId("0.0"), OTHER)
    assert dict(more.slots[SlotId("0.0")].users) == {"alice": 1, "bob": 1}
    less = replace(books_before, state=more).without_booking(NAME, OTHER)
    assert less == books_before.state


def test_a_counter_whose_metadata_is_lost_stays() -> None:
    state = books(slot("0.0", "a", "b", users={"alice": 1, "bob": 1}))
    books_before = ledger(state, a="alice", b=None)
    more = books_before.with_booking(NAME, SlotId("0.0"), ME)
    assert dict(more.slots[SlotId("0.0")].users) == {"alice": 2, "bob": 1}
    less = books_before.without_booking(ContainerName("a"), ME)
    assert dict(less.slots[SlotId("0.0")].users) == {"bob": 1}


def test_taking_back_leaves_what_another_writer_added() -> None:
    before = ledger(four_slots(), x="bob")
    after = before.with_booking(NAME, SlotId("0.0"), ME)
    assert revert_change(after, before, after) == before.state
    theirs = replace(
        after.slots[SlotId("0.0")],
        containers=(NAME, ContainerName("x")),
        users={"alice": 1, "bob": 1},
    )
    written = replace(after, slots={**after.slots, SlotId("0.0"): theirs})
    back = revert_change(written, before, after)
    assert back.slots[SlotId("0.0")].containers == ("x",)
    assert dict(back.slots[SlotId("0.0")].users) == {"bob": 1}
