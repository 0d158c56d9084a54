"""The dashboard beside a daemon: it shows what the daemon sees, and has it sweep."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any

import pytest

from simulation.engine import PrivateEngine
from simulation.nvml import prod4
from simulation.nvml.world import GIB
from tests.support.daemon import ROOT, RunningDaemon, Site
from tests.support.fixtures import NvmlWorld
from tests.support.terminal import conversation

pytestmark = pytest.mark.docker

COMMAND = [sys.executable, "-m", "ds01d.cli.dashboard.main"]


def shown(site: Site) -> Any:
    """What the dashboard shows now."""
    result = subprocess.run(
        [*COMMAND, "--json"],
        env=site.environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return json.loads(result.stdout)


@pytest.mark.engine_neutral
def test_it_shows_gpus_holders_and_operations_as_they_are(
    nvml_site: Site, engine: PrivateEngine, nvml_world: NvmlWorld
) -> None:
    site = nvml_site
    whole, *cut = prod4().gpus
    warm = dataclasses.replace(whole, temperature=67, used=2 * GIB, utilization=35)
    nvml_world.set(dataclasses.replace(prod4(), gpus=(warm, *cut)))
    site.allocator.allocate("train._.1001", "alice", "1.0")
    labels = {"aime.mlc": "alice", "aime.mlc.USER": "alice"}
    engine.run("train._.1001", devices=site.uuid("1.0"), labels=labels)
    line = "2026-11-23 08:00:00|create_success|alice|train._.1001|1.0|success|"
    site.operations.write_text(f"{line}\n")
    with RunningDaemon(site):
        told = shown(site)
        gpu = told["gpus"][0]
        assert (gpu["temperature"], gpu["utilization"], gpu["mig"]) == (67, 35, False)
        assert gpu["memory_used"] == 2 * GIB
        assert (told["gpus"][1]["utilization"], told["gpus"][1]["mig"]) == (None, True)
        slot = next(one for one in told["slots"] if one["slot"] == "1.0")
        assert slot["holders"][0]["container"] == "train._.1001"
        assert slot["memory_total"] == 10 * GIB
        assert slot["drifts"] == []
        assert told["users"] == [{"user": "alice", "containers": ["train._.1001"]}]
        assert told["operations"][-1]["operation"] == "create_success"
        assert told["daemon"]["alive"] is True


@pytest.mark.engine_neutral
def test_a_key_has_the_daemon_sweep(site: Site) -> None:
    with RunningDaemon(site) as daemon:
        since = daemon.mark()
        env = {**site.environment(), "COLUMNS": "140", "LINES": "50"}
        cues = [("CONTAINER", "s"), ("requested a sweep", "q")]
        code, drawn = conversation(COMMAND, cues, env)
        assert code == 0, drawn
        daemon.wait_for("daemon.reload", since=since)
