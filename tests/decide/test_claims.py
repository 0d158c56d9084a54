"""Containers that turn a reservation into their booking, by its name or by its ID in a label."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ds01d.model.books import AllocatorState, Record
from ds01d.model.drift import FindingKind, Kind
from ds01d.model.primitives import BookingId, ContainerName, Source, UserName
from ds01d.model.reservation import BOOKING_LABEL, make_reserved_name
from ds01d.reconcile.reconciler import Reconciler
from tests.support.build import Life, config
from tests.support.repairs import at_look_up, rebooted

ID = BookingId("r-0123456789ab")
RESERVED = make_reserved_name(ID, 1001)
TRAIN, OTHER = ContainerName("train._.1001"), ContainerName("other._.1001")
ALICE, BOB = UserName("alice"), UserName("bob")
GRACE_S = 900.0


def reserved(*places: str, name: ContainerName = RESERVED, mode: str = "repair") -> Life:
    """Alice has a reservation, a minute old, on a host that has been watched for a while."""
    life = Life(config(mode=mode)).after(600.0)
    life.host.passwd |= {1001: "alice", 1002: "bob"}
    life.book(*(places or ("1.0",)), name=name, user=ALICE, allocated_at_ago=0.0, booking=ID)
    return life.after(60.0)


def claim(life: Life, name: str = TRAIN, device: str = "MIG-1-0", **fields: Any) -> Life:
    """A container that somebody has just created, with the ID in its label."""
    labels = {BOOKING_LABEL: fields.pop("booking", ID)} | fields.pop("labels", {})
    known: dict[str, Any] = {"created_ago": 1.0, "started_ago": 0.5}
    return life.run(device, name=name, labels=labels, **(known | fields))


def bookings(life: Life) -> set[tuple[str, str]]:
    assert isinstance(life.host.state, AllocatorState)
    return {(str(name), str(slot)) for name, slot in life.host.state.list_bookings()}


def contradictions(life: Life) -> list[str]:
    findings = life.plan().findings
    return [f.reason for f in findings if f.kind is FindingKind.LABEL_CONTRADICTION]


def test_a_label_makes_the_reservation_the_booking_of_a_container_of_any_name() -> None:
    life = claim(reserved())
    (drift,) = [g.drift for g in life.plan().drifts]
    assert (drift.kind, drift.container, drift.renamed_to) == (
        Kind.RENAMED_CONTAINER,
        RESERVED,
        TRAIN,
    )
    assert drift.reason == f"{TRAIN} claims reservation {ID}; the booking follows"
    life.after(60.0)
    assert bookings(life) == {(TRAIN, "1.0")}
    record = life.host.records[TRAIN]
    assert isinstance(record, Record)
    assert (record.user, record.booking) == (ALICE, ID)
    assert RESERVED not in life.host.records
    assert life.plan().drifts == ()
    life.after(2 * GRACE_S)
    assert bookings(life) == {(TRAIN, "1.0")}


def test_all_slots_of_a_reservation_go_with_it() -> None:
    life = reserved("1.0", "1.1")
    life.run("MIG-1-0", "MIG-1-1", name=TRAIN, labels={BOOKING_LABEL: ID}, created_ago=1.0)
    assert bookings(life.after(60.0)) == {(TRAIN, "1.0"), (TRAIN, "1.1")}


def test_the_reserved_name_makes_it_a_booking_without_any_label() -> None:
    life = reserved()
    life.run("MIG-1-0", name=RESERVED, labels={"ds01.managed": "true"}, created_ago=1.0)
    life.after(2 * GRACE_S)
    assert bookings(life) == {(RESERVED, "1.0")}


def test_a_stopped_container_claims_as_well_as_a_running_one() -> None:
    life = claim(reserved()).stop(TRAIN)
    assert bookings(life.after(60.0)) == {(TRAIN, "1.0")}


@pytest.mark.parametrize("step_s", [-86_400.0, 86_400.0])
def test_a_claim_counts_whatever_the_clocks_show(step_s: float) -> None:
    life = claim(reserved().set_wall(step_s))
    assert bookings(life.after(60.0)) == {(TRAIN, "1.0")}
    # A container that seems older than the allocation may be another one's: the grace counts.
    life.remove(TRAIN).after(60.0 if step_s > 0 else GRACE_S)
    assert bookings(life) == set()


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("theirs._.1002", {}),
        ("theirs._.1002", {"ds01.user": "alice"}),
        ("theirs._.4242", {"ds01.user": "alice"}),  # the user database does not know it
        ("anyone", {}),
        ("anyone", {"ds01.user": "bob"}),
    ],
)
def test_a_label_of_somebody_else_takes_nothing(name: str, labels: dict[str, str]) -> None:
    life = claim(reserved(), name=name, device="MIG-0-0", labels=labels).after(120.0)
    assert (RESERVED, "1.0") in bookings(life)
    assert f"label names reservation {ID} of alice" in " ".join(contradictions(life))
    life.after(2 * GRACE_S)
    assert "1.0" not in {slot for _, slot in bookings(life)}


def test_while_the_user_database_is_away_no_label_stands_in_for_a_uid() -> None:
    life = reserved()
    known = dict(life.host.passwd)
    life.host.passwd.clear()
    claim(life, name="theirs._.4242", device="MIG-0-0", labels={"ds01.user": "alice"})
    claim(life, labels={"ds01.user": "alice"}).after(60.0)
    assert (RESERVED, "1.0") in bookings(life)
    life.host.passwd |= known
    life.after(60.0)
    assert {(TRAIN, "1.0"), ("theirs._.4242", "0.0")} == bookings(life)


def test_a_uid_without_a_login_is_its_own_user() -> None:
    life = reserved()
    record = life.host.records[RESERVED]
    assert isinstance(record, Record)
    life.host.records[RESERVED] = replace(record, user=UserName("4242"))
    claim(life, name="train._.4242")
    assert bookings(life.after(60.0)) == {("train._.4242", "1.0")}


def test_without_a_uid_in_the_name_the_label_of_the_owner_counts() -> None:
    life = claim(reserved(), name="job", labels={"ds01.user": "alice"})
    assert bookings(life.after(60.0)) == {("job", "1.0")}


def test_a_container_made_in_two_steps_keeps_the_reservation() -> None:
    """A first one with the label is removed again, and the one that stays has another name."""
    life = claim(reserved(), name="step._.1001")
    life.sweep()
    life.remove("step._.1001").host.pass_time(2.0)
    life.sweep()
    claim(life)
    assert bookings(life.after(60.0)) == {(TRAIN, "1.0")}


@pytest.mark.parametrize("first", [TRAIN, OTHER])
def test_of_two_claims_the_first_by_creation_has_it(first: ContainerName) -> None:
    life, second = reserved(), OTHER if first == TRAIN else TRAIN
    claim(life, name=first, created_ago=9.0)
    claim(life, name=second, device="MIG-0-0", created_ago=5.0)
    life.after(60.0)
    assert {(first, "1.0"), (second, "0.0")} == bookings(life)  # adopted by its own request
    assert contradictions(life) == [f"label names reservation {ID}, which {first} has"]


def test_a_claim_takes_nothing_from_the_container_of_the_reserved_name() -> None:
    life = reserved()
    life.run("MIG-1-0", name=RESERVED, created_ago=9.0)
    claim(life, device="MIG-0-0").after(60.0)
    assert bookings(life) == {(RESERVED, "1.0"), (TRAIN, "0.0")}
    assert contradictions(life) == [f"label names reservation {ID}, which {RESERVED} has"]


def test_a_claim_takes_nothing_from_a_container_that_was_renamed_away() -> None:
    life = claim(reserved()).after(60.0).rename(TRAIN, "elsewhere._.1001")
    claim(life, name=OTHER, device="MIG-0-0").after(60.0)
    assert ("elsewhere._.1001", "1.0") in bookings(life)


def test_after_the_end_of_the_reservation_a_label_claims_nothing() -> None:
    life = reserved().after(GRACE_S + 300.0)
    assert bookings(life) == set()
    claim(life, device="MIG-0-0").after(60.0)
    assert bookings(life) == {(TRAIN, "0.0")}


@pytest.mark.parametrize("source", [Source.DOCKER, Source.METADATA])
def test_a_source_that_fails_claims_and_releases_nothing(source: Source) -> None:
    life = claim(reserved()).fail(source).after(2 * GRACE_S)
    assert bookings(life) == {(RESERVED, "1.0")}
    life.mend()
    assert bookings(life.after(120.0)) == {(TRAIN, "1.0")}


def test_a_claim_right_before_the_release_postpones_it() -> None:
    life = reserved().after(GRACE_S - 70.0)
    for _ in range(40):
        if any(g.drift.taken and g.until is None for g in life.plan().drifts):
            break
        life.host.pass_time(5.0)
        life.plan()
    reconciler = at_look_up(life, lambda: claim(life) if TRAIN not in names(life) else None)
    while "1.0" in {slot for _, slot in bookings(life)} and TRAIN not in names(life):
        reconciler.run()
        life.host.pass_time(10.0)
    assert bookings(life) == {(RESERVED, "1.0")}
    assert bookings(life.after(60.0)) == {(TRAIN, "1.0")}


def names(life: Life) -> set[ContainerName]:
    return {container.name for container in life.host.containers.values()}


def test_a_pass_over_the_container_alone_finds_the_reservation_too() -> None:
    life = claim(reserved())
    for _ in range(3):
        Reconciler(life.host.world(), life.config).run(frozenset({TRAIN}))
        life.host.pass_time(6.0)
    assert bookings(life) == {(TRAIN, "1.0")}


def test_a_reboot_between_claim_and_move_loses_nothing() -> None:
    life = claim(reserved())
    life.sweep()
    rebooted(life)
    assert bookings(life.after(300.0)) == {(TRAIN, "1.0")}


def test_a_record_copied_by_hand_moves_one_booking_only() -> None:
    life = reserved()
    copy = ContainerName("copy._.1001")
    life.book("0.1", name=copy, user=ALICE, allocated_at_ago=0.0, booking=ID)
    claim(life).after(60.0)
    assert {name for name, _ in bookings(life)} == {RESERVED, TRAIN}


def test_a_claim_of_an_id_that_nobody_has_is_no_finding() -> None:
    life = claim(Life(config(mode="repair")).after(600.0)).after(60.0)
    assert contradictions(life) == []
