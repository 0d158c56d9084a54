"""Creations under way, on disk: what a process that was killed leaves is removed by the next.

A container that was created and never started would keep its slot for ever. Its booking alone is
not our affair: without a container ds01d releases it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Final, Protocol

from ds01d.containers.create import Creation
from ds01d.containers.labels import CREATION
from ds01d.containers.ports import ContainerEngine
from ds01d.errors import Ds01Error
from ds01d.model.creation import Created
from ds01d.model.primitives import ContainerName

FILE: Final = "creations.json"
RETRY_EVERY_S: Final = 5.0
# A dockerd that did not answer may still create the container: longer than a call may take.
LATEST_S: Final = 180.0


class Store(Protocol):
    """ds01d's own directory."""

    def load(self, name: str) -> bytes:
        """A file, b"" without one."""

    def save(self, name: str, data: bytes, *, durable: bool = False) -> None:
        """Replace a file. Raises `WriteFailed`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingCreation:
    """`token`: the label of its container. `starts`: it ends with the start of the container.

    `has_failed`: what there is of it is to be removed, started or not.
    """

    name: ContainerName
    token: str
    starts: bool
    has_failed: bool = False


class PendingCreations:
    """The creations of this process, and those that earlier ones did not finish. Any thread."""

    def __init__(
        self, store: Store, open_engine: Callable[[], AbstractContextManager[ContainerEngine]]
    ) -> None:
        self._store, self._open_engine = store, open_engine
        self._lock = threading.Lock()
        self._running: dict[str, PendingCreation] = {}
        self._left: dict[str, tuple[PendingCreation, float]] = {}
        self._cleaner: threading.Thread | None = None

    def remove_leftovers(self) -> None:
        """Begin to remove what earlier processes left."""
        with self._lock:
            for creation in _parse_creations(self._store.load(FILE)):
                self._left[creation.token] = (creation, time.monotonic() + LATEST_S)
            self._start_cleaner()

    def begin_creation(self, name: ContainerName, token: str, *, starts: bool) -> None:
        """Note a creation before its first step. Raises `WriteFailed`."""
        with self._lock:
            self._running[token] = PendingCreation(name=name, token=token, starts=starts)
            # Decision 196: on disk first, for the ds01d that follows one killed right behind it.
            try:
                self._save_file()
            except BaseException:
                del self._running[token]
                raise

    def run_creation(self, creation: Creation) -> Created:
        """Make a creation that was begun; what it cannot undo is removed later."""
        try:
            created = creation.run()
        except BaseException:
            self._end_creation(creation.container.token, is_left=creation.container.is_left)
            raise
        self._end_creation(creation.container.token)
        return created

    def _end_creation(self, token: str, *, is_left: bool = False) -> None:
        """Forget a creation. `is_left`: its container may exist, and has to be removed."""
        with self._lock:
            creation = self._running.pop(token)
            if is_left:
                failed = replace(creation, has_failed=True)
                self._left[token] = (failed, time.monotonic() + LATEST_S)
                self._start_cleaner()
            # The file may name one that is over: its container is complete, and is left alone.
            with suppress(Ds01Error):
                self._save_file()

    def list_names(self) -> frozenset[ContainerName]:
        """The containers that are being created."""
        with self._lock:
            return frozenset(creation.name for creation in self._running.values())

    def _save_file(self) -> None:
        creations = [*self._running.values(), *(creation for creation, _ in self._left.values())]
        self._store.save(FILE, json.dumps([asdict(c) for c in creations]).encode(), durable=True)

    def _start_cleaner(self) -> None:
        if self._left and (self._cleaner is None or not self._cleaner.is_alive()):
            self._cleaner = threading.Thread(
                target=self._remove_until_clean, name="ds01d-creations", daemon=True
            )
            self._cleaner.start()

    def _remove_until_clean(self) -> None:
        """Remove what is left, until nothing is."""
        while True:
            self.clean_once()
            with self._lock:
                if not self._left:
                    self._cleaner = None
                    return
            time.sleep(RETRY_EVERY_S)

    def clean_once(self) -> None:
        """Try to remove what is left."""
        with self._lock:
            left = [*self._left.values()]
        for creation, until in left:
            if self._is_removed(creation, until):
                with self._lock, suppress(Ds01Error):
                    self._left.pop(creation.token, None)
                    self._save_file()

    def _is_removed(self, creation: PendingCreation, until: float) -> bool:
        """Whether nothing of a creation is left, and nothing will be."""
        try:
            with self._open_engine() as engine:
                container = engine.find_container(creation.name)
                if container is None or container.labels.get(CREATION) != creation.token:
                    return time.monotonic() >= until
                # Decision 196: of a process that was killed, one that has started is complete, and
                # one that was not to start.
                is_complete = container.started is not None or not creation.starts
                if is_complete and not creation.has_failed:
                    return True
                # By its ID: the name may be another container's by now.
                engine.remove_container(container.id, force=True)
                # Docker may answer before it is gone, or leave it as "dead": a 404 is the proof.
                return engine.find_container(container.id) is None
        except Ds01Error:
            return False


def _parse_creations(data: bytes) -> list[PendingCreation]:
    """What was saved; nothing of what cannot be read."""
    try:
        return [
            PendingCreation(
                name=ContainerName(str(entry["name"])),
                token=str(entry["token"]),
                starts=bool(entry["starts"]),
                has_failed=bool(entry["has_failed"]),
            )
            for entry in json.loads(data or b"[]")
        ]
    except (ValueError, KeyError, TypeError):
        return []
