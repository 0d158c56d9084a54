"""What booking needs of the host, as protocols that the adapters implement: books, GPUs, a clock.

Reading never raises for a source that fails: it returns an `Unknown` with the reason.
Writing raises `errors.WriteFailed`; a lock that is not released in time, `errors.LockTimeout`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Final, Protocol

from ds01d.model.actor import Actor
from ds01d.model.books import AllocatorState, Attempt, BadRecord, LogLine, Record, Slot, Unreadable
from ds01d.model.devices import Inventory
from ds01d.model.limits import Limits
from ds01d.model.primitives import (
    Boot,
    ContainerId,
    ContainerName,
    Digest,
    Now,
    SlotId,
    Unknown,
    UserName,
    Wall,
)
from ds01d.model.usage import PublishedUse, Running

# A default that nobody can change.
NO_TEXTS: Final[Mapping[SlotId, str]] = MappingProxyType({})


class Clock(Protocol):
    """Both clocks at once; `read_boot`: CLOCK_BOOTTIME alone, for waits."""

    def now(self) -> Now: ...

    def read_boot(self) -> Boot: ...


class GpuPort(Protocol):
    """NVML."""

    def sample(self, *, not_before: Boot) -> Inventory | Unknown:
        """A sample begun at `not_before` or later: the last one if it is, else a new one."""

    def prefetch(self) -> None:
        """Begin a new sample in the background; returns at once."""

    def read_faults(self) -> Mapping[str, str]:
        """GPU faults (XID) that the kernel reported since boot: PCI address → message."""


class StateBook(Protocol):
    """gpu-state.json."""

    def read(self) -> AllocatorState | Unreadable | Unknown:
        """Read and parse the file; a torn read is retried. Also finds bookings to merge."""

    def save_last_good(self) -> None:
        """Copy what was read last, to rebuild from; nothing if that copy exists."""

    def lock(self) -> AbstractContextManager[None]:
        """The books' lock, waited for a bounded time."""

    def slot_texts(self, slots: Iterable[SlotId]) -> Mapping[SlotId, str]:
        """Slots as they are written in what was last read, for the history."""

    def parse_slot(self, name: SlotId, text: str) -> Slot:
        """Parse what `slot_texts` gave. Raises `Malformed`."""

    def restore_broken(self, digest: Digest, *, onto: Digest) -> None:
        """Put back a broken file that was kept when it was replaced. Needs the lock.

        Raises `BooksChanged` if the file is not `onto` any more, `WriteFailed` if none was kept.
        """

    def write(
        self, state: AllocatorState, *, onto: Digest, texts: Mapping[SlotId, str] = NO_TEXTS
    ) -> AllocatorState:
        """Replace the file by `state`, durably, keeping keys that ds01d does not know.

        `onto`: digest of the file that was decided upon; another one raises `BooksChanged`. An
        unreadable file is kept beside. `texts`: slots to write from this JSON text, except for
        containers and users. Bookings that others wrote into the replaced file meanwhile are
        merged. Gives the state that is in the file now. Needs the lock.
        """


class MetadataBook(Protocol):
    """container-metadata/."""

    def read(
        self, names: frozenset[ContainerName] | None = None
    ) -> Mapping[ContainerName, Record | BadRecord] | Unknown:
        """Every record; with `names`, only those are read again, others are as last read."""

    def is_current(self) -> bool:
        """Whether no record was made, replaced or removed since the last reading but through this.

        False also where that cannot be known.
        """

    def read_text(self, name: ContainerName) -> str | None:
        """The file's bytes as text (for the history), None if there is none. Follows no link."""

    def render_record(self, record: Record, *, base: ContainerName | None = None) -> str:
        """What `write` would put into the file that is there now, as text.

        `base`: onto the record of that name instead, so that its unknown fields go along.
        """

    def restore_text(self, name: ContainerName, text: str | None, *, onto: Digest | None) -> None:
        """Make the file what `text` gave once; None removes it. `onto` as in `write`."""

    def write(self, record: Record, *, onto: Digest | None) -> None:
        """Write one record, keeping unknown fields; `onto` None = there is no file yet.

        A file that is not as decided upon raises `BooksChanged`. A broken file is kept aside.
        """

    def remove(self, name: ContainerName, *, onto: Digest) -> None:
        """Remove one record if it is still as decided upon, else `BooksChanged`."""

    def remove_leftovers(self) -> None:
        """Remove files of killed writers, if the last reading found some."""


class OperationsPort(Protocol):
    """container-operations.log."""

    def read(self) -> Mapping[ContainerName, Attempt] | Unknown:
        """The attempts that matter; only what was added since the last call is parsed."""

    def append(self, line: LogLine) -> None:
        """One line, one write. Raises `WriteFailed`."""


class AllocationsPort(Protocol):
    """gpu-allocations.log."""

    def append(
        self,
        *,
        at: Wall,
        event: str,
        user: str,
        container: str,
        gpu: str,
        priority: int,
        reason: str,
    ) -> None:
        """One line, one write. Raises `WriteFailed`."""


class LimitsPort(Protocol):
    """resource-limits.yaml."""

    def read(self) -> Limits | Unknown:
        """The limits, parsed again only when the file changed."""


class OwnersPort(Protocol):
    """container-owners.json of the server's other tools: hints."""

    def read(self) -> Mapping[ContainerId, UserName]:
        """The owner of each container, as last written; empty if unknown. Never raises."""


class Published(Protocol):
    """The status that the daemon published."""

    def read_use(self) -> PublishedUse | None:
        """Who has or uses which devices, and why that may be outdated; None: nothing published."""


class RunningPort(Protocol):
    """Docker, asked by the allocator for what lives."""

    def read(self, known_ids: frozenset[str]) -> Running | Unknown:
        """The containers that live or were just created, inspected unless in `known_ids` (short).

        Bounded in time; never raises.
        """


class Passwd(Protocol):
    """The host's user database."""

    def find_logins(self, uids: frozenset[int]) -> Mapping[int, str]:
        """Names of those uids that are known; a slow directory service is not waited for."""

    def find_uids(self, names: frozenset[str]) -> Mapping[str, int]:
        """Uids of those names that are known; as `names`."""


class BooksWorld(Protocol):
    """What the allocator touches; every `World` is one."""

    @property
    def clock(self) -> Clock: ...
    @property
    def gpu(self) -> GpuPort | None: ...
    @property
    def state(self) -> StateBook: ...
    @property
    def metadata(self) -> MetadataBook: ...
    @property
    def allocations(self) -> AllocationsPort: ...
    @property
    def limits(self) -> LimitsPort: ...
    @property
    def published(self) -> Published | None: ...
    @property
    def running(self) -> RunningPort | None: ...
    @property
    def operations(self) -> OperationsPort: ...
    @property
    def passwd(self) -> Passwd: ...
    @property
    def actor(self) -> Actor | None: ...
