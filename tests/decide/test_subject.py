"""The subject of a verdict: under all its names it is one container."""

from __future__ import annotations

from ds01d.decide.index import BooksIndex
from ds01d.decide.subject import Subject, gather_orphan, gather_subject
from ds01d.model.holding import Free, Proof, VerdictReason
from ds01d.model.primitives import Boot, ContainerId, ContainerName, SlotId, UserName
from tests.support.build import NAME, Life, config

NEW = ContainerName("new._.1001")
FIRST, SECOND = frozenset({SlotId("1.0")}), frozenset({SlotId("1.1")})


def index(life: Life) -> BooksIndex:
    made = life.plan().decision.index
    assert made is not None
    return made


def gather(life: Life, name: ContainerName = NAME) -> Subject:
    return gather_subject(name, index(life))


def free(**fields: object) -> Free:
    defaults: dict[str, object] = {
        "proof": Proof.ABSENT,
        "due": Boot(0.0),
        "since": Boot(0.0),
        "why": VerdictReason.ABSENT,
        "evidence": (),
    }
    return Free(**(defaults | fields))  # type: ignore[arg-type]


def test_a_booked_container_has_its_booking_its_record_and_its_id() -> None:
    subject = gather(Life().book("1.0").run("MIG-1-0").after(60.0))
    assert (subject.booked, subject.slots, subject.user) == (FIRST, FIRST, UserName("alice"))
    assert subject.container is not None
    assert subject.identity is not None
    assert subject.container.id == subject.identity.id
    assert not subject.former


def test_without_a_booking_its_slot_is_the_one_in_its_record() -> None:
    life = Life().book("1.0").run("MIG-1-0").after(60.0)
    life.host.state = Life().host.state
    subject = gather(life)
    assert (subject.booked, subject.slots) == (frozenset(), FIRST)


def test_a_renamed_container_has_what_is_booked_under_its_old_name() -> None:
    life = Life().book("1.0").run("MIG-1-0").after(60.0).rename(NAME, NEW)
    before, after = gather(life), gather(life, NEW)
    assert (before.container, before.booked) == (None, FIRST)
    assert (after.books_name, after.booked, after.user) == (NAME, FIRST, UserName("alice"))
    assert after.record is not None
    assert after.identity == before.identity


def test_one_that_was_recreated_knows_who_had_the_name_before() -> None:
    life = Life().book("1.0").run("MIG-1-0").after(60.0)
    life.run("MIG-1-0").after(60.0)
    subject = gather(life)
    assert subject.former == {ContainerId(f"id-{NAME}")}
    assert subject.find_inactive_ids(free()) > subject.former


def test_an_orphan_is_the_container_that_is_gone_not_the_one_that_has_its_name() -> None:
    other = ContainerName("b._.1001")
    life = Life(config()).book("1.0").run("MIG-1-0").book("1.1", name=other)
    life.run("MIG-1-1", name=other).after(60.0).remove(other, told=False).rename(NAME, other)
    made = index(life)
    assert other in made.renames.orphans
    orphan = gather_orphan(other, made)
    assert orphan.container is None
    assert (orphan.books_name, orphan.booked) == (other, SECOND)
    assert gather_subject(other, made).booked == FIRST
    assert orphan.identity is not None
    assert orphan.find_inactive_ids(free()) == {orphan.identity.id}


def test_who_was_renamed_is_neither_gone_nor_stopped() -> None:
    subject = gather(Life().book("1.0").run("MIG-1-0").after(60.0))
    renamed = free(proof=Proof.RENAMED, why=VerdictReason.RENAMED, known_id=ContainerId("x"))
    assert subject.find_inactive_ids(renamed) == frozenset()
