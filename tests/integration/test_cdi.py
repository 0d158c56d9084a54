"""Requests by CDI (`docker run --device nvidia.com/gpu=…`) on an engine that obeys them.

The engine has the CDI specification of the simulated GPUs, so what a name brings is really in the
container, and a name that the specification does not know is refused at the start.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from docker.errors import APIError

from simulation import cdi
from simulation.engine import PrivateEngine
from simulation.nvml import prod4
from tests.support.daemon import RunningDaemon, Site
from tests.support.fixtures import NvmlWorld

pytestmark = [pytest.mark.docker, pytest.mark.engine_since(26, 0)]

GPU = "nvidia.com/gpu"
NIC = {
    "cdiVersion": "0.5.0",
    "kind": "lab.example/nic",
    "devices": [{"name": "0", "containerEdits": {"env": ["NIC=0"]}}],
}
LABELS = {"aime.mlc": "alice", "ds01.managed": "true"}


@pytest.fixture
def cdi_engine(engine_host: None) -> Iterator[PrivateEngine]:
    """An engine that knows the simulated GPUs, and a device of another vendor."""
    with PrivateEngine(cdi=[cdi.specification(prod4()), NIC]) as engine:
        yield engine


@pytest.fixture
def cdi_site(tmp_path: Path, cdi_engine: PrivateEngine, nvml_world: NvmlWorld) -> Site:
    """The books of a server with those GPUs."""
    gpu: Mapping[str, object] = {"source": "nvml", "timeout": "5s"}
    site = Site(tmp_path, cdi_engine.url, env=nvml_world.env, gpu=gpu)
    # No slow start of a container outlasts the grace.
    site.configure(
        docker={"timeout": "5s"},
        policy={"creation_grace": "20s"},
        daemon={"sweep_interval": "5s"},
    )
    return site


def nodes(engine: PrivateEngine, name: str) -> set[str]:
    """The GPUs' device nodes in a running container."""
    dev = Path(f"/proc/{engine.pid_of(name)}/root/dev")
    return {node.name for node in dev.glob("nvidia[0-9]")}


def findings(site: Site) -> set[tuple[str, str, str | None]]:
    return {(one["kind"], one["container"], one["slot"]) for one in site.plan()["findings"]}


def test_devices_that_are_named_by_cdi_are_the_containers(
    cdi_site: Site, cdi_engine: PrivateEngine
) -> None:
    site, engine = cdi_site, cdi_engine
    slots = prod4().slots()

    def run(name: str, *devices: str) -> None:
        engine.run(name, devices=devices, driver="cdi", labels=LABELS)

    # Before ds01d: the allocator's write takes no lock, and would undo what is repaired meanwhile.
    for word, slot in (("elsewhere", "3.3"), ("all", "2.1"), ("nic", "2.2"), ("unknown", "2.3")):
        site.allocator.allocate(f"{word}._.1001", "alice", slot)
    # Beside ds01d: what an index meant is known of those alone whose start it has seen.
    with RunningDaemon(site) as daemon:
        run("index._.1001", f"{GPU}=1:0")
        run("uuid._.1001", f"{GPU}={slots['1.1']}")
        run("pair._.1001", f"{GPU}=1:2", f"{GPU}={slots['1.3']}", "lab.example/nic=0")
        run("elsewhere._.1001", f"{GPU}=2:0")
        run("all._.1001", f"{GPU}=all")
        run("nic._.1001", "lab.example/nic=0")
        with pytest.raises(APIError, match=r"unresolvable CDI devices nvidia\.com/gpu=7:7"):
            run("unknown._.1001", f"{GPU}=7:7")
        engine.run("web", devices=f"{GPU}=3:0", driver="cdi")
        daemon.booked(
            ("index._.1001", "1.0"),
            ("uuid._.1001", "1.1"),
            ("pair._.1001", "1.2"),
            ("pair._.1001", "1.3"),
            ("elsewhere._.1001", "2.0"),
            ("all._.1001", "2.1"),
            ("nic._.1001", "2.2"),
            ("unknown._.1001", "2.3"),
        )
        assert site.taken() == [("elsewhere._.1001", "3.3")]  # moved
        assert findings(site) == {
            ("broad-request", "all._.1001", "2.1"),
            ("booking-without-device", "nic._.1001", "2.2"),
            ("booking-without-device", "unknown._.1001", "2.3"),
            ("foreign-use", "web", "3.0"),
        }

        names = [f"{GPU}=1:2", f"{GPU}={slots['1.3']}", "lab.example/nic=0"]
        (asked,) = engine.client.inspect_container("pair._.1001")["HostConfig"]["DeviceRequests"]
        assert (asked["Driver"], asked["Count"], asked["DeviceIDs"]) == ("cdi", 0, names)
        assert nodes(engine, "pair._.1001") == nodes(engine, "index._.1001") == {"nvidia1"}
        assert nodes(engine, "all._.1001") == {f"nvidia{number}" for number in range(4)}
        assert nodes(engine, "nic._.1001") == set()

        for name in ("index._.1001", "all._.1001", "unknown._.1001"):
            engine.remove(name)
        engine.stop_container("pair._.1001")  # alice's hold never ends
        daemon.booked(
            ("uuid._.1001", "1.1"),
            ("pair._.1001", "1.2"),
            ("pair._.1001", "1.3"),
            ("elsewhere._.1001", "2.0"),
            ("nic._.1001", "2.2"),
        )
