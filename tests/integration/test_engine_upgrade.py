"""Docker is upgraded under ds01d: dockerd of several years later, on the same data root.

Its ID moves from /etc/docker/key.json into the data root, the API is another one, and a stopped
container is still held: it is the same engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from simulation.engine import PrivateEngine
from simulation.engines import ENGINES, EngineUnavailable, chosen_dockerd, find_dockerd
from tests.support.books import until
from tests.support.daemon import RunningDaemon, Site

pytestmark = [pytest.mark.docker, pytest.mark.engine_since(26, 0), pytest.mark.timeout(240)]

LABELS = {"aime.mlc": "alice", "aime.mlc.USER": "alice"}
HELD, BACK, GONE = ("held._.1001", "1.0"), ("back._.1001", "1.1"), ("gone._.1001", "1.2")


@pytest.fixture
def old_engine(engine_host: None) -> Iterator[PrivateEngine]:
    """The oldest engine, from which servers come."""
    try:
        dockerd = find_dockerd(ENGINES[0])
    except EngineUnavailable as error:
        pytest.fail(str(error))
    with PrivateEngine(dockerd=dockerd, storage="overlay2") as engine:
        yield engine


def test_an_upgrade_of_docker_is_no_other_engine_and_releases_nothing(
    tmp_path: Path, old_engine: PrivateEngine
) -> None:
    engine, site = old_engine, Site(tmp_path, old_engine.url)
    with RunningDaemon(site) as daemon:
        for (name, slot), restart in ((HELD, "no"), (BACK, "always"), (GONE, "no")):
            site.allocator.allocate(name, "alice", slot)
            engine.run(name, devices=site.uuid(slot), labels=LABELS, restart=restart)
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
