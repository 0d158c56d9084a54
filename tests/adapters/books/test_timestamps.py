"""Naive local times: read in this host's zone, and never too early."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.adapters.books.timestamps import format_iso, format_log_time, parse_time
from ds01d.model.primitives import Wall

ROOT = Path(__file__).parents[3]


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Let a test move the host."""

    def move(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield move
    monkeypatch.undo()
    time.tzset()


def _zone_file(name: bytes, offset_s: int) -> bytes:
    """A zone without summer time, as /etc/localtime holds it; see tzfile(5)."""

    def block() -> bytes:
        counts = struct.pack(">6l", 0, 0, 0, 0, 1, len(name) + 1)
        return b"TZif2" + bytes(15) + counts + struct.pack(">lbb", offset_s, 0, 0) + name + b"\0"

    hours = -offset_s // 3600
    return block() + block() + b"\n" + name + str(hours).encode() + b"\n"


def utc(*parts: int) -> float:
    return datetime(*parts, tzinfo=timezone.utc).timestamp()  # type: ignore[misc, arg-type]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-23T11:03:31.407298", utc(2026, 11, 23, 10, 3, 31, 407298)),
        ("2026-07-23T11:03:31", utc(2026, 7, 23, 9, 3, 31)),
        ("2026-07-23 11:03", utc(2026, 7, 23, 9, 3)),
        ("2026-11-23T11:03:31Z", utc(2026, 11, 23, 11, 3, 31)),
        ("2026-11-23T11:03:31.123456789Z", utc(2026, 11, 23, 11, 3, 31, 123456)),
        ("2026-11-23T11:03:31.5+02:00", utc(2026, 11, 23, 9, 3, 31, 500000)),
        ("2026-11-23T11:03:31-0530", utc(2026, 11, 23, 16, 33, 31)),
    ],
)
def test_times_are_understood(zone: Callable[[str], None], text: str, seconds: float) -> None:
    zone("Europe/Berlin")
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "1764000000",
        "2026-11-23",
        "2026-13-01T00:00:00",
        "2026-02-30T00:00:00",
        "2026-11-23T25:00:00",
        "2026-11-23T11:00:00+99:00",
        "2026-11-23T11:00:00\n|x",
        "٢٠٢٦-11-23T11:00:00",
        "0001-01-01T00:00:00Z",
    ],
)
def test_what_is_no_time_is_none(text: str) -> None:
    assert parse_time(text) is None


def test_a_time_that_comes_twice_is_the_later_one(zone: Callable[[str], None]) -> None:
    zone("Europe/Berlin")
    assert parse_time("2026-10-25T02:30:00") == utc(2026, 10, 25, 1, 30)
    assert parse_time("2026-03-29T02:30:00") == utc(2026, 3, 29, 1, 30)


def test_times_are_written_as_the_allocator_does(zone: Callable[[str], None]) -> None:
    zone("Asia/Kolkata")
    at = Wall(utc(2026, 11, 23, 10, 0, 0, 50))
    assert format_iso(at) == "2026-11-23T15:30:00.000050"
    assert format_log_time(at) == "2026-11-23 15:30:00"


@given(st.floats(1, 4e9))
def test_what_is_written_is_read_again(at: float) -> None:
    again = parse_time(format_iso(Wall(at)))
    assert again is not None
    assert again == pytest.approx(at, abs=1e-6) or again == pytest.approx(at + 3600, abs=1e-6)


@given(st.text(max_size=40))
def test_no_text_breaks_it(text: str) -> None:
    assert parse_time(text) is None or text.strip()[0].isdigit()


MOVED = """
import subprocess, sys
from datetime import datetime
from ds01d.adapters.host.clocks import HostClock
from ds01d.adapters.books.timestamps import parse_time

clock = HostClock()
clock.now()
before = parse_time("2026-11-23T12:00:00")
print(datetime(2026, 11, 23, 12).astimezone().utcoffset().total_seconds())
subprocess.run(["mount", "--bind", sys.argv[1], "/etc/localtime"], check=True)
clock.now()
print(before - parse_time("2026-11-23T12:00:00"))
"""


def test_the_zone_of_the_host_counts_as_it_is_now(tmp_path: Path) -> None:
    """Whoever writes the books is started anew all the time; we are not."""
    if os.geteuid() != 0:
        pytest.skip("another /etc/localtime needs root")
    zone = tmp_path / "zone"
    zone.write_bytes(_zone_file(b"JST", 9 * 3600))
    inside = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", MOVED]
    env = {key: value for key, value in os.environ.items() if key != "TZ"}
    told = subprocess.run(
        [*inside, str(zone)], cwd=ROOT, env=env, check=True, capture_output=True, text=True
    ).stdout
    here_s, moved_s = map(float, told.split())
    assert moved_s == 9 * 3600 - here_s


@pytest.mark.parametrize(
    "text", ["9999-12-31T23:59:59-14:00", "9999-12-31T23:59:59Z", "9999-12-31T00:00:00+14:00"]
)
@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Niue"])
def test_the_end_of_time_can_be_written_in_every_zone(
    monkeypatch: pytest.MonkeyPatch, text: str, zone: str
) -> None:
    """An allocated_at like this ended whatever had to show it ("year 10000 is out of range")."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        at = parse_time(text)
        assert at is not None
        assert format_iso(at).startswith("9999-12-")
        assert format_log_time(at).startswith("9999-12-")
    finally:
        monkeypatch.undo()
        time.tzset()
