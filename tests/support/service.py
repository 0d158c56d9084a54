"""ds01d as a service on a throw-away machine: installed as on a server, with books of its own.

The environment of the service is built from the distribution's interpreter, once for each state of
pyproject.toml; in the machine it lies where the package puts it. ds01d's own sources are those of
this tree.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from simulation import nvml
from simulation.cache import cache, locked
from simulation.machine import Machine
from simulation.machine_keeper import UMASK
from tests.support.books import BooksOnDisk, until
from tests.support.daemon import DATA, LIMITS, ROOT, SHORT, toml
from tests.support.samples import copy_sample

PLACE: Final = "/usr/lib/ds01d/venv"
UNIT: Final = "ds01d.service"
COMMANDS: Final = ("ds01d", "ds01d-notify", "ds01ctl", "ds01-allocator")
CONFIG: Final = "/etc/ds01/ds01d.toml"
_PYTHON: Final = "/usr/bin/python3"
# A machine that has just booted is slower than a process beside the tests.
_TIMES: Final[Mapping[str, Mapping[str, object]]] = {
    "docker": {"timeout": "2s"},
    "logs": {"syslog": True},
    "gpu": {"timeout": "2s"},
    "daemon": {"sweep_interval": "2s"},
}


def environment() -> Path:
    """The virtual environment of the service, for a bind to `PLACE`; built if need be."""
    version = subprocess.run((_PYTHON, "-VV"), check=True, capture_output=True).stdout
    made_of = version + (ROOT / "pyproject.toml").read_bytes()
    folder = cache("service") / hashlib.sha256(made_of).hexdigest()[:16]
    with locked(cache("service")):
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=folder.parent) as work:
                _build(Path(work) / "venv")
                (Path(work) / "venv").rename(folder)
    return folder


def _build(venv: Path) -> None:
    pip = (str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet")
    for command in ((_PYTHON, "-m", "venv", str(venv)), (*pip, str(ROOT))):
        subprocess.run(command, check=True, timeout=300, umask=UMASK)
    for script in (venv / "bin").iterdir():
        text = script.read_bytes() if not script.is_symlink() else b""
        if text.startswith(b"#!"):  # names it there, or in the next line if it has blanks
            script.write_bytes(text.replace(str(venv).encode(), PLACE.encode(), 1))


def binds() -> dict[str, Path]:
    """What a machine has to see of the host for `Service`."""
    venv = environment()
    package = next(venv.glob("lib/python3*/site-packages/ds01d"))
    return {PLACE: venv, f"{PLACE}/{package.relative_to(venv)}": _sources()}


@functools.cache
def _sources() -> Path:
    """This tree's ds01d as a server has it: the service may read it, whatever umask made it."""
    copy = Path(tempfile.mkdtemp(prefix="ds01d-sources-"))
    _remove_at_end(copy)
    copy_sample(ROOT / "ds01d", copy)
    # The machine sees it read-only: what is not compiled, or by another Python, would be compiled
    # by each process there, which takes seconds.
    subprocess.run((_PYTHON, "-m", "compileall", "-q", str(copy)), check=True, umask=UMASK)
    return copy


def _remove_at_end(folder: Path) -> None:
    """Remove it when this process ends, also if it is killed."""
    words = ("sh", "-c", 'trap "" INT TERM HUP; cat; rm -rf -- "$1"', "sh", str(folder))
    # Without the mark of `keeper`, which would end it before it is done.
    path = {"PATH": os.environ.get("PATH", os.defpath)}
    waiter = subprocess.Popen(words, env=path, stdin=subprocess.PIPE, start_new_session=True)

    def remove() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        waiter.communicate()

    atexit.register(remove)


