"""Transactions on the books: whole or not at all, and nothing of others is lost by one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ds01d.decide.bookings import Bookings
from ds01d.errors import BooksChanged, BooksUnreadable, WriteFailed
from ds01d.model.books import MISSING, AllocatorState, Unreadable
from ds01d.model.primitives import ContainerName, Digest, SlotId, Source, UserName
from ds01d.reconcile.transactions import Transactions
from tests.support.build import four_slots
from tests.support.world import Host

NAME, OTHER = ContainerName("train._.1001"), ContainerName("b._.1002")
ALICE, SLOT = UserName("alice"), SlotId("1.0")


def do_nothing() -> None:
    pass


def fail() -> None:
    raise WriteFailed("no space left on device")


@pytest.fixture
def host() -> Host:
    return Host(state=four_slots())


@pytest.mark.parametrize("source", [Source.STATE, Source.METADATA])
def test_books_that_cannot_be_read_are_no_empty_books(host: Host, source: Source) -> None:
    host.failing.add(source)
    with pytest.raises(BooksUnreadable, match=f"{source} does not answer"):
        Transactions(host.world()).read_books()


@pytest.mark.parametrize("digest", ["broken", MISSING])
def test_only_for_a_missing_state_the_command_of_a_new_host_is_named(
    host: Host, digest: str
) -> None:
    host.state = Unreadable(reason="no value", digest=Digest(digest))
    with pytest.raises(BooksUnreadable) as caught:
        Transactions(host.world()).read_books()
    assert ("sync" in str(caught.value)) == (digest == MISSING)


def test_what_fails_after_the_state_was_written_restores_it(host: Host) -> None:
    transactions = Transactions(host.world())
    before = host.state

    def book(books: Bookings) -> None:
        transactions.write_state(books, books.with_booking(NAME, SLOT, ALICE), fail)

    with pytest.raises(WriteFailed, match="no space left"):
        transactions.apply_change(book)
    assert host.bookings() == set()
    assert isinstance(host.state, AllocatorState)
    assert isinstance(before, AllocatorState)
    assert host.state.slots == before.slots


def test_bookings_that_a_replaced_file_had_are_in_the_books_that_are_changed(host: Host) -> None:
    assert isinstance(host.state, AllocatorState)
    host.state = replace(host.state, merge=frozenset({(OTHER, SlotId("1.1"))}))
    transactions = Transactions(host.world())
    read = transactions.apply_change(lambda books: books)
    transactions.write_state(read, read.with_booking(NAME, SLOT, ALICE), do_nothing)
    assert host.bookings() >= {(NAME, "1.0")}


def test_a_change_is_tried_again_on_the_books_that_another_writer_left(host: Host) -> None:
    attempts: list[Digest] = []

    def change(books: Bookings) -> str:
        attempts.append(books.state.digest)
        if len(attempts) == 1:
            host.state = replace(four_slots(_1_1=OTHER), digest=Digest("theirs"))
            raise BooksChanged("changed")
        return "done"

    assert Transactions(host.world()).apply_change(change) == "done"
    assert attempts[1] == "theirs"


def test_a_writer_who_never_rests_ends_it(host: Host) -> None:
    def change(_: Bookings) -> None:
        raise BooksChanged("changed")

    with pytest.raises(BooksChanged, match="another writer changed the books 5 times"):
        Transactions(host.world()).apply_change(change)
