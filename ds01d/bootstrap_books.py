"""Joins the parts that booking needs: the books, the limits, NVML, what lives in Docker.

The allocator is called by scripts, again and again: each part is imported and made when it is
first used. Holds no logic of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from ds01d.config import Config
from ds01d.errors import NotPermitted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ds01d.adapters.books.allocations_log import AllocationsLog
    from ds01d.adapters.books.limits import LimitsFile
    from ds01d.adapters.books.operations_log import OperationsLog
    from ds01d.adapters.books.state_file import StateFile
    from ds01d.adapters.docker.running_containers import RunningContainers
    from ds01d.adapters.host.clocks import HostClock
    from ds01d.adapters.host.users import UserDatabase
    from ds01d.adapters.nvml.sampler import NvmlSampler
    from ds01d.model.actor import Actor
    from ds01d.model.books import AllocatorState, BadRecord, Record
    from ds01d.model.primitives import ContainerName, Unknown
    from ds01d.reconcile.allocator import Allocator
    from ds01d.reconcile.books_ports import MetadataBook, StateBook
    from ds01d.reporting.published_status import PublishedStatus
    from ds01d.service.allocator_client import SlotAllocator
    from ds01d.service.operations_client import RemoteOperations

    Records = Mapping[ContainerName, Record | BadRecord]

SYSLOG_PATIENCE_S = 1.0


class BooksOnly:
    """The world of the allocator: `reconcile.ports.BooksWorld`."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.state: StateBook = self.open_state_file()
        self._sampler: NvmlSampler | None = None

    def open_state_file(self) -> StateFile:
        """The file of the state; with Docker as the books, that of the reservations."""
        from ds01d.adapters.books.state_file import StateFile  # noqa: PLC0415 - see above

        books = self._config.books
        # The copies of one kind must not be taken for those of the other (decision 202).
        copy = "gpu-state" if books.kind == "files" else books.state.stem
        return StateFile(
            books.state,
            self._config.daemon.state_dir,
            books.lock_timeout_s,
            copy=copy,
            is_shared=not self._config.is_only_writer,
        )

    @cached_property
    def metadata(self) -> MetadataBook:
        from ds01d.adapters.books.metadata_dir import MetadataDirectory  # noqa: PLC0415

        return MetadataDirectory(
            self._config.books.metadata,
            self._config.daemon.state_dir,
            is_shared=not self._config.is_only_writer,
        )

    @cached_property
    def clock(self) -> HostClock:
        from ds01d.adapters.host.clocks import HostClock  # noqa: PLC0415 - see above

        return HostClock()

    @cached_property
    def allocations(self) -> AllocationsLog:
        from ds01d.adapters.books.allocations_log import AllocationsLog  # noqa: PLC0415

        return AllocationsLog(self._config.logs.allocations)

    @cached_property
    def operations(self) -> OperationsLog:
        return self.open_operations_log(SYSLOG_PATIENCE_S)

    def open_operations_log(self, patience_s: float) -> OperationsLog:
        """The operations log with its copies; a line may wait so long for a busy syslog."""
        from ds01d.adapters.books.events_file import EventsFile  # noqa: PLC0415 - see above
        from ds01d.adapters.books.operations_log import OperationsLog  # noqa: PLC0415
        from ds01d.reporting.operations_journal import OperationsJournal  # noqa: PLC0415

        logs = self._config.logs
        journal = (OperationsJournal(patience_s=patience_s),) if logs.syslog else ()
        events = (EventsFile(logs.events_path),) if logs.events_path is not None else ()
        return OperationsLog(logs.operations, *journal, *events)

    @property
    def actor(self) -> Actor:
        from ds01d.adapters.host.callers import current_actor  # noqa: PLC0415

        return current_actor()

    @cached_property
    def limits(self) -> LimitsFile:
        from ds01d.adapters.books.limits import NO_LIMITS, LimitsFile  # noqa: PLC0415

        books = self._config.books
        # Decision 206: a lab that has Docker and GPUs and nothing else has no limits either.
        return LimitsFile(books.limits, NO_LIMITS if books.kind == "docker" else None)

    @cached_property
    def passwd(self) -> UserDatabase:
        from ds01d.adapters.host.users import UserDatabase  # noqa: PLC0415 - see above

        return UserDatabase()

    @cached_property
    def published(self) -> PublishedStatus | None:
        """None where no daemon has ever spoken."""
        if not (self._config.daemon.state_dir / "status.json").exists():
            return None
        from ds01d.reporting.published_status import PublishedStatus  # noqa: PLC0415

        return PublishedStatus(self._config)

    @cached_property
    def running(self) -> RunningContainers:
        from ds01d.adapters.docker.running_containers import RunningContainers  # noqa: PLC0415

        docker, grace_s = self._config.docker, self._config.policy.creation_grace_s
        return RunningContainers(docker.url, docker.timeout_s, grace_s)

    @property
    def gpu(self) -> NvmlSampler | None:
        """NVML; which container a process is of does not matter to the allocator."""
        if self._config.gpu.source == "nvml" and self._sampler is None:
            from ds01d.adapters.host.clocks import read_boottime  # noqa: PLC0415
            from ds01d.adapters.host.processes import Processes  # noqa: PLC0415
            from ds01d.adapters.nvml.sampler import NvmlSampler  # noqa: PLC0415

            processes = Processes()
            self._sampler = NvmlSampler(
                timeout_s=self._config.gpu.timeout_s,
                boot_clock=read_boottime,
                find_processes=processes.look_up,
                pid_max=lambda: processes.pid_max,
            )
        return self._sampler

    def close(self) -> None:
        if self._sampler is not None:
            self._sampler.close()


