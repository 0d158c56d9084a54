"""What the package's scripts read of the configuration."""

from __future__ import annotations

import os
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
    ("there", "kind"),
    [
        ((), "docker"),
        (("opt/ds01-infra/scripts",), "files"),
        (("var/lib/ds01/gpu-state.json",), "files"),
        (("var/lib/ds01/container-metadata",), "docker"),
    ],
)
def test_docker_is_the_books_of_a_new_host_alone(
    tmp_path: Path, there: tuple[str, ...], kind: str
) -> None:
    for name in (*there, "usr/share/ds01d"):
        (tmp_path / name).mkdir(parents=True)
    shipped = (ROOT / "etc/ds01d.toml").read_text(encoding="utf-8")
    template = tmp_path / "usr/share/ds01d/ds01d.toml"
    template.write_text(shipped.replace('mode = "repair"', 'mode = "observe"'), encoding="utf-8")
    make_config(tmp_path)
    settings = parse_config(config_of(tmp_path).read_text(encoding="utf-8"), origin="test")
    assert (settings.books.kind, settings.daemon.mode) == (
        kind,
        "repair" if kind == "docker" else "observe",
    )


@pytest.mark.parametrize("there", ["", "a file", "a link"])
def test_a_configuration_is_made_once(tmp_path: Path, there: str) -> None:
    """Not in the place of one that was there before, nor again after somebody removed it."""
    config = config_of(tmp_path)
    config.parent.mkdir(parents=True)
    if there == "a file":
        config.write_text("ours", encoding="utf-8")
    elif there:
        config.symlink_to("nowhere")
    make_config(tmp_path, "" if there else "0.0.9")
    assert [config.is_file(), config.is_symlink()] == [there == "a file", there == "a link"]
    assert there != "a file" or config.read_text(encoding="utf-8") == "ours"


def config_of(root: Path) -> Path:
    return root / "etc/ds01/ds01d.toml"


def make_config(root: Path, before: str = "") -> None:
    script = (ROOT / "debian/books.sh").read_text(encoding="utf-8")
    subprocess.run(
        ["sh", "-euc", f'{script}\nmake_config "{before}"'],
        env={**os.environ, "DPKG_ROOT": str(root)},
        check=True,
    )
