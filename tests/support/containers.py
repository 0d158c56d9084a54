"""The container commands as processes, on a site in front of a real engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ds01d.adapters.file_lock import Lock
from simulation.engine import IMAGE, PrivateEngine
from simulation.proxy import Proxy
from tests.support.daemon import ROOT, Site

CATALOGUE = f"""\
[container]
command = ["sleep", "600"]

[[image]]
framework = "pytorch"
version = "2.5.0"
image = "{IMAGE}"

[[image]]
framework = "pytorch"
version = "2.10.0"
architecture = "CUDA_BLACKWELL"
image = "{IMAGE}"

[[image]]
framework = "tensorflow"
version = "2.16.1"
architecture = "CUDA_ADA"
image = "localhost:1/not/there:1"
"""
UID = 1001
SAYS = "import sys; from ds01d.cli.containers import {0}; {0}()"


class Yard:
    """A site with a catalogue, and a proxy before its engine. uid 1001 calls, behind sudo."""

    def __init__(self, folder: Path, engine: PrivateEngine, proxy: Proxy, **tables: Any) -> None:
        self.engine, self.proxy = engine, proxy
        catalogue = folder / "frameworks.toml"
        catalogue.write_text(CATALOGUE, encoding="utf-8")
        containers = {"frameworks": str(catalogue)}
        self.site = Site(folder, proxy.url, containers=containers, **tables)
        self.catalogue = catalogue

    def command(self, name: str, *words: str) -> list[str]:
        """The words of a command: "create" for `container-create`."""
        return [sys.executable, "-m", "ds01d.cli.ds01ctl", "container", name, *words]

    def env(self, uid: int | None = UID) -> dict[str, str]:
        """Its environment; uid None: plain root."""
        own = {} if uid is None else {"SUDO_UID": str(uid)}
        known = {key: value for key, value in self.site.environment().items() if key != "SUDO_UID"}
        return known | own

    def call(
        self, name: str, *words: str, uid: int | None = UID
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, without a terminal."""
        return subprocess.run(
            self.command(name, *words),
            env=self.env(uid),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def begin(self, name: str, *words: str) -> subprocess.Popen[str]:
        """Start a command, to be interrupted."""
        return subprocess.Popen(
            self.command(name, *words),
            env=self.env(),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def listed(self, *words: str, uid: int | None = UID) -> list[dict[str, Any]]:
        """What `container-list --json` has."""
        answer = self.call("list", "--json", *words, uid=uid)
        assert answer.returncode == 0, answer.stderr
        found: list[dict[str, Any]] = json.loads(answer.stdout)["containers"]
        return found

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the books."""
        with Lock(Path(f"{self.site.state}.lock"), 5):
            yield

    def outcomes(self, name: str) -> list[tuple[str, str]]:
        """Operation and status of a container's lines in the operations log."""
        return [(line[0], line[4]) for line in self.site.operation_lines(name)]

    def left_of(self, name: str) -> Mapping[str, object]:
        """What there is of a container, by every source that tells; {} for nothing."""
        rows = self.engine.client.containers(all=True)
        names = {row.lstrip("/") for one in rows for row in one["Names"]}
        status = self.site.state.read_text(encoding="utf-8")
        found = {
            "docker": name in names,
            "state": name in status,
            "metadata": self.site.record(name),
            "counters": [slot for slot in self.site.read_state()["gpus"] if self.site.users(slot)],
        }
        return {source: told for source, told in found.items() if told}
