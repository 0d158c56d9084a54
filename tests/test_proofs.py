"""What `make test` tries a part of is tried whole by `make proofs`, and by CI among all tests."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from tests.support.scripts import ROOT

AMOUNTS = """
import json
import os
import tests.conftest
from hypothesis import settings
from tests.verification.campaign.test_campaign import MINUTES
from tests.reconcile.test_properties import ALL_EXAMPLES
inherited = bool(os.environ.get("DS01D_PROOFS"))  # by pytest's workers
print(json.dumps([settings().max_examples, ALL_EXAMPLES, MINUTES, inherited]))
"""


@pytest.mark.parametrize(
    ("proofs", "amounts"),
    [("", [200, 200, 0.5, False]), ("1", [300, 2000, 2.0, True])],
)
def test_how_much_is_tried(proofs: str, amounts: list[float]) -> None:
    chosen = ("DS01D_PROOFS", "DS01D_HYPOTHESIS", "DS01D_SOAK_MINUTES", "PYTEST_XDIST_WORKER")
    environment = {name: value for name, value in os.environ.items() if name not in chosen}
    done = subprocess.run(
        [sys.executable, "-c", AMOUNTS],
        env={**environment, "DS01D_PROOFS": proofs},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == amounts


@pytest.mark.parametrize(
    ("command", "run"),
    [
        ("make proofs", r"^DS01D_PROOFS=1 \S+ -m pytest .* -m 'hypothesis or proof'"),
        ("make test PROOFS=yes", r"^DS01D_PROOFS=1 \S+ -m pytest (?!.* -m )"),
    ],
)
def test_both_ways_try_all_of_it(command: str, run: str) -> None:
    said = subprocess.run(
        [*command.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert re.search(run, said, re.MULTILINE)


def test_ci_tries_all_of_it() -> None:
    assert "stage make test PROOFS=yes" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
