#!/usr/bin/env python3
"""gpu_allocator.py: ds01d's allocator for callers that run or import this file by its path.

    python3 gpu_allocator.py status
    GPUAllocationManager().get_status()

Needs nothing but Python: the work is done by `ds01-allocator`, in whatever environment ds01d is
installed. It is found beside this file (also through a symbolic link), on PATH, or in /opt/ds01d;
DS01_ALLOCATOR names another one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

_USUAL = "/opt/ds01d/bin/ds01-allocator"


def command() -> list[str]:
    """How to call the allocator."""
    named = os.environ.get("DS01_ALLOCATOR")
    if named:
        return [named]
    here = Path(__file__).resolve()  # ENV/share/ds01d/gpu_allocator.py
    beside = here.parents[2] / "bin" / "ds01-allocator" if len(here.parents) > 2 else here
    for found in (beside, shutil.which("ds01-allocator"), _USUAL):
        if found and found != here and os.access(found, os.X_OK):
            return [str(found)]
    raise FileNotFoundError(
        "ds01-allocator was not found: install ds01d, or name it in DS01_ALLOCATOR"
    )


class GPUAllocationManager:
    """The allocator as an object. Each call is a process; the books are locked in it."""

    def __init__(self, *, config: str | None = None) -> None:
        """`config`: ds01d.toml; else DS01D_CONFIG, else /etc/ds01/ds01d.toml. Paths are in it."""
        self._command = command() + (["--config", str(config)] if config else [])

    def get_status(self) -> dict:
        """Slots and holders: total_gpus, total_allocated_containers, mig_enabled, gpus."""
        return json.loads(self._run("status", "--json"))

    def get_user_gpu_count(self, username: str) -> int:
        """How many slots a user holds."""
        return int(self._run("user-count", "--", username))

    def get_docker_id(self, gpu_id: str) -> str:
        """What a device request names: the UUID of a MIG device, else the slot itself."""
        slots = self.get_status()["gpus"]
        return next((one["uuid"] or gpu_id for one in slots if one["id"] == gpu_id), gpu_id)

    def allocate_gpu(
        self, username: str, container: str, max_gpus: int, priority: int
    ) -> tuple[str | None, str]:
        """Book a slot: (slot, "SUCCESS" or "ALREADY_ALLOCATED"), or (None, why not)."""
        said = self._run("allocate", "--", username, container, str(max_gpus), str(priority))
        found = re.search(r"^✓ Allocated GPU/MIG (\S+) to ", said, re.MULTILINE)
        if found:
            return found[1], "SUCCESS"
        found = re.search(r"already has GPU/MIG (\S+) allocated", said)
        if found:
            return found[1], "ALREADY_ALLOCATED"
        return None, said.partition("failed: ")[2].strip()

    def release_gpu(self, container: str) -> tuple[str | None, str]:
        """Give back what a container holds: (slot, "SUCCESS"), or (None, "NOT_ALLOCATED")."""
        found = re.search(r"^✓ Released GPU/MIG (\S+) from ", self._run("release", "--", container))
        return (found[1], "SUCCESS") if found else (None, "NOT_ALLOCATED")

    def mark_stopped(self, container: str) -> tuple[str | None, str]:
        """Start the hold: (slot, "SUCCESS"), or (None, "NO_METADATA")."""
        found = re.search(r"\(GPU (\S+) hold timer", self._run("mark-stopped", "--", container))
        return (found[1], "SUCCESS") if found else (None, "NO_METADATA")

    def release_stale_allocations(self, username: str | None = None) -> list[tuple[str, str]]:
        """Release what is provably stale: (container, why) each."""
        said = self._run("release-stale", *([] if username is None else ["--", username]))
        return re.findall(r"^  (\S+): (.*)$", said, re.MULTILINE)

    def _run(self, *words: str) -> str:
        """What the allocator prints. Raises `RuntimeError` with its words if it fails."""
        done = subprocess.run(
            [*self._command, *words], capture_output=True, encoding="utf-8", check=False
        )
        if done.returncode:
            raise RuntimeError(
                done.stderr.strip() or f"ds01-allocator ended with {done.returncode}"
            )
        return done.stdout


def main() -> None:
    """Become the allocator."""
    try:
        words = command()
    except FileNotFoundError as error:
        sys.exit(f"gpu_allocator.py: {error}")
    os.execv(words[0], [*words, *sys.argv[1:]])  # noqa: S606 - that is the point


if __name__ == "__main__":
    main()
