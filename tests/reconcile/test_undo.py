"""Taking back: every kind of change, exactly; never twice, never over something newer."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from ds01d.decide.history_outcomes import join_entries
from ds01d.decide.undo_choice import UndoRefusal
from ds01d.errors import Refused, WriteFailed
from ds01d.model.books import AllocatorState, Unreadable
from ds01d.model.drift import Kind, Outcome, WaitReason
from ds01d.model.history import HistoryEntry
from ds01d.model.primitives import Digest
from ds01d.reconcile.checkpoint_store import CheckpointStore
from ds01d.reconcile.history import read_entries
from ds01d.reconcile.undo import Undoer, UndoResult
from tests.decide.test_diff import DRIFTS, Fault, Place, host_with, live, places, running
from tests.support.build import Life, mig
from tests.support.world import Died, Host

Books = tuple[Any, ...]


def books(host: Host) -> Books:
    """The books, each value in them, but for the digests."""
    records = {n: replace(r, digest=Digest("")) for n, r in host.records.items()}
    if not isinstance(host.state, AllocatorState):
        return (host.state.digest,), records
    return (
        {i: replace(s, users=dict(s.users)) for i, s in host.state.slots.items()},
        host.state.mig_enabled,
    ), records


def done(life: Life) -> list[HistoryEntry]:
    """What was done and not by an undo, newest first."""
    return [
        d
        for d in reversed(join_entries(read_entries(life.host.history)))
        if d.done and not d.entry.undoes
    ]


def undo(life: Life, entry: str) -> UndoResult:
    return Undoer(life.host.world(), life.config).undo(entry, "ada")


def refusal(life: Life, entry: str) -> tuple[UndoRefusal, str]:
    """Why it is refused, which changes nothing; a dry run says the same."""
    before = books(life.host), life.host.memory, list(life.host.history)
    planned = Undoer(life.host.world(), life.config).plan(entry, "ada").refused
    found = undo(life, entry).refused
    assert found is not None
    assert found == planned
    assert (books(life.host), life.host.memory, list(life.host.history)) == before
    return found.why, found.reason


def repaired(fault: Fault) -> tuple[Life, Place, Books, Books]:
    """A host on which one drift was settled: the books right before and after."""
    life = host_with(1)
    (place,) = places(life, [fault.kind])
    fault.before(place)
    live(life, 300.0)
    fault.fault(place)
    before = books(life.host)
    for _ in range(60):
        if any(one.outcome is Outcome.DONE for one in life.sweep().drifts):
            return life, place, before, books(life.host)
        life.host.pass_time(30.0)
        before = books(life.host)
    raise AssertionError("never settled")


def broken() -> Fault:
    def spoil(p: Place) -> None:
        state = p.life.host.state
        assert isinstance(state, AllocatorState)
        p.life.host.state = Unreadable(
            reason="line 1: no value", digest=Digest("broken"), last_good=state
        )

    return Fault(
        kind=Kind.UNREADABLE_STATE, before=running, fault=spoil, mended=lambda p: bool(p.booked())
    )


def doubled() -> Fault:
    """The other form of this kind: a slot that lists somebody twice."""

    def twice(p: Place) -> None:
        p.write_slot(p.first, containers=(p.name, p.name), users={"alice": 2})

    return Fault(
        kind=Kind.DUPLICATE_ALLOCATION,
        before=running,
        fault=twice,
        mended=lambda p: True,
        about="slot",
    )


def swapped(p: Place) -> None:
    """The two MIG devices of this GPU change places: holders go along, and so do the records."""
    ids = [mig(p.g, 0, uuid=f"MIG-{p.g}-1"), mig(p.g, 1, uuid=f"MIG-{p.g}-0")]
    p.life.set_gpu(migs=tuple(ids))


def added(p: Place) -> None:
    gpus = p.life.host.gpu
    assert gpus is not None
    p.life.set_gpu(migs=(*gpus.migs, mig(p.g, 2)))


ADDED = Fault(
    kind=Kind.STALE_SLOT, before=running, fault=added, mended=lambda p: True, about="added"
)
EVERY = (*DRIFTS, broken(), doubled(), ADDED)
each_kind = pytest.mark.parametrize("fault", EVERY, ids=lambda fault: f"{fault.kind}-{fault.about}")


def test_every_kind_is_here() -> None:
    assert {fault.kind for fault in EVERY} == set(Kind)


@each_kind
def test_what_was_there_comes_back_and_stays_until_it_is_thawed(fault: Fault) -> None:
    life, _, before, after = repaired(fault)
    change = done(life)
    entry = change[0].entry.id
    planned = Undoer(life.host.world(), life.config).plan(entry, "ada")
    assert books(life.host) == after
    undone = undo(life, entry)
    assert undone.reversal == planned.reversal or undone.reversal is not None
    assert undone.warnings == ()
    assert books(life.host) == before

    last = join_entries(read_entries(life.host.history))[-1]
    assert (last.entry.id, last.done, last.entry.by) == (undone.entry, True, "ada")
    why, reason = refusal(life, entry)
    assert why is UndoRefusal.ALREADY_UNDONE
    assert undone.entry in reason

    for _ in range(60):  # also over a restart: each sweep is a fresh process
        report = life.sweep()
        assert books(life.host) == before
        assert {(one.outcome, one.gate) for one in report.drifts} == {
            (Outcome.WAITING, WaitReason.UNDONE)
        }
        assert all("undone by ada" in one.reason for one in report.drifts)
        life.host.pass_time(30.0)

    thaw(life, undone.entry)
    live(life, 60.0)
    assert books(life.host) == after


@each_kind
def test_an_undo_is_undone(fault: Fault) -> None:
    life, _, before, after = repaired(fault)
    entry = done(life)[0].entry.id
    first = undo(life, entry).entry
    second = undo(life, first)
    assert second.refused is None
    assert books(life.host) == after
    assert not life.sweep().drifts
    assert refusal(life, first)[0] is UndoRefusal.ALREADY_UNDONE
    third = undo(life, entry)
    assert third.refused is None
    assert books(life.host) == before
    live(life, 300.0)
    assert books(life.host) == before


@each_kind
def test_killed_at_any_write_it_is_taken_back_or_not(fault: Fault) -> None:
    """And then again by whoever recovers from that, also killed at any write."""
    points = 0
    for point in range(100):
        life, _, before, after = repaired(fault)
        entry = done(life)[0].entry.id
        life.host.die_at = life.host.steps + point
        try:
            undo(life, entry)
            break
        except Died:
            points += 1
        for again in range(point % 3):
            life.host.die_at = life.host.steps + again
            with suppress(Died):
                life.sweep()
        life.host.die_at = None
        report = life.sweep()
        told = join_entries(read_entries(life.host.history))
        assert all(deed.closed for deed in told)
        last = told[-1]
        if last.entry.undoes and last.done:
            assert books(life.host) == before
            assert {one.gate for one in report.drifts} == {WaitReason.UNDONE}
        else:
            assert books(life.host) == after
            assert not report.drifts
            assert not CheckpointStore(life.host.world().state_dir).load()[0].undone
        life.host.pass_time(600.0)
        assert books(life.host) == (before if last.entry.undoes and last.done else after)
    else:
        raise AssertionError("it never came to its end")
    assert points >= 4


def thaw(life: Life, entry: str) -> None:
    store = CheckpointStore(life.host.world().state_dir)
    memory, _ = store.load()
    undone = {one: what for one, what in memory.undone.items() if one != entry}
    assert len(undone) < len(memory.undone)
    store.save(replace(memory, undone=undone))


# --- what contradicts it ----------------------------------------------------------------------


def of(kind: Kind) -> Fault:
    return next(fault for fault in DRIFTS if fault.kind is kind)


def released() -> tuple[Life, Place, str]:
    life, place, _, _ = repaired(of(Kind.STALE_ALLOCATION))
    return life, place, done(life)[0].entry.id


def test_observe_mode_takes_nothing_back() -> None:
    life, _, entry = released()
    life.config = replace_mode(life)
    with pytest.raises(Refused, match="observe"):
        undo(life, entry)


def replace_mode(life: Life) -> Any:
    import msgspec  # noqa: PLC0415

    daemon = msgspec.structs.replace(life.config.daemon, mode="observe")
    return msgspec.structs.replace(life.config, daemon=daemon)


# --- who stays, who goes on -------------------------------------------------------------------


def test_a_write_that_fails_leaves_everything_as_it_was() -> None:
    life, _, entry = released()
    before = books(life.host)
    life.host.unwritable.add("state")
    with pytest.raises(WriteFailed):
        undo(life, entry)
    assert books(life.host) == before
    life.host.unwritable.clear()
    assert not life.sweep().drifts
    assert undo(life, entry).refused is None


def test_metadata_that_cannot_be_written_comes_back_as_soon_as_it_can() -> None:
    life, place, before, _ = repaired(of(Kind.STALE_ALLOCATION))
    life.host.unwritable.add(f"metadata {place.name}")
    undone = undo(life, done(life)[0].entry.id)
    assert any("no space left" in trouble for trouble in undone.warnings)
    assert life.sweep().warnings
    life.host.unwritable.clear()
    life.sweep()
    assert books(life.host) == before
    assert all(deed.closed for deed in join_entries(read_entries(life.host.history)))
