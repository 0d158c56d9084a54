"""The inputs that fuzzing found worth keeping: one file a target, one input a line, in base64.

Lines keep it reviewable: a run that finds new paths adds lines, and a repository of thousands of
tiny files is no joy.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path

from tests.verification.fuzz.targets import CORPUS, Target


def load(target: Target) -> list[bytes]:
    """What is kept for a target; its seeds are not in it."""
    path = _path(target)
    lines = path.read_text(encoding="ascii").split() if path.exists() else []
    return [base64.b64decode(line, validate=True) for line in lines]


def save(target: Target, inputs: Iterable[bytes]) -> None:
    """Keep these, shortest first."""
    CORPUS.mkdir(exist_ok=True)
    ordered = sorted(set(inputs) - {b""}, key=lambda one: (len(one), one))
    text = "".join(f"{base64.b64encode(one).decode()}\n" for one in ordered)
    _path(target).write_text(text, encoding="ascii")


def _path(target: Target) -> Path:
    return CORPUS / f"{target.name}.base64"
