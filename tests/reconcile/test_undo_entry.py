"""What an undo leaves behind: an entry that can be undone itself, and a guard until it is."""

from __future__ import annotations

from dataclasses import replace

from ds01d.decide.undo_choice import Reversal
from ds01d.model.checkpoint import Checkpoint, Undone
from ds01d.model.history import UNDO, BooksState, Entry, Phase
from ds01d.model.primitives import ContainerName, Digest, SlotId, Source, Unknown, Wall
from ds01d.reconcile.undo_entry import build_entry, complete_checkpoint, guard_undone
from tests.support.build import NAME, Life, record

TRAIN, SLOT = ContainerName(NAME), SlotId("1.0")
GUARD = Undone(by="ada", since=Wall(0.0), records={TRAIN: Digest("")})
RELEASE = Entry(id="1", at="then", phase=Phase.BEGIN, kind="stale-allocation", container=NAME)
REVERSAL = Reversal(
    undoes=(RELEASE,),
    before=BooksState(metadata={NAME: None}),
    after=BooksState(metadata={NAME: "x"}),
    given=frozenset({(TRAIN, SLOT)}),
    hold=GUARD,
)


def make_entry(reversal: Reversal = REVERSAL) -> Entry:
    snapshot = Life().book("1.0").plan().decision.snapshot
    return build_entry("2", reversal, snapshot, "ada", None)


def test_the_entry_names_what_it_undoes_and_who_asked_for_it() -> None:
    entry = make_entry()
    assert (entry.action, entry.undoes, entry.by) == (UNDO, ("1",), "ada")
    assert (entry.kind, entry.change) == ("stale-allocation", "2")
    assert (entry.before, entry.after) == (REVERSAL.before, REVERSAL.after)
    assert entry.given == ((TRAIN, SLOT),)


def test_what_is_undone_is_guarded_and_what_comes_back_is_no_creation() -> None:
    checkpoint = guard_undone(Checkpoint(), REVERSAL, make_entry())
    assert dict(checkpoint.undone) == {"2": GUARD}
    assert checkpoint.appeared[TRAIN].inherited


def test_undoing_an_undo_lets_go_of_what_it_guarded() -> None:
    guarded = Checkpoint(undone={"1": GUARD, "0": GUARD})
    again = guard_undone(guarded, replace(REVERSAL, hold=None), make_entry())
    assert set(again.undone) == {"0"}


def test_the_guard_has_the_digests_of_the_records_as_they_were_written() -> None:
    guarded = Checkpoint(undone={"2": GUARD})
    written = record(NAME)
    done = complete_checkpoint(guarded, REVERSAL, "2", {TRAIN: written})
    assert done.undone["2"].records == {TRAIN: written.digest}
    removed = complete_checkpoint(guarded, REVERSAL, "2", {})
    assert removed.undone["2"].records == {TRAIN: None}
    unread = Unknown(source=Source.METADATA, reason="hangs")
    assert complete_checkpoint(guarded, REVERSAL, "2", unread).undone == guarded.undone
