"""What the package's scripts read of the configuration."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ds01d.config_file import parse_config
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


@pytest.mark.parametrize(
    ("before", "there", "kind"),
    [
        ("", (), "docker"),
        ("0.0.9", (), "files"),
        ("", ("opt/ds01-infra/scripts",), "files"),
        ("", ("var/lib/ds01/gpu-state.json",), "files"),
        ("", ("var/lib/ds01/container-metadata",), "docker"),
    ],
)
def test_docker_is_the_books_of_a_new_host_alone(
    tmp_path: Path, before: str, there: tuple[str, ...], kind: str
) -> None:
    for name in (*there, "etc/ds01"):
        (tmp_path / name).mkdir(parents=True)
    config = tmp_path / "etc/ds01/ds01d.toml"
    shipped = (ROOT / "etc/ds01d.toml").read_text(encoding="utf-8")
    config.write_text(shipped.replace('mode = "repair"', 'mode = "observe"'), encoding="utf-8")
    script = (ROOT / "debian/books.sh").read_text(encoding="utf-8")
    for folder in ("/opt/", "/var/lib/", "/etc/ds01/"):
        script = script.replace(f" {folder}", f" {tmp_path}{folder}")
    subprocess.run(["sh", "-euc", f'{script}\nchoose_books "{before}"'], check=True)
    settings = parse_config(config.read_text(encoding="utf-8"), origin="test")
    assert (settings.books.kind, settings.daemon.mode) == (
        kind,
        "repair" if kind == "docker" else "observe",
    )
