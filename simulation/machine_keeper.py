"""Holds the mounts and the cgroup of a throw-away machine, and clears up when its owner is gone.

A program, `machine_keeper FOLDER [SYSTEM]`: it lives in a mount namespace of its own and takes
orders on stdin, one JSON object a line, each answered by `ok` or `failed`. The end of stdin is the
order to end. SYSTEM is the root of another system, which is copied into FOLDER; without it the
machine is an overlay of the host's own root, in memory. Knows nothing of what the machine is for.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from simulation.signals import deaf

TREE: Final = "root"
UMASK: Final = 0o022
"""Of whoever works on a machine: its services may read what is put there, as on a server."""
CGROUPS: Final = Path("/sys/fs/cgroup")
_ENGINE_FOLDERS: Final = ("docker", "containerd")  # no overlay, for dockerd wants to make its own
_PRIVATE_CGROUPS: Final = "cgroups"  # the host's, in our folder: ours are hidden from ourselves
_OFF: Final = signal.SIGRTMIN + 4
_ORDERLY_S: Final = 20.0


class Keeper:
    """One machine: its files all the time, its processes from `boot` to `stop`."""

    def __init__(self, folder: Path, system: Path | None) -> None:
        """`system`: the root that is copied; None: the host's own, below an overlay."""
        self._folder = folder
        self._system = system
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0
        self._cgroups: list[Path] = []

    def make(self) -> None:
        """Make the machine's files, and cgroups of version 2 alone: dockerd in there needs it."""
        if self._system is None:
            self._make_overlay()
        else:
            _copy_system(self._system, self._folder / TREE)
        # Where version 2 is mounted already, it cannot be once more: mount(2) refuses a file system
        # on top of itself with EBUSY, and mount(8) before 2.39 knows no other way.
        if _is_cgroup2(CGROUPS):
            return
        # The host's stay reachable for ourselves.
        (self._folder / _PRIVATE_CGROUPS).mkdir(mode=0o755)
        _mount("--rbind", CGROUPS, self._folder / _PRIVATE_CGROUPS)
        _mount("-t", "cgroup2", "cgroup2", CGROUPS)

    def _make_overlay(self) -> None:
        folder = self._folder
        _mount("-t", "tmpfs", "-o", "mode=700", "tmpfs", folder)
        for name in ("upper", "work", TREE, *_ENGINE_FOLDERS):
            (folder / name).mkdir(mode=0o755)
        # Overlays are compared by their lower folders: one under the root would be in itself.
        layers = f"lowerdir=/,upperdir={folder}/upper,workdir={folder}/work"
        _mount("-t", "overlay", "-o", layers, "overlay", folder / TREE)

    def boot(self, name: str, binds: Sequence[str], uptime_s: float | None = None) -> int:
        """Start the machine in a cgroup called `name`; gives the pid of its systemd.

        `uptime_s`: how long it seems to be up at this moment; None: as long as the host.
        """
        folder = self._folder
        self._cgroups = [place / name for place in self._hierarchies()]
        for place in self._cgroups:
            place.mkdir()
        command = [
            *(() if uptime_s is None else _just_booted(uptime_s)),
            "systemd-nspawn",
            "--quiet",
            f"--directory={folder / TREE}",
            f"--machine={name}",
            "--boot",
            "--register=no",
            "--keep-unit",
            "--console=passive",
            "--link-journal=no",
            "--capability=all",
            "--system-call-filter=@known",
            *self._own_options(),
            *(f"--bind-ro={bind}" for bind in binds),
        ]
        enter = 'for place in "$@"; do [ "$place" != -- ] || break; echo $$ >"$place"; done; '
        skip = 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"'
        procs = [str(place / "cgroup.procs") for place in self._cgroups]
        with (folder / "console").open("ab") as console:
            self._nspawn = subprocess.Popen(
                ["sh", "-c", enter + skip, "sh", *procs, "--", *command],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
            )
        self._leader = self._find_leader()
        return self._leader

    def _own_options(self) -> Sequence[str]:
        """What an overlay needs, and a copy, which has to reach registries, does not."""
        if self._system is not None:
            return ()
        return (
            "--private-network",
            *(f"--bind={self._folder / name}:/var/lib/{name}" for name in _ENGINE_FOLDERS),
        )

    def stop(self, *, orderly: bool) -> None:
        """End the machine: power it off, or kill it at once."""
        nspawn = self._nspawn
        if nspawn is not None:
            if orderly and self._leader:
                with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                    os.kill(self._leader, _OFF)
                    nspawn.wait(_ORDERLY_S)
            # Never nspawn itself: the machine would go on without it.
            if nspawn.poll() is None and self._leader:
                with suppress(ProcessLookupError):
                    os.kill(self._leader, signal.SIGKILL)
                with suppress(subprocess.TimeoutExpired):
                    nspawn.wait(10)
        self._kill_rest()
        if nspawn is not None:
            nspawn.wait(10)
        self._nspawn, self._leader = None, 0
        for place in self._cgroups:
            _remove_cgroup(place)
        self._cgroups = []

    def end(self) -> None:
        """End and remove everything."""
        self.stop(orderly=False)
        private = self._folder / _PRIVATE_CGROUPS
        places = [self._folder / TREE, *((CGROUPS, private) if private.exists() else ())]
        for place in (*places, self._folder):
            subprocess.run(
                ("umount", "--lazy", place), check=False, stderr=subprocess.DEVNULL, timeout=20
            )
        shutil.rmtree(self._folder, ignore_errors=True)

    def _hierarchies(self) -> list[Path]:
        """Where a cgroup has to be made: version 2, and systemd's own where both versions are."""
        private = self._folder / _PRIVATE_CGROUPS
        host = private if private.exists() else CGROUPS
        if _is_cgroup2(host):
            return [host]
        return [host / name for name in ("systemd", "unified") if (host / name).is_dir()]

    def _find_leader(self) -> int:
        assert self._nspawn is not None
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if self._nspawn.poll() is not None:
                raise RuntimeError(f"systemd-nspawn ended with {self._nspawn.returncode}")
            for pid in _descendants(self._nspawn.pid):
                if _is_init(pid):
                    return pid
            time.sleep(0.002)
        raise TimeoutError("systemd-nspawn starts no machine")

    def _kill_rest(self) -> None:
        deadline = time.monotonic() + 10
        while living := set(_members(self._cgroups)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"these processes do not end: {sorted(living)}")
            for pid in living:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if self._nspawn is not None:
                self._nspawn.poll()
            time.sleep(0.005)


