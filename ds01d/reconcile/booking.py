"""Booking slots: allocate, release, mark as stopped; each a transaction on the books.

Read, decide, write the state, then the metadata, under the books' lock, which is waited for a
bounded time. If the metadata cannot be written the state is put back. A log that cannot be written
is a warning. What cannot be done at all raises a `Ds01Error`; a refusal is an answer.
"""

from __future__ import annotations

from ds01d.config import Config
from ds01d.model.booking import (
    Allocated,
    MarkedStopped,
    NoMetadata,
    NotAllocated,
    Rejected,
    Released,
)
from ds01d.model.facts import ContainerName, SlotId, UserName, Wall
from ds01d.reconcile.ports import BooksWorld


class Allocator:
    """Books slots in one world. Any process may have one; the lock makes them take turns."""

    def __init__(self, world: BooksWorld, config: Config) -> None:
        self._world = world
        self._config = config

    def allocate(
        self,
        user: UserName,
        container: ContainerName,
        max_gpus: int | None = None,
        priority: int | None = None,
        slot: SlotId | None = None,
    ) -> Allocated | Rejected:
        """Book a slot; the best one, or `slot`. None: as the user's limits say."""
        raise NotImplementedError

    def release(self, container: ContainerName) -> Released | NotAllocated:
        """Take a container out of the books: every slot of it, and its metadata."""
        raise NotImplementedError

    def mark_stopped(
        self, container: ContainerName, started: Wall | None = None
    ) -> MarkedStopped | NoMetadata:
        """Note when a container was stopped; a stop that is noted already stays as it is.

        `started`, if known, is when the container last started: an older stop is overwritten.
        """
        raise NotImplementedError