class Service:
    """ds01d.service on a machine. Install it before the machine boots."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.tables: dict[str, Mapping[str, object]] = {}
        self.first_state: dict[str, Any] = {}
        self.world: nvml.World | None = None

    def install(self, world: nvml.World | None = None, *, books: str = "v3-dcce6c2-prod4") -> None:
        """Put unit, users, folders and configuration in place, and empty books with slots.

        `world`: what NVML shows; None: there is no driver.
        """
        machine = self.machine
        for command in COMMANDS:
            machine.path(f"/usr/bin/{command}").symlink_to(f"{PLACE}/bin/{command}")
        machine.put(f"/usr/lib/systemd/system/{UNIT}", ROOT / "systemd" / UNIT)
        for kind in ("sysusers", "tmpfiles"):
            source = ROOT / "systemd" / f"ds01d.{kind}"
            if source.exists():
                machine.put(f"/usr/lib/{kind}.d/ds01d.conf", source)
        group = ROOT / "systemd" / "ds01d-group.tmpfiles"
        machine.put("/usr/lib/tmpfiles.d/ds01d-group.conf", group)
        machine.put("/usr/lib/books.sh", ROOT / "debian" / "books.sh")
        machine.put("/opt/ds01-infra/config/resource-limits.yaml", LIMITS)
        for name, folder in (("lib", "/var/lib/ds01"), ("log", "/var/log/ds01")):
            copy_sample(DATA / "states" / books / name, machine.path(folder))
        self.configure()
        self.books.empty()
        self.first_state = self.books.read_state()
        self.world = world
        if world is not None:
            machine.install_driver(nvml.build() / nvml.NAME, world.text())

    def chown_books(self) -> None:
        """Leave the folder of the books as the package does; once its users are there."""
        self.machine.run("sh", "-euc", ". /usr/lib/books.sh; chown_books")

    def share_books(self) -> None:
        """Let the group write the books and logs again, where ds01d alone did."""
        script = """
            cd /var/lib; chown root:ds01 ds01 ds01/container-metadata
            chmod 2775 ds01 ds01/container-metadata
            chgrp -R ds01 ds01 /var/log/ds01; chmod -R g+w ds01 /var/log/ds01
        """
        self.machine.run("sh", "-euc", script)
        self.chown_books()

    def configure(self, **tables: Mapping[str, object]) -> None:
        """Write the configuration: short times, and these tables changed from now on."""
        for name, table in tables.items():
            self.tables[name] = {**self.tables.get(name, {}), **table}
        short = {name: table for name, table in SHORT.items() if name != "gpu"}
        names = sorted({*short, *_TIMES, *self.tables})
        whole = {
            name: {**short.get(name, {}), **_TIMES.get(name, {}), **self.tables.get(name, {})}
            for name in names
        }
        self.machine.put(CONFIG, toml(whole))

    @property
    def books(self) -> BooksOnDisk:
        """The books, as they are to be seen in the machine now."""
        path = self.machine.path
        return BooksOnDisk(path("/var/lib/ds01"), path("/var/log/ds01"), path("/var/lib/ds01d"))

    def make_new(self) -> None:
        """Stop it, and leave nothing of earlier stories: books, memory, containers, settings."""
        self.machine.run("systemctl", "stop", UNIT)
        self.systemctl("reset-failed", check=False)
        if self.tables.pop("books", {}).get("writers") == "service":
            self.share_books()
        self.tables.clear()
        self.configure()
        self.books.write_state(lambda state: state.update(self.first_state))
        kept = {self.books.state, self.books.metadata}
        for folder in (self.books.state.parent, self.books.metadata, self.books.state_dir):
            for path in set(folder.glob("*")) - kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.machine.docker.clear()
        if self.world is not None:
            self.machine.install_driver(nvml.build() / nvml.NAME, self.world.text())

    # --- what systemd says

    def start(self) -> None:
        """Start it and wait until it is ready."""
        self.machine.run("systemctl", "start", UNIT)

    def systemctl(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`systemctl WORDS ds01d.service`."""
        return self.machine.run("systemctl", *words, UNIT, check=check)

    def tells(self, *properties: str) -> dict[str, str]:
        """Properties of the unit."""
        return self.machine.show(UNIT, *properties)

    @property
    def active(self) -> str:
        """Its ActiveState."""
        return self.tells("ActiveState")["ActiveState"]

    @property
    def pid(self) -> int:
        """The pid of the daemon, as seen in the machine; 0: it does not run."""
        return int(self.tells("MainPID")["MainPID"])

    @property
    def line(self) -> str:
        """The STATUS line."""
        return self.tells("StatusText")["StatusText"]

    def ctl(self, *arguments: str) -> Any:
        """What `ds01ctl ARGUMENTS --json` prints, run by root."""
        return json.loads(self.machine.run("ds01ctl", *arguments, "--json", check=False).stdout)

    # --- what it logs

    def log(self, *match: str) -> list[dict[str, Any]]:
        """Its entries in the journal, and systemd's about it."""
        return self.machine.journal("--unit", UNIT, *match)

    @contextmanager
    def logging(self, event: str, **fields: str) -> Iterator[None]:
        """Wait, at the end of the block, until it has logged this event in the meantime."""
        wanted = {"DS01_EVENT": event, **fields}
        match = [f"{key}={value}" for key, value in wanted.items()]
        before = len(self.log(*match))
        yield
        until(lambda: len(self.log(*match)) > before, what=lambda: f"{wanted}; {self.tail()}")

    def tail(self) -> str:
        """The last lines of its log, for messages."""
        return "\n".join(str(entry.get("MESSAGE")) for entry in self.log("--lines=30"))
