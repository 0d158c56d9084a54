"""Reading gpu-state.json while others write it in place.

They truncate it first, so for a moment it is empty or half written. An invalid file is read again
until it is valid; it counts as broken only if it stays invalid and nobody writes it.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from ds01d.adapters.books.state_format import parse_state
from ds01d.adapters.files.safe_read import (
    NotRead,
    ReadFailure,
    Signature,
    digest_of,
    open_file,
    read_unchanged,
    too_large,
)
from ds01d.errors import Malformed
from ds01d.model.books import AllocatorState
from ds01d.model.primitives import Digest

LIMIT = 8 << 20  # 20,000 bookings take 1 MiB
HEAD = 1 << 20  # what is read of a file beyond that limit

_SETTLE_S = 0.1  # for a torn file; three times that if it keeps changing
_MAX_CHANGES = 4  # seen before it counts as changing all the time: one look can be slow by itself
_FIRST_PAUSE_S = 0.0005
_MAX_PAUSE_S = 0.008


@dataclass(frozen=True, slots=True, kw_only=True)
class StateReading:
    """One look at the file; `state` None: it is invalid, and `reason` is why."""

    data: bytes
    signature: Signature
    state: AllocatorState | None = None
    reason: str = ""

    @property
    def is_oversized(self) -> bool:
        """No state at all: `data` is its head only, and it is known by its outside."""
        return self.signature.size > LIMIT

    @property
    def digest(self) -> Digest:
        if self.is_oversized:
            # Hashing the head would call two different giants the same file.
            outside = self.signature
            return Digest(f"oversized:{outside.inode}:{outside.size}:{outside.modified_ns}")
        return digest_of(self.data)


class StateReader:
    """Reads one state file, again and again; remembers only which bytes it found broken."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._broken: Signature | None = None

    def read(self, folder: int) -> StateReading | NotRead | None:
        """Read until the file is valid, or has stayed invalid for a while.

        `folder`: an open descriptor of its directory. None: it keeps changing.
        """
        start = time.monotonic()
        last_signature: Signature | None = None
        since = start
        changes = 0
        pause = _FIRST_PAUSE_S
        while True:
            reading = self._read_once(folder)
            if isinstance(reading, NotRead) or (reading is not None and reading.state is not None):
                return reading
            now = time.monotonic()
            if reading is None or reading.signature != last_signature:
                # Counted, not timed: on a busy host one look can be as slow as a writer (decision
                # 163).
                changes += reading is None or last_signature is not None
                last_signature, since = None if reading is None else reading.signature, now
            # Bytes that were found broken before need no second wait in each pass.
            elif now - since >= _SETTLE_S or last_signature == self._broken:
                self._broken = None if reading.signature.is_racy() else reading.signature
                return reading
            # Torn at each look is somebody who writes all the time: unknown, and not broken.
            if changes >= _MAX_CHANGES and now - start > 3 * _SETTLE_S:
                return None
            time.sleep(pause)
            pause = min(2 * pause, _MAX_PAUSE_S)

    def _read_once(self, folder: int) -> StateReading | NotRead | None:
        """One look at the file; None if it changed meanwhile."""
        descriptor = open_file(self._path, folder=folder)
        if isinstance(descriptor, NotRead):
            return descriptor
        try:
            return self._read_descriptor(descriptor)
        except OSError as error:
            reason = f"{self._path} could not be read: {error.strerror}"
            return NotRead(obstacle=ReadFailure.FAILED, reason=reason)
        finally:
            os.close(descriptor)

    def _read_descriptor(self, descriptor: int) -> StateReading | None:
        signature = Signature.of(os.fstat(descriptor))
        # By its size alone: reading gigabytes would take the memory that the bound protects.
        oversized = signature.size > LIMIT
        data = read_unchanged(descriptor, HEAD if oversized else LIMIT)
        if data is None or signature != Signature.of(os.fstat(descriptor)):
            return None
        if oversized:
            reason = too_large(self._path, LIMIT).reason
            return StateReading(data=data, signature=signature, reason=reason)
        try:
            state = parse_state(data, str(self._path))
        except Malformed as error:
            return StateReading(data=data, signature=signature, reason=str(error))
        return StateReading(data=data, signature=signature, state=state)
