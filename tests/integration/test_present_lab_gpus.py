"""What holds a GPU on a lab's present server, and whose it is: a real engine, simulated GPUs.

Four whole GPUs; the users are `daemon` and `bin`, whom every Debian knows. Tests share one ds01d.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ds01d.errors import Ds01Error
from ds01d.model.allocation import Allocated, Rejected
from ds01d.model.primitives import ContainerName, UserName
from ds01d.service.allocator_client import RemoteAllocator
from simulation.engine import PrivateEngine
from simulation.nvml import SimGpu, World
from tests.support.books import until
from tests.support.daemon import RunningDaemon, Site
from tests.support.fixtures import NvmlWorld
from tests.support.living import is_alive
from tests.support.peers import public_socket

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

GPUS = tuple(f"GPU-{n}f0e1d2c-0000-4000-8000-00000000000{n}" for n in range(4))
FOUR = World(
    gpus=tuple(
        SimGpu(uuid=uuid, minor=n, pci_bus=0x10 + n, name="NVIDIA A100-PCIE-40GB")
        for n, uuid in enumerate(GPUS)
    )
)
WRAPPER = {"ds01.managed": "true", "ds01.user": "daemon", "ds01.container_type": "docker"}
LIMITS = "defaults: {gpu_hold_after_stop: null, max_mig_instances: 4, priority: 1}\n"


@dataclasses.dataclass
class Lab:
    """One engine, its GPUs, and ds01d with Docker as the books."""

    site: Site
    engine: PrivateEngine
    nvml: NvmlWorld
    daemon: RunningDaemon
    reserved: set[str] = dataclasses.field(default_factory=set)

    @property
    def allocator(self) -> RemoteAllocator:
        return RemoteAllocator(Path(str(self.site.tables["service"]["socket"])))

    def allocate(self, name: str, user: str = "bin", count: int = 1) -> list[str] | str:
        """The slots that a user gets, or why they get none."""
        self.reserved.add(name)
        answer = self.allocator.allocate(UserName(user), ContainerName(name), count=count)
        if isinstance(answer, Rejected):
            return answer.reason
        assert isinstance(answer, Allocated)
        return [given.slot for given in answer.all_slots]

    def status(self) -> dict[str, dict[str, Any]]:
        """The slots that ds01d published."""
        return {slot["id"]: slot for slot in self.site.status().get("slots", [])}

    def holders(self) -> dict[str, list[str]]:
        """Slot → its holders, where it has some."""
        return {
            name: [holder["container"] for holder in slot["holders"]]
            for name, slot in self.status().items()
            if slot["holders"]
        }

    def findings(self) -> dict[tuple[str, str | None], str]:
        """What the last sweep reported: (kind, slot) → reason."""
        return {(f["kind"], f["slot"]): f["reason"] for f in self.site.status()["findings"]}

    def empty(self) -> None:
        """Nothing runs, nothing is reserved, and the GPUs are as they were."""
        self.engine.clear()
        self.nvml.set(FOUR)
        for name in self.reserved:
            with suppress(Ds01Error):
                self.allocator.release(ContainerName(name))
        self.reserved.clear()
        self.daemon.sweeps(1)
        until(lambda: self.holders() == {}, what=self.holders)


@pytest.fixture(scope="module")
def host(
    tmp_path_factory: pytest.TempPathFactory, one_engine: PrivateEngine, nvml_library: Path
) -> Iterator[Lab]:
    one_engine.reset()
    folder = tmp_path_factory.mktemp("lab")
    nvml = NvmlWorld(path=folder / "nvml-world", lib=nvml_library)
    nvml.set(FOUR)
    with public_socket() as socket:
        site = Site(
            folder,
            one_engine.url,
            books=None,
            env=nvml.env,
            gpu={"source": "nvml", "timeout": "1s"},
            daemon={"sweep_interval": "1s"},
            service={"socket": str(socket)},
            policy={"creation_grace": "10m"},
            allocator={"sharing": "never"},
        )
        site.configure(books={"kind": "docker", "owners": str(folder / "owners.json")})
        site.limits.write_text(LIMITS, encoding="utf-8")
        with RunningDaemon(site) as daemon:
            yield Lab(site=site, engine=one_engine, nvml=nvml, daemon=daemon)


@pytest.fixture
def lab(host: Lab) -> Iterator[Lab]:
    yield host
    host.empty()


def test_4_a_container_that_is_removed_harms_nobody_and_its_leftovers_are_reported(
    lab: Lab,
) -> None:
    """Where the lab's clean-up killed everything on the first GPU and reset it."""
    lab.engine.run("busy", devices=[GPUS[0]], labels=WRAPPER)
    lab.engine.run("old", devices=[GPUS[1]], labels=WRAPPER)
    busy = lab.engine.pid_of("busy")
    with subprocess.Popen(["/bin/sleep", "300"]) as leftover:
        try:
            lab.nvml.set(FOUR.with_process("0", busy).with_process("1", leftover.pid))
            until(lambda: lab.holders() == {"0": ["busy"], "1": ["old"]}, what=lab.holders)
            lab.engine.remove("old")
            until(lambda: lab.holders() == {"0": ["busy"]}, what=lab.holders)
            lab.daemon.sweeps(2)
            assert is_alive(busy)
            assert is_alive(leftover.pid)
            # While NVML is slow to answer, a sweep finds none.
            reason = until(lambda: lab.findings().get(("rogue-process", "1")), what=lab.findings)
            assert f"process {leftover.pid}" in reason
            # Three that are asked for are not there: one is in use by nobody who is known.
            assert lab.allocate("next._.2", count=2) == ["2", "3"]
            refusal = lab.allocate("more._.2")
            assert isinstance(refusal, str)
            assert refusal.startswith("NO_GPU_AVAILABLE (")
        finally:
            leftover.kill()


