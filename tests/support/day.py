"""The real daemon on a host in memory, a minute of whose time passes from sweep to sweep.

As a program it runs one of `STORIES` and logs as the daemon does: to the journal that its stderr is
connected to, or as lines of JSON.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import msgspec
import structlog
from systemd import journal

from ds01d.config import Config
from ds01d.daemon.logged_lines import LoggedLines
from ds01d.daemon.loop import Daemon
from ds01d.daemon.session_parts import OnChange, OnEvent, SessionParts
from ds01d.daemon.systemd import Supervisor
from ds01d.errors import ConfigError
from ds01d.model.books import AllocatorState, Attempt, LogLine
from ds01d.model.containers import Engine, State
from ds01d.model.primitives import ContainerName, Digest, Unknown, Wall
from ds01d.reporting import logs
from ds01d.service.client import INTERFACE
from ds01d.service.dispatch import serve_call
from ds01d.service.requests import PendingCall
from ds01d.service.rules import Peer
from ds01d.service.status_calls import StatusCalls
from ds01d.service.varlink import MethodCall
from tests.decide.test_diff import host_with
from tests.support.build import Life
from tests.support.telling import MINUTE, everything
from tests.support.world import Host

DAY = 1440


@dataclass
class _Operations:
    """The log of a host in memory; nobody follows its lines here."""

    host: Host

    def follow(self, listener: LoggedLines) -> None:
        listener.begin()

    def read(self) -> Mapping[ContainerName, Attempt] | Unknown:
        return self.host.world().operations.read()

    def flush(self) -> tuple[bool, tuple[str, ...]]:
        return True, ()

    def append_all(self, lines: Iterable[LogLine]) -> None:
        for line in lines:
            self.host.world().operations.append(line)


class Day:
    """The real daemon, whose every sweep comes a minute of its host's time after the one before.

    `each(number)` is called after each sweep; after `sweeps` of them the daemon is told to stop.
    """

    def __init__(
        self,
        host: Host,
        folder: Path,
        *,
        sweeps: int,
        each: Callable[[int], object],
        settings: Config | None = None,
    ) -> None:
        config = settings or Config()
        self.config = msgspec.structs.replace(
            config,
            daemon=msgspec.structs.replace(
                config.daemon, state_dir=folder, sweep_interval_s=0.001, sweep_jitter_s=0.0
            ),
        )
        self.host, self.sweeps, self.each = host, sweeps, each
        self.load: Callable[[], Config] = lambda: self.config
        self.swept = 0

    def run(self) -> int:
        def load() -> Config:
            return self.load()

        status = Daemon(load=load, open_parts=self._open, file=Path("ds01d.toml")).run()
        signal.setitimer(signal.ITIMER_REAL, 0)  # this process goes on
        return status

    def _open(self, config: Config, changed: OnChange, happened: OnEvent) -> SessionParts:
        world = self.host.world()
        observe, lock = world.engine.observe, world.state_dir.lock
        sweeps: list[bool] = []

        def watched(names: frozenset[ContainerName] | None) -> Engine | Unknown:
            sweeps.append(names is None)
            return observe(names)

        @contextmanager
        def locked() -> Iterator[None]:
            with lock():
                yield
            if sweeps.pop():
                self._next()

        world.engine.observe = watched  # type: ignore[method-assign]
        world.state_dir.lock = locked  # type: ignore[method-assign]
        return SessionParts(
            world=world,
            operations=_Operations(self.host),
            start=_nothing,
            persist=_nothing,
            close=_nothing,
        )

    def _next(self) -> None:
        self.swept += 1
        self.each(self.swept)
        self.host.pass_time(MINUTE)
        if self.swept == self.sweeps:
            os.kill(os.getpid(), signal.SIGTERM)


def _nothing() -> None:
    pass


def what_the_daemon_tells(folder: Path) -> None:
    """What is not told of a pass: beginning and end, signals, configuration, libraries."""
    life = host_with(1)
    risky = msgspec.structs.replace(life.config.policy, creation_grace_s=1.0)
    settings = msgspec.structs.replace(life.config, policy=risky)
    day = Day(life.host, folder, sweeps=400, each=lambda n: said[n]() if n in said else None)
    day.config = msgspec.structs.replace(day.config, policy=settings.policy)
    good = day.load

    def refuse() -> Config:
        raise ConfigError("ds01d.toml: line 3: no such key")

    def hup(load: Callable[[], Config]) -> None:
        day.load = load
        os.kill(os.getpid(), signal.SIGHUP)

    said: Mapping[int, Callable[[], object]] = {
        50: lambda: hup(refuse),
        150: lambda: hup(good),
        250: lambda: os.kill(os.getpid(), signal.SIGUSR1),
        300: lambda: logging.getLogger("urllib3").warning("pool of %s is full", "docker"),
    }
    assert day.run() == 0
    broken_day = Day(life.host, folder, sweeps=1, each=_nothing_each)
    broken_day._open = _broken  # type: ignore[method-assign,assignment]
    assert broken_day.run() == 1
    _hang()
    _lose_an_entry()


def _nothing_each(_: int) -> None:
    pass


def _broken(*_: object) -> NoReturn:
    raise RuntimeError("nobody has thought of this")


def _hang() -> None:
    """A worker that is silent for longer than it may be."""
    now = [0.0]
    signals: Iterator[int | None] = iter([None, None, signal.SIGTERM, signal.SIGTERM])

    def wait(timeout_s: float) -> int | None:
        now[0] += timeout_s
        return next(signals)

    environ = {"WATCHDOG_USEC": "60000000"}
    Supervisor(15, environ=environ, send=len, clock=lambda: now[0], wait=wait, arm=str).run(
        reload=_nothing, stop=_nothing, dump=_nothing
    )


def _lose_an_entry() -> None:
    full = [True]

    def send(*fields: str) -> None:
        if full.pop() if full else False:
            raise OSError(28, "No space left on device")
        journal.sendv(*fields)

    logs.setup_logging("journal", send=send)
    structlog.get_logger().info("daemon.reload")
    structlog.get_logger().info("daemon.reload")


def _fail_service() -> None:
    """A call of the booking service that meets a bug."""
    peer = Peer(uid=1001, login="alice", pid=7, is_operator=False)
    call = MethodCall(method=f"{INTERFACE}.Status")
    service = StatusCalls(_broken)
    serve_call(PendingCall(peer, call, lambda _, __: None), service.handlers)


def all_there_is(folder: Path) -> None:
    """Whatever ds01d can tell of, by the daemon and on hosts of its own."""
    what_the_daemon_tells(folder)
    logs.setup_logging()
    _fail_service()
    everything()


# --- a quiet day, and a busy one ----------------------------------------------------------------


def quiet(folder: Path) -> None:
    """Twelve slots, eight containers that run all day."""
    life = host_with(6)
    for number in range(8):
        _create(life, f"job{number}._.1001", f"{number // 2}.{number % 2}")
    assert Day(life.host, folder, sweeps=DAY, each=_nothing_each).run() == 0


def busy(folder: Path) -> None:
    """A working day of people who do as they should, and of some who do not.

    50 containers are created, run for an hour, and are stopped and removed by the allocator's
    wrappers. Ten more are stopped and left to their hold, ten are removed by hand.
    """
    life = host_with(10)
    proper = {10 + 25 * number: f"proper{number}._.1001" for number in range(50)}
    left = {20 + 120 * number: f"left{number}._.1001" for number in range(10)}
    by_hand = {30 + 120 * number: f"hand{number}._.1001" for number in range(10)}

    def each(minute: int) -> None:
        for plan, place in ((proper, 0), (left, 3), (by_hand, 4)):
            if (name := plan.get(minute)) is not None:
                slot = f"{place + (minute // 25) % 3 if plan is proper else place}.0"
                _create(life, name, slot)
        for plan, end in ((proper, _remove), (left, _stop), (by_hand, _remove_by_hand)):
            if (name := plan.get(minute - 60)) is not None:
                end(life, name)

    assert Day(life.host, folder, sweeps=DAY, each=each).run() == 0
    assert not life.host.bookings(), "all that was left was released"


def _create(life: Life, name: str, place: str) -> None:
    """The allocator books, and the container runs."""
    now = Wall(life.host.wall)
    life.book(place, name=name, allocated_at=now)
    life.run(f"MIG-{place.replace('.', '-')}", name=name, created=now, started=now)


def _remove(life: Life, name: str) -> None:
    """The wrapper removes the container and releases what it held."""
    life.remove(name)
    state = life.host.state
    assert isinstance(state, AllocatorState)
    slots = {
        one.id: replace(one, containers=(), users={}) if name in one.containers else one
        for one in state.slots.values()
    }
    life.host.state = replace(state, slots=slots, digest=Digest(f"{name} released"))
    del life.host.records[ContainerName(name)]


def _stop(life: Life, name: str) -> None:
    life.stop(name, state=State.EXITED)


def _remove_by_hand(life: Life, name: str) -> None:
    life.remove(name)


STORIES: Mapping[str, Callable[[Path], None]] = {
    "quiet": quiet,
    "busy": busy,
    "everything": all_there_is,
}

if __name__ == "__main__":
    STORIES[sys.argv[1]](Path(sys.argv[2]))
