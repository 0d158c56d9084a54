"""A user who exports TZ: the times in the books are the host's, whoever writes them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ds01d.adapters.books.timestamps import parse_time
from ds01d.cli.base.process import use_host_zone
from tests.support.allocator import AllocatorSite

NAME = "job._.1001"
ELSEWHERE = "XYZ-14"  # POSIX: 14 hours east of Greenwich, where no host of ours is
MINUTES = 600.0


@pytest.fixture(autouse=True)
def _host_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Read the books as the host does."""
    monkeypatch.delenv("TZ", raising=False)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def site(tmp_path: Path) -> AllocatorSite:
    return AllocatorSite(tmp_path, "v3-dcce6c2-prod4", env={"TZ": ELSEWHERE})


def away(text: str) -> float:
    """How far from now a time in the books is, in seconds."""
    at = parse_time(text)
    assert at is not None
    return abs(at - time.time())


def test_the_allocator_writes_the_times_of_the_host(site: AllocatorSite) -> None:
    assert site.run("allocate", "alice", NAME, "9", "10").returncode == 0
    assert site.run("mark-stopped", NAME).returncode == 0
    record = site.metadata_of()[NAME]
    assert away(record["allocated_at"]) < MINUTES
    assert away(record["stopped_at"]) < MINUTES
    lines = site.allocations.read_text(encoding="utf-8").splitlines()
    assert [line.split("|")[1] for line in lines] == ["ALLOCATED", "MARKED_STOPPED"]
    assert all(away(line.partition("|")[0]) < MINUTES for line in lines)


def test_so_does_ds01ctl(site: AllocatorSite) -> None:
    site.ctl("allocate", "alice", NAME, check=True)
    assert away(site.metadata_of()[NAME]["allocated_at"]) < MINUTES


def test_only_tz_is_taken_out_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", ELSEWHERE)
    time.tzset()
    assert time.localtime().tm_gmtoff == 14 * 3600
    use_host_zone()
    assert time.localtime().tm_gmtoff != 14 * 3600
    use_host_zone()
