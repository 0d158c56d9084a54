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


def test_beside_an_allocator_without_books_it_observes_docker(tmp_path: Path) -> None:
    """The present lab: ds01d has logs of its own, and nothing in the lab's folders becomes its."""
    allocator = tmp_path / "opt/ds01-infra/scripts/docker/gpu_allocator_v2.py"
    allocator.parent.mkdir(parents=True)
    allocator.touch()
    put_template(tmp_path)
    make_config(tmp_path)
    settings = parse_config(config_of(tmp_path).read_text(encoding="utf-8"), origin="test")
    assert (settings.books.kind, settings.daemon.mode) == ("docker", "observe")
    assert settings.policy.expired_holds == "report"
    assert settings.allocator.sharing == "never"
    assert settings.exempt.labels == ("ds01.protected=true", "ds01.monitoring")
    parts = ("prometheus", "grafana", "alertmanager", "dcgm-exporter", "node-exporter")
    assert settings.exempt.names == tuple(f"ds01-{part}*" for part in parts)
    limits = "/opt/ds01-infra/config/runtime/resource-limits.yaml"
    assert str(settings.books.limits) == limits
    logs = {settings.logs.operations.parent, settings.logs.allocations.parent}
    assert logs == {Path("/var/log/ds01d")}


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
    for name in there:
        (tmp_path / name).mkdir(parents=True)
    put_template(tmp_path)
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


def put_template(root: Path) -> None:
    """What the package has: the configuration of this tree, in mode observe."""
    shipped = (ROOT / "etc/ds01d.toml").read_text(encoding="utf-8")
    template = root / "usr/share/ds01d/ds01d.toml"
    template.parent.mkdir(parents=True)
    template.write_text(shipped.replace('mode = "repair"', 'mode = "observe"'), encoding="utf-8")


def make_config(root: Path, before: str = "") -> None:
    run_script(root, f'make_config "{before}"')


def run_script(root: Path, command: str) -> str:
    script = (ROOT / "debian/books.sh").read_text(encoding="utf-8")
    done = subprocess.run(
        ["sh", "-euc", f"{script}\n{command}"],
        env={**os.environ, "DPKG_ROOT": str(root)},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout + done.stderr
