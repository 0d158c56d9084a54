"""A short campaign over several hosts; `make soak-fleet` is the same for longer.

DS01D_SOAK_SEED and DS01D_SOAK_MINUTES choose another one.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from simulation.etcd import EtcdPrograms, EtcdUnavailable
from tests.support.proofs import PROOFS
from tests.verification.campaign.bugs import planted
from tests.verification.fleet import reference_store as reference
from tests.verification.fleet.bugs import BUGS, FleetBug
from tests.verification.fleet.storm import MIXES, Storm
from tests.verification.mutations import ROOT, find_unbound_names
from tests.verification.short_campaign import check_campaign

MINUTES = float(os.environ.get("DS01D_SOAK_MINUTES") or (1.0 if PROOFS else 0.08))


@pytest.mark.proof
@pytest.mark.timeout(1800)  # it waits for hosts and members, not for seconds
def test_a_short_campaign_finds_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        EtcdPrograms()
    except EtcdUnavailable as error:
        pytest.skip(str(error))
    module = "tests.verification.fleet.run"
    check_campaign(module, "campaign over hosts", MINUTES, tmp_path / "kept", capsys)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: f"{bug.hosts}: {bug.name}")
def test_a_bug_can_still_be_planted(bug: FleetBug, tmp_path: Path) -> None:
    """That each is caught is what `make soak-fleet-bugs` tries; it takes minutes."""
    assert bug.mix in MIXES
    for edit in bug.edits:
        target = tmp_path / edit.file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / edit.file).read_bytes())
    with planted(bug.as_planted, tmp_path):
        for edit in bug.edits:
            source = (tmp_path / edit.file).read_text(encoding="utf-8")
            assert not find_unbound_names(source), "it would fail, and not misbehave"


def test_the_reference_host_makes_each_of_its_mistakes() -> None:
    assert {bug.name for bug in BUGS if bug.hosts == "reference"} == {*reference.BUGS}


def test_every_fault_can_be_carried_out() -> None:
    for mix in MIXES.values():
        for name in (*mix.hosts, *mix.links, *mix.members):
            assert callable(getattr(Storm, "_" + name.replace(" ", "_")))


def test_the_document_has_a_row_for_each_bug() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    rows = [tuple(line.split(" | ")[:2]) for line in text.splitlines() if line.startswith("| ")]
    assert [bug for bug in BUGS if (f"| {bug.name}", bug.hosts) not in rows] == []
