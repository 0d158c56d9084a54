"""The gate: each reason to wait alone, which of them is told first, and what waits together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ds01d.config import Policy
from ds01d.decide.drift_groups import change_groups
from ds01d.decide.gate import GateResult, apply_gate, count_repairs
from ds01d.model.checkpoint import Checkpoint, DriftFirstSeen, Freeze, Repair
from ds01d.model.containers import EngineIdentity
from ds01d.model.drift import Action, Drift, GatedDrift, Kind, Outcome, WaitReason
from ds01d.model.primitives import Boot, ContainerName, Now, SlotId, Wall

NOW = Now(wall=Wall(50_000.0), boot=Boot(1_000.0), boot_id="b")
POLICY = Policy()
STRANGER = EngineIdentity(id="OTHER", root_dir="/mnt", inode=1, device=1)


def drift(name: str | None = "a", place: str | None = "1.0", **fields: Any) -> Drift:
    """A release of one booking, backed by a destroy event unless `reported` is given."""
    defaults: dict[str, Any] = {
        "kind": Kind.STALE_ALLOCATION,
        "action": Action.RELEASE,
        "container": None if name is None else ContainerName(name),
        "slot": None if place is None else SlotId(place),
        "reason": "gone",
        "evidence": ("docker: gone",),
        "fingerprint": "f",
        "reported": True,
    }
    if name is not None and place is not None:
        defaults["taken"] = frozenset({(ContainerName(name), SlotId(place))})
    return Drift(**(defaults | fields))


def record(name: str = "a", **fields: Any) -> Drift:
    """A metadata file to be written: it takes nothing."""
    defaults: dict[str, Any] = {
        "kind": Kind.WRONG_METADATA,
        "action": Action.WRITE_METADATA,
        "taken": frozenset(),
    }
    return drift(name, **(defaults | fields))


def booking(name: str = "a", place: str = "1.0", **fields: Any) -> Drift:
    defaults: dict[str, Any] = {
        "kind": Kind.UNTRACKED_CONTAINER,
        "action": Action.BOOK,
        "taken": frozenset(),
        "given": frozenset({(ContainerName(name), SlotId(place))}),
    }
    return drift(name, place, **(defaults | fields))


def table(place: str = "1.0", **fields: Any) -> Drift:
    defaults: dict[str, Any] = {"kind": Kind.STALE_SLOT, "action": Action.UPDATE_SLOT}
    return drift(None, place, **(defaults | fields))


def seen(*drifts: Drift, ago: float = 100.0, **fields: Any) -> Checkpoint:
    """A memory that has seen these drifts for so long."""
    first = Boot(NOW.boot - ago)
    sightings = {d.key: DriftFirstSeen(first=first, fingerprint=d.fingerprint) for d in drifts}
    return Checkpoint(boot_id="b", since=Boot(0.0), sightings=sightings, **fields)


def judge(
    *drifts: Drift, memory: Checkpoint | None = None, bookings: int = 8, **policy: Any
) -> GateResult:
    rules = Policy(**policy) if policy else POLICY
    return apply_gate(drifts, memory or seen(*drifts), rules, NOW, bookings=bookings)


def only(passed: GateResult) -> GatedDrift:
    (gated,) = passed.gated
    return gated


def held(gated: GatedDrift) -> tuple[WaitReason | None, float | None]:
    assert gated.outcome is Outcome.WAITING
    assert gated.reason
    return gated.gate, gated.until


def frozen(subject: str, until: float | None = None, reason: str = "works") -> dict[str, Freeze]:
    return {
        subject: Freeze(
            subject=subject,
            by="root",
            reason=reason,
            since=Wall(0.0),
            until=None if until is None else Wall(until),
        )
    }


# --- each reason alone ------------------------------------------------------------------------


def test_what_nothing_holds_is_due() -> None:
    assert only(judge(drift())).outcome is Outcome.DUE


def test_a_drift_waits_until_it_was_seen_for_the_settle_time() -> None:
    item = drift()
    assert held(only(judge(item, memory=Checkpoint()))) == (WaitReason.SETTLE, 1_005.0)
    assert held(only(judge(item, memory=seen(item, ago=4.875)))) == (
        WaitReason.SETTLE,
        1_000.125,
    )
    assert only(judge(item, memory=seen(item, ago=5.0))).outcome is Outcome.DUE


def test_a_drift_that_looks_different_is_a_new_one() -> None:
    item = drift()
    other = replace(item, fingerprint="g")
    assert held(only(judge(other, memory=seen(item)))) == (WaitReason.SETTLE, 1_005.0)


def test_a_gap_in_dockers_answers_breaks_a_sighting_of_a_container() -> None:
    memory = replace(seen(drift()), since=Boot(998.0))
    assert held(only(judge(drift(), memory=memory))) == (WaitReason.SETTLE, 1_003.0)


def test_but_not_of_the_slots() -> None:
    memory = replace(seen(table()), since=Boot(998.0))
    assert only(judge(table(), memory=memory)).outcome is Outcome.DUE


def test_a_proof_that_stood_before_counts_as_a_sighting() -> None:
    item = drift(first_seen=Boot(900.0))
    assert only(judge(item, memory=Checkpoint(since=Boot(0.0)))).outcome is Outcome.DUE


def test_what_is_urgent_does_not_settle_first() -> None:
    assert only(judge(booking(urgent=True), memory=Checkpoint())).outcome is Outcome.DUE


def test_a_proof_may_end_later() -> None:
    assert held(only(judge(drift(earliest=Boot(1_060.0))))) == (WaitReason.PROOF, 1_060.0)


def test_what_is_blocked_says_why_and_ends_with_no_time() -> None:
    gated = only(judge(drift(blocked="it is a link")))
    assert held(gated) == (WaitReason.BLOCKED, None)
    assert gated.reason == "it is a link"


def test_another_engine_holds_what_takes_something() -> None:
    memory = seen(drift(), untrusted_engine=STRANGER)
    gated = only(judge(drift(), memory=memory))
    assert held(gated) == (WaitReason.ENGINE, None)
    assert "thaw --engine" in gated.reason
    removal = record(action=Action.REMOVE_METADATA)
    assert held(
        only(judge(removal, memory=replace(memory, sightings=seen(removal).sightings)))
    ) == (
        WaitReason.ENGINE,
        None,
    )


@pytest.mark.parametrize("one", [record(), booking(), table()], ids=["record", "book", "slot"])
def test_another_engine_holds_nothing_else(one: Drift) -> None:
    assert only(judge(one, memory=seen(one, untrusted_engine=STRANGER))).outcome is Outcome.DUE


@pytest.mark.parametrize("one", [drift(), table()], ids=["release", "slot"])
def test_a_changed_inventory_holds_releases_and_the_slot_table_until_it_is_stable(
    one: Drift,
) -> None:
    memory = seen(one, inventory_changed=Boot(950.0))
    assert held(only(judge(one, memory=memory))) == (WaitReason.INVENTORY, 1_070.0)
    memory = seen(one, inventory_changed=Boot(880.0))
    assert only(judge(one, memory=memory)).outcome is Outcome.DUE


def test_a_changed_inventory_holds_no_new_booking() -> None:
    memory = seen(booking(), inventory_changed=Boot(950.0))
    assert only(judge(booking(), memory=memory)).outcome is Outcome.DUE


# --- freezes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("subject", ["*", "a", "1.0"])
def test_a_freeze_of_everything_the_name_or_the_slot_holds(subject: str) -> None:
    gated = only(judge(drift(), memory=seen(drift(), freezes=frozen(subject))))
    assert held(gated) == (WaitReason.FREEZE, None)
    assert gated.reason == "frozen by root: works"


@pytest.mark.parametrize("subject", ["b", "0.0", "stale-allocation"])
def test_a_freeze_of_something_else_does_not(subject: str) -> None:
    memory = seen(drift(), freezes=frozen(subject))
    assert only(judge(drift(), memory=memory)).outcome is Outcome.DUE


def test_a_freeze_binds_both_names_of_a_move() -> None:
    move = drift(
        kind=Kind.RENAMED_CONTAINER,
        action=Action.MOVE,
        given=frozenset({(ContainerName("b"), SlotId("1.0"))}),
    )
    memory = seen(move, freezes=frozen("b"))
    assert held(only(judge(move, memory=memory)))[0] is WaitReason.FREEZE


def test_a_freeze_for_some_time_ends_by_itself() -> None:
    memory = seen(drift(), freezes=frozen("*", until=50_030.0))
    assert held(only(judge(drift(), memory=memory))) == (WaitReason.FREEZE, 1_030.0)
    memory = seen(drift(), freezes=frozen("*", until=50_000.0))
    assert only(judge(drift(), memory=memory)).outcome is Outcome.DUE


# --- the order of reasons ---------------------------------------------------------------------

HELD_BY_ALL = drift(blocked="it is a link", earliest=Boot(1_060.0))
BY_ALL = Checkpoint(
    since=Boot(0.0),
    freezes=frozen("*"),
    untrusted_engine=STRANGER,
    inventory_changed=Boot(950.0),
    repairs={HELD_BY_ALL.repair_key: Repair(times=9, last=Boot(990.0), not_before=Boot(2_000.0))},
)
ORDER: list[tuple[WaitReason, Drift, Checkpoint]] = [
    (WaitReason.BLOCKED, HELD_BY_ALL, BY_ALL),
    (WaitReason.FREEZE, (unblocked := replace(HELD_BY_ALL, blocked=None)), BY_ALL),
    (WaitReason.ENGINE, unblocked, (thawed := replace(BY_ALL, freezes={}))),
    (WaitReason.INVENTORY, unblocked, (known := replace(thawed, untrusted_engine=None))),
    (WaitReason.PROOF, unblocked, (stable := replace(known, inventory_changed=None))),
    (WaitReason.SETTLE, (proven := replace(unblocked, earliest=None)), stable),
    (WaitReason.BACKOFF, proven, replace(stable, sightings=seen(proven).sightings)),
]


@pytest.mark.parametrize(("gate_", "one", "memory"), ORDER, ids=[str(g) for g, _, _ in ORDER])
def test_what_a_person_has_to_do_is_told_before_what_time_does(
    gate_: WaitReason, one: Drift, memory: Checkpoint
) -> None:
    assert held(only(judge(one, memory=memory)))[0] is gate_


# --- what waits together ----------------------------------------------------------------------


def test_what_is_about_one_container_waits_together() -> None:
    first, second = drift("a", "1.0"), drift("a", "1.1", earliest=Boot(1_060.0))
    assert [held(gated) for gated in judge(first, second).gated] == [
        (WaitReason.PROOF, 1_060.0)
    ] * 2


def test_a_slot_that_moved_away_and_the_new_one_at_its_place_are_of_one_change() -> None:
    """Both are drifts of that slot: as many changes as drifts, or none could be entered."""
    away, new = (
        drift(None, "1.0", kind=Kind.STALE_SLOT, action=Action.UPDATE_SLOT, fingerprint=reason)
        for reason in ("moved", "has no slot")
    )
    assert away.key == new.key
    assert len(set(change_groups([away, new]))) == 1
    assert len(change_groups([away, new, drift("a", "2.0")])) == 3


def test_other_containers_do_not_wait_for_it() -> None:
    passed = judge(drift("a", "1.0", earliest=Boot(1_060.0)), drift("b", "1.0"))
    assert [gated.outcome for gated in passed.gated] == [Outcome.WAITING, Outcome.DUE]


def test_a_renaming_ties_both_names_together_and_all_that_is_tied_to_them() -> None:
    move = drift(
        "a",
        "1.0",
        kind=Kind.RENAMED_CONTAINER,
        given=frozenset({(ContainerName("b"), SlotId("1.0"))}),
    )
    waiting, tied = drift("a", "0.0", earliest=Boot(1_060.0)), drift("b", "0.1")
    assert [held(gated)[0] for gated in judge(waiting, move, tied).gated] == [WaitReason.PROOF] * 3


def test_the_slot_table_changes_as_one() -> None:
    passed = judge(table("1.0"), table("1.1"), memory=seen(table("1.0")))
    assert [held(gated)[0] for gated in passed.gated] == [WaitReason.SETTLE] * 2


# --- back-off ---------------------------------------------------------------------------------


def test_the_third_repetition_begins_to_wait_and_each_one_waits_longer() -> None:
    memory, waits = Checkpoint(), []
    for _ in range(6):
        memory = count_repairs(memory, [drift()], POLICY, NOW)
        waits.append(memory.repairs[drift().repair_key].not_before - NOW.boot)
    assert waits == [0.0, 0.0, 20.0, 40.0, 80.0, 160.0]


def test_no_back_off_is_longer_than_an_hour() -> None:
    memory = Checkpoint()
    for _ in range(40):
        memory = count_repairs(memory, [drift()], POLICY, NOW)
    assert memory.repairs[drift().repair_key].not_before == NOW.boot + 3_600.0


def test_who_keeps_quiet_for_an_hour_is_forgotten() -> None:
    memory = count_repairs(Checkpoint(), [drift()], POLICY, NOW)
    later = replace(NOW, boot=Boot(NOW.boot + 3_600.0))
    assert count_repairs(memory, [], POLICY, later).repairs == {}


def test_a_repair_in_back_off_waits() -> None:
    repairs = {drift().repair_key: Repair(times=3, last=Boot(990.0), not_before=Boot(1_010.0))}
    gated = only(judge(drift(), memory=seen(drift(), repairs=repairs)))
    assert held(gated) == (WaitReason.BACKOFF, 1_010.0)
    assert "3 times" in gated.reason
