"""A storm: bookings and releases on all hosts, and faults in hosts, network and members."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from simulation.etcd import EtcdMember
from simulation.etcd_proxy import Fault, Moment, ignore_steps
from simulation.etcd_steps import Step
from tests.verification.fleet.fleet import QUOTAS, Fleet
from tests.verification.fleet.hosts import Host

PROBER = "games"
"""Whose bookings wait for the store while others release: never refused because of the quota."""
USERS = [user for user in QUOTAS if user != PROBER]
PROBES = 5
LATE_RELEASES = 3
"""In a row: a busy machine may be late once or twice."""
WORKERS = 2
"""For each host: two calls at once are what a quota has to stand."""
NAMES = 6
"""That all hosts want."""
LOOKS = 15
"""At each host, whether it says that all is well."""
LEASE_OVER_S = 4.0
"""So long a dead host still looks alive, and a bit more."""
KILL_STEPS = (
    *(Step.READ, Step.RESERVE, Step.LOOK, Step.CONFIRM, Step.REPORT, Step.WITHDRAW),
    Step.CONTENTS,
)
SPOILT = (Step.READ, Step.RESERVE, Step.LOOK, Step.CONFIRM, Step.REPORT, Step.WITHDRAW)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """Which faults there are, with their weights, by what they are in."""

    hosts: Mapping[str, int] = field(default_factory=dict)
    links: Mapping[str, int] = field(default_factory=dict)
    members: Mapping[str, int] = field(default_factory=dict)
    replies: Sequence[Fault] = (*Fault, Fault.LATE, Fault.LOSE_REPLY, Fault.AGAIN)
    steps: Sequence[Step] = SPOILT
    shared_names: float = 0.3
    """How many of the containers have a name that all hosts want."""
    shared_slots: int = 0
    """So few slots has each host, and containers share them; 0: enough for all. ds01d only."""


MIXES: Final[Mapping[str, Mix]] = {
    "everything": Mix(
        hosts={"kill at step": 20, "freeze host": 4, "hide books": 4, "forget host": 1},
        links={"spoil": 6, "cut off": 1, "leave one member": 1, "probe lock": 1},
        members={
            "freeze member": 8,
            "kill member": 8,
            "cut from peers": 12,
            "stop all": 4,
            "freeze majority": 1,  # takes longer than all others
            "go back": 3,
        },
    ),
    "races": Mix(members={"cut from peers": 1}),
    "late requests": Mix(
        links={"spoil": 1},
        replies=(Fault.AGAIN, Fault.LATE, Fault.HANG),
        steps=(Step.WITHDRAW, Step.CONFIRM),
        shared_names=0.9,
    ),
    "duplicates": Mix(links={"cut off": 1}, shared_names=0.9),
    "forgotten": Mix(hosts={"forget host": 1}),
    "no leader": Mix(members={"freeze majority": 1}),
    "silence": Mix(hosts={"freeze host": 1}, links={"cut off": 1}),
    "books": Mix(hosts={"hide books": 1}),
    "locks": Mix(links={"probe lock": 1}),
    "shared slots": Mix(
        links={"spoil": 1},
        replies=(Fault.AGAIN, Fault.LATE, Fault.HANG),
        steps=(Step.WITHDRAW, Step.CONFIRM),
        shared_names=0.1,
        shared_slots=2,
    ),
    "backups": Mix(members={"go back": 1}),
}
"""Everything, and where each planted bug shows soon."""


class Storm:
    """One storm; its random numbers decide what is done, not what comes of it."""

    def __init__(self, fleet: Fleet, draws: random.Random, number: int, mix: Mix) -> None:
        self._fleet, self._number, self._mix = fleet, number, mix
        self._draws = draws
        self.operations = 0
        self.faults = 0
        self._ends = 0.0
        self._errors: list[BaseException] = []

    def run(self, seconds: float) -> None:
        """Raises what a thread of it raised."""
        self._ends = time.monotonic() + seconds
        runs: list[Callable[[], None]] = [self._look]
        for place, host in enumerate(self._fleet.hosts):
            runs += [_bind(self._use, host, f"{self._number}-{place}-{n}") for n in range(WORKERS)]
        for first in range(3):
            hosts = self._fleet.hosts[first::3]
            runs.append(_bind(self._trouble_hosts, hosts, random.Random(self._draws.random())))
        for trouble in (self._trouble_links, self._trouble_members):
            runs.append(_bind(trouble, random.Random(self._draws.random())))
        threads = [threading.Thread(target=self._guard, args=(run,), daemon=True) for run in runs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(300)
        if self._errors:
            raise self._errors[0]

    def _guard(self, run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as error:  # noqa: BLE001 - raised again by `run`
            self._errors.append(error)

    @property
    def _is_over(self) -> bool:
        return time.monotonic() >= self._ends

    def _look(self) -> None:
        while not self._is_over:
            self._fleet.look()
            time.sleep(0.15)

    # --- users

    def _use(self, host: Host, prefix: str) -> None:
        draws = random.Random(f"{self._draws.random()} {prefix}")
        number = 0
        while not self._is_over:
            time.sleep(draws.uniform(0.05, 0.35))
            if not host.is_up:
                continue
            self.operations += 1
            books = host.read_books() or {}
            if books and draws.random() < 0.45:
                self._fleet.release(host, draws.choice(sorted(books)))
                continue
            number += 1
            is_shared = draws.random() < self._mix.shared_names
            base = f"all{draws.randrange(NAMES)}" if is_shared else f"own{prefix}-{number}"
            user = draws.choice(USERS)
            self._fleet.book(host, user, name_container(base, user), draws.choice((1, 1, 2)))

    # --- faults in hosts

    def _trouble_hosts(self, hosts: Sequence[Host], draws: random.Random) -> None:
        """One fault at a time in these; there are other threads for the others."""
        if not hosts:
            return
        while not self._is_over:
            time.sleep(draws.uniform(0.1, 0.8))
            if (act := self._draw(draws, self._mix.hosts)) is not None:
                act(draws.choice(hosts), draws)

    def _kill_at_step(self, host: Host, draws: random.Random) -> None:
        """Let it die between two steps of a booking."""
        chosen = (draws.choice(KILL_STEPS), draws.choice([*Moment]))
        hit = threading.Event()

        def watch_step(step: Step, moment: Moment) -> None:
            if (step, moment) == chosen and not hit.is_set():
                hit.set()
                host.is_up = False
                host.signal(signal.SIGKILL)

        host.links.on_step = watch_step
        hit.wait(1.0)
        host.links.on_step = ignore_steps
        self._fleet.faults[f"killed at {chosen[0].name.lower()}"] += hit.is_set()
        host.is_up = False
        host.kill()
        host.kills += 1
        time.sleep(draws.uniform(0.0, 0.3))
        host.start()
        host.is_up = True

    def _freeze_host(self, host: Host, draws: random.Random) -> None:
        host.signal(signal.SIGSTOP)
        time.sleep(draws.choice((0.5, 1.0, 3.5)))
        host.wake()

    def _hide_books(self, host: Host, draws: random.Random) -> None:
        with suppress(OSError):
            host.hide_books()
            time.sleep(draws.uniform(0.5, 2.0))
            host.show_books()

    def _forget_host(self, host: Host, _: random.Random) -> None:
        """It is dead, an admin has it forgotten, and it comes back."""
        host.is_up = False
        host.kill()
        host.kills += 1
        time.sleep(LEASE_OVER_S)
        self._fleet.forget(host)
        host.start()
        host.is_up = True
        ends = time.monotonic() + LEASE_OVER_S
        while host.was_forgotten and time.monotonic() < ends:
            time.sleep(0.2)
            host.was_forgotten = not host.rejoin()

    # --- faults in the network of a host

    def _trouble_links(self, draws: random.Random) -> None:
        while not self._is_over:
            time.sleep(draws.uniform(0.05, 0.4))
            if (act := self._draw(draws, self._mix.links)) is not None:
                host = draws.choice(self._fleet.hosts)
                act(host, draws)
                host.links.clear()

    def _spoil(self, host: Host, draws: random.Random) -> None:
        fault = draws.choice(self._mix.replies)
        host.links.fault(fault, draws.choice(self._mix.steps), first=draws.choice((1, 2, 3)))
        self._fleet.faults[f"reply: {fault.name.lower()}"] += 1
        time.sleep(draws.uniform(0.3, 1.5))

    def _cut_off(self, host: Host, draws: random.Random) -> None:
        host.links.refuse()
        time.sleep(draws.choice((0.3, 1.0, 4.0)))

    def _leave_one_member(self, host: Host, draws: random.Random) -> None:
        left = draws.randrange(3)
        host.links.refuse(*({0, 1, 2} - {left}))
        time.sleep(draws.uniform(0.5, 2.0))

    def _probe_lock(self, host: Host, _: random.Random) -> None:
        """While a booking waits for the store, a release does not."""
        for _try in range(PROBES):
            if self._is_over:
                return
            verdict = self._is_release_free(host)
            if verdict is not None:
                host.late_releases = 0 if verdict else host.late_releases + 1
            if host.late_releases == LATE_RELEASES:
                what = f"{LATE_RELEASES} times in a row, {host.name}"
                self._fleet.accuse("waited for the store", what)
            time.sleep(0.6)

    def _is_release_free(self, host: Host) -> bool | None:
        """None: it could not be tried."""
        books = host.read_books()
        if not books or not host.is_store_fine():
            return None
        name = name_container(f"probe{self._number}-{time.monotonic_ns()}", PROBER)
        host.links.fault(Fault.SWALLOW, Step.READ, Step.RESERVE)
        booking = threading.Thread(
            target=self._fleet.book, args=(host, PROBER, name, 1), daemon=True
        )
        booking.start()
        while booking.is_alive() and not host.links.waiting:
            time.sleep(0.005)
        waits = booking.is_alive()
        answer = self._fleet.release(host, min(books))
        is_free = bool(host.links.waiting)
        booking.join()
        host.links.clear()
        return is_free if waits and answer is not None else None

    # --- faults in members

    def _trouble_members(self, draws: random.Random) -> None:
        while not self._is_over:
            time.sleep(draws.uniform(0.3, 2.0))
            if (act := self._draw(draws, self._mix.members)) is not None:
                act(draws)

    def _choose(self, draws: random.Random) -> EtcdMember:
        """The leader, half of the time."""
        if draws.random() < 0.5:
            with suppress(RuntimeError):
                return self._fleet.cluster.find_leader()
        return draws.choice(self._fleet.cluster.members)

    def _freeze_member(self, draws: random.Random) -> None:
        member = self._choose(draws)
        member.freeze()
        time.sleep(draws.uniform(0.5, 3.0))
        member.thaw()

    def _kill_member(self, draws: random.Random) -> None:
        member = self._choose(draws)
        member.kill()
        time.sleep(draws.uniform(0.1, 2.0))
        self._fleet.cluster.start_member(member)
        member.wait_until_healthy()

    def _cut_from_peers(self, draws: random.Random) -> None:
        """It still answers clients, with what it knew."""
        self._fleet.peers.cut_off(self._choose(draws))
        time.sleep(draws.uniform(1.5, 4.0))
        self._fleet.peers.heal()
        self._fleet.cluster.wait_until_healthy()

    def _freeze_majority(self, draws: random.Random) -> None:
        """One member is left, and no leader: every host has to notice."""
        members = draws.sample(self._fleet.cluster.members, 2)
        for member in members:
            member.freeze()
        notice_s = max(host.notice_s for host in self._fleet.hosts)
        time.sleep(notice_s)
        unaware: list[Host] = []
        # A host that is not sure may say so between two that it is.
        for _ in range(LOOKS):
            time.sleep(0.2)
            unaware += [host for host in self._fleet.hosts if host.is_store_fine()]
        for name, times in Counter(host.name for host in unaware).items():
            what = f"{name} says so {times} of {LOOKS} times, after {notice_s:g} s"
            self._fleet.accuse("outage not noticed", what)
        for member in members:
            member.thaw()
        self._fleet.cluster.wait_until_healthy()

    def _stop_all(self, draws: random.Random) -> None:
        for member in self._fleet.cluster.members:
            member.freeze()
        time.sleep(draws.uniform(0.5, 3.0))
        for member in self._fleet.cluster.members:
            member.thaw()
        self._fleet.cluster.wait_until_healthy()

    def _go_back(self, draws: random.Random) -> None:
        """An administrator restores the store from a backup."""
        file, revision = self._fleet.first_snapshot
        if draws.random() < 0.5:
            file = self._fleet.cluster.folder / f"snapshot-{time.monotonic_ns()}"
            revision = self._fleet.save_snapshot(file)
            time.sleep(draws.uniform(0.5, 2.5))
        self._fleet.restore(file, revision)
        hosts = draws.sample(self._fleet.hosts, len(self._fleet.hosts))
        # Some come later than others: nobody knows yet what they have.
        self._fleet.reconnect(hosts[2:])
        time.sleep(draws.uniform(2.0, 6.0))
        self._fleet.reconnect(hosts[:2])

    def _draw(self, draws: random.Random, acts: Mapping[str, int]) -> Callable[..., None] | None:
        if not acts:
            return None
        [chosen] = draws.choices([*acts], [*acts.values()])
        self.faults += 1
        self._fleet.faults[chosen] += 1
        act: Callable[..., None] = getattr(self, "_" + chosen.replace(" ", "_"))
        return act


def name_container(base: str, user: str) -> str:
    """A name as users of ds01d have them, with the number of the user."""
    return f"{base}._.{1 + [*QUOTAS].index(user)}"


def _bind(run: Callable[..., None], *words: object) -> Callable[[], None]:
    return lambda: run(*words)
