"""A private mount namespace and cgroup that take everything in them along when their owner ends.

A Docker engine leaves much behind when it is killed: containerd, shims, containers, mounts,
sockets below /run, cgroups. Started in an enclosure all of it is known by where it lives, and goes
when the enclosure is closed; also when its owner dies without closing it, for a keeper process
waits for that. Knows nothing of Docker but the folders that all engines of a host would share.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from simulation.signals import deaf

HIDDEN: Final = (Path("/run/containerd"), Path("/run/docker"), Path("/etc/docker"))
"""Where all engines of a host write; in here they are empty folders of our own."""
CGROUPS: Final = Path("/sys/fs/cgroup")


class Enclosure:
    """A folder of its own, and a mount namespace and a cgroup parent named after it."""

    def __init__(self, root: Path) -> None:
        """Make the enclosure around `root`, which is removed with it."""
        self.root = root
        command = ("unshare", "--mount", "--propagation", "private", sys.executable)
        self._keeper = subprocess.Popen(
            (*command, "-m", "simulation.enclosure", str(root)),
            cwd=Path(__file__).parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._keeper.stdout is not None
        if not self._keeper.stdout.readline():
            self.close()
            raise RuntimeError("cannot make a private mount namespace (are we root?)")

    @property
    def cgroup(self) -> str:
        """The cgroup below which everything in here has to run that enters no namespace of ours."""
        return f"/{self.root.name}"

    def inside(self, command: Sequence[str]) -> list[str]:
        """Return what runs `command` in the namespace; its process becomes the command's."""
        return ["nsenter", f"--mount=/proc/{self._keeper.pid}/ns/mnt", "--", *command]

    def kill(self, which: Callable[[str], bool] = lambda _: True) -> None:
        """End every process in here whose command `which` wants, but for the keeper."""
        _kill(self.root, self._keeper.pid, which)

    def close(self) -> None:
        """End and remove everything in here."""
        if self._keeper.stdin is not None:
            with suppress(BrokenPipeError):
                # A word, for closing is not enough where a forked child has inherited the pipe.
                self._keeper.stdin.write(b"end\n")
                self._keeper.stdin.flush()
        for stream in (self._keeper.stdin, self._keeper.stdout):
            if stream is not None:
                stream.close()
        self._keeper.wait(timeout=300)  # a thousand containers leave many files


def main() -> None:
    """Be the keeper: hold the namespace until the owner closes it or dies, then clear up."""
    root = Path(sys.argv[1])
    deaf()
    for folder in HIDDEN:
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(("mount", "-t", "tmpfs", "tmpfs", str(folder)), check=True)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    _kill(root, os.getpid())
    for mount in _mounts(root):
        subprocess.run(("umount", "--lazy", mount), check=False, stderr=subprocess.DEVNULL)
    for folder in _cgroups(root):
        _remove_cgroup(folder)
    shutil.rmtree(root, ignore_errors=True)


def _kill(root: Path, keeper: int, which: Callable[[str], bool] = lambda _: True) -> None:
    deadline = time.monotonic() + 20
    _thaw(root)
    while living := {pid for pid in _processes(root, keeper) if which(_command(pid))}:
        if time.monotonic() > deadline:
            raise TimeoutError(f"these processes do not end: {sorted(living)}")
        for pid in living:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)


def _thaw(root: Path) -> None:
    """Let the processes of paused containers go on: nothing ends a frozen one."""
    for name, word in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
        for file in cgroup_files(root, name):
            with suppress(OSError):  # its container may end at the same time
                file.write_text(word, encoding="ascii")


def _processes(root: Path, keeper: int) -> Iterator[int]:
    """Everything that lives in the namespace or in the cgroups, but for the keeper and zombies."""
    ours = _namespace(str(keeper))
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != keeper:
            found = _namespace(entry.name)
            if found is not None and found == ours:
                yield int(entry.name)
    for file in cgroup_files(root, "cgroup.procs"):
        with suppress(OSError):
            for line in file.read_text(encoding="ascii").splitlines():
                if _namespace(line) is not None:
                    yield int(line)


def cgroup_files(root: Path, name: str) -> Iterator[Path]:
    """The files of that name in all our cgroups, of which some may go while we look."""
    for top in _cgroups(root):
        for folder, _, names in os.walk(top):
            if name in names:
                yield Path(folder, name)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _namespace(pid: str) -> str | None:
    """The mount namespace of a process; None: it is gone, or a zombie."""
    try:
        return str(Path(f"/proc/{pid}/ns/mnt").readlink())
    except OSError:
        return None


def _mounts(root: Path) -> list[str]:
    rows = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    points = (row.split()[4] for row in rows)
    return sorted((point for point in points if point.startswith(f"{root}/")), reverse=True)


def _cgroups(root: Path) -> list[Path]:
    """One folder for each hierarchy, whether there is one (version 2) or many."""
    return [
        path for path in (CGROUPS / root.name, *CGROUPS.glob(f"*/{root.name}")) if path.exists()
    ]


def _remove_cgroup(folder: Path) -> None:
    """Remove a cgroup from the leaves up; its last process may keep it busy for a moment more."""
    deadline = time.monotonic() + 5
    while folder.exists() and time.monotonic() < deadline:
        for path, _, _ in os.walk(folder, topdown=False):
            with suppress(OSError):
                Path(path).rmdir()
        time.sleep(0.002)


if __name__ == "__main__":
    main()
