"""Entries that a killed process left open are closed by what the books show."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ds01d.errors import Ds01Error
from ds01d.model.checkpoint import Checkpoint
from ds01d.model.history import BooksState, Entry, Phase, record_slot
from ds01d.model.primitives import ContainerName, SlotId, Source
from ds01d.reconcile.history import append_entries, read_entries
from ds01d.reconcile.recovery import RecoveryResult, recover_entries
from tests.support.build import NAME, books, four_slots, record, slot
from tests.support.world import Host

TRAIN = ContainerName(NAME)
BOOKED, FREE = slot("1.0", NAME), slot("1.0")
RELEASE = Entry(
    id="1",
    at="then",
    phase=Phase.BEGIN,
    kind="stale-allocation",
    container=NAME,
    slot="1.0",
    taken=((ContainerName(NAME), SlotId("1.0")),),
    before=BooksState(slots={"1.0": record_slot(BOOKED)}),
    after=BooksState(slots={"1.0": record_slot(FREE)}),
)


def recover(host: Host) -> tuple[RecoveryResult, list[tuple[Phase, str]]]:
    """The result, and how the entry was closed."""
    append_entries(host.world(), [RELEASE])
    recovered = recover_entries(host.world(), Checkpoint(), lambda _: None)
    closed = [e for e in read_entries(host.history) if e.phase is not Phase.BEGIN]
    return recovered, [(entry.phase, entry.reason) for entry in closed]


@pytest.mark.parametrize(
    ("now", "closed"),
    [
        (FREE, (Phase.DONE, "")),
        (BOOKED, (Phase.FAILED, "the process ended before it made the change")),
        (slot("1.0", "x._.1"), (Phase.DONE, "")),
        (
            slot("1.0", NAME, "x._.1"),
            (Phase.FAILED, "the process ended, and the books were changed before recovery"),
        ),
    ],
    ids=["as after", "as before", "released, and somebody else booked", "neither"],
)
def test_a_release_is_closed_by_its_slot(now: object, closed: tuple[Phase, str]) -> None:
    host = Host(state=books(now))  # type: ignore[arg-type]
    recovered, outcomes = recover(host)
    assert outcomes == [closed]
    assert not recovered.warnings


def test_while_the_state_cannot_be_read_it_stays_open_and_is_reported() -> None:
    host = Host(state=four_slots(), failing={Source.STATE})
    recovered, outcomes = recover(host)
    assert outcomes == []
    assert recovered.warnings == (
        "cannot finish what a killed process left open: state does not answer",
    )


def test_nothing_is_read_twice_and_nothing_new_is_nothing_to_do() -> None:
    host = Host(state=books(FREE))
    recover(host)
    lines = len(host.history)
    again = recover_entries(host.world(), Checkpoint(), lambda _: None)
    assert again == RecoveryResult(checkpoint=Checkpoint())
    assert len(host.history) == lines


def test_an_undo_is_finished_file_by_file() -> None:
    """The state is written, its record still to be removed."""
    host = Host(state=books(FREE), records={TRAIN: record()})
    text = host.world().metadata.read_text(TRAIN)
    undo = replace(
        RELEASE,
        undoes=("0",),
        before=replace(RELEASE.sides[0], metadata={NAME: text}),
        after=replace(RELEASE.sides[1], metadata={NAME: None}),
    )
    append_entries(host.world(), [undo])
    assert not recover_entries(host.world(), Checkpoint(), lambda _: None).warnings
    assert host.records == {}
    assert [e.phase for e in read_entries(host.history)] == [Phase.BEGIN, Phase.DONE]


def test_a_checkpoint_that_cannot_be_saved_leaves_the_entry_open() -> None:
    host = Host(state=books(FREE))
    append_entries(host.world(), [RELEASE])

    def fail(_: Checkpoint) -> None:
        raise Ds01Error("no space left on device")

    recovered = recover_entries(host.world(), Checkpoint(), fail)
    assert recovered.warnings == ("no space left on device",)
    assert all(entry.phase is Phase.BEGIN for entry in read_entries(host.history))
