"""Carries out the faults of a plan, and mends what each has broken.

Faults of one thing come one after the other, those of different things at the same time. What
stays as it is (a stepped clock, another layout of the GPUs) is no fault any more once it is done.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

from simulation.nvml.world import SimGpu, World
from simulation.proxy import DROP, PASS, TWICE, Mode
from tests.verification.campaign.clock import boot
from tests.verification.campaign.foreign import Notes, Write, pairs_of
from tests.verification.campaign.ground import INFORMATIVE, Ground, only_devices
from tests.verification.campaign.plan import Step
from tests.verification.campaign.reality import ALIVE

Args = Mapping[str, Any]

NOBODY = 65534
IMPOSSIBLE = (0, 0xFFFFFFFF, 1 << 30)
"""Pids that no process has: the last is above any kernel's pid_max."""
SICK_CALLS = (
    "*",
    "*",
    "nvmlDeviceGetHandleByIndex",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetComputeRunningProcesses",
    *INFORMATIVE,
)
"""The call that fails for a sick GPU."""

TARGETS: Mapping[str, str] = {
    "docker-kill": "engine",
    "docker-crash": "engine",
    "docker-stop": "engine",
    "docker-restart": "engine",
    "docker-answers": "proxy",
    "docker-refuses": "proxy",
    "docker-cut": "proxy",
    "docker-old-list": "proxy",
    "events": "proxy",
    "nvml": "gpus",
    "mig": "gpus",
    "freeze": "service",
    "descriptors": "service",
    "state": "state",
    "metadata": "metadata",
    "limits": "limits",
    "disk-full": "disk",
    "disk-read-only": "disk",
    "disk-slow": "shim",
    "logs-gone": "logs",
    "pids": "process lists",
    "hostile-link": "metadata",
    "hostile-lock": "lock",
    "hostile-owner": "state",
}
"""What a fault is one of; those that are not here are over at once."""


