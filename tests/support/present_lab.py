"""A lab whose scripts call the allocator by its path: a wrapper before docker, and mlc-create."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from simulation import nvml
from simulation.engine_client import IMAGE, EngineClient
from tests.support.books import until
from tests.support.daemon import ROOT, Site
from tests.support.fixtures import NvmlWorld
from tests.support.peers import public_socket

SCRIPTS = ROOT / "tests" / "support" / "lab"
ALLOCATOR = ROOT / "share" / "gpu_allocator_v2.py"
LIMITS = """\
defaults:
  {gpu_hold_after_stop_h: null, allow_full_gpu: true, max_gpu_equivalents: 2,
   max_gpu_slots_per_container: 2}
default_group: student
groups:
  student: {members: [alice, bob]}
  wide: {members: [wanda], max_gpu_equivalents: 8}
"""


class PresentLab:
    """GPUs without MIG, an engine, ds01d with Docker as the books, and the lab's scripts."""

    def __init__(self, site: Site, engine: EngineClient, world: NvmlWorld, socket: Path) -> None:
        self.site, self.engine, self.world, self.socket = site, engine, world, socket
        self.uuids = [gpu.uuid for gpu in nvml.full(4).gpus]
        self.started: list[subprocess.Popen[str]] = []

    def script(self, name: str, *words: str, **settings: object) -> subprocess.Popen[str]:
        """Start a script of the lab; its environment from `settings`."""
        process = subprocess.Popen(
            ["bash", str(SCRIPTS / name), *words],
            env={
                **self.site.environment(),
                "DS01_ALLOCATOR": str(Path(sys.executable).with_name("ds01-allocator")),
                "LAB_ALLOCATOR": str(ALLOCATOR),
                "LAB_DOCKER": f"{shutil.which('docker')} -H {self.engine.url}",
                "LAB_USER": "alice",
                **{key: str(value) for key, value in settings.items()},
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def docker(self, *words: str, gpus: int = 1, **settings: object) -> subprocess.Popen[str]:
        """`docker run` of the lab's users: by way of the wrapper."""
        given = ("run", "--network", "none", "--gpus", str(gpus), *words)
        return self.script("docker-wrapper.sh", *given, **settings)

    def run_container(self, *words: str, gpus: int = 1, **settings: object) -> str:
        """The ID of a container that stays."""
        process = self.docker("-d", *words, IMAGE, "sleep", "600", gpus=gpus, **settings)
        output = finish(process)
        assert process.returncode == 0, output
        return output.split()[-1]

    def devices(self, container: str) -> list[str]:
        """What a container asks for."""
        (request,) = self.engine.client.inspect_container(container)["HostConfig"]["DeviceRequests"]
        found: list[str] = request["DeviceIDs"]
        return found

    def holders(self) -> dict[str, list[str]]:
        """Who has which GPU, by ds01d's status: index → names."""
        return {
            slot["id"]: [holder["container"] for holder in slot["holders"]]
            for slot in self.site.status()["slots"]
            if slot["holders"]
        }

    def users(self) -> list[str]:
        """Whose each holder of a GPU is, by ds01d's status."""
        slots = self.site.status()["slots"]
        return sorted(str(holder["user"]) for slot in slots for holder in slot["holders"])

    def reserved(self) -> list[str]:
        """The names under which something is reserved: what is written down of the slots."""
        file = self.site.state_dir / "reservations.json"
        slots = json.loads(file.read_text())["gpus"].values() if file.exists() else ()
        return sorted({name for slot in slots for name in slot["containers"]})

    def wait_for_reservation(self) -> str:
        until(self.reserved, what="a reservation")
        (name,) = self.reserved()
        return name

    def wait_until_free(self) -> None:
        """Until nothing is reserved any more, and ds01d shows it."""
        until(lambda: not self.reserved(), what="no reservation")
        until(lambda: not self.holders(), what="all GPUs free")

    def releases(self) -> list[dict[str, Any]]:
        """What ds01d released by itself."""
        return [entry for entry in self.site.history() if entry["kind"] == "stale-allocation"]


@contextmanager
def present_lab(folder: Path, engine: EngineClient, world: NvmlWorld) -> Iterator[PresentLab]:
    world.set(nvml.full(4))
    with public_socket() as socket:
        site = Site(
            folder,
            engine.url,
            books=None,
            env=world.env,
            gpu={"source": "nvml", "timeout": "1s"},
            daemon={"sweep_interval": "1s"},
            service={"socket": str(socket)},
            allocator={"sharing": "never"},
        )
        site.configure(books={"kind": "docker"})
        site.limits.write_text(LIMITS, encoding="utf-8")
        lab = PresentLab(site, engine, world, socket)
        try:
            yield lab
        finally:
            for process in lab.started:
                with suppress(ProcessLookupError):  # with what it started, as `sleep`
                    os.killpg(process.pid, signal.SIGKILL)
                process.communicate()


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for its end; what it printed."""
    output, _ = process.communicate(timeout=60)
    return output
