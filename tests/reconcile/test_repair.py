"""Settling: the world moves under our hands, files cannot be written, and nothing is lost by it."""

from __future__ import annotations

from dataclasses import replace

from ds01d.model.books import Attempt
from ds01d.model.drift import Kind, Outcome
from ds01d.model.history import Phase
from ds01d.model.holding import Holds, VerdictReason
from ds01d.model.primitives import ContainerName, Digest, SlotId, Source, Wall
from ds01d.reconcile.reconciler import Reconciler
from tests.support.build import NAME, OTHER, Life, record
from tests.support.repairs import (
    REPAIR,
    at_look_up,
    at_write,
    history,
    life,
    memory,
    only,
    stale,
    state,
)
from tests.support.world import MetadataInMemory

# --- other writers ----------------------------------------------------------------------------


def test_a_booking_made_between_reading_and_writing_is_kept() -> None:
    one = stale()
    at_write(one, lambda: one.list_in("0.0", name=OTHER))
    report = one.sweep()
    assert only(report).outcome is Outcome.DONE
    assert one.host.bookings() == {(OTHER, "0.0")}


def test_a_booking_made_between_deciding_and_locking_is_kept() -> None:
    one = stale()
    report = at_look_up(one, lambda: one.list_in("0.0", name=OTHER)).run()
    assert only(report).outcome is Outcome.DONE
    assert one.host.bookings() == {(OTHER, "0.0")}


def test_the_name_booked_anew_meanwhile_is_not_released() -> None:
    """The allocator books it again, in the file and in its metadata: a creation begins."""
    one = stale()

    def again() -> None:
        one.book("1.1", allocated_at_ago=0)

    report = at_look_up(one, again).run()
    gated = only(report)
    assert (gated.outcome, gated.reason) == (Outcome.WAITING, "the books changed meanwhile")
    assert one.host.bookings() == {(NAME, "1.0"), (NAME, "1.1")}


def test_a_name_whose_creation_begins_meanwhile_is_not_released() -> None:
    """The wrapper's line is all there is so far: it may get the very slot that it had."""
    one = stale()

    def begin() -> None:
        one.host.attempts[NAME] = Attempt(started=Wall(one.host.wall))

    report = at_look_up(one, begin).run()
    gated = only(report)
    assert (gated.outcome, gated.reason) == (Outcome.WAITING, "the books changed meanwhile")
    assert one.host.bookings() == {(NAME, "1.0")}


def test_a_writer_who_never_rests_is_named() -> None:
    one = stale()
    at_write(one, lambda: one.list_in("0.0", name=OTHER), times=99)
    gated = only(one.sweep())
    assert gated.outcome is Outcome.FAILED
    assert "another writer changed the state file in each of 5 attempts" in gated.reason
    assert (NAME, "1.0") in one.host.bookings()
    ids = [entry.id for entry in history(one) if entry.phase is Phase.BEGIN]
    assert len(ids) == len(set(ids)) == 5


def test_a_record_changed_meanwhile_is_left_alone() -> None:
    one = life()
    one.host.records[NAME] = record(gpu_id="0.1")
    one.sweep()
    one.host.pass_time(6.0)
    newer = record(gpu_id="0.1", digest=Digest("newer"))
    world = one.host.world()

    class Sly(MetadataInMemory):
        def read_text(self, name: ContainerName) -> str | None:
            """What the history asks for, right before the write."""
            self.host.records[name] = newer
            return None

    sly = Reconciler(replace(world, metadata=Sly(one.host)), one.config)
    gated = only(sly.run())
    assert (gated.drift.kind, gated.outcome) == (Kind.WRONG_METADATA, Outcome.FAILED)
    assert one.host.records[NAME] == newer


# --- what cannot be written -------------------------------------------------------------------


def test_no_history_no_action() -> None:
    one = stale()
    before = state(one), dict(one.host.records)
    one.host.unwritable = {"history"}
    gated = only(one.sweep())
    assert gated.outcome is Outcome.FAILED
    assert "history" in gated.reason
    assert (one.host.state, one.host.records) == before


