"""Fixtures for the real parts in `simulation`."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from simulation import nvml
from simulation.engine import PrivateEngine
from simulation.engines import EngineUnavailable, chosen_dockerd
from simulation.fake_engine import FakeEngine
from simulation.machine import missing
from simulation.proxy import Proxy


@dataclass(frozen=True, slots=True, kw_only=True)
class NvmlWorld:
    """A simulated NVML in force, for processes that are started with `env`."""

    path: Path
    lib: Path

    @property
    def env(self) -> Mapping[str, str]:
        """A whole environment: ours, and what selects the library and the world."""
        return os.environ | nvml.env(self.lib, self.path)

    def set(self, world: nvml.World) -> None:
        """Put another world in force, also for processes that already run."""
        world.write(self.path)

    def sessions(self) -> nvml.Sessions:
        """Tell who has NVML open, and how many ever had."""
        return nvml.sessions(self.path)


@pytest.fixture(scope="session")
def nvml_library() -> Path:
    """Compile the simulated NVML, once, and return its folder."""
    return nvml.build()


@pytest.fixture
def nvml_world(tmp_path: Path, nvml_library: Path) -> NvmlWorld:
    """Show four A100, three of them cut into four MIG devices each."""
    path = tmp_path / "nvml-world"
    nvml.prod4().write(path)
    return NvmlWorld(path=path, lib=nvml_library)


@pytest.fixture(scope="session")
def one_engine(engine_host: None) -> Iterator[PrivateEngine]:
    """Run the private Docker engine that many tests use, one after the other: see `engine`."""
    with PrivateEngine() as engine:
        yield engine


@pytest.fixture
def engine(one_engine: PrivateEngine) -> PrivateEngine:
    """Lend a running private Docker engine without containers, to do with it as a test likes."""
    one_engine.reset()
    return one_engine


@pytest.fixture(scope="session")
def engine_host() -> None:
    """Skip where no private Docker engine can run; fail if the one that was asked for cannot."""
    if os.geteuid() != 0:
        pytest.skip("a private Docker engine needs root")
    try:
        chosen_dockerd()
    except EngineUnavailable as error:
        if "DS01D_ENGINE" in os.environ:
            pytest.fail(str(error))
        pytest.skip(f"a private Docker engine needs dockerd: {error}")


@pytest.fixture
def fake_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeEngine]:
    """Run a fake Docker engine without containers."""
    # A folder of its own: the path of a unix socket has room for a hundred characters only.
    with FakeEngine(tmp_path_factory.mktemp("fake") / "docker.sock") as engine:
        yield engine


@pytest.fixture
def proxy(fake_engine: FakeEngine) -> Iterator[Proxy]:
    """Put a proxy that spoils answers on demand in front of the fake engine."""
    with Proxy(fake_engine.socket.with_name("proxy.sock"), fake_engine.socket) as running:
        yield running


@pytest.fixture(scope="session")
def machine_host() -> None:
    """Skip where no throw-away machine can be booted."""
    if reason := missing():
        pytest.skip(reason)
