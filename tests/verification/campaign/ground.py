"""Where a campaign takes place: engine, proxy, GPUs, books on small disks, and ds01d as a service.

The books lie on file systems of their own that can be full or read-only, so whoever makes a ground
has to be in a mount namespace that nobody else sees.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker

from simulation import nvml
from simulation.engine import PrivateEngine
from simulation.nvml.world import SimGpu, SimMig, World
from simulation.proxy import Proxy
from tests.support.daemon import Site
from tests.verification.campaign.clock import boot
from tests.verification.campaign.plan import UIDS
from tests.verification.campaign.service import Service
from tests.verification.campaign.shim import Shim
from tests.verification.campaign.strays import Strays

SETTLE_S = 0.3
ABSENCE_S = 2.0
CREATION_S = 5.0
HOLD_S = 3.0
FREEZE_S = 1.0
SWEEP_S = 2.0
PACE_WINDOW_S = 5.0
PACE_COUNT = 4
PACE_FRACTION = 0.25
LONGEST_S = CREATION_S + SETTLE_S
"""The longest grace: a creation that is given up. Holds and absences are over before."""

TABLES: Mapping[str, Mapping[str, object]] = {
    "docker": {"timeout": "2s"},
    "gpu": {"source": "nvml", "timeout": "2s"},
    "daemon": {"sweep_interval": f"{SWEEP_S}s", "sweep_jitter": "200ms"},
    "policy": {
        "settle": f"{SETTLE_S}s",
        "absence_grace": f"{ABSENCE_S}s",
        "creation_grace": f"{CREATION_S}s",
        "freeze": f"{FREEZE_S}s",
        "boot_grace": "0s",
        "pace_count": PACE_COUNT,
        "pace_fraction": PACE_FRACTION,
        "pace_window": f"{PACE_WINDOW_S}s",
    },
}

LIMITS = f"""\
defaults: {{gpu_hold_after_stop: null, priority: 1, max_mig_instances: 50}}
default_group: student
groups:
  student: {{members: [alice, bob], priority: 10}}
  hasty: {{members: [henry, hana], priority: 20, gpu_hold_after_stop: {HOLD_S:g}s}}
"""

DISKS = {"lib": ("lib", "8m"), "own": ("ds01d", "24m"), "log": (".log", "8m")}
"""The file systems: the folder of the site where each is mounted, and its size."""


def first_world() -> World:
    """Four GPUs, each cut into seven."""
    gpus = tuple(
        SimGpu(
            uuid=f"GPU-00000000-0000-4000-8000-00000000000{gpu}",
            minor=gpu,
            pci_bus=0x21 + 0x20 * gpu,
            mig=True,
            migs=tuple(
                SimMig(
                    uuid=f"MIG-{gpu}{mig}000000-0000-5000-8000-000000000000", index=mig, gi=7 + mig
                )
                for mig in range(7)
            ),
        )
        for gpu in range(4)
    )
    return World(gpus=gpus)


INFORMATIVE = (
    "nvmlDeviceGetName",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetTemperature",
)
"""Calls whose failure hides nothing that matters for the books."""

IDENTIFYING = frozenset({"*", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetUUID"})
"""Calls whose failure hides which GPU it is."""


class SharedEngine(PrivateEngine):
    """A private engine for many threads: each has a client of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._clients = threading.local()
        self._api: str | None = None

    @property
    def client(self) -> docker.APIClient:
        """A client of this engine, for the caller's thread."""
        known: docker.APIClient | None = getattr(self._clients, "client", None)
        if known is None:
            known = docker.APIClient(base_url=self.url, version=self._api or "auto", timeout=60)
            self._api = known.api_version
            self._clients.client = known
        return known