def test_5_a_cpu_only_container_with_all_gpus_holds_nothing(lab: Lab) -> None:
    """`container-create x --cpu-only` makes one with --gpus all."""
    lab.engine.run("cpu", devices="all", labels={**WRAPPER, "ds01.gpus": "all"})
    lab.daemon.sweeps(2)
    assert lab.holders() == {}
    assert lab.findings() == {
        ("broad-request", None): "asks for all GPUs, booked is nothing,"
        " perhaps of daemon (by its label)"
    }
    assert lab.allocate("train._.2", count=4) == ["0", "1", "2", "3"]


def test_6_what_a_compose_project_computes_on_is_taken_and_its_owner_is_a_guess(lab: Lab) -> None:
    """`capabilities: [gpu]` without ids: all GPUs, no label of the lab's."""
    labels = {
        "com.docker.compose.project": "web",
        "com.docker.compose.project.working_dir": "/home/daemon/web",
    }
    lab.engine.run("web-1", devices="all", labels=labels)
    lab.nvml.set(FOUR.with_process("2", lab.engine.pid_of("web-1")))
    slot = until(lambda: (slot := lab.status()["2"])["foreign"] and slot, what=lab.status)
    assert (slot["holders"], slot["foreign"]) == ([], ["web-1"])
    (user,) = slot["foreign_holders"]
    assert (user["user"], user["user_by"], user["is_guess"]) == ("daemon", "folder", True)
    assert "web-1 of daemon (guess)" in lab.site.ctl("status").stdout
    findings = {
        (kind, place): f"foreign container web-1 ({user_id(lab)}) {does},"
        " perhaps of daemon (by its folder)"
        for kind, place, does in (
            ("broad-request", None, "asks for all GPUs, computes on 2"),
            ("foreign-use", "2", "uses 2"),
        )
    }
    until(lambda: lab.findings() == findings, what=lab.findings)
    # Taken, and nobody pays for a guess.
    assert lab.allocate("own._.1", user="daemon", count=3) == ["0", "1", "3"]
    refusal = lab.allocate("more._.2")
    assert isinstance(refusal, str)
    assert "2 is used by web-1" in refusal
    lab.nvml.set(FOUR)
    until(lambda: not lab.status()["2"]["foreign"], what=lab.status)
    assert lab.allocate("more._.2") == ["2"]


