"""Whatever the instant at which a process is killed: done or not done, never half."""

from __future__ import annotations

import sys

import pytest

from ds01d.model.drift import Kind
from tests.crash.points import Found, run, summary

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def found() -> list[Found]:
    return run()


def test_no_crash_point_is_inconsistent(found: list[Found]) -> None:
    sys.stdout.write(f"{summary(found)}\n")
    assert [(one.name, one.wrong[:3]) for one in found if one.wrong] == []


def test_every_kind_of_change_has_its_points(found: list[Found]) -> None:
    """The least number of calls: entering, writing, closing, remembering."""
    names = {one.name for one in found}
    for kind in Kind:
        assert any(name.startswith(f"repair-{kind}-") for name in names)
        assert any(name.startswith(f"undo-{kind}-") for name in names)
    assert {"freeze", "thaw", "allocate", "allocate-another", "release", "mark-stopped"} <= names
    assert "sync" in names
    for one in found:
        assert one.calls >= 10
        assert one.points > one.calls / 2


def test_the_judges_see_what_is_planted() -> None:
    wrong = {one.name: " ".join(one.wrong) for one in run(["planted"])}
    for name, told in (
        ("in_place", "is torn"),
        ("without_history", "made without an entry"),
        ("without_an_end", "left behind for ever"),
        ("without_a_sync", "bytes that are not synced"),
    ):
        assert told in wrong[f"planted-{name}"], wrong[f"planted-{name}"][:500]
