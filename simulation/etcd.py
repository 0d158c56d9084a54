"""A real etcd on loopback, of one member or of several, that can be frozen, killed and restored.

etcd is that of a Debian release, unpacked once (`simulation.debian_packages`) and run with the C
library of that release; nothing is installed. Nothing is synced to disk: a member that is killed
loses nothing, as the kernel goes on; only a host that loses power would.
"""

import http.client
import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from simulation.debian_packages import PackagesUnavailable, unpack_packages
from simulation.ports import hold_port

RELEASE: Final = "trixie"
"""Of Debian: the etcd that is run where `DS01D_ETCD` names no other release."""
PACKAGES: Final = ("etcd-server", "etcd-client", "libc6")
_START_S: Final = 60.0
_COMMAND_S: Final = 60.0


class EtcdUnavailable(Exception):
    """No etcd can be had here; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """PEM files for the side of all members that clients see; clients need a certificate too."""

    authority: Path
    certificate: Path
    key: Path


class EtcdPrograms:
    """etcd, etcdctl and etcdutl of a Debian release. Raises `EtcdUnavailable`."""

    def __init__(self, release: str = "") -> None:
        self.release = release or os.environ.get("DS01D_ETCD") or RELEASE
        try:
            root = unpack_packages("etcd", self.release, PACKAGES)
        except PackagesUnavailable as error:
            raise EtcdUnavailable(str(error)) from error
        self._folder = root / "usr" / "bin"
        # Beside the C library: another link to it, in lib64, would take the library of the host.
        library = next(root.glob("**/libc.so.6"), None)
        self._loader = library and next(library.parent.glob("ld-linux-*.so.*"), None)

    def command(self, program: str, *words: str) -> list[str]:
        """The words that run a program: a C library newer than the host's is brought along."""
        binary = str(self._folder / program)
        if self._loader is None:
            return [binary, *words]
        library = str(self._loader.parent)
        return [str(self._loader), "--library-path", library, binary, *words]

    def has(self, program: str) -> bool:
        return (self._folder / program).exists()

    def run(self, program: str, *words: str) -> str:
        """Its output, once it has ended. Raises `RuntimeError` with what it wrote if it fails."""
        done = subprocess.run(
            self.command(program, *words),
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_S,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(
                f"{program} {' '.join(words)}: {(done.stderr or done.stdout)[-2000:]}"
            )
        return done.stdout

    @property
    def version(self) -> str:
        """Of etcd: "3.5.16"."""
        first = self.run("etcd", "--version").partition("\n")[0]
        return first.rpartition(" ")[2].strip()


class EtcdMember:
    """One member: a process, its files, and three ports of loopback that it keeps."""

    def __init__(self, name: str, folder: Path, ports: Sequence[int], *, is_tls: bool) -> None:
        self.name, self.folder = name, folder
        self.client_port, self.peer_port, self.metrics_port = ports
        scheme = "https" if is_tls else "http"
        self.client_url = f"{scheme}://127.0.0.1:{self.client_port}"
        self.peer_url = f"http://127.0.0.1:{self.peer_port}"
        self.advertised_peer_url = self.peer_url
        """Where the others find it: another address where a proxy stands between members."""
        self.data = folder / "data"
        self.log = folder / "log"
        folder.mkdir()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} is not started"
        return self._process.pid

    def is_running(self) -> bool:
        """It has been started and has not ended; it may be frozen."""
        return self._process is not None and self._process.poll() is None

    def start(self, command: Sequence[str]) -> None:
        """Start the process; `wait_until_healthy` waits for it."""
        assert not self.is_running(), f"{self.name} runs already"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=_environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def freeze(self) -> None:
        """Stop it: the kernel still takes connections, and nothing comes."""
        os.kill(self.pid, signal.SIGSTOP)
        # Its threads stop one by one, and meanwhile they may still answer.
        deadline = time.monotonic() + _COMMAND_S
        while self._has_moving_thread():
            if time.monotonic() > deadline:
                raise RuntimeError(f"etcd {self.name} does not stop")
            time.sleep(0.001)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Let it be dead at once, also if it is frozen: connections are refused."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """End it in order."""
        if self._process is not None and self.is_running():
            self.thaw()
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
        self.kill()

    def is_healthy(self) -> bool:
        """It has a leader, and a linearizable read goes through."""
        return self._ask("/health").get("health") == "true"

    def wait_until_healthy(self, seconds: float = _START_S) -> None:
        """Raises `RuntimeError` with the end of its log if it does not come to that."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not self.is_running():
                break
            if self.is_healthy():
                return
            time.sleep(0.02)
        log = self.log.read_text("utf-8", errors="replace")
        raise RuntimeError(f"etcd {self.name} is not healthy: {log[-3000:]}")

    def _has_moving_thread(self) -> bool:
        for stat in Path(f"/proc/{self.pid}/task").glob("*/stat"):
            with suppress(OSError):  # it has ended
                if stat.read_text("utf-8", errors="replace").rpartition(")")[2].split()[0] != "T":
                    return True
        return False

    def _ask(self, path: str) -> dict[str, object]:
        """Ask at the address for metrics, which needs no certificate and no password."""
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=3)
        try:
            connection.request("GET", path)
            answer = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError):
            return {}
        finally:
            connection.close()
        return answer if isinstance(answer, dict) else {}


