"""Fixtures for the real parts in `simulation`."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from simulation import nvml


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
