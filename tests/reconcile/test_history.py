"""Entries of the history: complete, closed late, and read again whatever a crash left."""

from __future__ import annotations

from ds01d.model.drift import Outcome
from ds01d.model.history import Phase
from ds01d.reconcile.history import read_entries
from tests.support.build import NAME
from tests.support.repairs import at_write, history, only, stale


def test_an_entry_that_cannot_be_closed_does_not_undo_what_was_done() -> None:
    one = stale()
    at_write(one, lambda: one.host.unwritable.add("history"))
    report = one.sweep()
    assert only(report).outcome is Outcome.DONE
    assert any("history" in trouble for trouble in report.warnings)
    assert one.host.bookings() == set()


def test_the_history_holds_before_after_and_evidence() -> None:
    one = stale()
    one.sweep()
    begun, closed = history(one)[-2:]
    assert (begun.phase, closed.phase, begun.id) == (Phase.BEGIN, Phase.DONE, closed.id)
    assert begun.before is not None
    assert begun.after is not None
    assert begun.before.slots["1.0"] is not None
    assert begun.before.slots["1.0"].containers == (NAME,)
    assert begun.after.slots["1.0"] is not None
    assert begun.after.slots["1.0"].containers == ()
    assert set(begun.before.metadata) == {NAME}
    assert begun.after.metadata == {NAME: None}
    assert begun.evidence


def test_a_line_cut_short_is_left_out_of_the_history() -> None:
    one = stale()
    one.sweep()
    whole = [*one.host.history, one.host.history[0][:20]]
    assert list(read_entries(whole)) == history(one)
