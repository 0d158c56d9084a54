"""A host on which everything happens that ds01d can tell of, and the entries that come of it.

`everything` runs the real deciding, settling and telling on hosts in memory.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import msgspec
import structlog

from ds01d.adapters.docker.engine_warnings import (
    warn_no_lasting_id,
    warn_stream_cut,
    warn_stream_lossy,
    warn_stream_refused,
)
from ds01d.daemon.fleet_log import FleetLog
from ds01d.daemon.report_log import ReportLogger
from ds01d.errors import LockTimeout
from ds01d.model.books import AllocatorState, Unreadable
from ds01d.model.checkpoint import Freeze
from ds01d.model.device_access import DeviceAccess, DeviceRule
from ds01d.model.drift import FindingKind, Kind, Outcome
from ds01d.model.fleet_books import EntryPhase, FleetEntry, NodeId
from ds01d.model.fleet_drift import (
    FleetAction,
    FleetDrift,
    FleetDriftKind,
    FleetFinding,
    FleetFindingKind,
    GatedFleetDrift,
    Membership,
    MembershipState,
)
from ds01d.model.primitives import (
    LOCAL_SOURCES,
    BookingId,
    Boot,
    ContainerId,
    ContainerName,
    Digest,
    Source,
    UserName,
    Wall,
)
from ds01d.reconcile.checkpoint_store import CheckpointStore
from ds01d.reconcile.fleet_report import FleetReport
from ds01d.reconcile.ports import World
from ds01d.reconcile.reconciler import Reconciler
from ds01d.reporting import logs
from ds01d.reporting.message_ids import Event
from tests.decide.test_diff import DRIFTS, ODDITIES, Place, broken, host_with, places, running
from tests.support.build import NAME, Life, config
from tests.support.world import Host

Entry = Mapping[str, str]
MINUTE = 60.0


class Entries:
    """Takes what `sendv` would take."""

    def __init__(self) -> None:
        self.all: list[Entry] = []

    def __call__(self, *fields: str) -> None:
        self.all.append(dict(field.split("=", 1) for field in fields))

    def of(self, *events: str) -> list[Entry]:
        return [one for one in self.all if one["DS01_EVENT"] in events]


class Watched:
    """A host in memory with passes that are told, sweep by sweep."""

    def __init__(self, life: Life) -> None:
        self.life = life
        self.host = life.host
        self.teller = ReportLogger()
        self._denied: frozenset[ContainerId] = frozenset()

    def deny(self, *containers: str) -> None:
        """From now on these containers can open no device; all others can."""
        self._denied = frozenset(map(ContainerId, containers))

    def read_access(
        self, containers: Collection[ContainerId]
    ) -> Mapping[ContainerId, DeviceAccess]:
        anything = frozenset({DeviceRule(None, None)})
        return {
            one: DeviceAccess(rules=frozenset() if one in self._denied else anything)
            for one in containers
        }

    def sweep(self, seconds: float = MINUTE, names: frozenset[ContainerName] | None = None) -> None:
        """Let time pass, then make a pass over everything, or over `names`."""
        self.host.pass_time(seconds)
        world = replace(self.host.world(), device_rules=self)
        report = Reconciler(world, self.life.config).run(names)
        self.teller.log_report(report, self.life.config.policy)

    def sweeps(self, minutes: float) -> None:
        for _ in range(int(minutes)):
            self.sweep()

    def remember(self, change: Callable[[Any], Any]) -> None:
        """Change what passes remember, as ds01ctl does."""
        store = CheckpointStore(self.host.world().state_dir)
        memory, lost = store.load()
        assert not lost
        store.save(change(memory))


def everything() -> None:
    """All that a teller has words for, on hosts of its own; into the log that is set up."""
    _drifts_and_findings()
    _overdue_hold()
    _idle_holder()
    _device_lost()
    _sources()
    _what_holds_everything()
    _failures()
    _commands()
    _fleet()


def _fleet() -> None:
    """What becomes of a host in its fleet, and all that may be wrong there."""
    log, at = FleetLog(), Wall(1_800_000_000.0)
    node = NodeId("n-1")
    entry = FleetEntry(
        user=UserName("alice"),
        node=node,
        booking=BookingId("r-0123456789ab"),
        container=ContainerName(NAME),
        phase=EntryPhase.HELD,
        count=1,
        sevenths=1,
        since=at,
    )
    drifts = tuple(
        GatedFleetDrift(
            drift=FleetDrift(
                kind=kind, action=FleetAction.WITHDRAW, entry=entry, reason="the books lack it"
            ),
            outcome=Outcome.DONE,
            first_seen=Boot(1.0),
        )
        for kind in FleetDriftKind
    )
    findings = tuple(
        FleetFinding(kind=kind, subject="alice", reason="3 of 2 slots") for kind in FleetFindingKind
    )
    states = MembershipState
    for state in (states.MEMBER, states.AWAY, states.MEMBER, states.FENCED, states.RESTORED):
        membership = Membership(state=state, since=at, reason="no member of etcd answers")
        report = FleetReport(
            at=at, membership=membership, node=node, drifts=drifts, findings=findings
        )
        log.log_report(report, membership)


def _commands() -> None:
    """What somebody does to the books; the operations log has these fields then."""
    for operation in ("allocate", "release", "mark-stopped", "freeze", "thaw", "undo"):
        structlog.get_logger().info(
            Event.BOOKING_CHANGED,
            operation=operation,
            container="train._.1001",
            slot="1.2",
            user="alice",
            outcome="success",
            uid=0,
            login="root",
            pid=4711,
            sudo_uid=1001,
            sudo_login="alice",
        )


def _drifts_and_findings() -> None:
    count = len(DRIFTS) + len(ODDITIES) + 2
    life = host_with(count)
    # The graces are those of a server, and every wait is long enough to be told.
    watched = Watched(life)
    kinds: list[Kind | FindingKind] = [one.kind for one in DRIFTS]
    kinds += [one.kind for one in ODDITIES]
    everywhere = places(life, [*kinds, Kind.UNREADABLE_METADATA, Kind.WRONG_COUNT])
    link, undone = everywhere[-2:]
    faulty = list(zip(DRIFTS, everywhere, strict=False))
    running(undone)
    for fault, place in faulty:
        fault.before(place)
    watched.sweeps(5)
    watched.remember(lambda m: replace(m, freezes=_freeze(watched.host)))
    running(link)
    broken(link, replaceable=False)
    for fault, place in faulty:
        fault.fault(place)
    for odd, place in zip(ODDITIES, everywhere[len(DRIFTS) :], strict=False):
        odd.fault(place)
    watched.sweeps(20)
    watched.remember(lambda m: replace(m, freezes={}))
    watched.sweeps(20)
    for _ in range(12):
        undone.write_slot(undone.first, users={"alice": 5})
        watched.sweep(6.0)
    _mend(life, link)
    watched.sweeps(5)


def _overdue_hold() -> None:
    """A hold that is over, where that is only reported."""
    settings = config()
    policy = msgspec.structs.replace(settings.policy, expired_holds="report")
    life = Life(msgspec.structs.replace(settings, policy=policy)).book("1.0").run("MIG-1-0")
    watched = Watched(life)
    watched.sweeps(3)
    life.stop()
    watched.sweeps(20)
    life.remove()
    watched.sweeps(20)


def _idle_holder() -> None:
    """A container that uses nothing for a while, and then does."""
    settings = config()
    policy = msgspec.structs.replace(settings.policy, idle_after_s=600.0)
    life = Life(msgspec.structs.replace(settings, policy=policy)).book("1.0").run("MIG-1-0")
    watched = Watched(life)
    watched.sweeps(12)
    life.use("MIG-1-0", f"id-{NAME}")
    watched.sweeps(6)


def _device_lost() -> None:
    """A container whose cgroup allows nothing, until it is removed."""
    watched = Watched(Life().book("1.0").run("MIG-1-0"))
    watched.sweeps(2)
    watched.deny(f"id-{NAME}")
    watched.sweeps(3)
    watched.life.remove()
    watched.sweeps(8)


def _mend(life: Life, link: Place) -> None:
    """Somebody puts right by hand what could only be told."""
    assert life.host.gpu is not None
    gpus = tuple(replace(one, health=()) for one in life.host.gpu.gpus)
    life.set_gpu(gpus=gpus, processes=())
    life.remove("vscode")
    life.host.records.pop(link.name)
    life.host.state = replace(_state(life.host), digest=Digest("by hand"))


def _sources() -> None:
    life = host_with(1)
    watched = Watched(life)
    watched.sweeps(3)
    for source in LOCAL_SOURCES:
        life.fail(source)
        watched.sweeps(3)
        life.mend()
        watched.sweeps(3)
    for number in range(40):  # it comes and goes, and then it is steady
        watched.host.failing = {Source.DOCKER} if number % 2 else set()
        watched.sweep()
    life.mend()
    watched.sweeps(90)


def _what_holds_everything() -> None:
    life = host_with(8)
    everywhere = places(life, [Kind.STALE_ALLOCATION] * 8)
    everywhere = [replace(p, name=ContainerName(f"c{p.g}._.1001")) for p in everywhere]
    for place in everywhere:
        running(place)
    life.config = msgspec.structs.replace(
        life.config, policy=msgspec.structs.replace(life.config.policy, pace_count=2)
    )
    watched = Watched(life)
    watched.sweeps(20)
    trusted = life.host.identity
    life.host.identity = replace(trusted, id="ANOTHER-ENGINE")
    watched.sweeps(3)
    life.host.identity = trusted
    life.host.warnings = (
        warn_no_lasting_id("/data"),
        warn_stream_cut(60.0, bridged=True),
        warn_stream_refused("403"),
        warn_stream_lossy(),
    )
    watched.sweeps(3)
    life.host.warnings = ()
    life.set_gpu(gpus=_gpus(life)[:-1])
    watched.sweeps(6)
    for place in everywhere:
        life.remove(place.name, told=False)
    watched.sweeps(60)


def _failures() -> None:
    life = host_with(8)
    everywhere = [
        replace(p, name=ContainerName(f"c{p.g}._.1001"))
        for p in places(life, [Kind.STALE_ALLOCATION] * 8)
    ]
    for place in everywhere:
        running(place)
    watched = Watched(life)
    watched.sweeps(20)
    host = life.host

    host.unwritable = {"history"}
    life.remove(everywhere[0].name, told=False)
    watched.sweeps(10)
    host.unwritable = {"operations"}
    watched.sweeps(20)
    host.unwritable = {f"metadata {everywhere[1].name}"}
    life.remove(everywhere[1].name, told=False)
    watched.sweeps(10)
    host.unwritable = {"state"}
    for place in everywhere[2:]:
        life.remove(place.name, told=False)
    watched.sweeps(10)
    host.unwritable.clear()
    watched.sweeps(10)

    good = _state(host)
    host.state = Unreadable(reason="line 1: torn", digest=Digest("x"), last_good=good)
    watched.remember(lambda m: replace(m, freezes=_freeze(host)))
    watched.sweeps(2)
    watched.remember(lambda m: replace(m, freezes={}))
    watched.sweeps(2)
    host.memory = b"torn"
    watched.sweeps(2)

    now = host.world().clock.now().boot
    watched.teller.log_failed_pass(LockTimeout("the lock was not free"), now, expected=True)
    watched.teller.log_failed_pass(RuntimeError("a mistake"), now, expected=False)
    watched.sweeps(2)
    slow = Reconciler(_slow(host), life.config).run()
    watched.teller.log_report(slow, life.config.policy)
    watched.sweeps(2)


def _slow(host: Host) -> World:
    """The world of a host whose GPUs take half a minute to answer."""
    world = host.world()
    gpu = world.gpu
    assert gpu is not None
    sample = gpu.sample

    def slowly(**how: Any) -> Any:
        host.pass_time(30.0)
        return sample(**how)

    gpu.sample = slowly  # type: ignore[method-assign]
    return world


def _freeze(host: Host) -> Mapping[str, Freeze]:
    until = Wall(host.wall + 7200)
    one = Freeze(subject="*", by="root", reason="moving disks", since=Wall(host.wall), until=until)
    return {"*": one}


def _state(host: Host) -> AllocatorState:
    assert isinstance(host.state, AllocatorState)
    return host.state


def _gpus(life: Life) -> Any:
    assert life.host.gpu is not None
    return life.host.gpu.gpus


@contextmanager
def collected() -> Iterator[Entries]:
    """The log goes to `Entries` for as long as this lasts."""
    entries = Entries()
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    logs.setup_logging("journal", "debug", send=entries)
    try:
        yield entries
    finally:
        structlog.reset_defaults()
        logging.getLogger().handlers[:] = handlers
        logging.getLogger().setLevel(level)
