"""A short campaign: one round, in `make proofs` four; `make soak` is the same for longer.

The seed repeats its plan. DS01D_SOAK_SEED and DS01D_SOAK_MINUTES choose another one.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from simulation.engine import PrivateEngine
from tests.support.proofs import PROOFS
from tests.support.scripts import output
from tests.verification.campaign import docker_books, plan
from tests.verification.campaign.books import Entry, read_entry
from tests.verification.campaign.bugs import BUGS, Bug, planted
from tests.verification.campaign.clock import boot
from tests.verification.campaign.faults import TARGETS, Faults
from tests.verification.campaign.foreign import Notes, Write
from tests.verification.campaign.ground import Gpus
from tests.verification.campaign.oracle import has_followed
from tests.verification.campaign.profiles import PROFILES
from tests.verification.campaign.strays import Strays
from tests.verification.mutations import ROOT, find_unbound_names
from tests.verification.short_campaign import check_campaign

MINUTES = float(os.environ.get("DS01D_SOAK_MINUTES") or (2.0 if PROOFS else 0.5))


@pytest.mark.docker
@pytest.mark.proof
@pytest.mark.timeout(1800)  # it waits for ds01d in sweeps, not in seconds
def test_a_short_campaign_finds_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if os.geteuid() != 0:
        pytest.skip("a campaign needs root")
    module = "tests.verification.campaign.run"
    check_campaign(module, "campaign", MINUTES, tmp_path / "kept", capsys)


@pytest.mark.proof
@pytest.mark.timeout(600)
def test_a_short_campaign_with_docker_as_the_books(capsys: pytest.CaptureFixture[str]) -> None:
    assert docker_books.main(seed=7, minutes=0.2) == 0
    assert "granted" in capsys.readouterr().out


@pytest.mark.docker
def test_what_the_engine_does_not_know_to_be_alive_is_ended(engine: PrivateEngine) -> None:
    known, lost = engine.run("known"), engine.run("lost")
    Strays(engine.cgroup).end_lost(lambda: {known})
    engine.client.wait(lost, timeout=30)
    assert engine.client.inspect_container(lost)["State"]["ExitCode"] == 128 + signal.SIGKILL
    assert engine.client.inspect_container(known)["State"]["Running"]


def test_the_seed_alone_decides() -> None:
    assert plan.make(7, 10) == plan.make(7, 10)
    assert plan.make(7, 10).digest != plan.make(8, 10).digest
    whole, part = plan.make(7, 10), plan.make(7, 2)
    assert whole.rounds[: len(part.rounds)] == part.rounds


@pytest.mark.parametrize("seed", range(3))
def test_ten_minutes_hold_a_thousand_operations_and_every_fault(seed: int) -> None:
    drawn = plan.make(seed, 10)
    assert drawn.count(fault=False) >= 1000
    assert drawn.count(fault=True) >= 150
    steps = [step for steps in drawn.rounds for step in steps]
    assert {step.what for step in steps if not step.fault} == set(plan.OPERATIONS)
    faults = {step.what for step in steps if step.fault}
    assert len(plan.FAULTS.keys() - faults) <= 1  # the rarest may be missing once


def test_every_fault_can_be_carried_out() -> None:
    for word in plan.FAULTS:
        assert callable(getattr(Faults, "_" + word.replace("-", "_")))
    assert TARGETS.keys() <= plan.FAULTS.keys()


def test_a_gpu_that_hides_after_another_one_leaves_no_moment_in_between(tmp_path: Path) -> None:
    gpus = Gpus(tmp_path / "world")
    one, other = (gpu.uuid for gpu in gpus.world.gpus[:2])
    seen = []
    for uuid, call in ((one, "nvmlDeviceGetUUID"), (other, "*"), (one, "nvmlDeviceGetName")):
        gpus.sicken(uuid, call, 4)
        seen.append(gpus.sick_since)
    assert seen[0] is not None
    assert seen == [seen[0], seen[0], None]


def test_a_release_counts_for_what_was_booked_before_it() -> None:
    notes = Notes()
    write = Write(who="old", what="state", begun=5.0, removed=frozenset({"a._.1001"}))
    with notes.writing(write):
        assert notes.released("a._.1001", 4.0, 6.0)
    assert not notes.released("a._.1001", 5.5, 6.0)
    assert not notes.released("b._.1001", 4.0, 6.0)


def test_a_booking_may_follow_to_a_name_that_its_container_had_in_between() -> None:
    notes = Notes()
    begin = boot()
    for step in (("a._.1001", "b._.1001"), ("x._.1001", "y._.1001"), ("b._.1001", "c._.1001")):
        notes.rename(*step)
    names = notes.later_names("a._.1001", begin, boot())
    assert names == {"b._.1001", "c._.1001"}
    assert not notes.later_names("a._.1001", boot(), boot())
    followed = _entry(kind="renamed-container", taken="a._.1001", given="b._.1001")
    assert has_followed("a._.1001", names, [followed])
    for wrong in (
        _entry(kind="renamed-container", taken="a._.1001", given="y._.1001"),
        _entry(kind="renamed-container", taken="x._.1001", given="b._.1001"),
        _entry(kind="stale-allocation", taken="a._.1001", given="b._.1001"),
    ):
        assert not has_followed("a._.1001", names, [wrong])


def _entry(*, kind: str, taken: str, given: str) -> Entry:
    told = {
        "id": "1",
        "kind": kind,
        "container": taken,
        "taken": [[taken, "0.0"]],
        "before": {"slots": {"0.0": {"containers": [taken]}}},
        "after": {"slots": {"0.0": {"containers": [given]}}},
    }
    return read_entry(told)


IMPORTED = """
import sys
import tests.verification.campaign.run
print(sorted(name for name in sys.modules if name.partition(".")[0] == "ds01d"))
"""


def test_a_campaign_shares_no_code_with_the_daemon() -> None:
    assert output(IMPORTED).strip() == "[]"


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_bug_can_still_be_planted(bug: Bug, tmp_path: Path) -> None:
    """That each is caught is what `make soak-bugs` tries; it takes minutes."""
    assert bug.profile in PROFILES
    for edit in bug.edits:
        target = tmp_path / edit.file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / edit.file).read_bytes())
    with planted(bug, tmp_path):
        for edit in bug.edits:
            source = (tmp_path / edit.file).read_text(encoding="utf-8")
            assert not find_unbound_names(source), "it would fail, and not misbehave"


def test_the_document_has_a_row_for_each_bug() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    assert [bug.name for bug in BUGS if bug.name not in rows] == []
