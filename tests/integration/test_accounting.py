"""The accounting of a real daemon: booked and reported through its socket, and read by root."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from simulation.fake_engine import FakeEngine
from tests.support.books import until
from tests.support.daemon import RunningDaemon, Site
from tests.support.peers import BIN, DAEMON, call_as, public_socket, read_error

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="acts as other users, which root can")


@pytest.fixture
def site(tmp_path: Path, fake_engine: FakeEngine) -> Iterator[Site]:
    with public_socket() as path:
        yield Site(
            tmp_path,
            fake_engine.url,
            service={"socket": str(path)},
            policy={"creation_grace": "10m"},
        )


def bookings(site: Site) -> dict[str, Any]:
    done = site.ctl("report", "--by", "booking", "--json")
    if done.returncode:
        assert "there is no accounting yet" in done.stderr
        return {}
    return {one["container"]: one for one in json.loads(done.stdout)["bookings"]}


def test_a_booking_is_accounted_and_everybody_sees_their_own(site: Site) -> None:
    socket = Path(str(site.tables["service"]["socket"]))
    with RunningDaemon(site) as daemon:
        for peer, name in ((DAEMON, "j1"), (BIN, "j2")):
            assert "error" not in call_as(peer, socket, "Allocate", container=name)
        until(lambda: bookings(site).keys() == {"j1", "j2"})
        own = call_as(DAEMON, socket, "Report", since=0.0)["parameters"]["report"]
        assert [line["subject"] for line in own["lines"]] == ["daemon"]
        refused = call_as(DAEMON, socket, "Report", since=0.0, user="bin")
        assert read_error(refused)[0] == "NotPermitted"
        call_as(DAEMON, socket, "Release", container="j1")
        until(lambda: bookings(site)["j1"]["end"] is not None)
        assert bookings(site)["j1"]["reason"] == "released"
        daemon.sweeps()
        with closing(sqlite3.connect(site.state_dir / "accounting.sqlite")) as database:
            mark = daemon.mark()
            database.execute("BEGIN IMMEDIATE")
            call_as(DAEMON, socket, "Allocate", container="j3")
            daemon.wait_for("degraded.begin", since=mark)
            daemon.sweeps(2)  # passes go on
            warnings = daemon.seen("degraded.begin", since=mark)
        assert ["database is locked" in one["reason"] for one in warnings] == [True]
    # A killed and restarted daemon, and one whose file is gone, go on from the history.
    for file in site.state_dir.glob("accounting.sqlite*"):
        file.unlink()
    with RunningDaemon(site):
        until(lambda: bookings(site).keys() == {"j1", "j2", "j3"})
        found = bookings(site)
    assert found["j1"]["reason"] == "released"
    assert found["j3"]["end"] is None
