"""Commands on a pristine machine, each run to its end as a service of its systemd."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from simulation.machine import Machine
from tests.fresh.roots import registries

_FOLDER: Final = "/srv/fresh"
# The machine has the network of its host, which is not to get Docker's bridge and rules.
_DOCKER: Final = '{"bridge": "none", "iptables": false, "ip-forward": false}\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Under what commands run: what is never so on a machine that somebody works on.

    `uptime_s`: how long ago the machine was booted, when the first command begins (about); None:
    as long ago as its host. `clone`: where the repository is cloned to.
    """

    uptime_s: float | None = None
    umask: str = "0022"
    environment: Mapping[str, str] = field(default_factory=dict)
    clone: str = "/srv/ds01d"


USUAL: Final = Conditions()
ADVERSE: Final = Conditions(
    uptime_s=20,
    umask="0077",
    environment={"LANG": "de_DE.UTF-8", "TZ": "Europe/Berlin"},
    clone="/srv/a path with spaces/ds01d",
)
"""Just booted, private files only, a locale that was never generated, not UTC, and spaces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a command ended; `log` is what it printed, on the host."""

    passed: bool
    duration_s: float
    log: Path


class Session:
    """One pristine machine, on which commands are run one after the other."""

    def __init__(self, machine: Machine, conditions: Conditions, logs: Path) -> None:
        """`machine` is not booted yet; `logs` is where what commands print is kept."""
        self.machine = machine
        self._conditions = conditions
        self._logs = logs
        logs.mkdir(parents=True, exist_ok=True)
        machine.path(_FOLDER).mkdir(parents=True)
        machine.put("/etc/docker/daemon.json", _DOCKER)
        machine.boot()

    def run(self, name: str, script: str, *, user: str = "root", within_s: float) -> Outcome:
        """Run a bash script as `user`; a command in it that fails ends it.

        It finds the folder for the clone in $CLONE, and in its environment nothing that this
        process has in its own, but for the way to the package registries.
        """
        label = name.replace(" ", "-")
        unit = f"fresh-{label}.service"
        self.machine.put(f"{_FOLDER}/{label}.sh", f"set -euo pipefail\n{script}", mode=0o644)
        self.machine.put(f"/etc/systemd/system/{unit}", self._unit(label, user, within_s))
        self.machine.run("systemctl", "daemon-reload")
        began = time.monotonic()
        try:
            done = self.machine.run(
                "systemctl", "start", unit, check=False, timeout_s=within_s + 60
            )
            passed = done.returncode == 0
        except subprocess.TimeoutExpired:
            passed = False
        duration_s = time.monotonic() - began
        log = self._logs / f"{label}.log"
        shutil.copyfile(self.machine.path(f"{_FOLDER}/{label}.log"), log)
        return Outcome(passed=passed, duration_s=duration_s, log=log)

    def _unit(self, label: str, user: str, within_s: float) -> str:
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root" if user == "root" else f"/home/{user}",
            "CLONE": self._conditions.clone,
            **self._conditions.environment,
            **registries(),
        }
        variables = "".join(f'Environment="{key}={value}"\n' for key, value in environment.items())
        return (
            f"[Service]\nType=oneshot\nUser={user}\nUMask={self._conditions.umask}\n{variables}"
            f"ExecStart=/bin/bash {_FOLDER}/{label}.sh\nTimeoutStartSec={within_s:.0f}\n"
            f"StandardOutput=append:{_FOLDER}/{label}.log\nStandardError=inherit\n"
        )
