"""Private books for `ds01-allocator`, and calls of it, in this process or one of their own."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ds01d.cli.allocator.main import main
from tests.support import forked
from tests.support.daemon import DATA, ROOT, Site

__all__ = ["DATA", "AllocatorSite"]


class AllocatorSite(Site):
    """A `Site` whose allocator is ours. Docker is not there unless a `url` is given."""

    def __init__(
        self,
        folder: Path,
        books: str,
        *,
        url: str = "unix:///nowhere/docker.sock",
        source: str = "none",
        env: Mapping[str, str] | None = None,
        empty: bool = True,
        **tables: Mapping[str, object],
    ) -> None:
        gpu = {"gpu": {"source": source, "timeout": "20s"}}
        daemon = {"daemon": {"sweep_interval": "30s", "sweep_jitter": "0s"}}
        super().__init__(
            folder, url, books=books, empty=empty, env=env, **{**gpu, **daemon, **tables}
        )
        if empty:
            self.allocations.unlink(missing_ok=True)

    def gpus(self) -> dict[str, Any]:
        """The slots as the file has them."""
        found: dict[str, Any] = self.read_state()["gpus"]
        return found

    def bytes(self) -> dict[str, bytes]:
        """State and metadata, byte by byte."""
        files = [self.state, *sorted(self.metadata.iterdir())]
        return {path.name: path.read_bytes() for path in files}

    def here(self, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[str, int]:
        """Call it in this process: what it printed, on both streams, and its code."""
        with pytest.MonkeyPatch.context() as patch:
            for key, value in self.env.items():
                patch.setenv(key, value)
            with pytest.raises(SystemExit) as ended:
                main(["--config", str(self.config), *words])
        said = capsys.readouterr()
        return said.out + said.err, int(ended.value.code or 0)

    def run(self, *words: str, merged: bool = True) -> subprocess.CompletedProcess[str]:
        """Call it as scripts do, with stderr in stdout unless it is not `merged`."""
        return forked.call("ds01d.cli.allocator.main", words, env=self.environment(), merged=merged)

    def python(self, *words: str, merged: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *words],
            env=self.environment(),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merged else subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )

    def command(self, path: Path) -> Path:
        """Make an executable that is `ds01-allocator`."""
        place, python = shlex.quote(str(ROOT)), shlex.quote(sys.executable)
        text = f'#!/bin/sh\ncd {place} && exec {python} -m ds01d.cli.allocator.main "$@"\n'
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
        return path

    def metadata_of(self) -> dict[str, Any]:
        """Every record there is."""
        return {path.stem: json.loads(path.read_text()) for path in self.metadata.glob("*.json")}

    def orphans(self) -> set[str]:
        """Containers that only one of state and metadata knows."""
        booked = {name for slot in self.gpus().values() for name in slot["containers"]}
        return booked ^ {path.name.removesuffix(".json") for path in self.metadata.iterdir()}