@contextmanager
def open_books(config: Config) -> Iterator[BooksOnly]:
    """The books, for commands that only read."""
    world = BooksOnly(config)
    if config.books.kind == "docker":
        _show_published_books(world, config)
    try:
        yield world
    finally:
        world.close()


def _show_published_books(world: BooksOnly, config: Config) -> None:
    """With Docker as the books: what ds01d published, since not everybody may ask Docker."""
    from ds01d.reconcile.derived_ports import DerivedRecords, DerivedState  # noqa: PLC0415
    from ds01d.reporting.published_books import read_published_books  # noqa: PLC0415

    state, metadata = world.state, world.metadata

    def read() -> tuple[AllocatorState | Unknown, Records]:
        return read_published_books(config, state.read(), metadata.read(), world.limits.read())

    world.state = DerivedState(state, lambda: read()[0], state.lock)
    world.metadata = DerivedRecords(metadata, lambda: read()[1])


@contextmanager
def open_allocator(config: Config) -> Iterator[SlotAllocator]:
    """The allocator of the daemon; where none listens, one of our own for those who may write.

    Raises `NotPermitted` for those who may not change the books. Root books as the service's user.
    """
    from ds01d.service.allocator_client import RemoteAllocator  # noqa: PLC0415 - others need none
    from ds01d.service.client import find_service  # noqa: PLC0415

    service = find_service(config.booking_socket, RemoteAllocator)
    if service is not None:
        yield service
        return
    with _open_own_allocator(config) as allocator:
        yield allocator


@contextmanager
def _open_own_allocator(config: Config) -> Iterator[Allocator]:
    from ds01d.adapters.files import permissions  # noqa: PLC0415
    from ds01d.adapters.host import run_as_owner  # noqa: PLC0415
    from ds01d.reconcile.allocator import Allocator  # noqa: PLC0415

    unreachable = f"cannot reach ds01d at {config.booking_socket} (is ds01d running?)"
    # Decision 205: what a container had while nobody watched, only ds01d's checkpoint has.
    if config.books.kind == "docker":
        raise NotPermitted(f"{unreachable}; with Docker as the books, only ds01d books")
    run_as_owner.act_as_owner(config.daemon.state_dir)
    state = config.books.state
    lock = state.with_name(f"{state.name}.lock")
    try:
        permissions.require_access(
            (state.parent, config.books.metadata),
            (state, lock),
            is_shared=config.books.writers == "group",
        )
    except NotPermitted as error:
        if config.booking_socket is None:
            raise
        raise NotPermitted(f"{unreachable}; {error}") from error
    with open_books(config) as world:
        yield Allocator(world, config)


def find_operations(config: Config) -> RemoteOperations | None:
    """The operations of the daemon; None where none listens. Also in mode observe."""
    from ds01d.service.client import find_service  # noqa: PLC0415 - others need no socket
    from ds01d.service.operations_client import RemoteOperations  # noqa: PLC0415

    return find_service(config.service.path, RemoteOperations)
