"""Booking on a host that booted a minute ago, while its MIG layout is not restored yet.

Real NVML calls, real files, the commands as they are, in this process with a clock of its own; and
a real daemon that knew the layout before.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from ds01d.adapters.host import clocks
from ds01d.cli.ctl import main
from ds01d.model.primitives import Boot
from simulation.fake_engine import FakeEngine
from simulation.nvml import World, prod4
from tests.support.allocator import AllocatorSite
from tests.support.books import until
from tests.support.daemon import RunningDaemon
from tests.support.fixtures import NvmlWorld

NEW, TRAIN = "new._.1001", "train._.1001"
SINCE_BOOT_S: Final = 60.0
WAIT: Final = "60 s after boot: the MIG layout may still be restored; try again, in 840 s at the"


class Booted:
    """Commands on a host that has just booted, with the books of before."""

    def __init__(self, site: AllocatorSite, capsys: pytest.CaptureFixture[str]) -> None:
        self.site = site
        self._capsys = capsys

    def allocator(self, *words: str) -> tuple[str, int]:
        """`ds01-allocator WORDS`: what it prints, and its code."""
        with self._booted():
            return self.site.here(self._capsys, *words)

    def ctl(self, *words: str) -> tuple[str, int]:
        """`ds01ctl WORDS`: what it prints, and its code."""
        with self._booted() as patch:
            for key, value in self.site.environment().items():
                patch.setenv(key, value)
            with pytest.raises(SystemExit) as ended:
                main.main(list(words))
        return self._capsys.readouterr().out, int(ended.value.code or 0)

    @contextmanager
    def _booted(self) -> Iterator[pytest.MonkeyPatch]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(clocks, "read_boottime", lambda: Boot(SINCE_BOOT_S))
            yield patch


@pytest.fixture
def booted(
    tmp_path: Path,
    nvml_world: NvmlWorld,
    fake_engine: FakeEngine,
    capsys: pytest.CaptureFixture[str],
) -> Booted:
    """The books of before the boot have a booking; all devices are there at first."""
    fake_engine.data_root = str(tmp_path)
    nvml_world.set(prod4())
    site = AllocatorSite(
        tmp_path,
        "v3-dcce6c2-prod4",
        url=fake_engine.url,
        source="nvml",
        env=nvml_world.env,
        policy={"boot_grace": "15m", "creation_grace": "1h", "absence_grace": "1h"},
    )
    host = Booted(site, capsys)
    assert "✓ Allocated GPU/MIG 1.0" in host.allocator("allocate", "alice", TRAIN, "9", "10")[0]
    return host


def without_mig(*gpus: int) -> World:
    world = prod4()
    for gpu in gpus:
        world = world.without_mig(gpu)
    return world


def test_what_is_back_is_handed_out_and_nothing_else(booted: Booted, nvml_world: NvmlWorld) -> None:
    nvml_world.set(without_mig(1))
    said, code = booted.allocator("allocate", "alice", NEW, "9", "10")
    assert (code, "✓ Allocated GPU/MIG 2.0" in said) == (0, True)
    one = ("allocate", "alice", "other._.1001", "--max", "9", "--slot", "1.1")
    said, code = booted.ctl(*one)
    uuid = booted.site.uuid("1.1")
    assert (code, f"SLOT_UNUSABLE (1.1 was {uuid}, which is gone)" in said) == (3, True)
    nvml_world.set(prod4())
    said, code = booted.ctl(*one)
    assert (code, said) == (0, f"other._.1001 holds 1.1 ({uuid}) as alice\n")


def test_while_nothing_is_back_everybody_is_told_to_wait(
    booted: Booted, nvml_world: NvmlWorld
) -> None:
    nvml_world.set(without_mig(1, 2, 3))
    before = booted.site.bytes()
    said, code = booted.allocator("allocate", "alice", NEW, "9", "10")
    assert code == 0, "a refusal is an answer"
    assert said.startswith(
        "✗ Allocation failed: NO_GPU_AVAILABLE (12 slots: 12 unusable;"
        f" 12 of 15 devices are not listed yet, {WAIT}"
    )
    said, code = booted.ctl("allocate", "alice", NEW, "--max", "9")
    assert (code, WAIT in said) == (3, True)
    assert booted.site.bytes() == before


@pytest.mark.parametrize("gpus", [(1,), (1, 2, 3)])
def test_sync_makes_no_table_of_what_is_not_all(
    booted: Booted, nvml_world: NvmlWorld, gpus: tuple[int, ...]
) -> None:
    """Else GPU 1 would be a slot as a whole, and its empty MIG slots gone."""
    nvml_world.set(without_mig(*gpus))
    before = booted.site.bytes()
    said, code = booted.allocator("sync")
    assert (code, WAIT in said) == (1, True)
    assert booted.site.bytes() == before


def test_a_table_that_others_made_of_it_hands_out_no_gpu_whose_mig_devices_are_missing(
    booted: Booted, nvml_world: NvmlWorld
) -> None:
    """An allocator that knows no grace makes GPUs of it; the daemon published what there was."""
    with RunningDaemon(booted.site):
        until(lambda: booted.site.status().get("inventory"))
    free: dict[str, object] = {
        "containers": [],
        "users": {},
        "reserved_until": None,
        "reserved_for": None,
    }
    table = {str(index): {"type": "physical_gpu", **free} for index in range(4)}
    booted.site.write_state(lambda state: state.update(gpus=table, mig_enabled=False))
    nvml_world.set(without_mig(1, 2, 3))
    said, code = booted.ctl("allocate", "alice", NEW, "--max", "9", "--slot", "1", "--json")
    assert code == 3
    answer = json.loads(said)
    assert answer["refusal"] == "SLOT_UNUSABLE"
    assert "which device 1 is cannot be known: 12 of 16 devices" in answer["reason"]
    assert WAIT in answer["reason"]
    said, code = booted.ctl("allocate", "alice", NEW, "--max", "9")
    assert (code, said) == (0, f"{NEW} holds 0 (0) as alice\n"), "which had no MIG devices"
