"""The drift of a rename: one move of everything, or nothing of it."""

from __future__ import annotations

from ds01d.decide.diff_renames import find_inherited_slots, find_rename_drift
from ds01d.model.books import BadRecord
from ds01d.model.drift import Action, Drift, Kind
from ds01d.model.primitives import ContainerName, Digest
from tests.support.build import NAME, OTHER, Life

NEW = ContainerName("new._.1001")
TRAIN, SECOND = ContainerName(NAME), ContainerName(OTHER)


def renamed(name: ContainerName = NEW) -> Life:
    life = Life().book("1.0").run("MIG-1-0").book("1.1", name=OTHER).run("MIG-1-1", name=OTHER)
    return life.after(60.0).rename(NAME, name)


def find(life: Life, name: ContainerName = TRAIN) -> Drift | None:
    decision = life.plan().decision
    assert decision.index is not None
    return find_rename_drift(name, decision.verdicts[name], decision.index, decision.verdicts)


def test_the_booking_goes_to_the_new_name_in_one_move() -> None:
    drift = find(renamed())
    assert drift is not None
    assert (drift.kind, drift.action) == (Kind.RENAMED_CONTAINER, Action.MOVE)
    assert drift.taken == {(NAME, "1.0")}
    assert drift.given == {(NEW, "1.0")}
    assert drift.names == {TRAIN, NEW}


def test_the_new_name_books_nothing_of_its_own_for_what_comes_with_the_move() -> None:
    decision = renamed().plan().decision
    assert decision.index is not None
    assert find_inherited_slots(NEW, decision.index, decision.verdicts) == {"1.0"}
    assert [gated.drift.kind for gated in decision.gated] == [Kind.RENAMED_CONTAINER]


def test_a_container_under_its_own_name_moves_nowhere() -> None:
    assert find(renamed(), SECOND) is None


def test_swapped_names_wait_for_both_files() -> None:
    life = renamed(ContainerName("tmp")).rename(OTHER, NAME).rename("tmp", OTHER)
    for name in (TRAIN, SECOND):
        drift = find(life, name)
        assert drift is not None
        assert drift.blocked is None
    life.host.records[SECOND] = BadRecord(
        container=SECOND, reason="belongs to root", digest=Digest("x"), replaceable=False
    )
    for name in (TRAIN, SECOND):
        drift = find(life, name)
        assert drift is not None
        assert drift.blocked == "belongs to root"