def user_id(lab: Lab) -> str:
    return str(lab.engine.client.inspect_container("web-1")["Id"][:12])


def test_8_a_gpu_in_mig_mode_without_instances_is_not_offered(lab: Lab) -> None:
    """Its old holder keeps it, and one finding tells the administrator."""
    lab.engine.run("old", devices=[GPUS[2]], labels=WRAPPER)
    until(lambda: lab.holders() == {"2": ["old"]}, what=lab.holders)
    lab.engine.stop_container("old")
    gpus = tuple(
        dataclasses.replace(gpu, mig=True) if n == 2 else gpu for n, gpu in enumerate(FOUR.gpus)
    )
    lab.nvml.set(dataclasses.replace(FOUR, gpus=gpus))
    until(lambda: ("unhealthy-gpu", "2") in lab.findings(), what=lab.findings)
    lab.daemon.sweeps(2)
    assert lab.holders() == {"2": ["old"]}
    assert "it is in MIG mode and has no MIG device" in lab.findings()["unhealthy-gpu", "2"]
    assert lab.allocate("train._.2", count=3) == ["0", "1", "3"]
    assert isinstance(lab.allocate("more._.1", user="daemon"), str)
    lab.engine.remove("old")
    until(lambda: "2" not in lab.status(), what=lab.status)
    until(lambda: ("unhealthy-gpu", None) in lab.findings(), what=lab.findings)


def test_the_owners_file_is_a_hint_that_an_empty_one_does_not_take_back(lab: Lab) -> None:
    ident = lab.engine.run("sdk", devices=[GPUS[3]])
    path = lab.site.folder / "owners.json"
    entry = {"owner": "bin", "detection_method": "mount_path"}
    keys = (ident, ident[:12], "sdk")
    path.write_text(json.dumps({"containers": dict.fromkeys(keys, entry)}), encoding="utf-8")
    until(lambda: owner(lab) == ("bin", "owners-file", True), what=lab.status)
    path.write_text(json.dumps({"containers": {}}), encoding="utf-8")
    lab.daemon.sweeps(2)
    assert owner(lab) == ("bin", "owners-file", True)
    assert lab.allocate("own._.2", user="bin", count=3) == ["0", "1", "2"]


def owner(lab: Lab) -> tuple[str, str, bool] | None:
    return next(
        ((h["user"], h["user_by"], h["is_guess"]) for h in lab.status()["3"]["holders"]), None
    )


def test_a_container_with_three_gpus(lab: Lab) -> None:
    """From the reservation to the removal; by what `status`, `plan` and `explain` say."""
    assert lab.allocate("train._.2", count=3) == ["0", "1", "2"]
    labels = {"ds01.managed": "true", "ds01.user": "bin", "ds01.gpu.uuids": ",".join(GPUS[:3])}
    env = {"NVIDIA_VISIBLE_DEVICES": ",".join(GPUS[:3])}
    lab.engine.run("train._.2", runtime="nvidia", env=env, labels=labels)
    three = {slot: ["train._.2"] for slot in "012"}
    until(lambda: lab.holders() == three and not lab.site.status()["open_drifts"])
    assert lab.allocate("more._.2", count=2) == "USER_AT_LIMIT (3/4, 2 more asked for)"
    assert lab.allocate("more._.2") == ["3"]
    plan = lab.site.plan()
    assert (plan["consistent"], plan["findings"]) == (True, [])
    explained = json.loads(lab.site.ctl("explain", "train._.2", "--json").stdout)
    assert explained["books"]["booked_in"] == ["0", "1", "2"]
    assert (explained["books"]["user"], explained["books"]["user_by"]) == ("bin", "name")
    lab.engine.stop_container("train._.2")
    lab.daemon.sweeps(2)
    assert lab.holders() == {**three, "3": ["more._.2"]}
    lab.engine.remove("train._.2")
    until(lambda: lab.holders() == {"3": ["more._.2"]}, what=lab.holders)
