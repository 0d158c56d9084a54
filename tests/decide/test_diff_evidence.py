"""Evidence of a drift: what the books have, then what the verdict rests on."""

from __future__ import annotations

from ds01d.decide.diff_evidence import collect_evidence, describe_books, format_slots, pair_slots
from ds01d.decide.index import BooksIndex
from ds01d.model.holding import Undecided
from ds01d.model.primitives import ContainerName, SlotId, Source
from tests.support.build import NAME, OTHER, Life

TRAIN = ContainerName(NAME)


def index() -> BooksIndex:
    made = Life().book("1.0", "1.1").run("MIG-1-0").plan().decision.index
    assert made is not None
    return made


def test_the_books_are_described_by_state_and_record() -> None:
    state, metadata = describe_books(TRAIN, index())
    assert state == "state: booked in 1.0, 1.1"
    assert metadata.startswith("metadata: alice has 1.0, allocated ")
    assert describe_books(ContainerName(OTHER), index()) == ("state: not booked",)


def test_evidence_ends_with_that_of_the_verdict() -> None:
    verdict = Undecided(needs=Source.NVML, reason="hangs", evidence=("nvml: hangs",))
    evidence = collect_evidence(TRAIN, index(), verdict)
    assert evidence == (*describe_books(TRAIN, index()), "nvml: hangs")


def test_slots_are_sorted_and_none_are_said_so() -> None:
    slots = frozenset({SlotId("1.1"), SlotId("0")})
    assert (format_slots(slots), format_slots(frozenset())) == ("0, 1.1", "nothing")
    assert pair_slots(TRAIN, slots) == {(TRAIN, slot) for slot in slots}
