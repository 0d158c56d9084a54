"""A slot that something alive asks for is not handed out, whoever booked it or nobody.

Without ds01d, beside it, and where the caller may not ask Docker; on a real engine and a fake one.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from simulation.engine import PrivateEngine
from simulation.fake_engine import FakeEngine, request
from tests.support.allocator import AllocatorSite
from tests.support.books import until
from tests.support.daemon import RunningDaemon

NOWHERE = {"url": "unix:///nowhere/docker.sock"}
OURS = {"aime.mlc": "alice", "aime.mlc.USER": "alice"}
NAME = "train._.1001"


def site_at(folder: Path, url: str) -> AllocatorSite:
    """Twelve MIG slots, 1.0 to 3.3, of which none is booked; nothing is released meanwhile."""
    return AllocatorSite(
        folder,
        "v3-dcce6c2-prod4",
        url=url,
        docker={"timeout": "5s"},
        daemon={"sweep_interval": "60s", "sweep_jitter": "0s"},
        policy={"creation_grace": "10m", "absence_grace": "10m"},
    )


@pytest.fixture
def site(tmp_path: Path, fake_engine: FakeEngine) -> AllocatorSite:
    fake_engine.data_root = str(tmp_path)
    return site_at(tmp_path, fake_engine.url)


def given(site: AllocatorSite, name: str = "new._.1002") -> str:
    said = site.run("allocate", "bob", name, "99", "10")
    assert said.returncode == 0, said.stdout
    words = said.stdout.split()
    return words[words.index("GPU/MIG") + 1] if "GPU/MIG" in words else said.stdout


def published(site: AllocatorSite) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((site.state_dir / "status.json").read_text())
    return found


# --- without ds01d: Docker says it ---------------------------------------------------------------


@pytest.mark.parametrize("labels", [OURS, {}, {"ds01.protected": "true"}])
@pytest.mark.parametrize("ask", ["uuid", "index"])
def test_what_runs_unbooked_keeps_its_slot(
    site: AllocatorSite, fake_engine: FakeEngine, ask: str, labels: Mapping[str, str]
) -> None:
    device = site.uuid("1.0") if ask == "uuid" else "1:0"
    fake_engine.containers.add(NAME, labels=labels, requests=[request(device)])
    assert given(site) == "1.1"
    fake_engine.containers.pause(NAME)
    assert given(site, "b._.1002") == "1.2"
    fake_engine.containers.unpause(NAME)
    fake_engine.containers.stop(NAME)
    assert given(site, "c._.1002") == "1.0"


def test_a_booking_that_is_released_by_hand_while_its_container_runs(
    site: AllocatorSite, fake_engine: FakeEngine
) -> None:
    assert given(site, NAME) == "1.0"
    fake_engine.containers.add(NAME, labels=OURS, requests=[request(site.uuid("1.0"))])
    assert site.run("release", NAME).returncode == 0
    assert given(site) == "1.1"
    assert given(site, NAME) == "1.0"  # who has it may book it again


def test_one_with_all_gpus_takes_nothing(site: AllocatorSite, fake_engine: FakeEngine) -> None:
    fake_engine.containers.add("dcgm", requests=[request(count=-1)])
    assert given(site) == "1.0"
    site.configure(allocator={"all_gpus": "always"})
    assert "NO_GPU_AVAILABLE (12 slots: 12 used by others)" in given(site, "b._.1002")
    site.configure(exempt={"names": ["dc*"]})
    assert given(site, "b._.1002") == "1.1"


@pytest.mark.parametrize(
    "odd",
    [
        {"env": ["DOCKER_RESOURCE_GPU={uuid}"]},
        {"env": ["NVIDIA_VISIBLE_DEVICES={uuid}"], "runtime": "nvidia-experimental"},
        {"env": ["NVIDIA_VISIBLE_DEVICES={uuid}"], "runtime": "gpu-of-ours"},
        {"requests": [request("1.0")]},
    ],
)
def test_odd_requests_take_what_may_be_meant(
    site: AllocatorSite, fake_engine: FakeEngine, odd: dict[str, Any]
) -> None:
    env = [text.format(uuid=site.uuid("1.0")) for text in odd.get("env", ())]
    fake_engine.containers.add("web", **{**odd, "env": env})
    assert given(site) == "1.1"


def test_a_container_that_cannot_be_inspected_is_told_and_stops_nobody(
    site: AllocatorSite, fake_engine: FakeEngine
) -> None:
    fake_engine.containers.add("web", requests=[request(site.uuid("1.0"))])
    inspected = fake_engine.containers.get

    def refuses(key: str) -> Any:
        if len(key) == 64:
            raise ValueError("wedged")
        return inspected(key)

    fake_engine.containers.get = refuses  # type: ignore[method-assign]
    said = site.run("allocate", "bob", "new._.1002", "99", "10").stdout
    assert "what GPUs they have is not known: web: it answered 409" in said
    assert "✓ Allocated" in said


def test_a_docker_that_hangs_is_not_waited_for(site: AllocatorSite, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as hanging:
        hanging.bind(str(tmp_path / "s"))
        hanging.listen()  # connections are made, and nobody answers
        site.configure(docker={"url": f"unix://{tmp_path / 's'}", "timeout": "300ms"})
        said = site.run("allocate", "bob", "new._.1002", "99", "10").stdout
    assert "✓ Allocated GPU/MIG 1.0" in said
    assert "whether containers use GPUs is not known for sure: cannot reach Docker at unix" in said


# --- beside ds01d, where the caller may not ask Docker -------------------------------------------


@pytest.mark.parametrize("mode", ["repair", "observe"])
def test_what_ds01d_published_counts_booked_or_not(
    site: AllocatorSite, fake_engine: FakeEngine, mode: str
) -> None:
    """Adoption is off, it computes nothing, and its booking is released by hand later."""
    site.configure(daemon={"mode": mode}, policy={"adopt": "off"})
    site.allocator.allocate(NAME, "alice", "1.0")
    fake_engine.containers.add(NAME, labels=OURS, requests=[request(site.uuid("1.0"))])
    fake_engine.containers.add("eval._.1001", labels=OURS, requests=[request("1:1")])
    with RunningDaemon(site):
        site.configure(docker=NOWHERE)
        assert site.run("release", NAME).returncode == 0  # ds01d has not looked since
        assert given(site) == "1.2"
    told = site.run("allocate", "bob", "b._.1002", "99", "10").stdout  # the last word counts
    assert "✓ Allocated GPU/MIG 1.3" in told
    assert "whether containers use GPUs is not known for sure" in told


@pytest.mark.docker
def test_a_container_that_started_a_moment_ago(tmp_path: Path, engine: PrivateEngine) -> None:
    """Docker tells it to who may ask, and its event makes ds01d publish it for all others."""
    site = site_at(tmp_path, engine.url)
    engine.run("before", devices=[site.uuid("1.0")])
    assert given(site, "a._.1002") == "1.1"
    with RunningDaemon(site):
        engine.run("web", devices=["1:2"])
        assert given(site, "b._.1002") == "1.3"
        site.configure(docker=NOWHERE)
        engine.run("job", devices=[site.uuid("2.0")])
        until(lambda: "job" in [use["user"] for use in published(site)["uses"]], what="its use")
        assert given(site, "c._.1002") == "2.1"
        engine.remove("job")
        until(lambda: "job" not in [use["user"] for use in published(site)["uses"]], what="its end")
        assert given(site, "d._.1002") == "2.0"


@pytest.mark.docker
def test_on_every_engine_what_lives_is_found(tmp_path: Path, engine: PrivateEngine) -> None:
    site = site_at(tmp_path, engine.url)
    engine.run("all", devices="all")
    engine.run("made", devices=[site.uuid("1.0")], start=False)  # about to start
    engine.run("plain")
    engine.run("short", devices=[site.uuid("1.1")[:12]])
    engine.client.pause("short")
    assert given(site) == "1.2"
    engine.client.unpause("short")
    engine.stop_container("short")
    engine.remove("made")
    assert given(site, "b._.1002") == "1.0"


@pytest.mark.docker
def test_odd_requests_as_an_engine_has_them(tmp_path: Path, engine: PrivateEngine) -> None:
    """NVIDIA's runtime under another name is understood; what depends on the host is reported."""
    site = site_at(tmp_path, engine.url)
    uuids = [site.uuid(place) for place in ("1.0", "1.1", "1.2", "1.3")]
    env = [{"NVIDIA_VISIBLE_DEVICES": uuid} for uuid in uuids]
    engine.run("known", runtime="gpu-of-ours", env=env[0])
    engine.run("sandboxed", runtime="sandbox", env=env[1])
    engine.run("swarm", env={"DOCKER_RESOURCE_GPU": uuids[2]})
    engine.run("mounted", binds=[f"/dev/null:/var/run/nvidia-container-devices/{uuids[3]}"])
    engine.run("plain", env=env[3])
    with RunningDaemon(site):
        findings = published(site)["findings"]
        assert given(site) == "2.0"
    found = {(one["container"], one["kind"]): one["slot"] for one in findings}
    unclear = {who for who, kind in found if kind == "unclear-request"}
    assert unclear == {"sandboxed", "swarm", "mounted"}
    used = {who: slot for (who, kind), slot in found.items() if kind == "foreign-use"}
    assert used == {"known": "1.0", "sandboxed": "1.1", "swarm": "1.2", "mounted": "1.3"}
