"""Those who write the books beside ds01d, and notes of all that they did.

The old allocator: reads, changes, writes in place, without a lock, as `tests.support.legacy` has
it; here with a pause between reading and writing, and with a note before each write. And the new
one, `ds01-allocator`, as a process.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.support.daemon import ROOT, Site
from tests.verification.campaign.clock import boot

Pair = tuple[str, str]
"""A container and a slot, or the UUID of a device."""

NEVER = float("inf")


def pairs_of(document: Mapping[str, Any]) -> frozenset[Pair]:
    """(container, slot) of a state."""
    return frozenset(
        (name, slot) for slot, entry in document["gpus"].items() for name in entry["containers"]
    )


@dataclass(slots=True, kw_only=True)
class Write:
    """One write of somebody to the books; `done` is NEVER while it goes on.

    `what`: "state", or the container whose metadata it was. `pairs`: what is booked in what was
    written; None for damage, and for `ds01-allocator`, which may have written anything.
    """

    who: str
    what: str
    begun: float
    digest: str = ""
    pairs: frozenset[Pair] | None = None
    added: frozenset[Pair] = frozenset()
    removed: frozenset[str] = frozenset()
    read: float = 0.0
    done: float = NEVER
    late: bool = False

    def meets(self, begin: float, end: float) -> bool:
        return self.begun <= end and self.done >= begin


@dataclass(slots=True)
class Notes:
    """All writes, and what was booked and released by whom, for the oracle to look into."""

    writes: list[Write] = field(default_factory=list)
    booked: dict[str, list[float]] = field(default_factory=dict)
    announced: dict[str, list[float]] = field(default_factory=dict)
    finished: dict[str, list[float]] = field(default_factory=dict)
    claimed: dict[str, list[float]] = field(default_factory=dict)
    renamed: list[tuple[float, str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def writing(self, write: Write) -> Iterator[Write]:
        with self.lock:
            self.writes.append(write)
        try:
            yield write
        finally:
            write.done = boot()

    def meeting(self, begin: float, end: float, what: str = "state") -> list[Write]:
        """The writes that may have happened between two moments."""
        with self.lock:
            newest = reversed(self.writes)
            return [one for one in newest if one.what == what and one.meets(begin, end)]

    def released(self, name: str, begin: float, end: float) -> bool:
        """Whether somebody began to release this container between two moments."""
        with self.lock:
            return any(name in one.removed and begin <= one.begun <= end for one in self.writes)

    def book(self, name: str, at: float) -> None:
        """Somebody has booked something for this container; no earlier."""
        with self.lock:
            self.booked.setdefault(name, []).append(at)

    def announce(self, name: str, at: float) -> None:
        """Somebody has begun to create this container; a line in the log is all there is of it."""
        with self.lock:
            self.announced.setdefault(name, []).append(at)

    def finishes(self, name: str) -> None:
        """The container that stays is about to be made: with it a creation ends."""
        with self.lock:
            self.finished.setdefault(name, []).append(boot())

    def claim(self, name: str) -> None:
        """A container of another name is about to be made that claims this reservation."""
        with self.lock:
            self.claimed.setdefault(name, []).append(boot())

    def rename(self, name: str, to: str) -> None:
        """A container is about to be renamed, which may fail."""
        with self.lock:
            self.renamed.append((boot(), name, to))

    def later_names(self, name: str, begin: float, end: float) -> frozenset[str]:
        """What the container of this name may have been called since then, but for this name."""
        names = {name}
        with self.lock:
            for at, old, new in self.renamed:
                if begin <= at <= end and old in names:
                    names.add(new)
        return frozenset(names - {name})


class Failed(Exception):
    """An operation that did not come about, as operations do under faults."""


class OldAllocator:
    """The allocator without a lock; one call is one invocation."""

    def __init__(self, site: Site, notes: Notes) -> None:
        self._site = site
        self._notes = notes

    def attempt(self, name: str, user: str, slot: str) -> None:
        """The wrapper's line before a creation."""
        with suppress(OSError):
            at = boot()
            self._site.allocator.attempt(name, user, slot)
            self._notes.announce(name, at)

    def allocate(self, name: str, user: str, uuid: str, pause_s: float) -> str:
        """Book the slot of a device; gives the slot."""

        def add(state: dict[str, Any]) -> tuple[frozenset[Pair], frozenset[str]]:
            slot = self._slot(state, uuid)
            entry = state["gpus"][slot]
            entry["containers"].append(name)
            entry["users"][user] = entry["users"].get(user, 0) + 1
            return frozenset({(name, slot)}), frozenset()

        added, _ = self._change(add, pause_s)
        ((_, slot),) = added
        at = boot()
        record = {
            "container": name,
            "user": user,
            "gpu_id": slot,
            "priority": 10,
            "allocated_at": _now(),
        }
        self._write_record(name, record)
        self._notes.book(name, at)
        return slot

    def release(self, name: str, pause_s: float) -> None:
        """Take a container out of the books."""
        record = self._record(name)

        def take(state: dict[str, Any]) -> tuple[frozenset[Pair], frozenset[str]]:
            user = record["user"]
            for entry in state["gpus"].values():
                if name in entry["containers"]:
                    entry["containers"].remove(name)
                    entry["users"][user] = entry["users"].get(user, 1) - 1
                    if entry["users"][user] <= 0:
                        del entry["users"][user]
            return frozenset(), frozenset({name})

        self._change(take, pause_s)
        with self._notes.writing(Write(who="old", what=name, begun=boot())), suppress(OSError):
            self._path(name).unlink()

    def mark_stopped(self, name: str) -> None:
        self._write_record(name, {**self._record(name), "stopped_at": _now()})

    def touch(self, pause_s: float) -> None:
        """Read, wait, and write what was read, as one that refuses somebody does."""
        self._change(lambda _: (frozenset(), frozenset()), pause_s)

    def _change(
        self,
        act: Callable[[dict[str, Any]], tuple[frozenset[Pair], frozenset[str]]],
        pause_s: float,
    ) -> tuple[frozenset[Pair], frozenset[str]]:
        read = boot()
        state = self._load()
        added, removed = act(state)
        time.sleep(pause_s)
        text = json.dumps(state, indent=2).encode()
        write = Write(
            who="old",
            what="state",
            begun=boot(),
            digest=hashlib.sha256(text).hexdigest(),
            pairs=pairs_of(state),
            added=added,
            removed=removed,
            read=read,
        )
        path = self._site.state
        try:
            with self._notes.writing(write), path.open("wb") as file:
                inode = os.fstat(file.fileno()).st_ino
                file.write(text)
                file.flush()
                write.late = path.stat().st_ino != inode
        except OSError as error:
            write.pairs, write.added = None, frozenset()
            raise Failed(str(error)) from error
        return added, removed

    def _load(self) -> dict[str, Any]:
        """The state; torn ones are tried again for a moment, as a user would."""
        for _ in range(20):
            with suppress(OSError, ValueError):
                state: dict[str, Any] = json.loads(self._site.state.read_bytes())
                return state
            time.sleep(0.02)
        raise Failed("the state cannot be read")

    @staticmethod
    def _slot(state: Mapping[str, Any], uuid: str) -> str:
        for slot, entry in state["gpus"].items():
            if entry.get("uuid") == uuid:
                return str(slot)
        raise Failed(f"no slot has {uuid}")

    def _record(self, name: str) -> dict[str, Any]:
        try:
            record: dict[str, Any] = json.loads(self._path(name).read_bytes())
        except (OSError, ValueError) as error:
            raise Failed(f"no metadata of {name}: {error}") from error
        return record

    def _write_record(self, name: str, record: Mapping[str, Any]) -> None:
        text = json.dumps(record, indent=2).encode()
        digest = hashlib.sha256(text).hexdigest()
        write = Write(who="old", what=name, begun=boot(), digest=digest)
        with self._notes.writing(write):
            try:
                self._path(name).write_bytes(text)
            except OSError as error:
                raise Failed(str(error)) from error

    def _path(self, name: str) -> Path:
        return self._site.metadata / f"{name}.json"


