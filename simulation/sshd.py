"""Hosts that answer ssh on this machine: a real sshd each, on a port of loopback, with own files.

Each sshd lives in a mount namespace of its own, where `folders` of the host lie over places of this
machine, and /run is empty; so commands that come over ssh see another host. Keys and settings are
made for the occasion. Needs root; sshd is that of the machine, or fetched once (Debian).
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Final

from simulation.debian_packages import PackagesUnavailable, host_release, unpack_packages
from simulation.ports import find_free_port

_START_S: Final = 30.0
_NAMESPACE: Final = """
set -eu
root=$1; shift
mount -t tmpfs tmpfs /run
mkdir -m 755 /run/sshd
mount --bind "$root/passwd" /etc/passwd
mount --bind "$root/shadow" /etc/shadow
while [ "$1" != -- ]; do mount --bind "$1" "$2"; shift 2; done
shift
exec "$@"
"""


class SshdUnavailable(Exception):
    """No sshd can be had here; says why."""


def find_sshd() -> tuple[str, ...]:
    """The words with which a command that starts sshd begins. Raises SshdUnavailable."""
    if os.geteuid() != 0:
        raise SshdUnavailable("hosts with sshd need root")
    if shutil.which("ssh") is None:
        raise SshdUnavailable("hosts with sshd need ssh (Debian package openssh-client)")
    if installed := shutil.which("sshd", path="/usr/sbin:/usr/local/sbin"):
        return (installed,)
    try:
        # With what it needs and a small system has not; bookworm's needs the first alone.
        release, libraries = host_release(), ["libwrap0", "libwtmpdb0"]
        needed = libraries[: 1 if release == "bookworm" else 2]
        root = unpack_packages("sshd", release, ("openssh-server", *needed))
    except PackagesUnavailable as error:
        raise SshdUnavailable(str(error)) from error
    folder = next(iter((root / "usr/lib").glob("*-linux-gnu")), root)
    words = ["/usr/bin/env", f"LD_LIBRARY_PATH={folder}", str(root / "usr/sbin/sshd")]
    # Since OpenSSH 9.8 and 10.0 these are programs of their own, at fixed places of the system.
    for option, name in (("SshdSessionPath", "sshd-session"), ("SshdAuthPath", "sshd-auth")):
        program = root / "usr/lib/openssh" / name
        if program.exists():
            words += ["-o", f"{option}={program}"]
    return tuple(words)


class SshHost:
    """A host, called `name` in the configuration of ssh. Start it with `start`."""

    def __init__(self, name: str, folder: Path, key: Path) -> None:
        self.name, self.folder, self._key = name, folder, key
        self.commands = folder / "bin"
        """Programs that are first on the PATH of whoever comes over ssh."""
        self.commands.mkdir(parents=True)
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        _generate_key(folder / "host_key")

    def start(self, folders: Mapping[str, Path], settings: Sequence[str] = ()) -> None:
        """Let it answer. `folders`: of the host, by where it sees them; `settings`: for sshd."""
        sshd = find_sshd()
        # An empty home: its shell would read the .bashrc of whoever runs this, with each command.
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        accounts = re.sub(
            r"^(root:(?:[^:\n]*:){4})[^:\n]*",
            rf"\g<1>{home}",
            Path("/etc/passwd").read_text("utf-8"),
            flags=re.MULTILINE,
        )
        if "\nsshd:" not in accounts:
            accounts += "sshd:x:65530:65534::/run/sshd:/usr/sbin/nologin\n"
        (self.folder / "passwd").write_text(accounts, encoding="utf-8")
        (self.folder / "shadow").write_text("root:*:19000:0:99999:7:::\n", encoding="utf-8")
        self.port = self.port or find_free_port()
        self._write_settings(settings)
        binds = [word for place, folder in folders.items() for word in (str(folder), place)]
        command = [*sshd, "-D", "-e", "-f", str(self.folder / "sshd_config")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("unshare", "--mount", "--propagation", "private"),
                    *("sh", "-c", _NAMESPACE, "sh", str(self.folder), *binds, "--", *command),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._wait_until_it_answers()

    def _write_settings(self, settings: Sequence[str]) -> None:
        lines = [
            *settings,  # first: sshd takes the first value that it finds
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {self.folder / 'host_key'}",
            f"AuthorizedKeysFile {self._key.with_suffix('.pub')}",
            f"PidFile {self.folder / 'pid'}",
            "StrictModes no",
            "UsePAM no",
            "PermitRootLogin prohibit-password",
            f"SetEnv PATH={self.commands}:/usr/bin:/bin",
        ]
        (self.folder / "sshd_config").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _wait_until_it_answers(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5) as peer:
                if peer.recv(4) == b"SSH-":
                    return
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        log = (self.folder / "log").read_text("utf-8", errors="replace")
        raise RuntimeError(f"{self.name} does not answer: {log[-2000:]}")

    def list_sessions(self) -> list[int]:
        """The processes of sshd that serve somebody now."""
        assert self._process is not None
        return _list_children(self._process.pid)

    def cut_connections(self) -> None:
        """Break every connection, as a pulled cable does; what was begun there goes on."""
        # Since OpenSSH 10 a child of the session holds the connection.
        sessions = self.list_sessions()
        for pid in [*sessions, *chain.from_iterable(map(_list_children, sessions))]:
            with suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text("utf-8").startswith("sshd"):
                    os.kill(pid, signal.SIGKILL)

    def freeze(self) -> None:
        """Stop sshd: the kernel still takes connections, and nothing comes."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        """Let it be dead: connections are refused."""
        if self._process is None:
            return
        with suppress(OSError):
            self.cut_connections()
        self._process.kill()
        self._process.wait()
        self._process = None

    @property
    def ssh_settings(self) -> str:
        """Its part of an ssh_config."""
        return (
            f"Host {self.name}\n  HostName 127.0.0.1\n  Port {self.port or 1}\n"
            f"  HostKeyAlias {self.name}\n"
        )

    @property
    def known_host(self) -> str:
        key = (self.folder / "host_key.pub").read_text("ascii").split()
        return f"{self.name} {key[0]} {key[1]}\n"


def _list_children(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii")
    except OSError:
        return []
    return [int(child) for child in children.split()]


class SshHosts:
    """Several hosts, and an `ssh` for `PATH` that reaches them, with a key of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Found once: later PATH may begin with our own.
        self._ssh = shutil.which("ssh")
        self.commands = folder / "client"
        """Holds `ssh`: the real one, with the configuration of these hosts."""
        self.commands.mkdir()
        self.key = folder / "id"
        _generate_key(self.key)
        self.hosts: dict[str, SshHost] = {}

    def add(self, name: str) -> SshHost:
        """A host that is to be started."""
        self.hosts[name] = SshHost(name, self._folder / name, self.key)
        return self.hosts[name]

    def write_client(self, extra: str = "") -> None:
        """Make the client know the hosts as they are now. `extra`: more lines, first."""
        settings = self._folder / "ssh_config"
        known = self._folder / "known_hosts"
        known.write_text("".join(h.known_host for h in self.hosts.values()), encoding="ascii")
        every = (
            f"Host *\n  User root\n  IdentityFile {self.key}\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {known}\n  GlobalKnownHostsFile /dev/null\n"
            "  StrictHostKeyChecking yes\n"
            # The usual one withstands quantum computers, and is a third of a login's CPU time.
            "  KexAlgorithms curve25519-sha256\n"
        )
        parts = [extra, *(host.ssh_settings for host in self.hosts.values()), every]
        settings.write_text("\n".join(parts), encoding="utf-8")
        script = self.commands / "ssh"
        script.write_text(f'#!/bin/sh\nexec {self._ssh} -F "{settings}" "$@"\n')
        script.chmod(0o755)

    def stop(self) -> None:
        for host in self.hosts.values():
            host.stop()


@contextmanager
def ssh_hosts() -> Iterator[SshHosts]:
    """Hosts, which end with the block. Raises SshdUnavailable."""
    find_sshd()
    folder = Path(tempfile.mkdtemp(prefix="ds01-ssh-"))
    hosts = SshHosts(folder)
    try:
        yield hosts
    finally:
        hosts.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _generate_key(file: Path) -> None:
    command = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file))
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
