"""What a pass needs of the host besides the books (`books_ports`), as protocols, and all of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from ds01d.model.actor import Actor
from ds01d.model.containers import Container, Engine, NotFound
from ds01d.model.device_access import DeviceAccess
from ds01d.model.history import HistoryPlace
from ds01d.model.primitives import BookingId, ContainerId, ContainerName, Unknown
from ds01d.model.reservation import ProcessState, ReservingProcess
from ds01d.reconcile.books_ports import (
    AllocationsPort,
    Clock,
    GpuPort,
    LimitsPort,
    MetadataBook,
    OperationsPort,
    OwnersPort,
    Passwd,
    Published,
    RunningPort,
    StateBook,
)


class EnginePort(Protocol):
    """Docker."""

    def observe(self, names: frozenset[ContainerName] | None) -> Engine | Unknown:
        """All containers. Those in `names` are inspected now, the others may come from the cache.

        None: a sweep; Docker lists all containers again.
        """

    def look_up(
        self, name: ContainerName, known_id: ContainerId | None
    ) -> Container | NotFound | Unknown:
        """Inspect by ID (if known) and by name, past the cache. `NotFound`: each gives 404."""

    def list_claimants(self, booking: BookingId | None) -> frozenset[ContainerId] | Unknown:
        """The containers whose label names an allocation, past the cache; None: all."""


class ProcessTable(Protocol):
    """The host's processes."""

    def find_living(
        self, containers: frozenset[ContainerId]
    ) -> Mapping[ContainerId, int] | Unknown:
        """The pid of one living process for each of `containers` that has any."""


class DeviceRulesPort(Protocol):
    """The rules by which the kernel lets containers open devices."""

    def read_access(
        self, containers: Collection[ContainerId]
    ) -> Mapping[ContainerId, DeviceAccess]:
        """What each of `containers` may open; one of which that is not known is missing."""


class ReservingTable(Protocol):
    """The processes that slots are reserved for."""

    def find_asker(self, client: int, uid: int) -> ReservingProcess | Unknown | None:
        """The process that had the client of the service ask; None: unknown."""

    def find_states(
        self, processes: Iterable[ReservingProcess]
    ) -> Mapping[ReservingProcess, ProcessState]:
        """Whether each process runs."""


class StateDir(Protocol):
    """ds01d's own directory, shared by the daemon and ds01ctl under one lock."""

    def lock(self) -> AbstractContextManager[None]:
        """One pass at a time, by the daemon or by a command."""

    def load_checkpoint(self) -> bytes | None:
        """The file's bytes, None without a file. Raises `CheckpointBroken` if it cannot be read."""

    def save_checkpoint(self, data: bytes) -> None:
        """Replace it atomically; bytes that are already there are not written again."""

    def set_checkpoint_aside(self) -> None:
        """Rename a file that cannot be parsed."""

    def append_history(self, lines: Sequence[bytes], *, durable: bool = True) -> None:
        """Append whole lines and make them durable, rotating by size. Raises `HistoryFailed`.

        Inside of `join_syncs` they are durable before the books are changed, which raises then.
        With `durable` False they are durable with the next ones, or after `sync_history`.
        """

    def sync_history(self) -> None:
        """Make every line that this process has appended durable. Raises `HistoryFailed`."""

    def join_syncs(self) -> AbstractContextManager[None]:
        """For a change and its entries: syncs that need no order are made together.

        At the end all is durable.
        """

    def read_new_history(self) -> Iterable[bytes]:
        """The last lines, if others added some since `mark_history_read`; else nothing.

        Enough of them to see every entry that a process which was killed left open.
        """

    def mark_history_read(self) -> None:
        """From now on only lines that others append are new."""

    def read_history(self) -> Iterable[bytes]:
        """Every line there is, oldest first."""

    def read_history_from(self, place: HistoryPlace | None) -> Iterable[tuple[HistoryPlace, bytes]]:
        """The whole lines from a place on, each with the place after it; from None, every line."""

    def remove_leftovers(self) -> None:
        """Remove the temporary files of killed writers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Everything a pass touches. `gpu` is None with `gpu.source = "none"`.

    `published` and `running` are for the allocator; a pass observes by itself. `owners` None: there
    is no such file. `device_rules` None: nobody wants to know them. `actor`: the user who
    makes the changes (decision 123).
    """

    clock: Clock
    engine: EnginePort
    gpu: GpuPort | None
    processes: ProcessTable
    reserving: ReservingTable
    state: StateBook
    metadata: MetadataBook
    operations: OperationsPort
    allocations: AllocationsPort
    limits: LimitsPort
    passwd: Passwd
    state_dir: StateDir
    published: Published | None = None
    running: RunningPort | None = None
    owners: OwnersPort | None = None
    device_rules: DeviceRulesPort | None = None
    actor: Actor | None = None

    @property
    def person_uid(self) -> int | None:
        """Whose containers short names mean first; None: nobody's."""
        return None if self.actor is None else self.actor.person_uid
