"""What counts of the daemon's status: the newest, while it is not too old; and when it is late."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ds01d.config import Config, DaemonConfig
from ds01d.model.drift import Kind, Outcome
from ds01d.model.primitives import Wall
from ds01d.reporting.published_status import describe_delay, read_published_status
from ds01d.reporting.status import DriftCount
from ds01d.reporting.status_file import write_status, write_with_fallback
from tests.support.status import published


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "own").mkdir()
    (tmp_path / "run").mkdir()
    return Config(daemon=DaemonConfig(state_dir=tmp_path / "own"))


def test_where_it_cannot_be_written_the_runtime_directory_has_it(config: Config) -> None:
    own, runtime = config.daemon.state_dir, config.daemon.state_dir.with_name("run")
    now = Wall(time.time())
    ours = published(state_dir=str(own))
    assert write_with_fallback(ours, own, runtime) is None
    assert [*runtime.iterdir()] == []
    own.rename(own.with_name("away"))
    newer = published(state_dir=str(own), version="newer", written_at=Wall(now + 1))
    assert "status.json" in str(write_with_fallback(newer, own, runtime))
    assert read_published_status(config, now, runtime) == (newer, "")
    own.with_name("away").rename(own)
    last, silent = read_published_status(config, now, runtime)
    assert (silent, last and last.version) == ("", "newer"), "the older one counted"
    assert write_with_fallback(ours, own, runtime) is None
    assert [*runtime.iterdir()] == []
    assert read_published_status(config, now, runtime) == (ours, "")


def test_that_of_another_ds01d_does_not_count(config: Config) -> None:
    runtime = config.daemon.state_dir.with_name("run")
    write_status(published(state_dir="/var/lib/other"), runtime)
    last, silent = read_published_status(config, Wall(time.time()), runtime)
    assert last is None
    assert "no status in" in silent


def test_that_of_a_version_before_0_1_0_is_read(config: Config) -> None:
    drifts = (DriftCount(kind=Kind.WRONG_SLOT, outcome=Outcome.WAITING, count=2),)
    write_status(published(drifts=drifts), config.daemon.state_dir)
    path = config.daemon.state_dir / "status.json"
    path.write_text(path.read_text().replace('"waiting"', '"held"'))
    last, _ = read_published_status(config, Wall(time.time()))
    assert last is not None
    assert last.drifts == drifts


@pytest.mark.parametrize(
    ("next_sweep", "late"), [(-4.0, False), (48.0, False), (-66.0, True), (None, True)]
)
def test_one_that_is_overdue_is_late_before_it_stops_counting(
    config: Config, next_sweep: float | None, *, late: bool
) -> None:
    now = Wall(time.time())
    interval, jitter = config.daemon.sweep_interval_s, config.daemon.sweep_jitter_s
    last = published(
        written_at=Wall(now - interval - 6 - jitter),
        next_sweep=None if next_sweep is None else Wall(now + next_sweep),
    )
    write_status(last, config.daemon.state_dir)
    told = describe_delay(last, config, now)
    assert ("old, a new status is" in told) is late
    assert read_published_status(config, now)[1] == ""
