"""A host in memory: every port of a pass, with faults, and a clock that tests move.

Small enough to trust by reading. It keeps the ports' contracts (digests, `BooksChanged`, an Unknown
for a source that fails), so that deciding and settling run unchanged on it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace

from ds01d.errors import BooksChanged, HistoryFailed, WriteFailed
from ds01d.model.actor import Actor
from ds01d.model.books import AllocatorState, Attempt, BadRecord, LogLine, Record, Slot, Unreadable
from ds01d.model.containers import (
    Container,
    Destroyed,
    Engine,
    EngineIdentity,
    EngineWarning,
    NotFound,
)
from ds01d.model.devices import GpuProcess, Inventory
from ds01d.model.limits import HoldRule, Limits
from ds01d.model.primitives import (
    BookingId,
    Boot,
    ContainerId,
    ContainerName,
    Digest,
    Now,
    SlotId,
    Source,
    Unknown,
    UserName,
    Wall,
)
from ds01d.model.reservation import ProcessState, ReservingProcess
from ds01d.reconcile.books_ports import NO_TEXTS
from ds01d.reconcile.ports import World

IDENTITY = EngineIdentity(id="ENGINE", root_dir="/var/lib/docker", inode=7, device=8)
WALL = 1_800_000_000.0
BOOT = 100_000.0
ALWAYS = Limits(
    holds={},
    unknown_user=HoldRule(seconds=900.0, source="defaults"),
    priorities={},
    default_priority=10,
)


class Died(BaseException):
    """The process was killed at this point: nothing after it ran."""


@dataclass
class Host:
    """The reality and the books of one host; everything may be changed by a test at any time."""

    containers: dict[ContainerId, Container] = field(default_factory=dict)
    destroyed: dict[ContainerName, Destroyed] = field(default_factory=dict)
    gpu: Inventory | None = None
    state: AllocatorState | Unreadable = field(
        default_factory=lambda: AllocatorState(slots={}, mig_enabled=True, digest=Digest("0"))
    )
    records: dict[ContainerName, Record | BadRecord] = field(default_factory=dict)
    attempts: dict[ContainerName, Attempt] = field(default_factory=dict)
    limits: Limits = ALWAYS
    passwd: dict[int, str] = field(default_factory=dict)
    owners: dict[ContainerId, UserName] = field(default_factory=dict)
    identity: EngineIdentity = IDENTITY
    warnings: tuple[EngineWarning, ...] = ()
    since: float = 0.0
    instance: str = "1:1"
    wall: float = WALL
    boot: float = BOOT
    boot_id: str = "boot-1"
    failing: set[Source] = field(default_factory=set)
    unwritable: set[str] = field(default_factory=set)
    memory: bytes | None = None
    history: list[bytes] = field(default_factory=list)
    operations: list[LogLine] = field(default_factory=list)
    allocations: list[str] = field(default_factory=list)
    die_at: int | None = None
    steps: int = 0
    before_write: Callable[[], None] | None = None
    read_lines: int = 0
    living: dict[ContainerId, int] | Unknown = field(default_factory=dict)
    asker: ReservingProcess | Unknown | None = None
    processes: dict[ReservingProcess, ProcessState] = field(default_factory=dict)
    looked_for_living: list[frozenset[ContainerId]] = field(default_factory=list)
    on_look: Callable[[int], None] | None = None
    slots_told: dict[str, Slot] = field(default_factory=dict)
    actor: Actor | None = None
    records_told: dict[str, Record | BadRecord] = field(default_factory=dict)

    def pass_time(self, seconds: float) -> None:
        self.wall += seconds
        self.boot += seconds

    def step(self) -> None:
        """A point at which the process may be killed: before and after each write."""
        self.steps += 1
        if self.die_at is not None and self.steps > self.die_at:
            raise Died

    def may_write(self, what: str) -> None:
        if what in self.unwritable:
            raise WriteFailed(f"{what} was not written: no space left on device")

    def run(self, container: Container) -> None:
        self.containers[container.id] = container
        self.destroyed.pop(container.name, None)

    def remove(self, name: str, *, told: bool = True) -> None:
        """Remove a container, with or without a `destroy` event."""
        found = next(c for c in self.containers.values() if c.name == name)
        del self.containers[found.id]
        if told:
            event = Destroyed(id=found.id, name=found.name, at=Boot(self.boot))
            self.destroyed[found.name] = event

    def change(self, name: str, /, **fields: object) -> None:
        found = next(c for c in self.containers.values() if c.name == name)
        self.containers[found.id] = replace(found, **fields)  # type: ignore[arg-type]

    def bookings(self) -> set[tuple[str, str]]:
        assert isinstance(self.state, AllocatorState)
        return {(c, s.id) for s in self.state.slots.values() for c in s.containers}

    def world(self) -> World:
        """The ports; each call is a fresh process as far as in-memory caches go."""
        return World(
            clock=_Clock(self),
            engine=_Engine(self),
            gpu=None if self.gpu is None and Source.NVML not in self.failing else _Gpu(self),
            processes=_Processes(self),
            reserving=_Reserving(self),
            state=_State(self),
            metadata=MetadataInMemory(self),
            operations=_Operations(self),
            allocations=_Allocations(self),
            limits=_Limits(self),
            passwd=_Passwd(self),
            owners=_Owners(self),
            state_dir=_Own(self),
            actor=self.actor,
        )


@dataclass
class _Port:
    host: Host

    def failure(self, source: Source) -> Unknown | None:
        if source in self.host.failing:
            return Unknown(source=source, reason=f"{source} does not answer")
        return None


class _Clock(_Port):
    def now(self) -> Now:
        return Now(wall=Wall(self.host.wall), boot=self.read_boot(), boot_id=self.host.boot_id)

    def read_boot(self) -> Boot:
        return Boot(self.host.boot)


class _Engine(_Port):
    def observe(self, names: frozenset[ContainerName] | None) -> Engine | Unknown:
        host = self.host
        return self.failure(Source.DOCKER) or Engine(
            identity=host.identity,
            instance=host.instance,
            since=Boot(host.since),
            containers=dict(host.containers),
            destroyed=dict(host.destroyed),
            by_name={c.name: c for c in host.containers.values()},
            warnings=host.warnings,
        )

    def look_up(
        self, name: ContainerName, known_id: ContainerId | None
    ) -> Container | NotFound | Unknown:
        failed = self.failure(Source.DOCKER)
        if failed is not None:
            return failed
        by_id = self.host.containers.get(known_id) if known_id is not None else None
        by_name = next((c for c in self.host.containers.values() if c.name == name), None)
        return by_id or by_name or NotFound()

    def list_claimants(self, booking: BookingId | None) -> frozenset[ContainerId] | Unknown:
        listed = self.host.containers.values()
        claimants = (c for c in listed if booking in (None, c.claimed_booking))
        return self.failure(Source.DOCKER) or frozenset(c.id for c in claimants)


class _Gpu(_Port):
    def sample(self, *, not_before: Boot) -> Inventory | Unknown:
        failed = self.failure(Source.NVML)
        if failed is not None:
            return failed
        assert self.host.gpu is not None
        return replace(self.host.gpu, sampled_at=Boot(self.host.boot))

    def prefetch(self) -> None:
        pass

    def read_faults(self) -> Mapping[str, str]:
        return {}


class _Processes(_Port):
    def find_living(
        self, containers: frozenset[ContainerId]
    ) -> Mapping[ContainerId, int] | Unknown:
        self.host.looked_for_living.append(containers)
        if self.host.on_look is not None:
            self.host.on_look(len(self.host.looked_for_living))
        if isinstance(self.host.living, Unknown):
            return self.host.living
        return {one: pid for one, pid in self.host.living.items() if one in containers}


class _Reserving(_Port):
    def find_asker(self, client: int, uid: int) -> ReservingProcess | Unknown | None:
        return self.host.asker

    def find_states(
        self, processes: Iterable[ReservingProcess]
    ) -> Mapping[ReservingProcess, ProcessState]:
        return {one: self.host.processes.get(one, ProcessState.ENDED) for one in processes}


class _State(_Port):
    def read(self) -> AllocatorState | Unreadable | Unknown:
        return self.failure(Source.STATE) or self.host.state

    def save_last_good(self) -> None:
        pass

    @contextmanager
    def lock(self) -> Iterator[None]:
        yield

    def slot_texts(self, slots: Iterable[SlotId]) -> Mapping[SlotId, str]:
        state = self.host.state
        there = state.slots if isinstance(state, AllocatorState) else {}
        told = {name: repr(there[name]) for name in slots if name in there}
        self.host.slots_told |= {text: there[name] for name, text in told.items()}
        return told

    def parse_slot(self, name: SlotId, text: str) -> Slot:
        return self.host.slots_told[text]

    def restore_broken(self, digest: Digest, *, onto: Digest) -> None:
        host = self.host
        host.step()
        good = host.state
        assert isinstance(good, AllocatorState)
        if good.digest != onto:
            raise BooksChanged("the state changed meanwhile")
        host.state = Unreadable(reason="broken again", digest=digest, last_good=good)
        host.step()

    def write(
        self, state: AllocatorState, *, onto: Digest, texts: Mapping[SlotId, str] = NO_TEXTS
    ) -> AllocatorState:
        host = self.host
        host.step()
        host.may_write("state")
        if host.before_write is not None:
            host.before_write()
        if host.state.digest != onto:
            raise BooksChanged("the state changed meanwhile")
        digest = Digest(str(next(_numbers)))
        host.state = replace(state, digest=digest, merge=frozenset())
        host.step()
        return host.state


class MetadataInMemory(_Port):
    def read(
        self,
        names: frozenset[ContainerName] | None = None,
    ) -> Mapping[ContainerName, Record | BadRecord] | Unknown:
        return self.failure(Source.METADATA) or dict(self.host.records)

    def is_current(self) -> bool:
        return False

    def read_text(self, name: ContainerName) -> str | None:
        record = self.host.records.get(name)
        return None if record is None else self._told(record)

    def render_record(self, record: Record, *, base: ContainerName | None = None) -> str:
        return self._told(_written(record))

    def restore_text(self, name: ContainerName, text: str | None, *, onto: Digest | None) -> None:
        if text is None:
            if onto is not None:
                self.remove(name, onto=onto)
            return
        self._expect(name, onto)
        self.host.step()
        self.host.may_write(f"metadata {name}")
        digest = Digest(str(next(_numbers)))
        self.host.records[name] = replace(self.host.records_told[text], digest=digest)
        self.host.step()

    def _told(self, record: Record | BadRecord) -> str:
        text = repr(replace(record, digest=Digest("")))
        self.host.records_told[text] = record
        return text

    def write(self, record: Record, *, onto: Digest | None) -> None:
        self._expect(record.container, onto)
        self.host.step()
        self.host.may_write(f"metadata {record.container}")
        digest = Digest(str(next(_numbers)))
        self.host.records[record.container] = replace(_written(record), digest=digest)
        self.host.step()

    def remove(self, name: ContainerName, *, onto: Digest) -> None:
        self._expect(name, onto)
        self.host.step()
        self.host.may_write(f"metadata {name}")
        del self.host.records[name]
        self.host.step()

    def remove_leftovers(self) -> None:
        pass

    def _expect(self, name: ContainerName, onto: Digest | None) -> None:
        there = self.host.records.get(name)
        if (there.digest if there is not None else None) != onto:
            raise BooksChanged(f"the metadata of {name} changed meanwhile")


def _written(record: Record) -> Record:
    """A record as it is in the file: with its times as text."""
    stopped = None if record.stopped_at is None else f"at {record.stopped_at}"
    return replace(
        record,
        allocated_text=record.allocated_text or f"at {record.allocated_at}",
        stopped_text=record.stopped_text or stopped,
    )


class _Operations(_Port):
    def read(self) -> Mapping[ContainerName, Attempt] | Unknown:
        return self.failure(Source.OPERATIONS) or dict(self.host.attempts)

    def append(self, line: LogLine) -> None:
        self.host.may_write("operations")
        self.host.operations.append(line)


class _Allocations(_Port):
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
        self.host.may_write("allocations")
        self.host.allocations.append(f"{event}|{user}|{container}|{gpu}|{priority}|{reason}")


class _Limits(_Port):
    def read(self) -> Limits | Unknown:
        return self.failure(Source.LIMITS) or self.host.limits


class _Passwd(_Port):
    def find_logins(self, uids: frozenset[int]) -> Mapping[int, str]:
        return {uid: name for uid, name in self.host.passwd.items() if uid in uids}

    def find_uids(self, names: frozenset[str]) -> Mapping[str, int]:
        return {name: uid for uid, name in self.host.passwd.items() if name in names}


class _Owners(_Port):
    def read(self) -> Mapping[ContainerId, UserName]:
        return self.host.owners


class _Own(_Port):
    @contextmanager
    def lock(self) -> Iterator[None]:
        yield

    def load_checkpoint(self) -> bytes | None:
        return self.host.memory

    def save_checkpoint(self, data: bytes) -> None:
        self.host.step()
        self.host.may_write("memory")
        self.host.memory = data
        self.host.step()

    def set_checkpoint_aside(self) -> None:
        self.host.memory = None

    def join_syncs(self) -> AbstractContextManager[None]:
        return nullcontext()

    def append_history(self, lines: Sequence[bytes], *, durable: bool = True) -> None:
        self.host.step()
        if "history" in self.host.unwritable:
            raise HistoryFailed("the history was not written: no space left on device")
        self.host.history.extend(lines)
        self.host.step()

    def sync_history(self) -> None:
        pass

    def read_new_history(self) -> Sequence[bytes]:
        return [] if len(self.host.history) == self.host.read_lines else list(self.host.history)

    def mark_history_read(self) -> None:
        self.host.read_lines = len(self.host.history)

    def read_history(self) -> Sequence[bytes]:
        return list(self.host.history)

    def read_history_from(
        self, place: tuple[int, int] | None
    ) -> Iterator[tuple[tuple[int, int], bytes]]:
        first = 0 if place is None else place[1]
        for number, line in enumerate(self.host.history[first:], first + 1):
            yield (1, number), line

    def remove_leftovers(self) -> None:
        pass


_numbers = itertools.count(1)

__all__ = [
    "ALWAYS",
    "BOOT",
    "IDENTITY",
    "WALL",
    "Died",
    "GpuProcess",
    "Host",
    "MetadataInMemory",
    "UserName",
]
