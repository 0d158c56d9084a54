"""Settling: the world moves under our hands, files cannot be written, and nothing is lost by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ds01d.model.books import AllocatorState, Attempt, Unreadable
from ds01d.model.checkpoint import Checkpoint
from ds01d.model.containers import State
from ds01d.model.drift import GatedDrift, Kind, Outcome, WaitReason
from ds01d.model.history import Entry, Phase
from ds01d.model.holding import Holds, VerdictReason
from ds01d.model.primitives import ContainerName, Digest, SlotId, Source, Wall
from ds01d.reconcile.checkpoint_store import CheckpointStore
from ds01d.reconcile.history import read_entries
from ds01d.reconcile.reconciler import Reconciler, Report
from tests.support.build import (
    NAME,
    OTHER,
    Life,
    config,
    container,
    four_slots,
    named,
    record,
)
from tests.support.world import MetadataInMemory

REPAIR = config()


def life() -> Life:
    """A host that ds01d repairs; one booked container runs on 1.0."""
    one = Life(REPAIR).book("1.0").run("MIG-1-0")
    return one.after(120.0)


def stale() -> Life:
    """Its container is gone without a word, for so long that the next pass is to release it."""
    one = life().remove(told=False)
    one.sweep()
    one.host.pass_time(60.0)
    one.sweep()
    one.host.pass_time(61.0)
    assert [drift.kind for drift in one.plan().decision.due_drifts] == [Kind.STALE_ALLOCATION]
    return one


def state(one: Life) -> AllocatorState:
    assert isinstance(one.host.state, AllocatorState)
    return one.host.state


def only(report: Report) -> GatedDrift:
    (gated,) = report.drifts
    return gated


def at_write(one: Life, what: Callable[[], object], times: int = 1) -> None:
    """Let something happen right before the state is replaced, so many times."""
    left = [times]

    def hook() -> None:
        if left[0]:
            left[0] -= 1
            what()

    one.host.before_write = hook


def at_look_up(one: Life, what: Callable[[], object]) -> Reconciler:
    """A reconciler to whom something happens between deciding and proving again."""
    world = one.host.world()
    engine = world.engine

    class Surprise:
        def observe(self, names: frozenset[ContainerName] | None) -> object:
            return engine.observe(names)

        def look_up(self, name: object, known_id: object) -> object:
            what()
            return engine.look_up(name, known_id)  # type: ignore[arg-type]

    return Reconciler(replace(world, engine=Surprise()), one.config)  # type: ignore[arg-type]


def history(one: Life) -> list[Entry]:
    return list(read_entries(one.host.history))


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


# --- proving again ----------------------------------------------------------------------------


def test_a_container_that_is_back_before_the_write_keeps_its_booking() -> None:
    one = stale()
    report = at_look_up(
        one, lambda: one.host.run(container(NAME, named("MIG-1-0"), id="two"))
    ).run()
    gated = only(report)
    assert gated.outcome is Outcome.WAITING
    assert "the container exists" in gated.reason
    assert one.host.bookings() == {(NAME, "1.0")}
    assert not one.host.history or history(one)[-1].kind != "stale-allocation"


def test_the_same_container_under_another_name_before_the_write_keeps_it() -> None:
    one = life().remove(told=False)
    gone = container(OTHER, named("MIG-1-0"), id=f"id-{NAME}")
    one.sweep()
    one.host.pass_time(121.0)
    gated = only(at_look_up(one, lambda: one.host.run(gone)).run())
    assert gated.outcome is Outcome.WAITING
    assert one.host.bookings() == {(NAME, "1.0")}


def test_an_engine_that_goes_down_before_the_write_proves_nothing() -> None:
    one = stale()
    gated = only(at_look_up(one, lambda: one.fail(Source.DOCKER)).run())
    assert gated.outcome is Outcome.FAILED
    assert "cannot be verified" in gated.reason
    assert one.host.bookings() == {(NAME, "1.0")}


def test_a_stopped_container_that_starts_before_the_write_keeps_its_booking() -> None:
    one = life().stop().after(900.0)
    one.host.pass_time(6.0)
    assert [d.kind for d in one.plan().decision.due_drifts] == [Kind.EXPIRED_HOLD]
    started = Wall(one.host.wall)
    report = at_look_up(one, lambda: one.change(state=State.RUNNING, started=started)).run()
    assert only(report).reason == "it changed meanwhile"
    assert one.host.bookings() == {(NAME, "1.0")}


def test_a_duplicate_of_a_container_that_restarts_meanwhile_stays() -> None:
    one = life().list_in("1.1")
    one.sweep()
    one.host.pass_time(6.0)
    report = at_look_up(one, lambda: one.change(started=Wall(one.host.wall))).run()
    assert only(report).reason == "it changed meanwhile"
    assert one.host.bookings() == {(NAME, "1.0"), (NAME, "1.1")}


def test_the_old_name_that_is_taken_again_before_the_write_keeps_its_booking() -> None:
    one = life().rename(NAME, OTHER)
    one.sweep()
    one.host.pass_time(6.0)
    assert [d.kind for d in one.plan().decision.due_drifts] == [Kind.RENAMED_CONTAINER]
    twin = container(NAME, named("MIG-1-0"), id="two")
    gated = only(at_look_up(one, lambda: one.host.run(twin)).run())
    assert gated.outcome is Outcome.WAITING
    assert (NAME, "1.0") in one.host.bookings()


def test_one_refuted_release_does_not_hold_up_another() -> None:
    one = Life(config(pace_count=9)).book("1.0").run("MIG-1-0")
    one.book("0.0", name=OTHER).run("MIG-0-0", name=OTHER).after(120.0)
    one.remove(told=False).remove(OTHER, told=False).after(100.0)
    one.host.pass_time(30.0)
    back = container(NAME, named("MIG-1-0"), id="two")
    report = at_look_up(one, lambda: one.host.run(back)).run()
    outcomes = {g.drift.container: g.outcome for g in report.drifts}
    assert outcomes == {NAME: Outcome.WAITING, OTHER: Outcome.DONE}
    assert one.host.bookings() == {(NAME, "1.0")}


# --- what cannot be written -------------------------------------------------------------------


def test_no_history_no_action() -> None:
    one = stale()
    before = state(one), dict(one.host.records)
    one.host.unwritable = {"history"}
    gated = only(one.sweep())
    assert gated.outcome is Outcome.FAILED
    assert "history" in gated.reason
    assert (one.host.state, one.host.records) == before


def test_a_paced_release_needs_its_memory_first() -> None:
    one = stale()
    one.host.unwritable = {"memory"}
    report = one.sweep()
    assert only(report).outcome is Outcome.FAILED
    assert "memory" in only(report).reason
    assert one.host.bookings() == {(NAME, "1.0")}
    assert report.warnings


def test_what_is_not_paced_goes_on_without_memory() -> None:
    one = stale()
    one.run("MIG-0-0", name=OTHER)
    one.sweep()  # releases the first
    one.host.pass_time(6.0)
    one.host.unwritable = {"memory"}
    report = one.sweep()
    assert only(report).outcome is Outcome.DONE
    assert one.host.bookings() == {(OTHER, "0.0")}


@pytest.mark.parametrize("log", ["operations", "allocations"])
def test_logs_that_fail_stop_no_repair_and_are_reported(log: str) -> None:
    one = stale()
    one.host.unwritable = {log}
    report = one.sweep()
    assert only(report).outcome is Outcome.DONE
    assert any(log in trouble for trouble in report.warnings)
    assert one.host.bookings() == set()


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


def memory(one: Life) -> Checkpoint:
    found, trouble = CheckpointStore(one.host.world().state_dir).load()
    assert not trouble
    return found


def test_an_entry_that_cannot_be_closed_does_not_undo_what_was_done() -> None:
    one = stale()
    at_write(one, lambda: one.host.unwritable.add("history"))
    report = one.sweep()
    assert only(report).outcome is Outcome.DONE
    assert any("history" in trouble for trouble in report.warnings)
    assert one.host.bookings() == set()


# --- history ----------------------------------------------------------------------------------


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


# --- an unreadable state ----------------------------------------------------------------------


def unreadable(one: Life, *, digest: str = "broken", last_good: bool = True) -> Life:
    one.host.state = Unreadable(
        reason="line 3: expected a comma",
        digest=Digest(digest),
        last_good=state(one) if last_good else None,
    )
    return one


def test_an_unreadable_state_is_rebuilt_after_the_settle_time_from_its_last_good_copy() -> None:
    one = life()
    good = state(one)
    unreadable(one)
    assert only(one.sweep()).gate is WaitReason.SETTLE
    one.host.pass_time(5.0)
    assert only(one.sweep()).outcome is Outcome.DONE
    assert state(one).slots == good.slots
    assert not one.sweep().drifts


def test_bytes_that_change_begin_the_wait_anew() -> None:
    one = unreadable(life())
    one.sweep()
    one.host.pass_time(4.0)
    assert isinstance(one.host.state, Unreadable)
    one.host.state = replace(one.host.state, digest=Digest("other"))
    one.sweep()
    one.host.pass_time(4.0)
    assert only(one.sweep()).gate is WaitReason.SETTLE


def test_a_state_that_was_well_in_between_begins_the_wait_anew() -> None:
    """A writer empties the file and fills it again: the same bytes, a minute later, are new."""
    one = life()
    good = state(one)
    unreadable(one).sweep()
    one.host.state = good
    one.host.pass_time(10.0)
    Reconciler(one.host.world(), one.config).run(frozenset({OTHER}))
    unreadable(one)
    assert only(one.sweep()).gate is WaitReason.SETTLE


def test_without_a_last_good_copy_it_is_rebuilt_from_docker_nvml_and_metadata() -> None:
    one = life()
    one.book("0.0", name=OTHER).run("MIG-0-0", name=OTHER).stop(OTHER).after(60.0)
    before = one.host.bookings()
    unreadable(one, last_good=False).sweep()
    one.host.pass_time(6.0)
    assert only(one.sweep()).outcome is Outcome.DONE
    assert one.host.bookings() == before
    assert {s.uuid for s in state(one).slots.values()} == {
        s.uuid for s in four_slots().slots.values()
    }
    one.host.pass_time(60.0)
    one.after(60.0)
    assert not one.sweep().drifts


def test_nothing_in_the_last_good_copy_is_lost_in_a_rebuild() -> None:
    """Reservations: whoever is in the copy stays, what is wrong in it is found afterwards."""
    one = life().remove(told=False)
    unreadable(one).sweep()
    one.host.pass_time(200.0)
    one.sweep()
    assert one.host.bookings() == {(NAME, "1.0")}


@pytest.mark.parametrize("source", [Source.DOCKER, Source.NVML, Source.METADATA])
def test_a_rebuild_waits_for_every_source_it_needs(source: Source) -> None:
    one = unreadable(life())
    one.fail(source).sweep()
    one.host.pass_time(200.0)
    gated = only(one.sweep())
    assert (gated.outcome, gated.gate) == (Outcome.WAITING, WaitReason.BLOCKED)
    assert str(source) in gated.reason
    assert only(one.mend().sweep()).outcome is Outcome.DONE


def test_without_nvml_on_purpose_and_without_a_copy_nobody_knows_the_slots() -> None:
    one = unreadable(life(), last_good=False)
    one.host.gpu = None
    one.sweep()
    one.host.pass_time(600.0)
    gated = only(one.sweep())
    assert gated.gate is WaitReason.BLOCKED
    assert "no last good copy" in gated.reason


def test_a_state_that_is_not_there_for_us_is_unknown_and_not_rebuilt() -> None:
    one = life().fail(Source.STATE)
    one.after(600.0)
    report = one.sweep()
    assert report.drifts == ()
    assert not report.is_consistent


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


# --- observing only ---------------------------------------------------------------------------


def test_mode_observe_writes_nothing_but_its_memory() -> None:
    one = stale()
    one.config = config(mode="observe")
    before = state(one), dict(one.host.records), list(one.host.history), list(one.host.operations)
    report = one.sweep()
    assert only(report).outcome is Outcome.DUE
    assert not report.is_applied
    host = one.host
    assert (host.state, host.records, host.history, host.operations) == before
    assert host.memory is not None


def test_a_plan_writes_nothing_at_all() -> None:
    one = stale()
    before, steps = one.host.memory, one.host.steps
    assert only(one.plan()).outcome is Outcome.DUE
    assert (one.host.memory, one.host.steps) == (before, steps)


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


def test_what_was_released_can_be_read_in_both_logs() -> None:
    one = stale()
    one.sweep()
    assert [line.split("|")[:4] for line in one.host.allocations] == [
        ["RELEASED", "alice", NAME, "1.0"]
    ]
    (line,) = one.host.operations
    assert (line.operation, line.container, line.status) == ("release", NAME, "done")
