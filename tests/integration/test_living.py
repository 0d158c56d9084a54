"""Containers that a real engine calls exited, or does not know, while their process computes on."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simulation.engine import PrivateEngine
from tests.support.books import until
from tests.support.daemon import RunningDaemon, Site
from tests.support.living import is_alive

pytestmark = pytest.mark.docker

NAME, SLOT = "train._.1003", "1.0"
LABELS = {"aime.mlc": "henry", "aime.mlc.USER": "henry"}  # whose hold after a stop is a second
LONGEST_S = 2.0 + 1.0 + 1.0
"""The creation grace, a hold or an absence grace after it, and one sweep."""


@pytest.fixture
def own_engine() -> Iterator[PrivateEngine]:
    """An engine for one test: what is done to it here, the next one should not find."""
    with PrivateEngine() as engine:
        yield engine


def blocked(site: Site) -> dict[str, Any]:
    """The one drift, by `ds01ctl plan`."""
    plan = site.plan()
    assert not plan["consistent"]
    drifts: list[dict[str, Any]] = plan["drifts"]
    (drift,) = drifts
    assert (drift["container"], drift["slot"], drift["gate"]) == (NAME, SLOT, "blocked"), drift
    return drift


def test_exited_255_and_alive_keeps_its_slot(tmp_path: Path, own_engine: PrivateEngine) -> None:
    """dockerd, containerd and the shim are killed, and their run state is lost."""
    engine, site = own_engine, Site(tmp_path, own_engine.url)
    site.allocator.allocate(NAME, "henry", SLOT)
    engine.run(NAME, devices=site.uuid(SLOT), labels=LABELS)
    pid = engine.pid_of(NAME)
    with RunningDaemon(site) as daemon:
        engine.lose_runtime()
        engine.start()
        state = engine.client.inspect_container(NAME)["State"]
        assert (state["Status"], state["ExitCode"], is_alive(pid)) == ("exited", 255, True)
        daemon.outlast(LONGEST_S)
        daemon.sweeps(2)
        assert site.bookings() == {(NAME, SLOT)}
        drift = blocked(site)
        assert (drift["kind"], f"process {pid} " in drift["reason"]) == ("expired-hold", True)
        assert site.taken() == []
        os.kill(pid, signal.SIGKILL)
        until(lambda: not is_alive(pid))
        daemon.booked()
    assert site.taken() == [(NAME, SLOT)]


def test_what_the_engine_has_forgotten_keeps_its_slot_while_it_lives(
    tmp_path: Path, own_engine: PrivateEngine
) -> None:
    """Its files are gone from the data root: not listed, an honest 404, and it computes on."""
    engine, site = own_engine, Site(tmp_path, own_engine.url)
    site.allocator.allocate(NAME, "henry", SLOT)
    ident = engine.run(NAME, devices=site.uuid(SLOT), labels=LABELS)
    pid = engine.pid_of(NAME)
    with RunningDaemon(site) as daemon:
        daemon.sweeps(1)
        engine.kill(containers=False)
        shutil.rmtree(engine.data_root / "containers" / ident)
        engine.start()
        assert engine.client.containers(all=True) == []
        assert is_alive(pid)
        daemon.outlast(LONGEST_S)
        daemon.sweeps(2)
        assert site.bookings() == {(NAME, SLOT)}
        drift = blocked(site)
        assert (drift["kind"], f"process {pid} " in drift["reason"]) == ("stale-allocation", True)
        os.kill(pid, signal.SIGKILL)
        until(lambda: not is_alive(pid))
        daemon.booked()
