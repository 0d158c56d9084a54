"""The private Docker engine: a real one, that can be maltreated and leaves nothing behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import docker
import pytest
import requests

from simulation.engine import Devices, PrivateEngine
from tests.support.processes import command_lines

pytestmark = pytest.mark.docker

DATA = Path(__file__).parent.parent / "data"
REPOSITORY = Path(__file__).parents[2]


def until(holds: Callable[[], bool], seconds: float = 15) -> None:
    """Wait for a condition; fail when it does not come."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def states(engine: PrivateEngine) -> dict[str, str]:
    return {row["Names"][0][1:]: row["State"] for row in engine.client.containers(all=True)}


def traces(root: Path) -> list[str]:
    """All that a host still knows of an engine with that root."""
    found = [str(root)] if root.exists() else []
    found += [line for line in Path("/proc/mounts").read_text().splitlines() if str(root) in line]
    found += map(str, Path("/sys/fs/cgroup").glob(f"*/{root.name}"))
    found += map(str, Path("/sys/fs/cgroup").glob(root.name))
    found += [words for _, words in command_lines() if str(root) in words]
    return found


ALL = [{"Driver": "", "Count": -1, "DeviceIDs": None, "Capabilities": [["gpu"]], "Options": {}}]
TWO = [{"Driver": "", "Count": 2, "DeviceIDs": None, "Capabilities": [["gpu"]], "Options": {}}]
MIG = [{"Driver": "", "Count": 0, "DeviceIDs": ["1:0"], "Capabilities": [["gpu"]], "Options": {}}]


@pytest.mark.parametrize(
    ("devices", "request_"), [(None, None), ("all", ALL), (2, TWO), ("1:0", MIG), (["1:0"], MIG)]
)
def test_device_requests_look_as_on_a_real_server(
    engine: PrivateEngine, devices: Devices, request_: object
) -> None:
    made = engine.run("train._.1001", devices=devices, start=False)
    seen = engine.client.inspect_container(made)
    assert seen["HostConfig"]["DeviceRequests"] == request_


def test_a_container_with_a_device_request_runs(engine: PrivateEngine) -> None:
    made = engine.run("train._.1001", devices="all", labels={"aime.mlc": "alice"})
    seen = engine.client.inspect_container(made)
    assert seen["State"]["Status"] == "running"
    assert seen["Config"]["Labels"] == {"aime.mlc": "alice"}
    assert made in Path(f"/proc/{engine.pid_of(made)}/cgroup").read_text()


def test_other_ways_to_a_gpu(engine: PrivateEngine) -> None:
    engine.run("privileged", privileged=True, env={"NVIDIA_VISIBLE_DEVICES": "0"}, runtime="nvidia")
    engine.run("by-hand", host_devices=["/dev/null:/dev/nvidia0"], start=False)
    seen = engine.client.inspect_container("privileged")
    assert seen["State"]["Running"]
    assert (seen["HostConfig"]["Privileged"], seen["HostConfig"]["Runtime"]) == (True, "nvidia")
    assert "NVIDIA_VISIBLE_DEVICES=0" in seen["Config"]["Env"]
    assert states(engine) == {"privileged": "running", "by-hand": "created"}


def actions(events: list[dict[str, Any]], kind: str) -> list[str]:
    return [event["Action"] for event in events if event["Type"] == kind]


def test_a_container_is_created_as_ds01_does(engine: PrivateEngine) -> None:
    rows = (DATA / "docker-events-mlc-create.jsonl").read_text().splitlines()
    recorded = [json.loads(row) for row in rows]
    # That is the docker command, looking on.
    recorded = [event for event in recorded if event["Action"] != "attach"]
    labels = {"aime.mlc": "alice", "ds01.managed": "true"}
    stream = engine.client.events(decode=True)
    final = engine.mlc_create("proj._.1001", labels=labels, devices=["1:0"])
    events: list[dict[str, Any]] = []
    while not events or (events[-1]["Action"], events[-1]["Actor"]["ID"]) != ("start", final):
        events.append(next(stream))
    stream.close()
    started = [place for place, event in enumerate(recorded) if event["Action"] == "start"]
    recorded = recorded[: started[1] + 1]  # the final one
    assert actions(events, "container") == actions(recorded, "container")
    # Engines differ in when a network is left, and in what they tell of images.
    assert sorted(actions(events, "network")) == sorted(actions(recorded, "network"))
    named = [event for event in events if event["Type"] == "container"]
    assert {event["Actor"]["Attributes"]["name"] for event in named} == {"proj._.1001"}
    labelled = [event["id"] for event in named if "aime.mlc" in event["Actor"]["Attributes"]]
    assert set(labelled) == {final} != {named[0]["id"]}
    assert states(engine) == {"proj._.1001": "running"}