class NewAllocator:
    """`ds01-allocator`, a process for each call."""

    _GIVEN = re.compile(r"GPU/MIG (\S+) (?:to|allocated)")

    def __init__(self, site: Site, notes: Notes, env: Mapping[str, str]) -> None:
        self._notes = notes
        self._config = site.config
        self._env = {**site.environment(), **env}

    def allocate(self, name: str, user: str) -> str:
        """Gives the slot."""
        write = Write(who="new", what="state", begun=boot())
        answer = self._call(write, name, "allocate", user, name, "50", "10")
        found = self._GIVEN.search(answer)
        if found is None:
            raise Failed(answer.strip())
        slot = found.group(1)
        if "already" not in answer:
            write.added = frozenset({(name, slot)})
        self._notes.book(name, write.begun)
        return slot

    def reserve(self, name: str, user: str, count: int) -> tuple[str, list[str]]:
        """Reserve slots under a name, by `ds01ctl`. Gives the ID and the slots."""
        write = Write(who="new", what="state", begun=boot())
        words = ("--max", "50", "--count", str(count), "--reason", "a campaign", "--json")
        answer = self._call(write, name, "allocate", user, name, *words, module="ctl")
        found = json.loads(answer)
        slots = [one["slot"] for one in found["slots"]]
        if not found["already"]:
            write.added = frozenset((name, slot) for slot in slots)
        self._notes.book(name, write.begun)
        if found["id"] is None:  # killed between state and record: nobody was told one
            raise Failed("a reservation without an ID")
        return str(found["id"]), slots

    def release(self, name: str) -> None:
        removed = frozenset({name})
        write = Write(who="new", what="state", begun=boot(), removed=removed)
        self._call(write, name, "release", name)

    def mark_stopped(self, name: str) -> None:
        self._call(Write(who="new", what="state", begun=boot()), name, "mark-stopped", name)

    def _call(self, write: Write, name: str, *words: str, module: str = "allocator") -> str:
        config = ("--config", str(self._config))
        command = [sys.executable, "-m", f"ds01d.cli.{module}.main", *config]
        with (
            self._notes.writing(write),
            self._notes.writing(Write(who="new", what=name, begun=boot())),
        ):
            try:
                done = subprocess.run(
                    [*command, *words],
                    env=self._env,
                    cwd=ROOT,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    timeout=60,
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                raise Failed("it took a minute") from error
        if done.returncode:
            raise Failed((done.stderr or done.stdout).strip()[:300])
        return done.stdout


def _now() -> str:
    time.tzset()  # a process of its own would have read the zone just now
    return datetime.now().isoformat()  # noqa: DTZ005 - naive local times are what the books hold