class Faults:
    """All faults of a campaign."""

    def __init__(self, ground: Ground, notes: Notes) -> None:
        self._ground = ground
        self._notes = notes
        self._turns: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._removed = 0
        self._cut_after_s: float | None = None
        self._old_states: list[bytes] = []
        self.memory_lost: list[float] = []
        """When what ds01d remembers was damaged."""
        self.zones = 0
        """How often the host's time zone was changed."""
        self.logs_away: list[tuple[float, float]] = []
        """From when until when the logs' folder was gone."""
        self.empty_lists: list[tuple[float, float]] = []
        """From when until when NVML told of no process, as if there were none."""
        self.touched: list[str] = []
        """Files outside of the books that were changed by whoever followed a link."""

    def do(self, step: Step) -> None:
        """Break it, wait, mend it."""
        act: Callable[[Args], None] = getattr(self, "_" + step.what.replace("-", "_"))
        with self._turns[TARGETS.get(step.what, step.what)]:
            act(step.args)

    def heal(self) -> None:
        """Whatever may still be broken is mended; for the end of a storm."""
        ground = self._ground
        ground.service.go_on()
        ground.service.unlimit_files()
        self._clear_proxy()
        ground.proxy.accept()
        ground.gpus.change(only_devices)
        ground.strays.end()
        ground.strays.end_lost(self._alive)
        ground.shim.slow_disk()
        for disk in ground.disks.values():
            disk.heal()
        with suppress(OSError):
            self._old_states.append(ground.site.state.read_bytes())

    # --- Docker

    def _alive(self) -> set[str]:
        rows = self._ground.engine.client.containers(all=True)
        return {row["Id"] for row in rows if row["State"] in ALIVE}

    @contextmanager
    def _engine_away(self) -> Iterator[None]:
        self._ground.engine_up.clear()
        try:
            yield
        finally:
            self._ground.engine_up.set()

    def _docker_kill(self, args: Args) -> None:
        with self._engine_away():
            self._ground.engine.kill()
            time.sleep(args["for"])
            self._ground.engine.start()

    def _docker_crash(self, args: Args) -> None:
        with self._engine_away():
            self._ground.engine.kill(containers=False)
            time.sleep(args["for"])
            self._ground.engine.start()

    def _docker_restart(self, args: Args) -> None:
        with self._engine_away():
            self._ground.engine.stop()
            self._ground.engine.start()

    def _docker_stop(self, args: Args) -> None:
        self._ground.engine_up.clear()
        try:
            self._ground.engine.pause()
            time.sleep(args["for"])
        finally:
            self._ground.engine.resume()
            self._ground.engine_up.set()

    @contextmanager
    def _proxy_spoils(self, args: Args) -> Iterator[None]:
        try:
            yield
            time.sleep(args["for"])
        finally:
            self._clear_proxy()
            self._ground.proxy.accept()

    def _docker_answers(self, args: Args) -> None:
        with self._proxy_spoils(args):
            mode = Mode[args["form"]]
            delay = 0.3 + args["draw"] % 1000 / 500
            self._ground.proxy.fault(f"GET {args['where']}", mode, delay_s=delay)
            if args["draw"] % 2:
                self._ground.proxy.cut()

    def _docker_refuses(self, args: Args) -> None:
        with self._proxy_spoils(args):
            self._ground.proxy.refuse()

    def _docker_cut(self, _: Args) -> None:
        self._ground.proxy.cut()

    def _docker_old_list(self, args: Args) -> None:
        """The list is some seconds old; inspect tells the truth."""
        with self._proxy_spoils(args):
            self._ground.proxy.fault("GET /containers/json", Mode.OLD, delay_s=args["age"])

    def _events(self, args: Args) -> None:
        chance = random.Random(args["draw"])
        with self._proxy_spoils(args):
            proxy = self._ground.proxy
            match args["form"]:
                case "drop":
                    proxy.on_event = lambda _: DROP if chance.random() < 0.6 else PASS
                case "double":
                    proxy.on_event = lambda _: TWICE
                case "swap":
                    proxy.swap_events = True
                case _:  # a minute, scaled
                    proxy.on_event = lambda _: (1.0,)

    # --- GPUs

    def _nvml(self, args: Args) -> None:
        form, gpu = args["form"], args["draw"] % 4

        def spoiled(world: World) -> World:
            lists = "nvmlDeviceGetComputeRunningProcesses"
            match form:
                case 15 | 16:
                    return world.with_fault("*", form, gpu=gpu)
                case 9 | 12 | 18:
                    return world.with_fault("nvmlInit", form)
                case "hang":
                    return world.with_fault("nvmlDeviceGetCount", hang=True)
                case "empty":
                    return world.with_fault(lists, empty=True)
                case "blind":
                    return world.with_fault(lists, 999, gpu=gpu)
                case "slow":
                    return world.with_fault("nvmlDeviceGetCount", delay_ms=700)
                case "no GPU":
                    return world.with_fault("nvmlDeviceGetCount", empty=True)
                case code:
                    return world.with_fault("nvmlDeviceGetCount", code)

        if form == "empty":
            self.empty_lists.append((boot(), inf))
        try:
            self._ground.gpus.change(spoiled)
            time.sleep(args["for"])
        finally:
            self._ground.gpus.change(only_devices)
            if form == "empty":
                self.empty_lists[-1] = (self.empty_lists[-1][0], boot())

    def lists_were_empty(self, begin: float, end: float) -> bool:
        """Whether that was so at some moment between two."""
        return any(since <= end and until >= begin for since, until in self.empty_lists)

    def _pids(self, args: Args) -> None:
        """Process lists name pids that cannot be, instead of some that are (nvitop 75)."""
        chance = random.Random(args["draw"])
        devices = sorted(self._ground.gpus.slots().values())
        spoiled = chance.sample(devices, len(devices) // 2)
        try:
            self._ground.gpus.garble(
                {uuid: tuple(chance.sample(IMPOSSIBLE, chance.randrange(1, 3))) for uuid in spoiled}
            )
            time.sleep(args["for"])
        finally:
            self._ground.gpus.garble({})

    def _sick(self, args: Args) -> None:
        """One GPU fails until the next storm has such a fault, also while all else is calm."""
        gpus = self._ground.gpus
        if not args["form"]:
            gpus.sicken(None)
            return
        gpu = gpus.world.gpus[args["draw"] % len(gpus.world.gpus)]
        gpus.sicken(gpu.uuid, SICK_CALLS[args["draw"] % len(SICK_CALLS)], args["form"])

    def _idle_cut(self, args: Args) -> None:
        """The stream of events is cut after so many seconds, also while all else is calm."""
        self._cut_after_s = args["form"] or None
        self._clear_proxy()
        self._ground.proxy.cut()

    def _clear_proxy(self) -> None:
        self._ground.proxy.clear()
        self._ground.proxy.cut_events_after_s = self._cut_after_s

    def _mig(self, args: Args) -> None:
        chance = random.Random(args["draw"])
        gpus = self._ground.gpus
        at = chance.randrange(len(gpus.world.gpus))
        gpu = gpus.world.gpus[at]
        match args["form"]:
            case "renumber":
                there = [mig.index for mig in gpu.migs]
                order = dict(zip(there, chance.sample(there, len(there)), strict=True))
                gpus.change(lambda world: world.migs_renumbered(at, order))
            case "recreate":
                gpus.change(lambda world: world.recreated(at))
            case "reorder":
                order_of = chance.sample(range(len(gpus.world.gpus)), len(gpus.world.gpus))
                gpus.change(lambda world: world.renumbered(order_of))
            case "lose one" if gpu.migs:
                lost = chance.choice(gpu.migs)
                gpus.change(lambda world: world.without_device(f"{at}.{lost.index}"))
                time.sleep(args["for"])
                gpus.change(lambda world: _with_gpu(world, at, gpu))
            case _:
                gpus.change(lambda world: world.without_device(str(at)))
                time.sleep(args["for"])
                gpus.change(lambda world: _inserted(world, at, gpu))

    # --- ds01d itself

    def _kill(self, _: Args) -> None:
        self._ground.service.kill()

    def _restart(self, _: Args) -> None:
        self._ground.service.restart()

    def _reload(self, _: Args) -> None:
        if self._ground.service.ready:
            self._ground.service.reload()

    def _freeze(self, args: Args) -> None:
        self._ground.service.stall()
        time.sleep(args["for"])
        self._ground.service.go_on()

    def _descriptors(self, args: Args) -> None:
        try:
            self._ground.service.limit_files(args["draw"] % 4)
            time.sleep(args["for"])
        finally:
            self._ground.service.unlimit_files()

    def _clock(self, args: Args) -> None:
        self._ground.shim.step_clock(args["form"])

    def _zone(self, args: Args) -> None:
        """For the whole host: those who write the books write their times in it from now on."""
        zone = f"/usr/share/zoneinfo/{args['form']}"
        subprocess.run(["umount", "/etc/localtime"], check=False, capture_output=True)
        self.zones += 1
        subprocess.run(["mount", "--bind", zone, "/etc/localtime"], check=True)

    # --- files

    def _state(self, args: Args) -> None:
        form = args["form"]
        self._removed += form == "remove"
        if form == "remove" and self._removed > 2:  # the same repair again and again is backed off
            form = "tear"
        if form == "go back" and self._old_states:
            self._go_back(args)
        else:
            self._damage(self._ground.site.state, "state", form, args)

    def _go_back(self, args: Args) -> None:
        """An old copy is put in its place, as from a backup."""
        old = self._old_states[args["draw"] % len(self._old_states)]
        digest = hashlib.sha256(old).hexdigest()
        with suppress(ValueError, KeyError, OSError):
            pairs = pairs_of(_loaded(old))
            write = Write(who="fault", what="state", begun=boot(), digest=digest, pairs=pairs)
            with self._notes.writing(write):
                self._ground.site.state.write_bytes(old)

    def _metadata(self, args: Args) -> None:
        with suppress(OSError):
            files = sorted(self._ground.site.metadata.glob("*.json"))
            if files:
                one = files[args["draw"] % len(files)]
                self._damage(one, one.stem, args["form"], args)

    def _own(self, args: Args) -> None:
        folder = self._ground.site.state_dir
        with suppress(OSError):
            match args["form"]:
                case "tear memory" | "empty memory":
                    self.memory_lost.append(boot())
                    path = folder / "checkpoint.json"
                    size = path.stat().st_size if args["form"] == "tear memory" else 0
                    os.truncate(path, args["draw"] % (size or 1))
                case "tear history":
                    with (folder / "history.jsonl").open("ab") as file:
                        file.write(b'{"id":"torn","at":"20')
                case "remove status":
                    (folder / "status.json").unlink()
                case _:
                    os.truncate(folder / "containers.json", args["draw"] % 400)

    def _limits(self, args: Args) -> None:
        path = self._ground.site.limits
        whole = path.read_bytes()
        try:
            if args["form"] == "remove":
                path.unlink()
            else:
                path.write_bytes(b"" if args["form"] == "empty" else b"groups: [}\x00")
            time.sleep(args["for"])
        finally:
            path.write_bytes(whole)

    # --- a hostile member of the books' group

    def _hostile_link(self, args: Args) -> None:
        """The metadata's folder is a link to one that is none of ds01d's business."""
        folder, outside = self._ground.site.metadata, self._ground.outside
        aside = folder.with_name("aside")
        target = outside.folder if args["form"] == "outside" else self._ground.site.state_dir
        own = {path.name for path in target.iterdir()} & {"checkpoint.json"}
        link = folder.with_name("link")  # a member's: one of root's would rightly be followed
        _insist(lambda: link.symlink_to(target))
        _insist(lambda: os.chown(link, NOBODY, NOBODY, follow_symlinks=False))
        _insist(lambda: folder.rename(aside))
        try:
            _insist(lambda: link.rename(folder))
            time.sleep(args["for"])
        finally:
            _insist(lambda: folder.unlink(missing_ok=True))
            _insist(lambda: aside.rename(folder))
            self.touched += [f"outside/{name}" for name in outside.touched()]
            self.touched += [f"{name} of ds01d" for name in own if not (target / name).exists()]
            outside.restore()

    def _hostile_lock(self, args: Args) -> None:
        """The books' lock is held by somebody, or is something else.

        It is exchanged while nobody holds it: to take a lock away from under its holder is for root
        alone where its folder is sticky, and makes two writers without a lock of those who follow.
        """
        lock = self._ground.site.state.with_name(self._ground.site.state.name + ".lock")
        with suppress(OSError), lock.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if args["form"] == "held":
                time.sleep(args["for"])
                return
            lock.unlink(missing_ok=True)
            match args["form"]:
                case "folder":
                    lock.mkdir()
                case "fifo":
                    os.mkfifo(lock)
                case _:
                    lock.symlink_to(self._ground.outside.folder / "passwd.json")
        time.sleep(args["for"])
        with suppress(OSError):
            if lock.is_dir():
                lock.rmdir()
            elif lock.is_fifo() or lock.is_symlink():
                lock.unlink()
        self.touched += [f"outside/{name}" for name in self._ground.outside.touched()]

    def _hostile_owner(self, args: Args) -> None:
        """The state belongs to somebody else, who lets others read it only."""
        state = self._ground.site.state
        with suppress(OSError):
            before = state.stat()
            os.chown(state, NOBODY, NOBODY)
            state.chmod(0o644)
            time.sleep(args["for"])
            os.chown(state, before.st_uid, before.st_gid)
            state.chmod(before.st_mode & 0o777)

    def _damage(self, path: Path, what: str, form: str, args: Args) -> None:
        """Damage a file of the books; what only hides it is mended."""
        write = Write(who="fault", what=what, begun=boot())
        with self._notes.writing(write), suppress(OSError):
            size = path.stat().st_size
            match form:
                case "forbid":
                    mode = path.stat().st_mode & 0o777
                    path.chmod(0)
                    time.sleep(args["for"])
                    path.chmod(mode or 0o644)
                case "folder":
                    aside = path.with_name(f".aside-{path.name}")
                    path.rename(aside)
                    try:
                        path.mkdir()
                        time.sleep(args["for"])
                    finally:
                        with suppress(OSError):
                            path.rmdir()
                        aside.rename(path)
                case "remove":
                    path.unlink()
                case "empty":
                    path.write_bytes(b" " * (args["serial"] % 500))
                case "tear":
                    os.truncate(path, args["draw"] % max(1, size - 2))
                case _:
                    with path.open("r+b") as file:
                        file.seek(args["draw"] % max(1, size - 8))
                        file.write(b"\x00{[" + str(args["serial"]).encode())

    # --- disks

    def _disk_full(self, args: Args) -> None:
        disk = self._ground.disks[args["form"]]
        try:
            disk.fill()
            time.sleep(args["for"])
        finally:
            disk.heal()

    def _disk_read_only(self, args: Args) -> None:
        disk = self._ground.disks[args["form"]]
        try:
            disk.read_only(True)
            time.sleep(args["for"])
        finally:
            disk.heal()

    def _disk_slow(self, args: Args) -> None:
        slow = {"sync": (300, 0), "rename": (0, 250), "both": (200, 150)}
        sync_ms, rename_ms = slow[args["form"]]
        try:
            self._ground.shim.slow_disk(sync_ms=sync_ms, rename_ms=rename_ms)
            time.sleep(args["for"])
        finally:
            self._ground.shim.slow_disk()

    def _logs_gone(self, args: Args) -> None:
        self.logs_away.append((boot(), inf))
        self._ground.logs.unlink()
        try:
            time.sleep(args["for"])
        finally:
            self._ground.logs.symlink_to(".log")
            self.logs_away[-1] = (self.logs_away[-1][0], boot())

    def longest_with_logs(self, begin: float, end: float) -> float:
        """For how many seconds in a row the logs were there, at most."""
        longest, since = 0.0, begin
        for away, back in self.logs_away:
            longest = max(longest, min(away, end) - since)
            since = max(since, back)
        return max(longest, end - since)


def _insist(act: Callable[[], object]) -> None:
    """Do what another fault may prevent for a while: a disk is read-only or full."""
    end = time.monotonic() + 30
    while True:
        try:
            act()
            return
        except OSError:  # noqa: PERF203 - again and again is what it is for
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


def _loaded(data: bytes) -> dict[str, Any]:
    import json  # noqa: PLC0415 - here alone

    document: dict[str, Any] = json.loads(data)
    return document


def _with_gpu(world: World, at: int, gpu: SimGpu) -> World:
    return replace(world, gpus=(*world.gpus[:at], gpu, *world.gpus[at + 1 :]))


def _inserted(world: World, at: int, gpu: SimGpu) -> World:
    return replace(world, gpus=(*world.gpus[:at], gpu, *world.gpus[at:]))
