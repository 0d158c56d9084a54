"""The record of a target: ds01d reads it, and another user writes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ds01d.adapters.notices.delivery_file import read_record
from ds01d.errors import Malformed


@pytest.mark.parametrize(
    "damage",
    [{"sent": -1}, {"failed": 10**400}, {"dropped": 2**53 + 1}, {"attempts": {"a": -(10**30)}}],
)
def test_counts_that_no_metric_takes_are_damage(tmp_path: Path, damage: dict[str, object]) -> None:
    path = tmp_path / "webhook.json"
    path.write_text(json.dumps({"sent": 1, **damage}))
    with pytest.raises(Malformed, match="damaged"):
        read_record(path)
