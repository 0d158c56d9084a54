"""Whatever the instant at which a process is killed: done or not done, never half."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ds01d.model.drift import Kind
from tests.verification.crash import accounting
from tests.verification.crash.points import run, scenes, summary

pytestmark = pytest.mark.timeout(1800)  # perhaps on a busy machine

PARTS = 4
"""So many tests share the changes, so that several workers try them at once."""


NAMES = [name for name, _ in scenes(Path(), ())]
"""Every change there is, in the order in which the parts take turns."""


@pytest.mark.parametrize("part", range(PARTS))
def test_no_crash_point_is_inconsistent(part: int) -> None:
    found = run((), [part], PARTS)
    sys.stdout.write(f"{summary(found)}\n")
    assert [(one.name, one.wrong[:3]) for one in found if one.wrong] == []
    assert [one.name for one in found] == sorted(NAMES[part::PARTS])
    for one in found:  # the least number of calls: entering, writing, closing, remembering
        assert one.calls >= 10
        assert one.points > one.calls


def test_every_kind_of_change_is_among_them() -> None:
    for kind in Kind:
        assert any(name.startswith(f"repair-{kind}-") for name in NAMES)
        assert any(name.startswith(f"undo-{kind}-") for name in NAMES)
    assert {"freeze", "thaw", "allocate", "allocate-another", "release", "mark-stopped"} <= {*NAMES}
    assert {"docker-reserve", "docker-give-up", "docker-turned"} <= {*NAMES}
    assert {"docker-abandoned", "abandoned", "docker-used", "used"} <= {*NAMES}
    assert {"sync", "reserve-two", "give-up", "repair-renamed-container-claim"} <= {*NAMES}


def test_the_accounting_goes_on_from_any_crash_point() -> None:
    found = accounting.run()
    sys.stdout.write(f"{summary(found)}\n")
    assert [(one.name, one.wrong[:3]) for one in found if one.wrong] == []
    assert [one.calls > 20 for one in found] == [True] * len(accounting.SCENES)


def test_the_judges_see_what_is_planted() -> None:
    wrong = {one.name: " ".join(one.wrong) for one in run(["planted"])}
    for name, told in (
        ("in_place", "is torn"),
        ("without_history", "made without an entry"),
        ("without_an_end", "left behind for ever"),
        ("without_a_sync", "bytes that are not synced"),
    ):
        assert told in wrong[f"planted-{name}"], wrong[f"planted-{name}"][:500]
