"""Metrics of the daemon as a process: scraped over HTTP, in a textfile, and in nobody's way."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from simulation.fake_engine import FakeEngine, request
from simulation.ports import find_free_port
from tests.support.books import until
from tests.support.daemon import RunningDaemon, Site
from tests.support.metrics import Series, fetch, samples, value

CONTAINERS = 1000
AT_ONCE = 250
LABELS = {"aime.mlc": "alice", "aime.mlc.USER": "alice", "ds01.managed": "true"}


@pytest.fixture
def port() -> int:
    return find_free_port()


@pytest.fixture
def site(tmp_path: Path, fake_engine: FakeEngine, port: int) -> Site:
    return Site(tmp_path, fake_engine.url, metrics={"listen": f"127.0.0.1:{port}"})


def scrape(port: int) -> bytes:
    status, body = until(lambda: answer(port), what="an answer")
    assert status == 200
    return body


def answer(port: int, host: str = "127.0.0.1") -> tuple[int, bytes] | None:
    """What the listener says, None while there is none."""
    with contextlib.suppress(OSError):
        return fetch(port, host=host)
    return None


def wait_for(port: int, one: str, least: float) -> None:
    """Wait until a series, written as in a scrape, has at least this value."""

    def now() -> float:
        text = scrape(port).decode()
        start = text.index(f"\n{one} ") + len(one) + 2
        return float(text[start : text.index("\n", start)])

    until(lambda: now() >= least, 150, what=lambda: f"{one} of {least}, not {now()}")


def series(text: bytes) -> frozenset[Series]:
    return frozenset(samples(text))


def run(engine: FakeEngine, site: Site, names: Sequence[str]) -> None:
    """Containers of alice, each on the next of the slots; every tenth is one of ours."""
    slots = [str(slot["uuid"]) for slot in site.read_state()["gpus"].values()]
    for number, name in enumerate(names):
        device = request(slots[number % len(slots)])
        labels = LABELS if number % 10 == 0 else {}
        engine.containers.add(name, labels=labels, requests=[device])


def test_a_scrape_tells_what_the_daemon_does(
    site: Site, fake_engine: FakeEngine, port: int
) -> None:
    with RunningDaemon(site) as daemon:
        run(fake_engine, site, ["a._.1001"])
        daemon.booked(("a._.1001", "1.0"))
        fake_engine.containers.remove("a._.1001")
        daemon.booked()
        daemon.sweeps(2)
        text = scrape(port)
        done = subprocess.run(
            ["promtool", "check", "metrics"], input=text, capture_output=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        told = samples(text)
        status = site.status()
        slots = sum(number for (name, _), number in told.items() if name == "ds01d_slots")
        assert slots == len(status["slots"])
        assert value(text, "ready") == 1
        assert value(text, "event_stream_up") == 1
        assert value(text, "source_up", source="docker") == 1
        assert value(text, "events_received_total") >= 3
        assert value(text, "actions_total", action="book", result="done") == 1
        assert value(text, "releases_total", paced="no") == 1
        assert value(text, "drifts_missed_by_events_total") == 0
        assert value(text, "events_lost_total") == 0
        assert value(text, "reconcile_errors_total", scope="sweep") == 0
        assert value(text, "last_sweep_timestamp_seconds") <= status["last_sweep"]["at"]
        assert value(text, "workqueue_adds_total") >= 5
        assert value(text, "process_resident_memory_bytes") > 1e7


@pytest.mark.timeout(600)
def test_a_thousand_containers_leave_no_series_behind(
    site: Site, fake_engine: FakeEngine, port: int
) -> None:
    site.configure(daemon={"sweep_interval": "5s"})
    with RunningDaemon(site) as daemon:
        before = series(scrape(port))
        for first in range(0, CONTAINERS, AT_ONCE):
            names = [f"job{number}" for number in range(first, first + AT_ONCE)]
            ours = (first + AT_ONCE) / 10
            run(fake_engine, site, names)
            wait_for(port, 'ds01d_actions_total{action="book",result="done"}', ours)
            for name in names:
                fake_engine.containers.remove(name)
            wait_for(port, 'ds01d_actions_total{action="release",result="done"}', ours)
        daemon.at_rest(force=True)
        text = scrape(port)
        assert series(text) == before
        assert value(text, "events_received_total") >= 4 * CONTAINERS  # create to destroy
        assert b"job" not in text


def test_a_reload_moves_the_listener_and_ends_it(site: Site, port: int) -> None:
    with RunningDaemon(site) as daemon:
        received = value(scrape(port), "workqueue_adds_total")
        other = find_free_port()
        site.configure(metrics={"listen": f"127.0.0.1:{other}"})
        daemon.reload()
        assert value(scrape(other), "workqueue_adds_total") > received
        until(lambda: answer(port) is None, what="silence")  # its thread is waited for a second
        site.configure(metrics={"listen": ""})
        daemon.reload()
        until(lambda: answer(other) is None, what="silence")
        third = find_free_port("::1")
        site.configure(metrics={"listen": f"[::1]:{third}"})
        daemon.reload()
        assert until(lambda: answer(third, "::1"), what="an answer")[0] == 200
        daemon.stop()
        with socket.create_server(("127.0.0.1", port)):
            pass


def test_metrics_that_cannot_be_published_are_told_once_and_repairs_go_on(
    site: Site, fake_engine: FakeEngine, port: int, tmp_path: Path
) -> None:
    textfile = tmp_path / "collector" / "ds01d.prom"
    site.configure(metrics={"textfile": str(textfile)})
    with socket.create_server(("127.0.0.1", port)), RunningDaemon(site) as daemon:
        run(fake_engine, site, ["a._.1001"])
        until(site.bookings, what="a booking")
        fake_engine.containers.remove("a._.1001")
        daemon.booked()
        daemon.sweeps(2)
        told = [entry["reason"] for entry in daemon.seen("degraded.begin", level="warning")]
        assert len([reason for reason in told if f"127.0.0.1:{port}: " in reason]) == 1
        assert len([reason for reason in told if f"{textfile}: " in reason]) == 1
        assert "no directory" in json.dumps(daemon.seen("config.risk"))
        assert daemon.stop() == 0


def test_a_textfile_has_the_same_and_goes_with_the_daemon(site: Site, tmp_path: Path) -> None:
    textfile = tmp_path / "ds01d.prom"
    site.configure(metrics={"listen": "", "textfile": str(textfile)})
    with RunningDaemon(site) as daemon:
        until(textfile.exists, what="the textfile")
        assert value(textfile.read_bytes(), "build_info", **build_info(textfile)) == 1
        assert textfile.stat().st_mode & 0o777 == 0o644
        daemon.stop()
        assert not textfile.exists()


def build_info(textfile: Path) -> dict[str, str]:
    found = next(s for s in samples(textfile.read_bytes()) if s[0] == "ds01d_build_info")
    return dict(found[1])
