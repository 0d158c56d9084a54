"""The daemon as a process against a real engine: what every test here needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from simulation.engine import PrivateEngine
from tests.support.daemon import Site
from tests.support.fixtures import NvmlWorld

MakeSite = Callable[..., Site]


@pytest.fixture
def site(tmp_path: Path, engine: PrivateEngine) -> Site:
    """Empty books with the slots of a real server, whose inventory they are (`source = "none"`)."""
    return Site(tmp_path, engine.url)


@pytest.fixture
def nvml_site(tmp_path: Path, engine: PrivateEngine, nvml_world: NvmlWorld) -> Site:
    """The same with the (simulated) NVML of that server."""
    gpu: Mapping[str, object] = {"source": "nvml", "timeout": "5s"}
    docker: Mapping[str, object] = {"timeout": "5s"}  # a busy machine is no engine that is away
    daemon: Mapping[str, object] = {"sweep_interval": "5s"}
    return Site(tmp_path, engine.url, env=nvml_world.env, gpu=gpu, docker=docker, daemon=daemon)
