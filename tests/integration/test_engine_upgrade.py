"""Docker is upgraded under ds01d: dockerd of several years later, on the same data root.

Its ID moves from /etc/docker/key.json into the data root, the API is another one, and a stopped
container is still held: it is the same engine.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from simulation.engine import PrivateEngine
from simulation.engines import ENGINES, EngineUnavailable, chosen_dockerd, find_dockerd
from tests.support.books import until
from tests.support.daemon import RunningDaemon, Site
from tests.support.living import is_alive

pytestmark = [pytest.mark.docker, pytest.mark.engine_since(26, 0), pytest.mark.timeout(240)]

LABELS = {"aime.mlc": "alice", "aime.mlc.USER": "alice"}
HENRYS = {"aime.mlc": "henry", "aime.mlc.USER": "henry"}  # whose hold after a stop is a second
HELD, BACK, GONE = ("held._.1001", "1.0"), ("back._.1001", "1.1"), ("gone._.1001", "1.2")
LIVES = ("lives._.1003", "1.3")


@contextmanager
def old_engine(*, live_restore: bool = False) -> Iterator[PrivateEngine]:
    """The oldest engine, from which servers come."""
    try:
        dockerd = find_dockerd(ENGINES[0])
    except EngineUnavailable as error:
        pytest.fail(str(error))
    with PrivateEngine(dockerd=dockerd, storage="overlay2", live_restore=live_restore) as engine:
        yield engine


@pytest.fixture
def engine(engine_host: None) -> Iterator[PrivateEngine]:
    with old_engine() as engine:
        yield engine


@pytest.fixture
def live_engine(engine_host: None) -> Iterator[PrivateEngine]:
    """One whose containers outlive dockerd."""
    with old_engine(live_restore=True) as engine:
        yield engine


def test_an_upgrade_of_docker_is_no_other_engine_and_releases_nothing(
    tmp_path: Path, engine: PrivateEngine
) -> None:
    site = Site(tmp_path, engine.url)
    # Before ds01d: a start that takes longer than the creation grace would cost the booking.
    for (name, slot), restart in ((HELD, "no"), (BACK, "always"), (GONE, "no")):
        site.allocator.allocate(name, "alice", slot)
        engine.run(name, devices=site.uuid(slot), labels=LABELS, restart=restart)
    with RunningDaemon(site) as daemon:
        daemon.booked(HELD, BACK, GONE)
        before = engine.client.version()["ApiVersion"]

        engine.switch_dockerd(chosen_dockerd())
        assert engine.client.version()["ApiVersion"] != before
        until(lambda: engine.client.inspect_container(BACK[0])["State"]["Running"])
        daemon.outlast(1.5)  # twice the absence grace
        assert site.status()["engine_trusted"]
        assert daemon.seen("engine.changed") == []
        daemon.booked(HELD, BACK, GONE)
        assert site.taken() == []

        engine.remove(GONE[0])
        daemon.booked(HELD, BACK)
        assert site.taken() == [GONE]


def test_what_lives_through_an_upgrade_keeps_its_slot_whatever_the_engine_calls_it(
    tmp_path: Path, live_engine: PrivateEngine
) -> None:
    """A newer engine need not recognize what an older one has started (containerd, issue 7040)."""
    engine, site = live_engine, Site(tmp_path, live_engine.url)
    site.allocator.allocate(LIVES[0], "henry", LIVES[1])
    engine.run(LIVES[0], devices=site.uuid(LIVES[1]), labels=HENRYS)
    pid = engine.pid_of(LIVES[0])
    with RunningDaemon(site) as daemon:
        daemon.booked(LIVES)
        engine.switch_dockerd(chosen_dockerd())
        daemon.outlast(2.5)  # its hold and the absence grace
        assert is_alive(pid)
        assert site.bookings() == {LIVES}
        assert site.taken() == []
        os.kill(pid, signal.SIGKILL)
        until(lambda: not is_alive(pid))
        daemon.booked()
