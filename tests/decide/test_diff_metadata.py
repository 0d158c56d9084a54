"""Metadata alone: a drift only where the bookings are right, and of what is ours to correct."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ds01d.decide.diff_metadata import diff_metadata
from ds01d.decide.index import BooksIndex
from ds01d.model.books import BadRecord
from ds01d.model.drift import Action, Kind
from ds01d.model.holding import Free, Holds, Proof, VerdictReason
from ds01d.model.primitives import Boot, ContainerName, Digest, SlotId, UserName
from tests.support.build import NAME, Life, record

SLOTS = frozenset({SlotId("1.0")})
HOLDS = Holds(slots=SLOTS, user=UserName("alice"), why=VerdictReason.RUNNING, evidence=())
GONE = Free(
    proof=Proof.ABSENT, due=Boot(7.0), since=Boot(2.0), why=VerdictReason.ABSENT, evidence=()
)


def index(found: object = "a record") -> BooksIndex:
    life = Life().book("1.0").run("MIG-1-0")
    if found is None:
        del life.host.records[NAME]
    elif isinstance(found, BadRecord):
        life.host.records[NAME] = found
    made = life.plan().decision.index
    assert made is not None
    return made


def bad(*, replaceable: bool) -> BadRecord:
    name = ContainerName(NAME)
    return BadRecord(container=name, reason="no value", digest=Digest("x"), replaceable=replaceable)


def test_a_record_that_is_right_is_no_drift() -> None:
    assert list(diff_metadata(NAME, HOLDS, index())) == []


@pytest.mark.parametrize(
    ("found", "kind"),
    [(None, Kind.MISSING_METADATA), (bad(replaceable=True), Kind.UNREADABLE_METADATA)],
    ids=["missing", "unreadable"],
)
def test_a_holder_without_a_readable_record_gets_one(found: object, kind: Kind) -> None:
    (drift,) = diff_metadata(NAME, HOLDS, index(found))
    assert (drift.kind, drift.action) == (kind, Action.WRITE_METADATA)
    assert not drift.taken
    assert not drift.given


def test_a_file_that_may_not_be_replaced_is_blocked_and_nothing_else() -> None:
    for verdict in (HOLDS, GONE):
        (drift,) = diff_metadata(NAME, verdict, index(bad(replaceable=False)))
        assert (drift.action, drift.blocked) == (Action.NOTHING, "no value")


def test_the_record_of_one_that_is_gone_goes_when_its_absence_is_proven() -> None:
    (drift,) = diff_metadata(NAME, GONE, index())
    assert (drift.kind, drift.action) == (Kind.ORPHANED_METADATA, Action.REMOVE_METADATA)
    assert (drift.earliest, drift.first_seen) == (GONE.due, GONE.since)
    (expired,) = diff_metadata(NAME, replace(GONE, proof=Proof.EXPIRED), index())
    assert expired.first_seen is None, "the end of a retention has to settle"


@pytest.mark.parametrize("why", [VerdictReason.PINNED, VerdictReason.FOREIGN])
def test_what_is_pinned_or_foreign_is_not_ours_to_correct(why: VerdictReason) -> None:
    assert not list(diff_metadata(NAME, replace(HOLDS, why=why), index(None)))


def test_what_differs_is_named() -> None:
    made = index()
    wrong = {**made.records, ContainerName(NAME): record(NAME, "1.1")}
    (drift,) = diff_metadata(NAME, HOLDS, replace(made, records=wrong))
    assert drift.kind is Kind.WRONG_METADATA
    assert "gpu_id is '1.1', should be '1.0'" in drift.reason
