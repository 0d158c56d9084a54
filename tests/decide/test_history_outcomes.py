"""Which entries of a history stand: closed as done, and not undone by an undo that stands."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ds01d.decide.history_outcomes import find_newer, find_undone, join_entries
from ds01d.model.history import Entry, HistoryEntry, Phase


def begin(entry: str, *undoes: str, container: str = "a") -> Entry:
    return Entry(id=entry, at="", phase=Phase.BEGIN, container=container, undoes=undoes)


def close(entry: str, phase: Phase = Phase.DONE, reason: str = "") -> Entry:
    return Entry(id=entry, at="", phase=phase, reason=reason)


def done(*entries: Entry) -> list[HistoryEntry]:
    return join_entries([line for entry in entries for line in (entry, close(entry.id))])


def test_an_entry_is_open_until_a_line_closes_it() -> None:
    lines = [begin("1"), begin("2"), close("1"), close("2", Phase.FAILED, "full"), begin("3")]
    assert [(item.entry.id, item.closed, item.failure) for item in join_entries(lines)] == [
        ("1", Phase.DONE, ""),
        ("2", Phase.FAILED, "full"),
        ("3", None, ""),
    ]


def test_a_line_that_closes_what_was_rotated_away_is_ignored() -> None:
    assert join_entries([close("0")]) == []


@given(st.integers(1, 6))
def test_each_undo_of_an_undo_turns_it_round(depth: int) -> None:
    chain = [begin("0"), *(begin(str(n), str(n - 1)) for n in range(1, depth + 1))]
    undone = find_undone(done(*chain))
    standing = [str(n) for n in range(depth + 1) if str(n) not in undone]
    assert standing == [str(n) for n in range(depth, -1, -2)][::-1]


def test_an_undo_that_failed_or_is_open_undoes_nothing() -> None:
    (first, second) = done(begin("1"), begin("2", "1"))
    for closed in (None, Phase.FAILED):
        assert find_undone([first, replace(second, closed=closed)]) == {}


def test_what_is_newer_counts_only_for_the_same_containers_and_while_it_stands() -> None:
    first, other = begin("1"), begin("2", container="b")
    again, back = begin("3"), begin("4", "3")
    assert list(find_newer(done(first), done(first, other))) == []
    newer = list(find_newer(done(first), done(first, other, again)))
    assert [item.entry.id for item in newer] == ["3"]
    assert list(find_newer(done(first), done(first, other, again, back))) == []
