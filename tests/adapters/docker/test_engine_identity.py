"""Who an engine is: its ID if that lasts, and where and how it keeps its containers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from ds01d.adapters.docker.engine_info import read_info
from ds01d.model.containers import EngineWarningKind
from simulation.fake_engine import FakeEngine
from simulation.proxy import Proxy
from tests.adapters.docker.test_engine import NAME, engine_at, seen, unknown, until


@pytest.fixture
def podman(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Iterator[FakeEngine]:
    path = tmp_path_factory.mktemp("podman") / "podman.sock"
    with FakeEngine(path, data_root=str(tmp_path), driver="overlay", podman=True) as engine:
        yield engine


def test_an_engine_with_a_new_id_in_each_answer_is_the_same_after_each_gap(
    podman: FakeEngine, tmp_path: Path
) -> None:
    with engine_at(podman) as (docker, _):
        first = seen(docker)
        assert (first.identity.id, first.identity.root_dir) == ("", str(tmp_path))
        assert (first.identity.driver, first.identity.inode) == ("overlay", tmp_path.stat().st_ino)
        (warning,) = first.warnings
        assert warning.kind is EngineWarningKind.NO_LASTING_ID
        assert str(tmp_path) in warning.text
        for number in range(1, 4):
            podman.stop()
            podman.start()
            until(lambda number=number: docker.reconnects == number)  # type: ignore[misc]
            assert seen(docker).identity == first.identity
    with engine_at(podman, watch=False) as (docker, _):
        assert seen(docker).identity == first.identity


def test_podmans_remove_is_a_destroy_event(podman: FakeEngine) -> None:
    with engine_at(podman) as (docker, heard):
        gone = podman.containers.add(NAME)
        until(lambda: NAME in seen(docker, [NAME]).by_name)
        podman.containers.remove(gone)
        until(lambda: "destroy" in heard.actions)
        answer = seen(docker, [NAME])
        assert answer.destroyed[NAME].id == gone
        assert NAME not in answer.by_name


def test_podman_is_not_asked_what_a_gap_hid(podman: FakeEngine) -> None:
    """It gives only some of its events when it is asked for those up to a moment."""
    with Proxy(podman.socket.with_name("proxy.sock"), podman.socket) as proxy:
        podman.containers.remove(podman.containers.add("before"))
        with engine_at(proxy) as (docker, _):
            since = seen(docker).since
            proxy.cut()
            until(lambda: docker.reconnects == 1)
            assert seen(docker).since > since


def test_another_engine_with_a_lasting_id_is_another_engine(fake_engine: FakeEngine) -> None:
    with engine_at(fake_engine) as (docker, _):
        assert seen(docker).identity.id == "FAKE:ENGN"
        fake_engine.stop()
        fake_engine.ident = "OTHER:ENGN"
        fake_engine.start()
        until(lambda: docker.reconnects)
        assert seen(docker).identity.id == "OTHER:ENGN"
        assert not seen(docker).warnings


def test_engines_that_answer_by_turns_are_no_engine_without_an_id(
    fake_engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy that balances between two: the one would give honest 404s for the other's."""
    turns, info = itertools.cycle(("ONE", "TWO")), fake_engine.info
    monkeypatch.setattr(fake_engine, "info", lambda: {**info(), "ID": next(turns)})
    with engine_at(fake_engine, watch=False) as (docker, _):
        assert "several engines answer" in unknown(docker)


@pytest.mark.parametrize(
    ("status", "store"),
    [
        ('[["driver-type","io.containerd.snapshotter.v1"]]', "io.containerd.snapshotter.v1"),
        ('[["Backing Filesystem","extfs"],["Supports d_type","true"]]', ""),
        ("null", ""),
        ('[["driver-type"],7,{"driver-type":"x"}]', ""),
        ('"text"', ""),
    ],
)
def test_the_image_store_is_what_the_driver_says_of_its_type(status: str, store: str) -> None:
    body = f'{{"ID":"X","DockerRootDir":"/d","Driver":"overlayfs","DriverStatus":{status}}}'
    info = read_info(body.encode())
    assert (info.driver, info.image_store) == ("overlayfs", store)


def test_an_engine_may_tell_less_of_itself() -> None:
    info = read_info(b'{"DockerRootDir":"/d"}')
    assert (info.id, info.driver, info.image_store, info.time) == ("", "", "", None)
