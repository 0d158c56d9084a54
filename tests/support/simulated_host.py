"""A host of simulated parts under the real adapters: fake engine, simulated NVML, private files.

Only the clock is ours, so that hours pass at once; all else runs as `bootstrap` joins it. Passes
are made in this process, one by one: what they report is the proof.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ds01d import bootstrap
from ds01d import config as configuration
from ds01d.adapters.books.timestamps import format_iso
from ds01d.adapters.docker import inspector
from ds01d.adapters.docker.engine import DockerEngine
from ds01d.adapters.host.followed_processes import FollowedProcesses
from ds01d.config import Config
from ds01d.config_values import Seconds
from ds01d.model.drift import GatedDrift, Outcome
from ds01d.model.primitives import Boot, Now, Wall
from ds01d.reconcile.reconciler import Reconciler
from ds01d.reconcile.report import Report
from simulation.fake_containers import Json
from simulation.fake_engine import FakeEngine
from simulation.fake_engine import request as device_request
from simulation.nvml import World, prod4
from tests.support.fixtures import NvmlWorld

LIMITS = (
    "defaults: {gpu_hold_after_stop: 24h, priority: 10}\ndefault_group: all\ngroups: {all: {}}\n"
)
HOUR_S = 3600.0
LONGEST_S = 60.0  # of a real pass, on a machine with much else to do
PATIENCE_S = 5.0
WALL = 1_800_000_000.0
BOOT = 100_000.0


class MovedClock:
    """Clocks that stand still until a test moves them ahead; a boot may begin anew.

    They begin at `WALL`, and `BOOT` seconds after the boot. However slow the machine is that runs
    the tests, and however short its uptime, a grace is over exactly when they say so.
    """

    def __init__(self) -> None:
        self._wall, self._boot = WALL, BOOT
        self.ahead_s = 0.0
        self.stepped_s = 0.0  # by which somebody has set the wall clock
        self._boots = 1
        self._booted: float | None = None

    def now(self) -> Now:
        return Now(
            wall=Wall(self.unset() + self.stepped_s),
            boot=self.read_boot(),
            boot_id=f"boot-{self._boots}",
        )

    def unset(self) -> float:
        """The wall clock, had nobody set it."""
        return self._wall + self.ahead_s

    def read_boot(self) -> Boot:
        return Boot(self._boot + self.ahead_s - (self._booted or 0.0))

    def reboot(self, *, since_s: float) -> None:
        """Let the host have booted so many seconds ago."""
        self._boots += 1
        self._booted = self._boot + self.ahead_s - since_s


class FakeProc:
    """A /proc with the processes of a test; process 1 is always there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pids = itertools.count(4_000_001)
        self._add(1, "0::/init.scope", "systemd", 0)

    def add(self, container: str | None, command: str = "python", uid: int = 1001) -> int:
        """Start a process of a container, or (None) of the host; gives its pid."""
        pid = next(self._pids)
        self._add(pid, f"0::/docker/{container}" if container else "0::/user.slice", command, uid)
        return pid

    def _add(self, pid: int, cgroup: str, command: str, uid: int) -> None:
        folder = self.path / str(pid)
        folder.mkdir(parents=True)
        (folder / "cgroup").write_text(f"{cgroup}\n", encoding="ascii")
        (folder / "stat").write_text(f"{pid} ({command}) S 0 {'0 ' * 17}77 0\n", encoding="ascii")
        (folder / "status").write_text(f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n", encoding="ascii")


class SimulatedHost:
    """The host. `sweep` makes a pass over everything; `config` may be changed before `reopen`."""

    def __init__(self, root: Path, engine: FakeEngine, nvml: NvmlWorld) -> None:
        self.root = root
        self.engine = engine
        self.nvml = nvml
        self.watch = False
        """Follow Docker's events, as the daemon does; without, each pass inspects everybody."""
        self.clock = MovedClock()
        self.proc = FakeProc(root / "proc")
        self.world: World = prod4()
        self.books = root / "books"
        self.state = self.books / "gpu-state.json"
        self.metadata = self.books / "container-metadata"
        self.limits = root / "limits.yaml"
        self.logs = root / "log"
        self.own = root / "ds01d"
        self.metadata.mkdir(parents=True)
        self.logs.mkdir()
        self.limits.write_text(LIMITS, encoding="utf-8")
        engine.data_root = str(root)
        engine.containers.clock = self.clock.unset
        self.config = Config(
            docker=configuration.DockerConfig(url=engine.url, timeout_s=Seconds(5)),
            gpu=configuration.GpuConfig(timeout_s=Seconds(20)),
            books=configuration.BooksConfig(
                state=self.state,
                metadata=self.metadata,
                limits=self.limits,
                lock_timeout_s=Seconds(1),
            ),
            logs=configuration.LogsConfig(
                operations=self.logs / "operations.log",
                allocations=self.logs / "allocations.log",
                syslog=False,
            ),
            daemon=configuration.DaemonConfig(state_dir=self.own),
        )
        self._opened: bootstrap.Opened | None = None
        self._sent_before = 0
        self._reconciler: Reconciler | None = None

    # --- ds01d

    def configure(self, **tables: Mapping[str, object]) -> None:
        """Change keys of the configuration, as `configure(policy={"settle_s": Seconds(1)})`."""
        changed = {
            name: msgspec.structs.replace(getattr(self.config, name), **keys)
            for name, keys in tables.items()
        }
        self.config = msgspec.structs.replace(self.config, **changed)

    @property
    def opened(self) -> bootstrap.Opened:
        """The parts of this configuration, opened at the first use."""
        if self._opened is None:
            self._opened = bootstrap.open_parts(self.config)
            self._opened.state_dir.make()
            self._sent_before = self.engine.containers.sent
            if self.watch:
                self._opened.engine.start()
        return self._opened

    def reopen(self) -> None:
        """Start ds01d anew: only what is on disk is left."""
        if self._opened is not None:
            self._opened.close()
        self._opened = self._reconciler = None

    @property
    def reconciler(self) -> Reconciler:
        if self._reconciler is None:
            self._reconciler = Reconciler(self.opened.world, self.config)
        return self._reconciler

    def sweep(self, *, after_s: float = 0.0) -> Report:
        """Let time pass, then make a pass over everything. Whatever fails, it ends by itself."""
        self.clock.ahead_s += after_s
        self._await_events()
        began = time.monotonic()
        report = self.reconciler.run()
        assert time.monotonic() - began < LONGEST_S, "no source is waited for without a deadline"
        return report

    def sweeps(self, *after_s: float) -> Report:
        """Several passes, one after the other; gives the last report."""
        reports = [self.sweep(after_s=after) for after in after_s]
        return reports[-1]

    def _await_events(self) -> None:
        """Let ds01d receive what was sent: between two passes of a real host is time for that.

        Not for long: what a stream that broke had left is never received.
        """
        engine, give_up = self.opened.engine, time.monotonic() + PATIENCE_S
        while self.watch and not engine.stream_problem and time.monotonic() < give_up:
            if engine.received >= self.engine.containers.sent - self._sent_before:
                return
            time.sleep(0.001)

    # --- reality

    def show(self, world: World) -> None:
        """Put a world of GPUs in force."""
        self.world = world
        self.nvml.set(world)

    def run(
        self,
        name: str,
        *devices: str,
        count: int = 0,
        state: str = "running",
        ago_s: float = HOUR_S,
        labelled: bool = True,
        **fields: object,
    ) -> str:
        """Make a container, `ago_s` seconds ago, that is in `state` since; gives its id."""
        user = f"user{name.rpartition('.')[2]}"
        labels = {"aime.mlc": user, "ds01.managed": "true", "ds01.user": user} if labelled else {}
        requests = [device_request(*devices, count=count)] if devices or count else None
        then = self.clock.unset() - ago_s
        made: dict[str, Any] = {"labels": labels, "requests": requests, "created": then} | fields
        ident = self.engine.containers.add(name, start=False, **made)
        if state != "created":
            self.engine.containers.start(ident)
            self.engine.containers.change(ident, started=then)
        if state == "paused":
            self.engine.containers.pause(ident)
        elif state == "exited":
            self.engine.containers.stop(ident)
            self.engine.containers.change(ident, finished=then)
        return ident

    def start(self, name: str) -> None:
        """Start a container now, by the host's clock."""
        self.engine.containers.start(name)
        self.engine.containers.change(name, started=self.clock.now().wall)

    def stop(self, name: str) -> None:
        """Stop a container now, by the host's clock."""
        self.engine.containers.stop(name)
        self.engine.containers.change(name, finished=self.clock.now().wall)

    # --- the books

    def book(self, bookings: Mapping[str, Iterable[str]], *, ago_s: float = 2 * HOUR_S) -> None:
        """Write state and metadata: slot → containers. Slots without holders come from the GPUs."""
        slots: dict[str, Json] = {}
        devices = self.world.slots()
        mig = any("." in slot for slot in devices)
        wanted = [slot for slot in devices if slot in bookings or not mig or "." in slot]
        for slot in sorted({*wanted, *bookings}, key=lambda one: tuple(map(int, one.split(".")))):
            holders = list(bookings.get(slot, ()))
            slots[slot] = slot_entry(slot, devices.get(slot, f"MIG-{slot}"), holders)
            for name in holders:
                self.record(name, slot, ago_s=ago_s)
        self.write_state(slots, mig=mig)

    def write_state(self, slots: Mapping[str, Json], *, mig: bool = True) -> None:
        whole = {"gpus": slots, "mig_enabled": mig, "allocation_strategy": "least_allocated"}
        self.state.write_text(json.dumps(whole, indent=2), encoding="utf-8")

    def record(self, name: str, slot: str, *, ago_s: float = 2 * HOUR_S, **more: object) -> Path:
        """Write the metadata of a container that was allocated `ago_s` seconds ago."""
        at = format_iso(Wall(self.clock.unset() - ago_s))
        user = f"user{name.rpartition('.')[2]}"
        fields = {"container": name, "user": user, "gpu_id": slot, "priority": 10}
        path = self.metadata / f"{name}.json"
        path.write_text(json.dumps({**fields, "allocated_at": at, **more}, indent=2), "utf-8")
        return path

    def gpus(self) -> dict[str, Json]:
        """The slots as the state file has them now."""
        found: dict[str, Json] = json.loads(self.state.read_text(encoding="utf-8"))["gpus"]
        return found

    def booked(self) -> dict[str, frozenset[str]]:
        """Who is booked where: container → slots."""
        found: dict[str, set[str]] = {}
        for slot, entry in self.gpus().items():
            for name in entry["containers"]:
                found.setdefault(name, set()).add(slot)
        return {name: frozenset(slots) for name, slots in found.items()}

    def bytes_of_books(self) -> dict[str, bytes]:
        """State and metadata, byte by byte."""
        files = [self.state, *sorted(self.metadata.glob("*.json"))]
        return {path.name: path.read_bytes() for path in files if path.is_file()}


def slot_entry(slot: str, uuid: str, holders: Iterable[str] = ()) -> Json:
    """A slot as the allocator writes it, with users that count the holders."""
    gpu, _, mig = slot.partition(".")
    names = list(holders)
    users: dict[str, int] = {}
    for name in names:
        user = f"user{name.rpartition('.')[2]}"
        users[user] = users.get(user, 0) + 1
    kind: Json = {"type": "mig_instance" if mig else "physical_gpu"}
    if mig:
        kind |= {"physical_gpu": gpu, "device_id": mig, "uuid": uuid, "profile": "1g.10gb"}
        kind |= {"docker_id": uuid}
    return {**kind, "containers": names, "users": users} | dict.fromkeys(
        ("reserved_until", "reserved_for")
    )


def told(report: Report) -> dict[str, GatedDrift]:
    """The drifts of a report by kind and subject, for messages of tests."""
    return {
        f"{one.drift.kind} {one.drift.container or one.drift.slot or ''}": one
        for one in report.drifts
    }


def released(report: Report) -> frozenset[tuple[str, str]]:
    """The bookings that a pass took away."""
    done = [one.drift for one in report.drifts if one.outcome is Outcome.DONE]
    return frozenset(pair for drift in done for pair in drift.taken)


@pytest.fixture
def memory_folder(tmp_path: Path) -> Iterator[Path]:
    """Lend a folder in memory, where there is one: a pass syncs to disk, which others use too."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="ds01d-test-", dir=memory) as folder:
        yield Path(folder)


@pytest.fixture
def simulated_host(
    memory_folder: Path,
    fake_engine: FakeEngine,
    nvml_world: NvmlWorld,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[SimulatedHost]:
    """Lend a host with four A100, three of them cut into MIG devices, and nobody on them."""
    for key in ("LD_LIBRARY_PATH", "DS01_SIM_NVML"):
        monkeypatch.setenv(key, nvml_world.env[key])
    host = SimulatedHost(memory_folder / "host", fake_engine, nvml_world)
    # Where the parts are joined, and nowhere deeper: the clock and /proc are the host's.
    monkeypatch.setattr(bootstrap, "read_boottime", host.clock.read_boot)
    monkeypatch.setattr(bootstrap, "HostClock", lambda: host.clock)
    engine = functools.partial(DockerEngine, clock_wall=lambda: host.clock.now().wall)
    monkeypatch.setattr(bootstrap, "DockerEngine", engine)
    monkeypatch.setattr(inspector, "INSPECT_S", LONGEST_S)  # however slow, all in one look
    followed = functools.partial(FollowedProcesses, proc=host.proc.path)
    monkeypatch.setattr(bootstrap, "FollowedProcesses", followed)
    yield host
    host.reopen()
