"""A private host with N containers: an engine, a simulated NVML, and books that agree with it.

Up to `REAL` containers on a real dockerd of its own; above that on the fake engine, in a process of
its own. 8 GPUs of 7 MIG devices each make 56 slots, as on the largest server; the containers are
booked in them in turn, so that above 56 they are shared. One container per slot runs (and a process
of it uses the device), the others were created and not started; each has its metadata file.
"""

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import docker

from ds01d.adapters.files.file_lock import Lock
from simulation import nvml
from simulation.engine import PrivateEngine
from simulation.fake_engine import fake_engine_process

REAL: Final = 1_000
GPUS: Final = 8
MIGS: Final = 7
USERS: Final = 50
FILESYSTEM_ROOM: Final = "ds01-bench-"

LIMITS: Final = """\
defaults:
  gpu_hold_after_stop: 24h
  priority: 1
default_group: student
groups:
  student:
    members: [{members}]
    priority: 10
"""

CONFIG: Final = """\
[docker]
url = "{url}"
timeout = "60s"
[books]
writers = "service"
state = "{root}/lib/gpu-state.json"
metadata = "{root}/lib/container-metadata"
limits = "{root}/limits.yaml"
[logs]
syslog = false
operations = "{root}/log/container-operations.log"
allocations = "{root}/log/gpu-allocations.log"
[daemon]
state_dir = "{root}/own"
[service]
socket = "{root}/booking.sock"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A host that is ready. `names` in the order in which they were created."""

    root: Path
    url: str
    real: bool
    names: tuple[str, ...]
    running: int
    client: docker.APIClient
    library: Path
    engine: PrivateEngine | None

    @property
    def state(self) -> Path:
        return self.root / "lib" / "gpu-state.json"

    @property
    def config(self) -> Path:
        return self.root / "ds01d.toml"

    @property
    def socket(self) -> Path:
        return self.root / "booking.sock"

    @property
    def own(self) -> Path:
        """The directory of ds01d itself."""
        return self.root / "own"

    @property
    def environment(self) -> dict[str, str]:
        """What lets a process see the simulated NVML."""
        return nvml.env(self.library, self.root / "nvml-world")

    def renew(self, name: str) -> None:
        """Book a container that is gone, as an allocator would, then create and start it again."""
        assert self.engine is not None, "a fake engine has enough containers"
        number, migs = self.names.index(name), make_world().slots()
        order = list(migs)
        slot, user = order[number % len(order)], f"user{number % USERS}"
        with Lock(self.state.with_name(f"{self.state.name}.lock"), 5.0):
            state = json.loads(self.state.read_bytes())
            _book(state["gpus"][slot], name, user)
            fresh = self.state.with_name("fresh")
            fresh.write_text(json.dumps(state, indent=2), encoding="utf-8")
            fresh.replace(self.state)
        _write_record(self.root, name, user, slot, datetime.now())  # noqa: DTZ005 - local
        _create_one(self.engine, number, migs, start=True)


@contextmanager
def host(count: int) -> Iterator[Host]:
    """Make a host with `count` containers, and leave nothing of it."""
    root = Path(tempfile.mkdtemp(prefix=FILESYSTEM_ROOM))
    migs = make_world().slots()
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        engine = None
        if count <= REAL:
            engine = stack.enter_context(PrivateEngine())
            for number in range(count):
                _create_one(engine, number, migs)
            url = engine.url
        else:
            devices = list(migs.values())
            url = stack.enter_context(
                fake_engine_process(
                    root / "docker.sock", containers=count, devices=devices, running=False
                )
            )
        client = docker.APIClient(base_url=url, version="auto", timeout=120)
        stack.callback(client.close)
        rows = list(reversed(client.containers(all=True)))
        running = min(count, len(migs))
        for row in rows[:running]:
            client.start(row["Id"])
        _write_books(root, rows, migs)
        _world_with_processes(client, rows[:running], migs, real=count <= REAL).write(
            root / "nvml-world"
        )
        (root / "ds01d.toml").write_text(CONFIG.format(url=url, root=root), encoding="utf-8")
        yield Host(
            root=root,
            url=url,
            real=count <= REAL,
            names=tuple(row["Names"][0].removeprefix("/") for row in rows),
            running=running,
            client=client,
            library=nvml.build(),
            engine=engine,
        )


def make_world() -> nvml.World:
    """The GPUs, without a process."""
    return nvml.World(gpus=tuple(_gpu(index) for index in range(GPUS)))


