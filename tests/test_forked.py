"""Commands that tests call in a forked process behave as in one of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import forked
from tests.support.allocator import AllocatorSite

CTL, ALLOCATOR = forked.MODULES


@pytest.fixture
def site(tmp_path: Path) -> AllocatorSite:
    return AllocatorSite(tmp_path, "v3-dcce6c2-prod4")


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize(
    ("module", "words"),
    [
        (CTL, ["--version"]),
        (CTL, ["history", "--json"]),
        (CTL, ["freeze", "--for", "soon"]),
        (CTL, ["plan", "--config", "/nowhere.toml"]),
        (ALLOCATOR, ["status"]),
        (ALLOCATOR, ["bogus"]),
    ],
)
def test_it_is_the_same(site: AllocatorSite, module: str, words: list[str], merged: bool) -> None:
    own = subprocess.run(
        [sys.executable, "-m", module, *words],
        env=site.environment(),
        cwd=forked.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if merged else subprocess.PIPE,
        text=True,
        check=False,
    )
    called = forked.call(module, words, env=site.environment(), merged=merged)
    assert (called.returncode, called.stdout, called.stderr) == (
        own.returncode,
        own.stdout,
        own.stderr,
    )


def test_nothing_of_a_call_stays_for_the_next(site: AllocatorSite) -> None:
    assert site.run("allocate", "alice", "a._.1001", "9", "10").returncode == 0
    other = {**site.environment(), "DS01D_CONFIG": "/nowhere.toml"}
    assert "/nowhere.toml" in forked.call(ALLOCATOR, ["status"], env=other).stderr
    assert "a._.1001" in site.run("status").stdout


def test_several_at_once(site: AllocatorSite) -> None:
    calls = [["allocate", "alice", f"job{number}._.1001", "9", "10"] for number in range(3)]
    done = forked.call_at_once(ALLOCATOR, calls, env=site.environment())
    assert [one.returncode for one in done] == [0, 0, 0]
    assert {name for name, _ in site.bookings()} == {words[2] for words in calls}


def test_one_that_hangs_is_ended_and_the_next_answers(site: AllocatorSite) -> None:
    site.configure(books={"lock_timeout": "50s"})
    with site.state.with_name("gpu-state.json.lock").open("w") as lock:
        subprocess.run(["flock", "-x", str(lock.fileno())], pass_fds=[lock.fileno()], check=True)
        with pytest.raises(subprocess.TimeoutExpired):
            forked.call(ALLOCATOR, ["release", "x"], env=site.environment(), timeout_s=3)
    assert site.run("status").returncode == 0
