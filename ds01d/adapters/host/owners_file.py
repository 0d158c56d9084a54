"""container-owners.json of the server's other tools: who owns which container, as they believe.

A hint and no proof: it is made from labels and names, and its writer empties it every few seconds
while it cannot reach Docker. So an owner who was named once stays until another one is named, and
a file that is empty, broken or too large changes nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from math import inf
from pathlib import Path
from typing import Final

import msgspec

from ds01d.adapters.files.safe_read import NotRead, Signature, open_file, read_unchanged
from ds01d.model.primitives import ContainerId, UserName

LIMIT: Final = 2 << 20  # of thousands of containers; eight took the worker a second
_MOST: Final = 10_000
_MAX_LOGIN_LENGTH: Final = 256
_ID_LENGTH: Final = 64
_INTERVAL_S: Final = 5.0  # its writer's; a booking must not read it again each time


class _OwnerEntry(msgspec.Struct, frozen=True):
    owner: str | None = None


class _OwnersDocument(msgspec.Struct, frozen=True):
    containers: dict[str, _OwnerEntry]


class OwnersFile:
    """One file. For one thread. `clock`: seconds, monotonic."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._owners: dict[ContainerId, UserName] = {}
        self._signature: Signature | None = None
        self._asked = -inf

    def read(self) -> Mapping[ContainerId, UserName]:
        """The owner of each container, as last written; empty without a file. Never raises."""
        if self._clock() - self._asked >= _INTERVAL_S:
            self._asked = self._clock()
            data = self._read_changed()
            # A new mapping for each change: who has the old one compares by identity.
            if data is not None and (new := parse_owners(data)):
                self._owners = _keep_newest((*self._owners.items(), *new.items()))
        return self._owners

    def _read_changed(self) -> bytes | None:
        """What stands in the file if it is another one than last time, and whole."""
        descriptor = open_file(self._path)
        if isinstance(descriptor, NotRead):
            return None
        try:
            # It is replaced every few seconds, mostly by the same content in another file.
            signature = Signature.of(os.fstat(descriptor))
            if signature == self._signature or signature.size > LIMIT:
                return None
            data = read_unchanged(descriptor, LIMIT + 1)
            # A file that is this new can change again with the same signature: it is read again.
            if data is not None and not signature.is_racy():
                self._signature = signature
        except OSError:
            return None
        finally:
            os.close(descriptor)
        return data if data is not None and len(data) <= LIMIT else None


def parse_owners(data: bytes) -> dict[ContainerId, UserName]:
    """The owners by full ID; nothing of a file that is not what its writers write."""
    try:
        file = msgspec.json.decode(data, type=_OwnersDocument)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    # Each container is there by its name and its short ID too, which another one may have.
    return _keep_newest(
        (ContainerId(key), UserName(entry.owner))
        for key, entry in file.containers.items()
        if len(key) == _ID_LENGTH and entry.owner and len(entry.owner) <= _MAX_LOGIN_LENGTH
    )


def _keep_newest(
    owners: Iterable[tuple[ContainerId, UserName]],
) -> dict[ContainerId, UserName]:
    # Containers that are long gone stay until there are too many: nothing marks them.
    newest = dict(owners)
    for key in [*newest][: max(0, len(newest) - _MOST)]:
        del newest[key]
    return newest
