"""A short campaign over several hosts; `make soak-fleet` is the same for longer.

DS01D_SOAK_SEED and DS01D_SOAK_MINUTES choose another one.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from simulation.etcd import EtcdPrograms, EtcdUnavailable
from tests.support.proofs import PROOFS
from tests.verification.fleet.bugs import REFERENCE
from tests.verification.fleet.reference_store import BUGS
from tests.verification.fleet.storm import MIXES, Storm
from tests.verification.mutations import ROOT

MINUTES = float(os.environ.get("DS01D_SOAK_MINUTES") or (2.0 if PROOFS else 0.15))


@pytest.mark.proof
@pytest.mark.timeout(1800)  # it waits for hosts and members, not for seconds
def test_a_short_campaign_finds_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        EtcdPrograms()
    except EtcdUnavailable as error:
        pytest.skip(str(error))
    seed = os.environ.get("DS01D_SOAK_SEED") or str(random.SystemRandom().randrange(10**6))
    command = [sys.executable, "-m", "tests.verification.fleet.run", "--seed", seed]
    command += ["--minutes", str(MINUTES), "--keep", str(tmp_path / "kept")]
    with capsys.disabled():  # whatever comes of it
        sys.stdout.write(f" [campaign over hosts: seed {seed}, {MINUTES:g} minutes] ")
        sys.stdout.flush()
    done = subprocess.run(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("VIOLATION")]
    assert done.returncode == 0, "\n".join([f"seed {seed}", *found, done.stdout, done.stderr])


def test_every_bug_has_faults_under_which_it_shows() -> None:
    """That each is caught is what `make soak-fleet-bugs` tries; it takes minutes."""
    assert {*BUGS} == {*REFERENCE}
    assert {*REFERENCE.values()} <= MIXES.keys()


def test_every_fault_can_be_carried_out() -> None:
    for mix in MIXES.values():
        for name in (*mix.hosts, *mix.links, *mix.members):
            assert callable(getattr(Storm, "_" + name.replace(" ", "_")))


def test_the_document_has_a_row_for_each_bug() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    assert [bug for bug in BUGS if bug not in rows] == []
