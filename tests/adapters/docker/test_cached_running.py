"""What lives, by the events since the last list."""

from __future__ import annotations

import time
from collections.abc import Iterator

import docker
import pytest

from ds01d.adapters.docker.cached_running import CachedRunning
from ds01d.adapters.docker.engine import DockerEngine
from ds01d.model.primitives import Unknown
from ds01d.model.usage import Running
from simulation.fake_engine import FakeEngine, request
from tests.support.books import until


@pytest.fixture
def engine(fake_engine: FakeEngine) -> Iterator[DockerEngine]:
    engine = DockerEngine(fake_engine.url, 2.0, time.monotonic)
    engine.start()
    engine.observe(None)
    yield engine
    engine.close()


def read(running: CachedRunning, *known_ids: str) -> Running:
    answer = running.read(frozenset(known_ids))
    assert isinstance(answer, Running), answer
    return answer


def test_a_change_is_seen_without_a_list(
    fake_engine: FakeEngine, engine: DockerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = CachedRunning(engine, 600.0)
    assert read(running).names == {}

    def fail() -> None:
        raise AssertionError("a list")

    monkeypatch.setattr(engine, "_list_containers", fail)
    client = docker.APIClient(base_url=fake_engine.url)
    host = client.create_host_config(network_mode="none")
    host["DeviceRequests"] = [request("MIG-1")]
    made = client.create_container("ds01d-test:latest", name="job", host_config=host)["Id"]
    until(lambda: made in read(running).names, what="the created container")
    client.start("job")
    until(lambda: read(running).containers, what="its request")
    (container,) = read(running).containers
    assert (container.name, read(running).problem) == ("job", "")
    assert read(running, made[:12]).containers == ()  # its request is known already
    assert made in read(running, made[:12]).names
    client.stop("job")
    until(lambda: not read(running).names, what="its end")
    client.close()


def test_without_docker_it_is_not_known(tmp_path_factory: pytest.TempPathFactory) -> None:
    with FakeEngine(tmp_path_factory.mktemp("gone") / "docker.sock") as fake:
        engine = DockerEngine(fake.url, 2.0, time.monotonic)
        engine.start()
        engine.observe(None)
    try:
        running = CachedRunning(engine, 600.0)
        until(lambda: isinstance(running.read(frozenset()), Unknown), what="that it is not known")
    finally:
        engine.close()
