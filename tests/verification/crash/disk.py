"""A host whose books are real files, under the real adapters; Docker and the GPUs are in memory."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ds01d.adapters.books.allocations_log import AllocationsLog
from ds01d.adapters.books.metadata_dir import MetadataDirectory
from ds01d.adapters.books.metadata_format import render_record
from ds01d.adapters.books.operations_log import OperationsLog
from ds01d.adapters.books.state_file import StateFile
from ds01d.adapters.books.state_format import render_state
from ds01d.adapters.state_dir import StateDirectory
from ds01d.model.books import AllocatorState, Record, Unreadable
from ds01d.model.primitives import Unknown
from ds01d.reconcile.ports import World
from ds01d.reconcile.reconciler import Reconciler
from ds01d.reconcile.report import Report
from tests.support.build import Life

BROKEN = b'{"gpus": {"0.0": '
_RANDOM = re.compile(r"ds01d-tmp-[0-9a-f]{16}|replaced-[0-9]{13}-[0-9a-f]{8}|[0-9]{8}T[0-9.]+Z")


@dataclass(frozen=True)
class Disk:
    """The files of one host, below `root`."""

    root: Path
    life: Life

    @property
    def state(self) -> Path:
        return self.root / "books" / "gpu-state.json"

    @property
    def metadata(self) -> Path:
        return self.root / "books" / "container-metadata"

    @property
    def own(self) -> Path:
        return self.root / "own"

    def world(self, *, is_shared: bool = True) -> World:
        """The world of a fresh process: nothing is cached. `is_shared`: others write the state."""
        return replace(
            self.life.host.world(),
            state=StateFile(self.state, self.own, 1.0, is_shared=is_shared),
            metadata=MetadataDirectory(self.metadata, self.own),
            operations=OperationsLog(self.root / "log" / "operations.log"),
            allocations=AllocationsLog(self.root / "log" / "allocations.log"),
            state_dir=StateDirectory(self.own, 1.0),
        )

    def write(self) -> None:
        """Put the books of the host in memory on disk, and what was remembered."""
        host = self.life.host
        for folder in (self.metadata, self.own, self.root / "log"):
            folder.mkdir(parents=True)
        good = host.state.last_good if isinstance(host.state, Unreadable) else host.state
        assert isinstance(good, AllocatorState)
        text = render_state(None, good)
        self.state.write_bytes(BROKEN if isinstance(host.state, Unreadable) else text)
        (self.own / "gpu-state.last-good.json").write_bytes(text)
        for name, record in host.records.items():
            data = render_record(None, record) if isinstance(record, Record) else b"{torn"
            (self.metadata / f"{name}.json").write_bytes(data)
        if host.memory is not None:
            (self.own / "checkpoint.json").write_bytes(host.memory)

    def take_in(self) -> None:
        """Let the host in memory have the books as they are on disk, for whoever judges it."""
        world = self.world()
        state, records = world.state.read(), world.metadata.read()
        assert not isinstance(state, Unknown)
        assert not isinstance(records, Unknown)
        self.life.host.state, self.life.host.records = state, dict(records)

    def pass_(self) -> Report:
        return Reconciler(self.world(), self.life.config).run()

    def plan(self) -> Report:
        return Reconciler(self.world(), self.life.config).plan()

    # --- copies

    def save(self, to: Path) -> None:
        """Copy everything, with owners, times and second names of a file."""
        subprocess.run(["cp", "-a", self.root, to], check=True, timeout=60)

    def restore(self, saved: Path) -> None:
        """Put what was saved in the place of what is there; it is not kept a second time."""
        shutil.rmtree(self.root)
        saved.rename(self.root)

    # --- what is there

    def books(self) -> dict[str, bytes]:
        """State and metadata, byte by byte."""
        files = [self.state, *sorted(self.metadata.glob("*.json"))]
        return {path.name: path.read_bytes() for path in files if path.exists()}

    def fingerprint(self) -> str:
        """Everything there is, but for what is random in it: alike, what follows is alike."""
        digest = hashlib.sha256()
        for path in sorted(self.root.rglob("*")):
            name = _RANDOM.sub("*", str(path.relative_to(self.root)))
            digest.update(f"{name}\0{path.lstat().st_mode}\0".encode())
            if path.is_file() and path.name not in ("lock", "gpu-state.json.lock"):
                digest.update(path.read_bytes())
        return digest.hexdigest()

    def left_over(self) -> list[str]:
        """Files that only a process under way needs."""
        found = (path.name for path in self.root.rglob("*") if path.is_file())
        return [name for name in found if "ds01d-tmp-" in name or "ds01d-replaced-" in name]

    def grow_old(self, seconds: float = 700.0) -> None:
        """Let everything on disk have been written long ago."""
        for path in self.root.rglob("*"):
            status = path.lstat()
            with suppress(OSError):
                os.utime(path, (status.st_atime - seconds, status.st_mtime - seconds))
        for path in self.root.rglob(".*ds01d-replaced-*"):
            made = re.search(r"replaced-([0-9]{13})-", path.name)
            assert made is not None
            older = max(int(made[1]) - int(seconds * 1000), 0)
            path.rename(path.with_name(path.name.replace(made[1], f"{older:013d}")))