def test_stopping_and_removing_are_quick(engine: PrivateEngine) -> None:
    for name in ("first", "second", "third"):
        engine.run(name)
    engine.client.pause("third")
    for end in (partial(engine.stop_container, "first"), partial(engine.remove, "second")):
        start = time.monotonic()
        end()
        assert time.monotonic() - start < 9, "sooner than Docker waits for one that ignores SIGTERM"
    assert states(engine) == {"first": "exited", "third": "paused"}
    engine.clear()
    assert states(engine) == {}


def test_a_killed_engine_starts_again(engine: PrivateEngine) -> None:
    pid = engine.pid_of(engine.run("train._.1001"))
    engine.kill(containers=False)
    assert Path(f"/proc/{pid}/cgroup").exists()
    with pytest.raises(OSError, match="refused"):
        connect(engine)
    engine.start()
    assert states(engine) == {"train._.1001": "exited"}
    engine.client.start("train._.1001")
    pid = engine.pid_of("train._.1001")
    engine.client.pause("train._.1001")  # nothing ends a frozen process
    engine.kill()
    until(lambda: not Path(f"/proc/{pid}/exe").exists())
    engine.start()
    assert states(engine) == {"train._.1001": "exited"}


def connect(engine: PrivateEngine) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(engine.socket))


def test_a_paused_engine_accepts_and_says_nothing(engine: PrivateEngine) -> None:
    engine.pause()
    client = docker.APIClient(base_url=engine.url, version="1.41", timeout=1)
    connect(engine)
    with pytest.raises(requests.ReadTimeout):
        client.ping()
    client.close()
    engine.resume()
    assert engine.client.ping()


def test_another_data_root_is_another_engine(engine: PrivateEngine) -> None:
    engine.run("train._.1001", start=False)
    before = engine.client.info()["DockerRootDir"]
    engine.switch_data_root("other")
    assert states(engine) == {}
    assert engine.client.info()["DockerRootDir"] != before
    engine.reset()
    assert engine.client.info()["DockerRootDir"] == before


def test_nothing_stays_and_engines_do_not_meet(engine: PrivateEngine) -> None:
    with PrivateEngine(live_restore=True) as other:
        other.run("train._.1001")
        assert (states(other), states(engine)) == ({"train._.1001": "running"}, {})
        pid = other.pid_of("train._.1001")
        other.kill(containers=False)
        other.start()
        assert (states(other), other.pid_of("train._.1001")) == ({"train._.1001": "running"}, pid)
    assert traces(other.root) == []
    assert not Path(f"/proc/{pid}/exe").exists()
    engine.client.ping()


OWNER = """
from simulation.engine import PrivateEngine
engine = PrivateEngine().__enter__()
print(engine.root, engine.pid_of(engine.run("train._.1001")), flush=True)
input()
"""


def test_what_containerd_says_of_its_end_lies_in_its_root(engine: PrivateEngine) -> None:
    """It is asked for its stacks (SIGUSR1) where it does not end: a file in TMPDIR."""
    (containerd,) = (
        process
        for process, words in command_lines()
        if str(engine.root) in words and words.startswith("containerd ")
    )
    os.kill(containerd, signal.SIGUSR1)
    until(lambda: any(engine.root.glob("containerd.*.stacks.log")))


def test_nothing_stays_when_the_owner_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        root, pid = owner.stdout.readline().split()
        assert traces(Path(root))
        os.kill(owner.pid, signal.SIGKILL)
    until(lambda: not traces(Path(root)))
    assert not Path(f"/proc/{pid}/exe").exists()


@pytest.mark.engine_since(26, 0)
def test_a_newer_engine_behaves_the_same(engine: PrivateEngine) -> None:
    final = engine.mlc_create("train._.1001", devices=["1:0"])
    seen = engine.client.inspect_container(final)
    assert seen["HostConfig"]["DeviceRequests"] == MIG
    engine.run("privileged", privileged=True)
    assert states(engine) == {"train._.1001": "running", "privileged": "running"}
    engine.kill()
    engine.start()
    assert set(states(engine).values()) == {"exited"}
