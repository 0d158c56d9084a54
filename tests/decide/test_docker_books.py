"""With Docker as the books: the table of verdicts and every finding once more.

What differs from files is listed here, row by row, and nothing else does.
"""

from __future__ import annotations

from typing import Any

import pytest

from ds01d.config import Config
from ds01d.model.drift import FindingKind
from ds01d.model.holding import Proof, VerdictReason
from tests.decide import test_verdict
from tests.decide.test_diff import COMPANIONS, ODDITIES, Oddity, host_with, live, places, reported
from tests.decide.test_verdict import TABLE, Story, asked, free, holds, told
from tests.support import build

RUNNING, HOLD = VerdictReason.RUNNING, VerdictReason.HOLD
DIFFERENT = {
    # A container needs neither label nor name, nor anybody who booked it.
    "foreign: a container without label, DS01 name or booking is nobody's business": holds(
        RUNNING, "1.0"
    ),
    "foreign: nor does a metadata file of its name make it ours: nothing is booked for it": holds(
        RUNNING, "1.0"
    ),
    "pinned: pinned: keeps its bookings whatever it runs on": holds(
        VerdictReason.PINNED, "0.0", "1.0", "1.1"
    ),
    "pinned: pinned and not booked: nothing is booked for it either": holds(
        VerdictReason.PINNED, "1.0"
    ),
    "renamed: the old name exists again: it keeps its booking": holds(
        HOLD, "0.0", "1.0", lasts=900.0
    ),
    "running: nobody booked it, a device without a slot: not adopted": holds(RUNNING, "1.0"),
    "running: nobody booked it, an index from before ds01d: not adopted": holds(RUNNING, "1.0"),
    "running: adoption is off": holds(RUNNING, "1.0"),
    "running: adoption is off, and an unlabelled container runs: not adopted either": holds(
        RUNNING, "1.0"
    ),
    "stopped: nothing booked, no metadata": holds(HOLD, "1.0", lasts=900.0),
    "stopped: lost its booking: holds it again while its hold lasts": holds(
        HOLD, "1.0", lasts=600.0
    ),
    "stopped: lost its booking of two slots: the metadata knows the first": holds(
        HOLD, "1.0", lasts=900.0
    ),
    "stopped: lost its booking of two slots, which it requests by UUID: it holds both again": holds(
        HOLD, "1.0", "1.1", lasts=900.0
    ),
    "stopped: lost its booking of a slot that is gone": holds(HOLD, "1.0", lasts=900.0),
    # One that exists is created, whatever its labels; and what was destroyed has nothing.
    "being created: anchor 4, an unlabelled container of that name was seen a minute ago"
    " (image commit)": free(Proof.DESTROYED, due_in=-55.0),
    "being created: while the unlabelled container runs it holds what is booked and what it really"
    " has": holds(RUNNING, "1.1"),
    "being created: a labelled container from before the allocation does not end it": holds(
        RUNNING, "1.0"
    ),
    "being created: nor does it end a newer create_start": holds(RUNNING, "1.0"),
    "stopped: allocated anew since it stopped: from the allocation": holds(
        HOLD, "1.0", lasts=900.0
    ),
    "stopped: one more allocated since it stopped, and its metadata is broken: from when that"
    " appeared": free(Proof.EXPIRED, due_in=-3060.0),
    "stopped: one more allocated since it stopped, and its metadata names the first": free(
        Proof.EXPIRED, due_in=-3060.0
    ),
    # The slot table follows the devices at once; an index may mean two.
    "running: by index, running since before ds01d: what that meant is not known, the booking"
    " stays": holds(RUNNING, "1.0", "1.1"),
    "running: by index, renumbered since: it keeps the device it had when it started": holds(
        RUNNING, "1.0"
    ),
    "running: by index, started in the same minute as a layout changed: not known": holds(
        RUNNING, "1.0", "1.1"
    ),
    "running: by index, started while NVML was down: not known": holds(RUNNING, "1.0", "1.1"),
}


@pytest.fixture
def _docker_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    make = build.config

    def make_config(**fields: Any) -> Config:
        return build.with_docker_books(make(**fields))

    monkeypatch.setattr(build, "config", make_config)
    monkeypatch.setattr(test_verdict, "config", make_config)


# Docker is the books only with NVML.
WITH_NVML = [
    case for case in TABLE if case.id != "absent: without NVML on purpose that clause is void"
]


@pytest.mark.usefixtures("_docker_kind")
@pytest.mark.parametrize(("story", "expected"), WITH_NVML)
def test_verdict_of_docker(
    story: Story, expected: tuple[object, ...], request: pytest.FixtureRequest
) -> None:
    life = story()
    expected = DIFFERENT.get(request.node.callspec.id, expected)
    verdict = life.plan().decision.verdicts.get(asked(life))
    assert told(verdict, life.host.boot) == expected


NOT_HERE = {
    FindingKind.FOREIGN_USE: "whoever requests a device has it",
    FindingKind.NOT_ADOPTED: "nothing has to be adopted",
    FindingKind.LONG_NAME: "what a container has needs no file",
}


@pytest.mark.parametrize("odd", ODDITIES, ids=lambda odd: odd.kind.value)
def test_a_finding_of_docker(odd: Oddity) -> None:
    life = host_with(1)
    life.config = build.with_docker_books(life.config)
    (place,) = places(life, [odd.kind])
    live(life, 300.0)
    assert not life.sweep().findings
    odd.fault(place)
    live(life, 300.0)
    report = life.sweep()
    assert report.is_consistent, "a finding is no drift"
    if odd.kind in NOT_HERE:
        assert not reported(report, odd, place)
        return
    (found,) = reported(report, odd, place)
    assert odd.says in found.reason
    assert {one.kind for one in report.findings} <= {odd.kind} | COMPANIONS.get(odd.kind, set())
