"""What ds01d prints for a command is what the command prints by itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulation.fake_engine import FakeEngine
from tests.integration.test_booking_service import LIMITS, allocate
from tests.support.books import until
from tests.support.daemon import ROOT, RunningDaemon, Site
from tests.support.peers import public_socket

_FRONT = """\
import sys
name, alone, *words = sys.argv[1:]
if alone == "alone":
    sys.modules["ds01d.cli.ctl.main"] = sys.modules["ds01d.cli.allocator.main"] = None
from ds01d.cli import front
sys.argv = [name, *words]
{"ds01ctl": front.ds01ctl, "ds01-allocator": front.ds01_allocator}[name]()
"""
_SPAN = re.compile(rb"(?:\b\d+ [dhms]\b ?)+")
_MODULES = {"ds01ctl": "ds01d.cli.ctl.main", "ds01-allocator": "ds01d.cli.allocator.main"}

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="books for others")


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("front")
    with public_socket() as path, FakeEngine(path.with_name("docker.sock")) as engine:
        site = Site(
            folder,
            engine.url,
            service={"socket": str(path)},
            daemon={"sweep_interval": "60s"},
            policy={"creation_grace": "10m"},
        )
        site.limits.write_text(LIMITS, encoding="utf-8")
        with RunningDaemon(site):
            allocate(site, "alice", "job._.1001")
            allocate(site, "bob", "late")
            yield site


def run(site: Site, *command: str, **extra: str) -> tuple[int, bytes, bytes]:
    done = subprocess.run(
        [sys.executable, *command],
        env=site.environment() | extra,
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "words",
    [
        "ds01ctl status",
        "ds01ctl status --json",
        "ds01ctl status -o json",
        "ds01ctl status -o wide",
        "ds01ctl status -o name",
        "ds01ctl status --free",
        "ds01ctl status --free -o name",
        "ds01ctl status --user alice",
        "ds01ctl status --user nobody",
        "ds01-allocator status",
        "ds01-allocator status --json",
        "ds01-allocator user-status alice",
        "ds01-allocator user-status nobody",
    ],
)
def test_it_is_the_same(site: Site, words: str) -> None:
    name, *arguments = words.split()

    def is_same() -> bool:
        code, front, problems = run(site, "-c", _FRONT, name, "alone", *arguments)
        assert (code, problems) == (0, b"")
        _, alone, _ = run(site, "-m", _MODULES[name], *arguments)
        return _SPAN.sub(b"a while", front) == _SPAN.sub(b"a while", alone)

    until(is_same, what="two calls between two publications")


@pytest.mark.parametrize(
    "words",
    [
        "ds01ctl status --help",
        "ds01ctl status --jsn",
        "ds01ctl --version",
        "ds01-allocator",
        "ds01-allocator user-status",
        "ds01-allocator user-status --json alice",
        "ds01-allocator release nobody",
        "ds01-allocator status now",
    ],
)
def test_whatever_else_goes_to_the_command(site: Site, words: str) -> None:
    name, *arguments = words.split()
    front = run(site, "-c", _FRONT, name, "-", *arguments)
    code, stdout, stderr = run(site, "-m", _MODULES[name], *arguments)
    assert front == (code, stdout.replace(b"main.py", name.encode()), stderr)


def test_without_an_answer_it_goes_to_the_command(site: Site, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"  # that of another ds01d, which does not run
    other.write_text(
        site.config.read_text(encoding="utf-8").replace(str(site.state), str(tmp_path / "none")),
        encoding="utf-8",
    )
    front = run(site, "-c", _FRONT, "ds01-allocator", "-", "status", DS01D_CONFIG=str(other))
    assert front[0] == 1
    assert b"none" in front[2]


def test_a_full_disk_fails_the_command(site: Site) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", _FRONT, "ds01-allocator", "-", "status"],
            env=site.environment(),
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert b"No space left" in done.stderr
