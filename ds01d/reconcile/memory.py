"""The memory on disk: one JSON document in `state_dir`, written by passes alone.

Losing it is safe, so whatever cannot be understood is set aside and forgotten; never half-used.
"""

from __future__ import annotations

import msgspec

from ds01d.errors import MemoryBroken
from ds01d.model.memory import Memory
from ds01d.reconcile.ports import StateDir

VERSION = 1


class _Document(msgspec.Struct, kw_only=True):
    version: int
    memory: Memory


_decoder = msgspec.json.Decoder(_Document)
_NOT_UNDERSTOOD = (MemoryBroken, msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def _understood(data: bytes) -> Memory:
    document = _decoder.decode(data)
    if document.version != VERSION:
        raise MemoryBroken(f"it has version {document.version}, not {VERSION}")
    return document.memory


class MemoryStore:
    """Loads and saves the memory. Bytes that have not changed since are not understood again."""

    def __init__(self, own: StateDir) -> None:
        self._own = own
        self._data = b""
        self._memory = Memory()

    def load(self) -> tuple[Memory, str]:
        """What is remembered, and why nothing is, if something is wrong ("" otherwise).

        Who lost the memory has read the books before: what is booked now may just be made.
        """
        try:
            data = self._own.load_memory()
            if data is None:
                return Memory(acquainted=bool(self._data)), ""
            if data != self._data:
                self._data, self._memory = data, _understood(data)
        except _NOT_UNDERSTOOD as error:
            return (
                Memory(acquainted=True),
                f"what was remembered cannot be used, waiting times start again: {error}",
            )
        return self._memory, ""

    def save(self, memory: Memory) -> None:
        """Write the memory, if it is another one. Raises `WriteFailed`."""
        if memory == self._memory and self._data:
            return
        data = msgspec.json.encode(_Document(version=VERSION, memory=memory))
        self._own.save_memory(data)
        self._data, self._memory = data, memory

    def set_aside(self) -> None:
        """Keep what cannot be understood out of the way. Raises `WriteFailed`."""
        self._own.set_memory_aside()