class Gpus:
    """The GPUs as NVML shows them; processes that have ended go by themselves."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.RLock()
        self._world = first_world()
        self._users: dict[int, str] = {}
        self._garbled: dict[str, tuple[int, ...]] = {}
        self._sick: tuple[str, str, int] | None = None
        self.sick_since: float | None = None
        """Since when some GPU does not even say which one it is, without a moment in between."""
        self.changed = 0
        """How often the devices or their places were changed."""
        self.ever: dict[str, float] = {}
        """Every UUID that there ever was, and when it was last there."""
        self.change(lambda world: world)

    @property
    def world(self) -> World:
        return self._world

    def slots(self) -> dict[str, str]:
        """Slot → UUID, as it is now."""
        return self._world.slots()

    def change(self, act: Callable[[World], World]) -> None:
        """Put another world in force."""
        with self._lock:
            before = self._world.slots()
            self._world = act(self._world)
            self.changed += before != self._world.slots()
            self.ever |= dict.fromkeys([*before.values(), *self.slots().values()], boot())
            self._write()

    def use(self, uuid: str, pid: int) -> None:
        """A process computes on a device from now on, until it ends."""
        with self._lock:
            self._users[pid] = uuid
            self._write()

    def tidy(self) -> None:
        """Let go of processes that have ended."""
        with self._lock:
            gone = [pid for pid in self._users if not Path(f"/proc/{pid}").exists()]
            for pid in gone:
                del self._users[pid]
            if gone:
                self._write()

    def garble(self, pids: Mapping[str, tuple[int, ...]]) -> None:
        """Show these processes, by device, instead of those that are there."""
        with self._lock:
            self._garbled = dict(pids)
            self._write()

    def sicken(self, gpu: str | None, function: str = "*", code: int = 0) -> None:
        """Let a call fail for one GPU and its MIG devices until another is sick; None: for none."""
        with self._lock:
            self._sick = None if gpu is None else (gpu, function, code)
            hidden = gpu is not None and function in IDENTIFYING
            self.sick_since = (self.sick_since or boot()) if hidden else None
            self._write()

    def sick(self) -> frozenset[str]:
        """The devices of a GPU that does not tell what is on it, by UUID."""
        if self._sick is None or self._sick[1] in INFORMATIVE:
            return frozenset()
        gpus = [gpu for gpu in self._world.gpus if gpu.uuid == self._sick[0]]
        return frozenset(uuid for gpu in gpus for uuid in (gpu.uuid, *(m.uuid for m in gpu.migs)))

    def _write(self) -> None:
        shown = self._world
        where = {uuid: slot for slot, uuid in shown.slots().items()}
        for pid, uuid in self._users.items():
            if uuid in where and uuid not in self._garbled:
                shown = shown.with_process(where[uuid], pid)
        for uuid, pids in self._garbled.items():
            for pid in pids if uuid in where else ():
                shown = shown.with_process(where[uuid], pid)
        for index, gpu in enumerate(shown.gpus):
            if self._sick is not None and gpu.uuid == self._sick[0]:
                shown = shown.with_fault(self._sick[1], self._sick[2], gpu=index)
        shown.write(self._file)


def mount(folder: Path, size: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={size},mode=755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)


class Disk:
    """One of the small file systems."""

    def __init__(self, folder: Path, size: str) -> None:
        self.folder = folder
        self._ballast = folder / ".ballast"
        mount(folder, size)

    def fill(self) -> None:
        """Leave no page."""
        with suppress(OSError), self._ballast.open("ab") as file:
            while free := os.statvfs(self.folder).f_bavail * 4096:
                os.posix_fallocate(file.fileno(), file.tell(), file.tell() + free)
                file.seek(0, os.SEEK_END)

    def read_only(self, wanted: bool) -> bool:
        """Remount it; somebody who just writes is waited for. Whether it worked."""
        how = "remount,ro" if wanted else "remount,rw"
        end = time.monotonic() + (1.0 if wanted else 20.0)
        while time.monotonic() < end:
            command = ["mount", "-o", how, str(self.folder)]
            if subprocess.run(command, check=False, capture_output=True).returncode == 0:
                return True
            time.sleep(0.01)
        return False

    def heal(self) -> None:
        self.read_only(False)
        self._ballast.unlink(missing_ok=True)


class Outside:
    """A folder that is none of ds01d's, with files as they lie in /etc: nobody may touch them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        folder.mkdir(parents=True)
        ghost = f"ghost._.{UIDS['alice']}"
        record = {"container": ghost, "user": "alice", "gpu_id": "0.0", "priority": 1}
        self._files = {
            "daemon.json": b"{}\n",
            "passwd.json": b"root:x:0:0\n",
            f"{ghost}.json": json.dumps(record).encode(),
        }
        self.restore()

    def restore(self) -> None:
        """Let it be as it was, without what others have put there."""
        with self._lock:  # several faults lead here, and each looks whether something was touched
            for path in self.folder.iterdir():
                path.unlink()
            for name, content in self._files.items():
                (self.folder / name).write_bytes(content)

    def touched(self) -> list[str]:
        """The files that are not what they were."""
        with self._lock:
            return [name for name, content in self._files.items() if self._read(name) != content]

    def _read(self, name: str) -> bytes | None:
        with suppress(OSError):
            return (self.folder / name).read_bytes()
        return None


