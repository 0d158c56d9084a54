"""What the package's scripts read of the configuration."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.daemon import ROOT


@pytest.mark.parametrize(
    ("line", "is_only_writer"),
    [
        ('writers = "service"', True),
        ("writers='service'  # since May", True),
        ('writers = "group"', False),
        ('# writers = "service"', False),
    ],
)
def test_they_know_who_writes_the_books(tmp_path: Path, line: str, *, is_only_writer: bool) -> None:
    config = tmp_path / "ds01d.toml"
    config.write_text(f"[books]\n{line}\n", encoding="utf-8")
    script = (ROOT / "debian/books.sh").read_text(encoding="utf-8")
    script = script.replace("/etc/ds01/ds01d.toml", str(config))
    done = subprocess.run(["sh", "-c", f"{script}\nis_only_writer"], check=False)
    assert (done.returncode == 0) == is_only_writer