class EtcdCluster:
    """Members that know each other. `etcd_cluster` makes, starts and removes one."""

    def __init__(
        self,
        folder: Path,
        count: int = 1,
        *,
        programs: EtcdPrograms | None = None,
        tls: ServerTls | None = None,
        settings: Sequence[str] = (),
    ) -> None:
        """`folder`: an empty one. `settings`: more options for each member's etcd."""
        self.programs = EtcdPrograms() if programs is None else programs
        self.folder, self._tls, self._settings = folder, tls, tuple(settings)
        # Held, or a member whose port is somebody else's by now ends after its start.
        self._holders = [hold_port() for _ in range(3 * count)]
        ports = (int(holder.getsockname()[1]) for holder in self._holders)
        self.members = [
            EtcdMember(
                f"etcd{number}",
                folder / f"etcd{number}",
                [next(ports), next(ports), next(ports)],
                is_tls=tls is not None,
            )
            for number in range(1, count + 1)
        ]
        self.token = secrets.token_hex(8)
        """Together with the members' addresses it makes the ID of the cluster."""

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The members' addresses for clients, as `[fleet] etcd` has them."""
        return tuple(member.client_url for member in self.members)

    def start(self) -> None:
        """Start every member that does not run, and wait until all are healthy."""
        for member in self.members:
            if not member.is_running():
                self.start_member(member)
        self.wait_until_healthy()

    def start_member(self, member: EtcdMember) -> None:
        """Start one, and do not wait for it: without a majority it is not healthy."""
        member.start(self.programs.command("etcd", *self._options(member)))

    def wait_until_healthy(self, seconds: float = _START_S) -> None:
        """Until every member that runs is healthy."""
        for member in self.members:
            if member.is_running():
                member.wait_until_healthy(seconds)

    def stop(self) -> None:
        """End all members, whatever state they are in."""
        for member in self.members:
            member.kill()

    def close(self) -> None:
        """End all members, and give their ports back: they are not started again."""
        self.stop()
        for holder in self._holders:
            holder.close()

    def find_leader(self) -> EtcdMember:
        """Which member leads. Raises `RuntimeError` if none does, or none can be asked."""
        for member in self.members:
            with suppress(RuntimeError, subprocess.TimeoutExpired):
                words = ("endpoint", "status", "--write-out=json")
                status = json.loads(self.run_etcdctl(*words, member=member))[0]["Status"]
                if status["leader"] == status["header"]["member_id"]:
                    return member
        raise RuntimeError("no member leads")

    def run_etcdctl(self, *words: str, member: EtcdMember | None = None) -> str:
        """`etcdctl WORDS`, to one member or else the first; its output. Raises `RuntimeError`."""
        endpoint = (self.members[0] if member is None else member).client_url
        return self.programs.run("etcdctl", f"--endpoints={endpoint}", *self._tls_options(), *words)

    def save_snapshot(self, file: Path, member: EtcdMember | None = None) -> None:
        """Write all that a member has into a file, as a backup does."""
        self.run_etcdctl("snapshot", "save", str(file), member=member)

    def restore_snapshot(self, file: Path, *, same_id: bool = False) -> None:
        """Make a new cluster of a backup, at the same addresses, and start it.

        `same_id`: with the token of the old one, so that only its revision shows what happened.
        """
        self.stop()
        if not same_id:
            self.token = secrets.token_hex(8)
        # From 3.6 on etcdctl has no restore; up to 3.4 there is no etcdutl.
        program = "etcdutl" if self.programs.has("etcdutl") else "etcdctl"
        for member in self.members:
            shutil.rmtree(member.data, ignore_errors=True)
            options = (
                f"--name={member.name}",
                f"--data-dir={member.data}",
                f"--initial-cluster={self._initial_cluster}",
                f"--initial-cluster-token={self.token}",
                f"--initial-advertise-peer-urls={member.advertised_peer_url}",
            )
            self.programs.run(program, "snapshot", "restore", str(file), *options)
        self.start()

    @property
    def _initial_cluster(self) -> str:
        return ",".join(f"{member.name}={member.advertised_peer_url}" for member in self.members)

    def _options(self, member: EtcdMember) -> list[str]:
        options = [
            f"--name={member.name}",
            f"--data-dir={member.data}",
            f"--listen-client-urls={member.client_url}",
            f"--advertise-client-urls={member.client_url}",
            f"--listen-peer-urls={member.peer_url}",
            f"--initial-advertise-peer-urls={member.advertised_peer_url}",
            f"--listen-metrics-urls=http://127.0.0.1:{member.metrics_port}",
            f"--initial-cluster={self._initial_cluster}",
            f"--initial-cluster-token={self.token}",
            "--initial-cluster-state=new",
            "--unsafe-no-fsync",
            "--log-level=warn",
            "--log-outputs=stderr",
        ]
        if self._tls is not None:
            options += [
                "--client-cert-auth",
                f"--trusted-ca-file={self._tls.authority}",
                f"--cert-file={self._tls.certificate}",
                f"--key-file={self._tls.key}",
            ]
        return [*options, *self._settings]

    def _tls_options(self) -> list[str]:
        if self._tls is None:
            return []
        # The servers' own certificate serves etcdctl too: it may be used for both.
        return [
            f"--cacert={self._tls.authority}",
            f"--cert={self._tls.certificate}",
            f"--key={self._tls.key}",
        ]


@contextmanager
def etcd_cluster(
    count: int = 1,
    *,
    release: str = "",
    tls: ServerTls | None = None,
    settings: Sequence[str] = (),
    prepare: Callable[[EtcdCluster], None] = lambda _: None,
) -> Iterator[EtcdCluster]:
    """A cluster that runs and is healthy; it ends with the block, with all its files.

    `count`: of members. `prepare`: called before they start. Raises `EtcdUnavailable` where no
    etcd can be had.
    """
    programs = EtcdPrograms(release)
    folder = Path(tempfile.mkdtemp(prefix="ds01-etcd-"))
    try:
        cluster = EtcdCluster(folder, count, programs=programs, tls=tls, settings=settings)
        try:
            prepare(cluster)
            cluster.start()
            yield cluster
        finally:
            cluster.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _environment() -> dict[str, str]:
    """Ours without what would configure etcd: each of its options may be an ETCD_… variable."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("ETCD")}
    # What etcdctl of 3.4 needs to be told on some distributions, and later ones ignore.
    return {**own, "ETCDCTL_API": "3"}
