"""The books and ds01d's own files as they lie on disk: to read in tests, and to write by hand.

Knows no daemon and no configuration. Nothing here sleeps to be lucky: a torn read is read again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

DEADLINE_S = 90.0

Booking = tuple[str, str]
T = TypeVar("T")


def until(found: Callable[[], T | None], deadline_s: float = DEADLINE_S, *, what: object = "") -> T:
    """What `found` gives as soon as it is true; fails after the deadline.

    A look that starts a program is dear: between two of them is time for what is waited for, and
    where all cores are busy that is what it waits for.
    """
    end = time.monotonic() + deadline_s
    while True:
        began = time.monotonic()
        if value := found():
            return value
        now = time.monotonic()
        if now > end:
            told = what() if callable(what) else what
            raise AssertionError(f"not within {deadline_s:g} s: {told or found}")
        time.sleep(min(max(0.01, 2 * (now - began)), 0.5))


class BooksOnDisk:
    """State and metadata in `lib`, the logs in `log`, and ds01d's own files in `state_dir`."""

    def __init__(self, lib: Path, log: Path, state_dir: Path) -> None:
        self.state = lib / "gpu-state.json"
        self.metadata = lib / "container-metadata"
        self.operations = log / "container-operations.log"
        self.allocations = log / "gpu-allocations.log"
        self.state_dir = state_dir

    def read_state(self) -> dict[str, Any]:
        """The state, as it is on disk; a writer in the middle of its work is waited for."""

        def whole() -> dict[str, Any] | None:
            with suppress(ValueError):
                state: dict[str, Any] = json.loads(self.state.read_text(encoding="utf-8"))
                return state
            return None

        return until(whole)

    def write_state(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the state in place, as the allocator does."""
        state = self.read_state()
        change(state)
        with self.state.open("w", encoding="utf-8") as file:
            json.dump(state, file, indent=2)

    def bookings(self) -> set[Booking]:
        """Who is booked where: (container, slot)."""
        slots = self.read_state()["gpus"]
        return {(name, slot) for slot, entry in slots.items() for name in entry["containers"]}

    def users(self, slot: str) -> dict[str, int]:
        """The counters of a slot."""
        counted: dict[str, int] = self.read_state()["gpus"][slot]["users"]
        return counted

    def uuid(self, slot: str) -> str:
        """The device behind a slot, by the state."""
        return str(self.read_state()["gpus"][slot]["uuid"])

    def record(self, name: str) -> dict[str, Any] | None:
        """The metadata of a container."""
        try:
            found: dict[str, Any] = json.loads((self.metadata / f"{name}.json").read_text())
        except FileNotFoundError:
            return None
        return found

    def history(self) -> list[dict[str, Any]]:
        """Every change that ds01d began, oldest first, with `outcome`: done, failed or open."""
        entries: dict[str, dict[str, Any]] = {}
        for path in sorted(self.state_dir.glob("history.jsonl*"), reverse=True):
            for line in path.read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                if entry["phase"] == "begin":
                    entries[entry["id"]] = entry | {"outcome": "open"}
                else:
                    entries[entry["id"]]["outcome"] = entry["phase"]
        return list(entries.values())

    def taken(self) -> list[Booking]:
        """Every booking that ds01d ever took away, also if it gave it back."""
        found: list[Booking] = []
        for entry in self.history():
            before, after = entry.get("before", {}), entry.get("after", {})
            for slot, was in before.get("slots", {}).items():
                now = (after.get("slots", {}).get(slot) or {}).get("containers", [])
                gone = [name for name in (was or {}).get("containers", []) if name not in now]
                found += [(name, slot) for name in gone]
        return found

    def operation_lines(self, name: str | None = None) -> list[list[str]]:
        """The fields of the operations log, line by line, but for the time."""
        if not self.operations.exists():
            return []
        lines = self.operations.read_text(encoding="utf-8").splitlines()
        fields = [line.split("|")[1:] for line in lines]
        return [line for line in fields if name is None or line[2] == name]

    def status(self) -> dict[str, Any]:
        """status.json, {} if there is none."""
        try:
            found: dict[str, Any] = json.loads((self.state_dir / "status.json").read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return found

    def empty(self) -> None:
        """Take every booking away."""

        def clear(state: dict[str, Any]) -> None:
            for slot in state["gpus"].values():
                slot.update(containers=[], users={})

        self.write_state(clear)
        for path in self.metadata.iterdir():
            path.unlink()
