"""A private Docker engine: a real dockerd with its own data, socket and cgroup, on any host.

It needs root and a dockerd, no systemd, no network and no registry, and keeps away from a Docker
that is already there. `--gpus` works without a GPU: a stand-in takes the place of NVIDIA's hook, so
that inspect shows the requests as on a real server.
"""

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

from simulation.enclosure import Enclosure
from simulation.engine_client import IMAGE, Devices, EngineClient
from simulation.engines import chooses_containerd, chosen_dockerd
from simulation.runtime import runc

HOOK: Final = "nvidia-container-runtime-hook"
__all__ = ["IMAGE", "Devices", "PrivateEngine"]


class PrivateEngine(EngineClient):
    """A dockerd of our own, as a context manager. Nothing of it is left behind."""

    def __init__(
        self,
        *,
        dockerd: Path | None = None,
        storage: str | None = None,
        live_restore: bool = False,
        debug: bool = False,
        cdi: Sequence[Mapping[str, object]] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare an engine; `start` or `with` runs it.

        `dockerd` and `storage` default to what DS01D_ENGINE names, and else to the host's.
        `cdi` are CDI specifications that it knows (engines from 25 on), `env` is for dockerd.
        """
        self.dockerd = dockerd or chosen_dockerd()
        self.root = Path(tempfile.mkdtemp(prefix="ds01-engine-"))
        self.data_root = self.root / "data"
        self.socket = self.root / "docker.sock"
        super().__init__(f"unix://{self.socket}")
        self._options = ["--debug"] if debug else []
        self._storage = storage
        self._features = {"containerd-snapshotter": True} if self._uses_containerd() else {}
        self._settings: dict[str, object] = {}
        self._env = dict(env or {})
        if live_restore:
            self._options.append("--live-restore")
        self._enclosure = Enclosure(self.root)
        self._process: subprocess.Popen[bytes] | None = None
        if cdi:
            self._provide_cdi(cdi)
        hook = self.root / "bin" / HOOK
        hook.parent.mkdir()
        hook.write_text("#!/bin/sh\nexit 0\n", encoding="ascii")
        hook.chmod(0o755)
        self._runc = runc(hook.parent)
        self._nvidia = hook.parent / "nvidia-container-runtime"
        self._nvidia.symlink_to(self._runc)

    def __enter__(self) -> "PrivateEngine":  # noqa: PYI034 - typing has no Self in Python 3.10
        """Start the engine."""
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the engine and remove all that it made."""
        self.close()

    # ---- the engine itself

    @property
    def pid(self) -> int:
        """The process id of dockerd."""
        if self._process is None:
            raise RuntimeError("the engine does not run")
        return self._process.pid

    @property
    def cgroup(self) -> str:
        """The cgroup below which its containers live."""
        return self._enclosure.cgroup

    @property
    def log(self) -> str:
        """What dockerd has written so far."""
        path = self.root / "dockerd.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def start(self) -> None:
        """Start dockerd and wait until it answers and has the test image."""
        known = os.environ.get("PATH", os.defpath)
        beside = f"{self.dockerd.parent}:{self.dockerd.parent.parent / 'bin'}"  # its containerd
        path = f"{self.root / 'bin'}:{beside}:{known}:/usr/sbin:/sbin"
        # Also what containerd leaves if it is ended while it starts: containerd.PID.stacks.log.
        environment = {**os.environ, "TMPDIR": str(self.root), **self._env, "PATH": path}
        for variable in ("NOTIFY_SOCKET", "DOCKER_HOST"):
            environment.pop(variable, None)
        with (self.root / "dockerd.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._enclosure.inside([str(self.dockerd), *self._arguments()]),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._wait_ready()
        self.provide_image()

    def kill(self, *, containers: bool = True) -> None:
        """End dockerd with SIGKILL; by default all its containers too, as when the power fails.

        With `containers=False` they run on, as when dockerd alone crashes. containerd dies in
        either case.
        """
        process = self._forget()
        process.kill()
        process.wait(timeout=60)
        if containers:
            self._enclosure.kill()
        for name in ("docker.pid", "exec/containerd/containerd.pid"):
            (self.root / name).unlink(missing_ok=True)

    def lose_runtime(self) -> None:
        """End dockerd, containerd and the shims with SIGKILL, and lose their run state.

        The processes of the containers live on, and the next dockerd says `exited (255)` of them.
        """
        self.kill(containers=False)  # containerd too: one that lives ends what its shims had
        self._enclosure.kill(lambda command: command.startswith("containerd"))
        for folder in ("/run/docker", "/run/containerd", str(self.root / "exec")):
            find = ["find", folder, "-mindepth", "1", "-delete"]
            subprocess.run(self._enclosure.inside(find), check=False, stderr=subprocess.DEVNULL)

    def stop(self) -> None:
        """Stop dockerd as `systemctl stop` would: containers are stopped, unless they live on."""
        process = self._forget()
        process.terminate()
        process.wait(timeout=60)

    def restart(self) -> None:
        """Stop and start again."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Stop dockerd with SIGSTOP: connections are accepted, and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)  # its threads may run on for a moment

    def resume(self) -> None:
        """Let a paused dockerd go on."""
        os.kill(self.pid, signal.SIGCONT)

    def switch_data_root(self, path: Path | str) -> None:
        """Restart on another data root (relative to `root`): another engine, same address."""
        self.stop()
        self.data_root = self.root / path
        self.start()

    def switch_dockerd(self, dockerd: Path) -> None:
        """Restart with another dockerd on the same data root, as an upgrade does."""
        self.stop()
        self.dockerd = dockerd
        self.start()

    def switch_storage(self, driver: str, *, containerd: bool = False) -> None:
        """Restart with another storage driver, or with containerd's image store and snapshotter.

        Containers of the other one are hidden until it is switched back. Engines before 24 have
        the first kind alone.
        """
        self.stop()
        self._storage = driver
        self._features["containerd-snapshotter"] = containerd
        self.start()

    def close(self) -> None:
        """End everything and remove every trace."""
        if self._process is not None:
            process = self._forget()
            process.kill()
            process.wait(timeout=60)
        self._enclosure.close()

    # ---- for tests

    def reset(self) -> None:
        """Make it like new for the next test: running, on its first data root, without containers.

        Images stay.
        """
        first = self.root / "data"
        lives = self._process is not None and self._process.poll() is None
        if lives and self.data_root == first:
            self.resume()
        else:
            if self._process is not None:
                self.kill()
            self.data_root = first
            self.start()
        self.clear()

    # ---- inside

    def _arguments(self) -> list[str]:
        """Tell dockerd to keep to itself."""
        settings = self.root / "daemon.json"
        told = {**self._settings, "features": self._features}
        settings.write_text(json.dumps(told), encoding="ascii")
        storage = [f"--storage-driver={self._storage}"] if self._storage is not None else []
        return [
            f"--config-file={settings}",
            *storage,
            f"--data-root={self.data_root}",
            f"--exec-root={self.root / 'exec'}",
            f"--host={self.url}",
            f"--pidfile={self.root / 'docker.pid'}",
            f"--cgroup-parent={self._enclosure.cgroup}",
            "--exec-opt=native.cgroupdriver=cgroupfs",
            f"--add-runtime=nvidia={self._runc}",
            f"--add-runtime=gpu-of-ours={self._nvidia}",
            f"--add-runtime=sandbox={self._runc}",
            *("--bridge=none", "--iptables=false", "--ip-masq=false", "--ip-forward=false"),
            *self._options,
        ]

    def _uses_containerd(self) -> bool:
        return self._storage is None and chooses_containerd()

    def _provide_cdi(self, specifications: Sequence[Mapping[str, object]]) -> None:
        folder = self.root / "cdi"
        folder.mkdir()
        for number, specification in enumerate(specifications):
            path = folder / f"{number}.json"
            path.write_text(json.dumps(specification), encoding="ascii")
        self._settings["cdi-spec-dirs"] = [str(folder)]
        self._features["cdi"] = True  # without a word from 28.3 on

    def _wait_ready(self) -> None:
        process = self._process
        assert process is not None
        deadline = time.monotonic() + 30
        # By hand: the SDK would leave a socket open with every attempt that fails.
        while not _accepts(self.socket):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"dockerd does not start:\n{self.log[-4000:]}")
            time.sleep(0.005)
        self.client.ping()

    def _forget(self) -> subprocess.Popen[bytes]:
        """Close what hangs on the process that is about to end."""
        if self._process is None:
            raise RuntimeError("the engine does not run")
        self.close_client()
        process, self._process = self._process, None
        return process


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(path)) == 0
