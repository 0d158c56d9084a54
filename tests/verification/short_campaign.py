"""A short campaign as a test."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.verification.mutations import ROOT


def check_campaign(
    module: str, name: str, minutes: float, kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run the campaign of a module, which finds nothing, with a seed that is shown at once."""
    seed = os.environ.get("DS01D_SOAK_SEED") or str(random.SystemRandom().randrange(10**6))
    command = [sys.executable, "-m", module, "--seed", seed]
    command += ["--minutes", str(minutes), "--keep", str(kept)]
    with capsys.disabled():  # whatever comes of it
        sys.stdout.write(f" [{name}: seed {seed}, {minutes:g} minutes] ")
        sys.stdout.flush()
    done = subprocess.run(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    # What it found comes first: a log that is cut has it all the same.
    found = [line for line in done.stdout.splitlines() if line.startswith("VIOLATION")]
    assert done.returncode == 0, "\n".join([f"seed {seed}", *found, done.stdout, done.stderr])
