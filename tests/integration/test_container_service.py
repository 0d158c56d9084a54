"""Containers through the service, on a real engine: confined, booked, undone."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simulation.engine import IMAGE, PrivateEngine
from tests.support.container_calls import ContainerDesk, make_users
from tests.support.daemon import Site

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes the homes of other users"),
]

CATALOGUE = f"""\
[container]
command = ["sleep", "600"]
mounts = ["{{home}}/work:/workspace"]
network = "none"

[[image]]
framework = "pytorch"
version = "2.5.0"
image = "{IMAGE}"

[[image]]
framework = "missing"
image = "localhost:1/not/there:1"
"""
LIMITS = """\
defaults:
  {gpu_hold_after_stop: null, priority: 1, max_mig_instances: 2, max_cpus: 2, memory: 256m,
   memory_swap: 256m, shm_size: 32m, pids_limit: 100, max_containers_per_user: 3}
"""
NAME = "train._.4001"


@pytest.fixture
def desk(tmp_path: Path, engine: PrivateEngine) -> Iterator[ContainerDesk]:
    catalogue = tmp_path / "frameworks.toml"
    catalogue.write_text(CATALOGUE, encoding="utf-8")
    site = Site(
        tmp_path,
        engine.url,
        containers={"frameworks": str(catalogue)},
        service={"containers": True},
    )
    site.limits.write_text(LIMITS, encoding="utf-8")
    with tempfile.TemporaryDirectory(dir="/var/lib", prefix="ds01-homes-") as homes:
        Path(homes).chmod(0o755)
        desk = ContainerDesk(site, make_users(Path(homes)))
        yield desk
        desk.close()


def error_of(reply: dict[str, Any]) -> tuple[str, str]:
    """Its short name, and what it says."""
    assert "error" in reply, reply
    (text,) = reply["parameters"].values()
    return reply["error"].rpartition(".")[2], text


def test_a_container_from_its_creation_to_its_removal(
    desk: ContainerDesk, engine: PrivateEngine
) -> None:
    reply = desk.call("amy", "Create", name="train", framework="pytorch")
    assert "error" not in reply, reply
    created = reply["parameters"]["created"]
    assert (created["name"], created["slots"], created["is_started"]) == (NAME, ["1.0"], True)
    seen = engine.client.inspect_container(NAME)
    host, config, amy = seen["HostConfig"], seen["Config"], desk.users["amy"]
    assert config["User"] == "4001:4001"
    assert config["WorkingDir"] == f"{amy.home}/work"
    assert host["GroupAdd"] == ["4100"]
    assert (host["CapDrop"], host["SecurityOpt"]) == (["ALL"], ["no-new-privileges"])
    assert (host["Memory"], host["MemorySwap"], host["ShmSize"]) == (256 << 20, 256 << 20, 32 << 20)
    assert (host["CpuQuota"], host["CpuPeriod"], host["PidsLimit"]) == (200_000, 100_000, 100)
    assert [(m["Source"], m["Destination"]) for m in seen["Mounts"]] == [(amy.home, amy.home)]
    rows = desk.call("amy", "List")["parameters"]["containers"]
    assert [(row["name"], row["user"], row["slots"]) for row in rows] == [(NAME, "amy", ["1.0"])]
    assert desk.call("ben", "List", all=True)["parameters"]["containers"] == []
    stopped = desk.call("amy", "Stop", name="train", kill_after_s=0)["parameters"]
    assert (stopped["ran"], stopped["slots"]) == (True, ["1.0"])
    assert desk.call("amy", "Start", name="train")["parameters"]["slots"] == []
    assert engine.client.inspect_container(NAME)["State"]["Running"]
    refused = desk.call("amy", "Remove", name="train")
    assert error_of(refused)[0] == "Refused"
    removed = desk.call("amy", "Remove", name="train", force=True)["parameters"]
    assert (removed["name"], removed["slots"]) == (NAME, ["1.0"])
    assert desk.site.bookings() == set()