def _gpu(index: int) -> nvml.SimGpu:
    return nvml.SimGpu(
        uuid=f"GPU-{index:08x}-0000-4000-8000-000000000000",
        minor=index,
        pci_bus=0x11 + 0x10 * index,
        mig=True,
        migs=tuple(
            nvml.SimMig(
                uuid=f"MIG-{index:08x}-{mig:04x}-4000-8000-000000000000", index=mig, gi=7 + mig
            )
            for mig in range(MIGS)
        ),
    )


def _world_with_processes(
    client: docker.APIClient, rows: list[Any], migs: dict[str, str], *, real: bool
) -> nvml.World:
    """Each running container uses its device; those of a fake engine have no processes."""
    world = make_world()
    for row, slot in zip(rows if real else (), migs, strict=False):
        world = world.with_process(slot, client.inspect_container(row["Id"])["State"]["Pid"])
    return world


def _create_one(
    engine: PrivateEngine, number: int, migs: dict[str, str], *, start: bool = False
) -> None:
    slots = list(migs.items())
    slot, device = slots[number % len(slots)]
    user, job = f"user{number % USERS}", f"job{number}"
    labels = {
        "aime.mlc": user,
        "aime.mlc.ARCH": "CUDA_ADA",
        "aime.mlc.CUSTOM_IMAGE": "",
        "aime.mlc.DS01_MANAGED": "true",
        "aime.mlc.FRAMEWORK": "Pytorch-2.5.1",
        "aime.mlc.GPUS": f"device={device}",
        "aime.mlc.MLC_VERSION": "4",
        "aime.mlc.NAME": job,
        "aime.mlc.USER": user,
        "ds01.created_at": "2026-11-23T11:01:16Z",
        "ds01.gpu.allocated": slot,
        "ds01.gpu.uuid": device,
        "ds01.managed": "true",
        "ds01.user": user,
    }
    name = f"{job}._.{1001 + number % USERS}"
    engine.run(name, devices=[device], labels=labels, command=("sleep", "86400"), start=start)


def _write_books(root: Path, rows: list[Any], migs: dict[str, str]) -> None:
    """Write what the allocator would have: booked right before the containers were created."""
    for folder in ("lib/container-metadata", "log"):
        (root / folder).mkdir(parents=True)
    slots = {slot: _slot(slot, uuid) for slot, uuid in migs.items()}
    order = list(slots)
    for number, row in enumerate(rows):
        name, user = row["Names"][0].removeprefix("/"), row["Labels"]["ds01.user"]
        slot = order[number % len(order)]
        _book(slots[slot], name, user)
        booked = datetime.fromtimestamp(row["Created"]) - timedelta(seconds=2)  # noqa: DTZ006 - local
        _write_record(root, name, user, slot, booked)
    state = {"gpus": slots, "mig_enabled": True, "allocation_strategy": "least_allocated"}
    (root / "lib" / "gpu-state.json").write_text(json.dumps(state, indent=2), encoding="utf-8")
    members = ", ".join(f"user{number}" for number in range(USERS))
    (root / "limits.yaml").write_text(LIMITS.format(members=members), encoding="utf-8")


def _book(slot: dict[str, Any], name: str, user: str) -> None:
    slot["containers"].append(name)
    slot["users"] = dict(Counter(slot["users"]) + Counter([user]))


def _write_record(root: Path, name: str, user: str, slot: str, booked: datetime) -> None:
    record = {
        "container": name,
        "user": user,
        "gpu_id": slot,
        "priority": 10,
        "allocated_at": booked.strftime("%Y-%m-%dT%H:%M:%S.%f"),
    }
    path = root / "lib" / "container-metadata" / f"{name}.json"
    path.write_text(json.dumps(record, indent=2), encoding="utf-8")


def _slot(slot: str, uuid: str) -> dict[str, Any]:
    gpu, _, mig = slot.partition(".")
    return {
        "type": "mig_instance",
        "physical_gpu": gpu,
        "device_id": mig,
        "uuid": uuid,
        "profile": "1g.10gb",
        "docker_id": uuid,
        "containers": [],
        "users": {},
        "reserved_until": None,
        "reserved_for": None,
    }


def root_filesystem() -> str:
    """The file system of the temporary folders, where books and containers live."""
    where = Path(tempfile.gettempdir()).resolve()
    mounts = [line.split() for line in Path("/proc/mounts").read_text("utf-8").splitlines()]
    inside = [row for row in mounts if where.is_relative_to(row[1])]
    _, point, kind, *_ = max(inside, key=lambda row: len(row[1]))
    free = os.statvfs(where)
    return f"{kind} at {point}, {free.f_bavail * free.f_frsize >> 30} GiB free"