def _copy_system(system: Path, target: Path) -> None:
    command = ("cp", "--archive", "--one-file-system", "--reflink=auto", system, target)
    subprocess.run(command, check=True, timeout=600)


def _is_cgroup2(folder: Path) -> bool:
    return (folder / "cgroup.controllers").exists()


def _just_booted(uptime_s: float) -> Sequence[str]:
    """Run what follows in a time namespace where the host was booted `uptime_s` ago, or later."""
    # They count from the first namespace, also in another one: time_namespaces(7).
    lines = Path("/proc/self/timens_offsets").read_text(encoding="ascii").splitlines()
    ours = {name: int(seconds) for name, seconds, _ in (line.split() for line in lines)}
    offsets = (
        f"--{name}={ours[name] + min(0, int(uptime_s - time.clock_gettime(clock)))}"
        for name, clock in (("boottime", time.CLOCK_BOOTTIME), ("monotonic", time.CLOCK_MONOTONIC))
    )
    return ("unshare", "--time", "--fork", *offsets, "--")


def _mount(*words: str | Path) -> None:
    done = subprocess.run(
        ("mount", *words), check=False, capture_output=True, text=True, timeout=20
    )
    if done.returncode != 0:
        raise RuntimeError(f"mount {' '.join(map(str, words))}: {done.stderr.strip()}")


def _descendants(pid: int) -> Iterator[int]:
    with suppress(OSError, ValueError):
        for word in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split():
            yield int(word)
            yield from _descendants(int(word))


def _is_init(pid: int) -> bool:
    """Whether it is the first process of a pid namespace, and systemd by now."""
    with suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text("utf-8", errors="replace")
        rows = dict(row.partition(":")[::2] for row in status.splitlines())
        return rows["NSpid"].split()[1:] == ["1"] and rows["Name"].strip() == "systemd"
    return False


def _members(cgroups: Sequence[Path]) -> Iterator[int]:
    for place in cgroups:
        for file in place.rglob("cgroup.procs"):
            with suppress(OSError):
                yield from map(int, file.read_text("ascii").split())


def _remove_cgroup(place: Path) -> None:
    """Remove a cgroup from the leaves up; its last process may keep it busy for a moment more."""
    deadline = time.monotonic() + 5
    while place.exists() and time.monotonic() < deadline:
        for path, _, _ in os.walk(place, topdown=False):
            with suppress(OSError):
                Path(path).rmdir()
        if place.exists():
            time.sleep(0.002)


def _obey(keeper: Keeper, order: dict[str, Any]) -> str:
    match order["command"]:
        case "boot":
            return str(keeper.boot(order["name"], order["binds"], order["uptime_s"]))
        case "stop":
            keeper.stop(orderly=order["orderly"])
        case unknown:
            raise RuntimeError(f"unknown order {unknown}")
    return ""


def main() -> None:
    """Serve until the end of stdin, or the order to end."""
    deaf()
    os.umask(UMASK)
    folder, *system = map(Path, sys.argv[1:])
    keeper = Keeper(folder, next(iter(system), None))
    try:
        keeper.make()
        _say("ok")
        for line in sys.stdin:
            order = json.loads(line)
            if order["command"] == "end":
                break
            try:
                _say(f"ok {_obey(keeper, order)}")
            except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                _say(f"failed {str(error)!r}")
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        _say(f"failed {str(error)!r}")
    finally:
        keeper.end()
        _say("ok")


def _say(text: str) -> None:
    with suppress(OSError):  # nobody listens any more
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
