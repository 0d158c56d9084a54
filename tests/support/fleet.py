"""Hosts behind a real sshd, with a status each, and the commands that ask them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from ds01d.cli.base.context import host_environment
from ds01d.cli.containers.main import create
from ds01d.cli.ctl.main import main as ds01ctl
from ds01d.model.books import SlotType
from ds01d.model.primitives import ContainerName, DeviceUuid, SlotId, Source, UserName
from ds01d.reporting.status import Holder, SlotStatus, SourceStatus
from simulation.sshd import SshdUnavailable, SshHost, SshHosts, ssh_hosts
from tests.support.daemon import ROOT, toml
from tests.support.schemas import check_document
from tests.support.scripts import write_script
from tests.support.status import published


class FleetSite:
    """Hosts, and a user who asks them from this machine."""

    def __init__(self, hosts: SshHosts, folder: Path) -> None:
        self.ssh, self.folder = hosts, folder
        self.state_dir = folder / "state"
        self.state_dir.mkdir()
        self.cache = folder / "cache"
        self.runtime = folder / "run"
        self.runtime.mkdir(mode=0o700)
        self.config = folder / "ds01d.toml"

    def add_host(self, name: str, settings: Sequence[str] = (), *, starts: bool = True) -> SshHost:
        """A host with an empty state folder, at the place where ds01d has its own."""
        host = self.ssh.add(name)
        self.state_of(host).mkdir()
        if starts:
            host.start({str(self.state_dir): self.state_of(host)}, settings)
        self.ssh.write_client()
        return host

    @staticmethod
    def state_of(host: SshHost) -> Path:
        return host.folder / "state"

    def publish(self, host: SshHost, *, free: int, held: int = 0, **changes: Any) -> None:
        """Let it have published a status of now: so many free slots, the others alice's."""
        slots = tuple(
            SlotStatus(
                id=SlotId(str(number)),
                type=SlotType.PHYSICAL,
                uuid=DeviceUuid(f"GPU-{host.name}-{number}"),
                holders=()
                if number < free
                else (
                    Holder(
                        container=ContainerName(f"{host.name}-{number}._.1001"),
                        user=UserName("alice"),
                        state="running",
                    ),
                ),
            )
            for number in range(free + held)
        )
        status = published(slots=slots)
        sources = {Source.DOCKER: SourceStatus(ok=True, since=status.written_at)}
        status = msgspec.structs.replace(status, sources=sources, **changes)
        self.write_status(host, msgspec.json.encode(status))

    def write_status(self, host: SshHost, data: bytes) -> None:
        (self.state_of(host) / "status.json").write_bytes(data)

    def add_command(self, host: SshHost, name: str, script: str) -> None:
        """A program of the host."""
        write_script(host.commands / name, script)

    def configure(self, names: Sequence[str], **fleet: object) -> None:
        """Write the configuration of the user's machine."""
        tables: dict[str, dict[str, object]] = {
            "fleet": {"hosts": list(names), **fleet},
            "daemon": {"state_dir": str(self.state_dir)},
            "books": {
                "state": str(self.folder / "books.json"),
                "metadata": str(self.folder / "metadata"),
            },
            "service": {"socket": ""},
        }
        self.config.write_text(toml(tables), encoding="utf-8")

    @property
    def environ(self) -> dict[str, str]:
        return {
            **os.environ,
            "PATH": f"{self.ssh.commands}:{os.environ['PATH']}",
            "XDG_CACHE_HOME": str(self.cache),
            "XDG_RUNTIME_DIR": str(self.runtime),
            "DS01D_CONFIG": str(self.config),
        }

    def start(self, command: str, *words: str) -> subprocess.Popen[str]:
        """Start a command: "ds01ctl" or "container-create"."""
        return start_command(self.environ, command, *words)

    def run(self, command: str, *words: str) -> Result:
        """Run it to its end, in this process."""
        entry = {"ds01ctl": ds01ctl, "container-create": create}[command]
        environment = host_environment()
        done = CliRunner().invoke(entry, list(words), obj=environment, env=self.environ)
        if "--json" in words:
            check_document(json.loads(done.stdout))
        return done


def start_command(environ: Mapping[str, str], command: str, *words: str) -> subprocess.Popen[str]:
    """Start "ds01ctl" or "container-create" as a process of its own."""
    module = {
        "ds01ctl": "from ds01d.cli.front import ds01ctl as main",
        "container-create": "from ds01d.cli.containers.main import create as main",
    }[command]
    code = f"import sys; sys.argv[0] = {command!r}; {module}; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        cwd=ROOT,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def fleet_site() -> Iterator[FleetSite]:
    """A site, whose hosts end with the block; skips the test where there is no sshd."""
    try:
        with ssh_hosts() as hosts, tempfile.TemporaryDirectory(prefix="ds01-fleet-") as folder:
            yield FleetSite(hosts, Path(folder))
    except SshdUnavailable as error:
        pytest.skip(str(error))