def test_a_state_that_cannot_be_written_is_a_failure_with_its_reason() -> None:
    one = stale()
    one.host.unwritable = {"state"}
    gated = only(one.sweep())
    assert gated.outcome is Outcome.FAILED
    assert "no space left" in gated.reason
    entry = history(one)[-1]
    assert (entry.phase, "no space left" in entry.reason) == (Phase.FAILED, True)
    one.host.unwritable.clear()
    assert only(one.sweep()).outcome is Outcome.DONE


def test_a_release_whose_metadata_stays_counts_for_the_pace_and_is_finished_later() -> None:
    one = stale()
    one.host.unwritable = {f"metadata {NAME}"}
    assert only(one.sweep()).outcome is Outcome.FAILED
    assert one.host.bookings() == set()
    assert len(memory(one).released) == 1
    assert any("RELEASED" in line for line in one.host.allocations)
    one.host.unwritable.clear()
    one.host.pass_time(30.0)
    one.sweep()
    assert one.host.records == {}


# --- merges -----------------------------------------------------------------------------------


def merged(one: Life, *bookings: tuple[str, str]) -> Life:
    """The adapter found bookings in the file that we had just replaced."""
    pairs = frozenset((ContainerName(name), SlotId(place)) for name, place in bookings)
    one.host.state = replace(state(one), merge=pairs, digest=Digest("merge"))
    return one


def test_a_booking_that_we_overwrote_comes_back_at_once() -> None:
    one = merged(life(), (OTHER, "0.0"))
    gated = only(one.sweep())
    assert (gated.drift.kind, gated.outcome) == (Kind.LOST_ALLOCATION, Outcome.DONE)
    assert (OTHER, "0.0") in one.host.bookings()


def test_it_comes_back_even_while_docker_does_not_answer() -> None:
    one = merged(life(), (OTHER, "0.0")).fail(Source.DOCKER)
    assert only(one.sweep()).outcome is Outcome.DONE
    assert one.host.bookings() == {(NAME, "1.0"), (OTHER, "0.0")}
    assert OTHER not in one.host.records


def test_what_is_merged_is_booked_only_once() -> None:
    one = merged(life(), (NAME, "1.0"))
    assert one.sweep().drifts == ()
    assert one.host.bookings() == {(NAME, "1.0")}


# --- a lost checkpoint ------------------------------------------------------------------------


def test_a_memory_that_makes_no_sense_is_set_aside_and_said() -> None:
    one = stale()
    one.host.memory = b'{"version": 7, "memory": {}}'
    report = one.sweep()
    assert "version 7" in report.warnings[0]
    assert not report.drifts
    assert not one.sweep().warnings


def test_after_the_memory_was_lost_a_booking_may_be_of_a_creation_whatever_its_times_say() -> None:
    one = life()
    one.host.memory = b'{"version": 1, "memory": {"abs'
    one.book("1.1", name=OTHER, allocated_at_ago=7200).run(name=OTHER, labels={}, started_ago=7200)
    one.remove(OTHER)
    report = one.sweep()
    verdict = report.decision.verdicts[ContainerName(OTHER)]
    assert isinstance(verdict, Holds)
    assert verdict.why is VerdictReason.CREATING
    one.after(REPAIR.policy.creation_grace_s + REPAIR.policy.absence_grace_s + 60.0)
    assert ContainerName(OTHER) not in one.host.records


def test_the_same_goes_for_one_whose_booking_is_gone() -> None:
    one = life()
    one.host.memory = b'{"version": 1, "memory": {"abs'
    one.book("1.1", name=OTHER, allocated_at_ago=7200)
    one.host.state = life().host.state
    verdict = one.sweep().decision.verdicts[ContainerName(OTHER)]
    assert isinstance(verdict, Holds)
    assert verdict.why is VerdictReason.CREATING
    one.after(REPAIR.policy.creation_grace_s + REPAIR.policy.absence_grace_s + 60.0)
    assert ContainerName(OTHER) not in one.host.records