class Ground:
    """All of it, as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.disks = {
            name: Disk(folder / "site" / place, size) for name, (place, size) in DISKS.items()
        }
        self.logs = folder / "site" / "log"
        self.logs.symlink_to(".log")  # to be taken away, as no mount can be
        _provide_users(folder / "passwd")
        self.engine = SharedEngine()
        self.engine_up = threading.Event()
        """Clear while a fault keeps dockerd from answering."""
        self.proxy = Proxy(self.engine.root / "proxy.sock", self.engine.socket)
        self.strays = Strays(self.engine.cgroup)
        self.outside = Outside(folder / "outside")
        self.gpus = Gpus(folder / "nvml-world")
        self.shim = Shim(folder / "shim")
        selected = nvml.env(nvml.build(), folder / "nvml-world")
        self.site = Site(folder / "site", self.proxy.url, books=None, env=selected)
        # ds01-allocator books through the socket while ds01d runs, and by itself while it does not.
        self.site.configure(**TABLES, service={"socket": str(self.engine.root / "booking.sock")})
        self.site.limits.write_text(LIMITS, encoding="utf-8")
        _first_state(self.site.state, self.gpus.slots())
        env = {**self.site.environment(), **self.shim.env}
        self.service = Service(folder, self.site.config, env)

    def __enter__(self) -> Ground:  # noqa: PYI034 - typing has no Self in Python 3.10
        try:
            self.engine.start()
            self.engine_up.set()
            self.proxy.__enter__()
            self.service.__enter__()
        except BaseException:
            self.engine.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.strays.end()
        self.service.__exit__()
        self.proxy.__exit__(None, None, None)
        self.engine.close()
        for path in ("/etc/passwd", *(str(disk.folder) for disk in self.disks.values())):
            subprocess.run(["umount", "--lazy", path], check=False)

    def status(self) -> dict[str, Any]:
        """What ds01d publishes, {} where that cannot be read."""
        with suppress(OSError, ValueError):
            return self.site.status()
        return {}


def _provide_users(file: Path) -> None:
    """Let the host know the users by their uids, in this mount namespace."""
    ours = (f"{user}:x:{uid}:{uid}::/nonexistent:/bin/false\n" for user, uid in UIDS.items())
    file.write_text("".join(ours) + Path("/etc/passwd").read_text(encoding="utf-8"))
    subprocess.run(["mount", "--bind", str(file), "/etc/passwd"], check=True)


def _first_state(path: Path, slots: Mapping[str, str]) -> None:
    gpus: dict[str, object] = {
        slot: {
            "type": "mig_instance",
            "physical_gpu": slot.partition(".")[0],
            "device_id": slot.partition(".")[2],
            "uuid": uuid,
            "profile": "1g.10gb",
            "docker_id": uuid,
            "containers": [],
            "users": {},
            "reserved_until": None,
            "reserved_for": None,
        }
        for slot, uuid in slots.items()
    }
    state = {"gpus": gpus, "mig_enabled": True, "allocation_strategy": "least_allocated"}
    path.write_text(json.dumps(state, indent=2), encoding="utf-8")


def only_devices(world: World) -> World:
    """The world without faults."""
    return replace(world, faults=())
