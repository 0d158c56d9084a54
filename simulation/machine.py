"""A throw-away machine: the host's own system, booted with systemd, journald and dockerd.

systemd-nspawn boots an overlay of the running root, so there is nothing to download and whatever is
installed here is installed there. What the machine writes lies in memory and is gone with it. It
has its own cgroup and network (a loopback), and takes nothing of the host's along: no enabled
units, no /tmp, no /run, no Docker. A keeper process ends it all, also when its owner dies.

Or it is another system, such as a Debian made by debootstrap: a copy on disk, as it is, on the
network of the host.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from simulation.engine_client import EngineClient
from simulation.machine_keeper import TREE, UMASK
from simulation.runtime import installed_runc, runc

WORLD: Final = "/usr/lib/simulated-nvml/world"
"""Where in the machine the world lies that the simulated NVML shows."""
ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "DS01_SIM_NVML": WORLD,
}
_RUNC: Final = Path("/usr/local/sbin/runc")
_BOOTED: Final = frozenset({"running", "degraded"})
_ROOT: Final = Path(__file__).parent.parent


class Machine:
    """A machine, as a context manager: `with` makes its files, `boot` starts it.

    `binds` are folders of the host that it sees, read-only: place in the machine → folder.
    `system` is the root of another system; its copy lies beside it. `uptime_s` is how long it seems
    to be up when it boots; None: as long as the host.
    """

    def __init__(
        self,
        *,
        binds: Mapping[str, Path] | None = None,
        system: Path | None = None,
        uptime_s: float | None = None,
    ) -> None:
        self.name = f"ds01-machine-{secrets.token_hex(4)}"
        beside = system and system.parent
        self._folder = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir=beside))
        self._binds = dict(binds or {})
        self._uptime_s = uptime_s
        self._boots = 0
        self._leader: int | None = None
        self._docker: EngineClient | None = None
        command = ("unshare", "--mount", "--propagation", "private", sys.executable)
        arguments = () if system is None else (str(system),)
        self._keeper = subprocess.Popen(
            (*command, "-m", "simulation.machine_keeper", str(self._folder), *arguments),
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            self._heard()
            if system is None:
                self._furnish()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Machine":  # noqa: PYI034 - typing has no Self in Python 3.10
        """Lend the machine, not yet booted: what has to be there at boot can be put into `path`."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the machine and remove all of it; after an error say what its console showed."""
        if error is not None:
            sys.stderr.write(f"--- console of {self.name}\n{self.console[-4000:]}\n---\n")
        self.close()

    @property
    def folder(self) -> Path:
        """Where its files lie on the host while it is there; its cgroups are called alike."""
        return self._folder

    # ---- power

    @property
    def leader(self) -> int:
        """The pid, on the host, of the machine's systemd."""
        if self._leader is None:
            raise RuntimeError("the machine is not booted")
        return self._leader

    @property
    def console(self) -> str:
        """What it showed on its console, in all its boots."""
        with suppress(OSError):
            return (self._seen_by_keeper() / "console").read_text("utf-8", errors="replace")
        return ""

    def boot(self, *, within_s: float = 60.0) -> None:
        """Start it, and wait until all that is enabled has been started."""
        self._boots += 1
        name = f"{self.name}-{self._boots}"
        answer = self._ask("boot", name=name, binds=self._binds_as_text(), uptime_s=self._uptime_s)
        self._leader = int(answer)
        deadline = time.monotonic() + within_s
        while True:
            state = self.run("systemctl", "is-system-running", "--wait", check=False).stdout.strip()
            if state in _BOOTED:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"the machine is {state or 'dead'}:\n{self.console[-4000:]}")
            time.sleep(0.01)

    def shut_down(self) -> None:
        """Stop its units and power it off; `boot` starts it again, with the same files."""
        self._forget_docker()
        self._leader = None
        self._ask("stop", orderly=True)

    def power_off(self) -> None:
        """Take the power away."""
        self._forget_docker()
        self._leader = None
        self._ask("stop", orderly=False)

    def close(self) -> None:
        """End it and remove every trace."""
        self._forget_docker()
        self._leader = None
        with suppress(OSError, RuntimeError):
            self._ask("end")
        for stream in (self._keeper.stdin, self._keeper.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        self._keeper.wait(timeout=300)  # there may be a whole system to remove

    # ---- inside

    def path(self, inside: str) -> Path:
        """A path of the machine, as the host sees it. Absolute links in it lead astray."""
        if self._leader is not None:
            return Path(f"/proc/{self._leader}/root{inside}")
        return Path(f"{self._seen_by_keeper() / TREE}{inside}")

    def put(self, inside: str, content: str | bytes | Path, *, mode: int = 0o644) -> Path:
        """Write a file, or copy one of the host's, in place of whatever is there; as root."""
        target = self.path(inside)
        missing = [folder for folder in target.parents if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir()
            folder.chmod(0o755)
        data = content.read_bytes() if isinstance(content, Path) else content
        target.unlink(missing_ok=True)
        target.write_bytes(data.encode() if isinstance(data, str) else data)
        target.chmod(mode)
        return target

    def inside(self, command: Sequence[str]) -> list[str]:
        """What runs `command` in the machine, outside of all its units."""
        return ["nsenter", "--target", str(self.leader), "--all", "--", *command]

    def run(
        self,
        *command: str,
        check: bool = True,
        timeout_s: float = 240.0,
        env: Mapping[str, str] | None = None,
        stdin: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in it, as root, to its end. `check`: it has to succeed.

        `timeout_s` is for a command that hangs; a busy machine needs a multiple of what is usual.
        """
        done = subprocess.run(
            self.inside(command),
            env={**ENVIRONMENT, **(env or {})},
            cwd="/",
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            umask=UMASK,
        )
        if check and done.returncode != 0:
            told = f"{done.stdout}{done.stderr}".strip()
            raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}: {told}")
        return done

    def journal(self, *match: str) -> list[dict[str, Any]]:
        """The entries of its journal, oldest first; `match` goes to journalctl."""
        answer = self.run("journalctl", "--output=json", "--all", "--no-pager", *match)
        return [json.loads(line) for line in answer.stdout.splitlines()]

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Properties of a unit, as systemd tells them."""
        told = self.run("systemctl", "show", unit, f"--property={','.join(properties)}").stdout
        return dict(line.partition("=")[::2] for line in told.splitlines())

    # ---- what is installed in it

    @property
    def docker(self) -> EngineClient:
        """Its Docker engine, for whoever has started docker.service."""
        if self._docker is None:
            self._docker = EngineClient(f"unix://{self.path('/run/docker.sock')}")
        return self._docker

    def start_docker(self) -> EngineClient:
        """Start docker.service, with the image of the tests; gives its client."""
        self.run("systemctl", "start", "docker.service")
        self.docker.provide_image()
        return self.docker

    def install_driver(self, library: Path, world: str) -> None:
        """Put the simulated NVML where a driver's is, showing `world`, the text of a world file."""
        self.install_world(world)
        self.put(self._library(), library)

    def install_world(self, world: str) -> None:
        """Put another world in force, also for those who have the library loaded."""
        fresh = self.put(f"{WORLD}.new", world)
        fresh.rename(self.path(WORLD))

    def remove_driver(self) -> None:
        """From now on there is no NVML."""
        self.path(self._library()).unlink(missing_ok=True)

    def _library(self) -> str:
        return f"/usr/lib/{os.uname().machine}-linux-gnu/libnvidia-ml.so.1"

    def _furnish(self) -> None:
        """Make of the host's system one of its own."""
        for wants in self.path("/etc/systemd/system").glob("*.wants"):
            shutil.rmtree(wants)
        for place in ("/var/log/journal", "/etc/ds01", "/var/lib/ds01", "/var/lib/ds01d"):
            shutil.rmtree(self.path(place), ignore_errors=True)
        # What the host goes on writing would change in here too.
        for log in self.path("/var/log").rglob("*"):
            if not log.is_dir():
                log.unlink()
        # Marks of the host's own boot. Files that the machine brings for systemd-sysusers and
        # -tmpfiles may be older, and systemd would think that they have been read.
        for place in ("/etc/.updated", "/var/.updated"):
            self.path(place).unlink(missing_ok=True)
        self.put("/etc/machine-id", "")
        self.path("/etc/hostname").unlink(missing_ok=True)
        environment = " ".join(f'"{key}={value}"' for key, value in ENVIRONMENT.items())
        manager = f"[Manager]\nDefaultEnvironment={environment}\n"
        self.put("/etc/systemd/system.conf.d/machine.conf", manager)
        self._furnish_docker()

    def _furnish_docker(self) -> None:
        self.put("/usr/local/sbin/nvidia-container-runtime-hook", "#!/bin/sh\n", mode=0o755)
        self._furnish_runc()
        settings = {"bridge": "none", "iptables": False, "ip-forward": False, "shutdown-timeout": 1}
        self.put("/etc/docker/daemon.json", json.dumps(settings))
        often = "[Unit]\nStartLimitIntervalSec=0\n"
        self.put("/etc/systemd/system/docker.service.d/machine.conf", often)

    def _furnish_runc(self) -> None:
        """Put a wrapper before the host's runc if it needs one."""
        found = installed_runc()
        if found == _RUNC:
            # It may be a wrapper itself, if the host is such a machine. No wrapper may call itself.
            found = found.with_name("runc.wrapped")
            self.put(str(found), _RUNC, mode=0o755)
        with tempfile.TemporaryDirectory() as folder:
            wrapper = runc(Path(folder), found)
            if wrapper.parent == Path(folder):
                self.put(str(_RUNC), wrapper, mode=0o755)

    # ---- the keeper

    def _seen_by_keeper(self) -> Path:
        return Path(f"/proc/{self._keeper.pid}/root{self._folder}")

    def _binds_as_text(self) -> list[str]:
        return [f"{folder}:{place}" for place, folder in self._binds.items()]

    def _ask(self, command: str, **arguments: object) -> str:
        assert self._keeper.stdin is not None
        self._keeper.stdin.write(json.dumps({"command": command, **arguments}) + "\n")
        self._keeper.stdin.flush()
        return self._heard()

    def _heard(self) -> str:
        assert self._keeper.stdout is not None
        line = self._keeper.stdout.readline()
        word, _, rest = line.strip().partition(" ")
        if word != "ok":
            told = rest or f"no answer (are we root?)\n{self.console[-4000:]}"
            raise RuntimeError(f"the keeper of {self.name}: {told}")
        return rest

    def _forget_docker(self) -> None:
        if self._docker is not None:
            self._docker.close_client()
            self._docker = None


def missing() -> str:
    """What this host lacks for a machine; "" if nothing."""
    if os.geteuid() != 0:
        return "a throw-away machine needs root"
    if shutil.which("systemd-nspawn") is None:
        return "a throw-away machine needs systemd-nspawn (Debian package systemd-container)"
    if not Path("/lib/systemd/systemd").exists():
        return "a throw-away machine needs systemd"
    return ""
