"""What writes the books without ds01d, as those programs do: in place and without a lock."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any


class LegacyAllocator:
    """The allocator and the shell wrappers around it. One call is one invocation of theirs."""

    def __init__(self, state: Path, metadata: Path, allocations: Path, operations: Path) -> None:
        self._state, self._metadata = state, metadata
        self._allocations, self._operations = allocations, operations

    def attempt(self, name: str, user: str, slot: str = "N/A") -> None:
        """The wrapper's line before it creates a container. None ever follows it."""
        self.log_operation("create_start", name, user, slot, "pending")

    def allocate(self, name: str, user: str, slot: str, *, priority: int = 10) -> None:
        """Book a slot: state, then metadata, then the log."""
        state = self._load()
        entry = state["gpus"][slot]
        entry["containers"].append(name)
        entry["users"][user] = entry["users"].get(user, 0) + 1
        self._save(state)
        record = {
            "container": name,
            "user": user,
            "gpu_id": slot,
            "priority": priority,
            "allocated_at": _now(),
        }
        text = json.dumps(record, indent=2)
        (self._metadata / f"{name}.json").write_text(text, encoding="utf-8")
        self._log("ALLOCATED", user, name, slot, priority)

    def release(self, name: str) -> None:
        """Take a container out of the books."""
        state = self._load()
        path = self._metadata / f"{name}.json"
        record = json.loads(path.read_text(encoding="utf-8"))
        user = record["user"]
        for entry in state["gpus"].values():
            if name in entry["containers"]:
                entry["containers"].remove(name)
                entry["users"][user] -= 1
                if entry["users"][user] == 0:
                    del entry["users"][user]
        self._save(state)
        path.unlink()
        self._log("RELEASED", user, name, record["gpu_id"], record["priority"])

    def mark_stopped(self, name: str) -> None:
        """Note in the metadata when a container was stopped."""
        path = self._metadata / f"{name}.json"
        record = json.loads(path.read_text(encoding="utf-8")) | {"stopped_at": _now()}
        path.write_text(json.dumps(record, indent=2), encoding="utf-8")
        self._log("MARKED_STOPPED", record["user"], name, record["gpu_id"], record["priority"])

    def log_operation(
        self, operation: str, name: str, user: str, slot: str, status: str, details: str = ""
    ) -> None:
        """A line of the operations log, as the wrappers write it."""
        now = datetime.now().strftime("%Y-%m-%d %H:%M:%S")  # noqa: DTZ005 - they write local time
        with self._operations.open("a", encoding="utf-8") as file:
            file.write(f"{now}|{operation}|{user}|{name}|{slot}|{status}|{details}\n")

    def _load(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self._state.read_text(encoding="utf-8"))
        return state

    def _save(self, state: dict[str, Any]) -> None:
        with self._state.open("w", encoding="utf-8") as file:
            json.dump(state, file, indent=2)

    def _log(self, event: str, user: str, name: str, slot: str, priority: int) -> None:
        line = f"{_now()}|{event}|{user}|{name}|{slot}|priority={priority}|{event} by allocator\n"
        with self._allocations.open("a", encoding="utf-8") as file:
            file.write(line)


def _now() -> str:
    return datetime.now().isoformat()  # noqa: DTZ005 - naive local times are what the books hold
