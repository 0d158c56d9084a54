"""The life of a host, as it comes: hypothesis makes it up, and the oracle judges every pass.

Containers are made the way MLC makes them, started, stopped, renamed, removed with and without an
event, made anew; a writer without a lock books and releases; MIG devices come and go; sources fail;
time passes. False releases: none. After quiet time longer than every grace: no drift.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ds01d.config import Config
from ds01d.model.books import AllocatorState, Attempt
from ds01d.model.containers import Container, RefKind, Request, State
from ds01d.model.devices import GpuProcess, MigDevice
from ds01d.model.drift import WaitReason
from ds01d.model.primitives import LOCAL_SOURCES, ContainerName, Digest, SlotId, Source, Wall
from tests.support.build import (
    ALL,
    LIMITS,
    config,
    container,
    four_slots,
    mig,
    named,
    process,
    record,
    two_by_two,
)
from tests.support.reality import NAMES, Reality, configs, device_of, devices
from tests.support.world import Host

pytestmark = pytest.mark.timeout(600)  # thousands of hosts, perhaps on a slow machine
Listing = Callable[[tuple[ContainerName, ...]], tuple[ContainerName, ...]]
names = st.sampled_from(NAMES)
forms = st.sampled_from(["MIG-{}-{}", "MIG-{}-{}", "{}:{}", "all"])
PLACES = ("0.0", "0.1", "1.0", "1.1")
places = st.sampled_from(PLACES)
QUIET = 9_000.0


class LifeOfAHost(RuleBasedStateMachine):
    """A host with two GPUs of two MIG devices each, and a daemon that passes now and then."""

    @initialize(settings_=configs)
    def begin(self, settings_: Config) -> None:
        host = Host(gpu=two_by_two(), state=four_slots(), limits=LIMITS)
        self.real = Reality(host=host, config=settings_)
        self.made = 0
        self.real.look()

    # --- what people and the allocator do -----------------------------------------------------

    @rule(name=names, place=places)
    def allocate(self, name: ContainerName, place: str) -> None:
        """The allocator books, without a lock, state first."""
        self._write(place, lambda listed: (*[n for n in listed if n != name], name))
        self.real.host.records[name] = record(
            name, place, allocated_at=Wall(self.real.host.wall), digest=self._digest()
        )
        self.real.host.attempts[name] = Attempt(started=Wall(self.real.host.wall))

    @rule(name=names)
    def release(self, name: ContainerName) -> None:
        """The allocator releases, whoever lives: that is its right, and drift if somebody does."""
        for place in PLACES:
            self._write(place, lambda listed: tuple(n for n in listed if n != name))
        self.real.host.records.pop(name, None)

    @rule(name=names, place=places)
    def double(self, name: ContainerName, place: str) -> None:
        """Two writers race: a booking without metadata, a counter that is wrong."""
        self._write(place, lambda listed: (*listed, name), users={"alice": 9})

    @rule(name=names, place=places, labelled=st.booleans(), form=forms)
    def create(self, name: ContainerName, place: str, *, labelled: bool, form: str) -> None:
        """First without labels, for the commit; then, under the same name, with them."""
        if self._there(name):
            return
        self.made += 1
        self.real.start(
            container(
                name,
                ALL if form == "all" else named(form.format(*place.split("."))),
                id=f"{self.made:012}",
                state=State.CREATED if labelled else State.RUNNING,
                labels={"aime.mlc": "alice"} if labelled else {},
                created=Wall(self.real.host.wall),
                started=None if labelled else Wall(self.real.host.wall),
            )
        )

    @rule(name=names, state=st.sampled_from([State.RUNNING, State.PAUSED, State.RESTARTING]))
    def start(self, name: ContainerName, state: State) -> None:
        one = self._there(name)
        if one is not None:
            started = one.started if one.state.alive else Wall(self.real.host.wall)
            self.real.start(
                replace(one, state=state, started=started, finished=None), anew=not one.state.alive
            )

    @rule(name=names, state=st.sampled_from([State.EXITED, State.EXITED, State.DEAD]))
    def stop(self, name: ContainerName, state: State) -> None:
        one = self._there(name)
        if one is not None and one.state.alive:
            self._end_processes(one)
            self.real.host.run(replace(one, state=state, finished=Wall(self.real.host.wall)))

    @rule(name=names, told=st.booleans(), lingering=st.booleans())
    def remove(self, name: ContainerName, *, told: bool, lingering: bool) -> None:
        """Its processes may outlive it for a while, as they do where Docker's record was lost."""
        one = self._there(name)
        if one is not None:
            if not lingering:
                self._end_processes(one)
            self.real.host.remove(name, told=told)
            self.real.renamed.discard(name)

    @rule(before=names, after=names)
    def rename(self, before: ContainerName, after: ContainerName) -> None:
        if self._there(before) and not self._there(after):
            self.real.rename(before=before, after=after)

    @rule(one=names, other=names)
    def swap(self, one: ContainerName, other: ContainerName) -> None:
        """Two renames and back, quicker than anybody looks."""
        if self._there(one) and self._there(other) and one != other:
            self.real.rename(before=one, after=other)

    @rule(name=names, place=places)
    def compute(self, name: ContainerName, place: str) -> None:
        """A process of its: also where it has no business, as a privileged one may."""
        one = self._there(name)
        if one is not None and one.state.alive:
            self._processes(process(f"MIG-{place.replace('.', '-')}", one.id, pid=self.made))

    # --- what hosts do ------------------------------------------------------------------------

    @rule(gpu=st.sampled_from([0, 1]))
    def renumber(self, gpu: int) -> None:
        """The two MIG devices of a GPU change places; containers keep the devices they have."""
        assert self.real.host.gpu is not None
        at = {m.uuid: m for m in self.real.host.gpu.migs}
        self._migs(replace(m, index=1 - m.index) if m.gpu_index == gpu else m for m in at.values())

    @rule()
    def lose_and_regain_a_mig_device(self) -> None:
        assert self.real.host.gpu is not None
        if len(self.real.host.gpu.migs) == 4:
            self._migs(m for m in self.real.host.gpu.migs if m.uuid != "MIG-1-1")
        else:
            free = {0, 1} - {m.index for m in self.real.host.gpu.migs if m.gpu_index == 1}
            self._migs((*self.real.host.gpu.migs, mig(1, free.pop(), uuid="MIG-1-1")))

    @rule(sources=st.sets(st.sampled_from(LOCAL_SOURCES), max_size=2))
    def fail(self, sources: set[Source]) -> None:
        self.real.host.failing = sources

    @rule(hours=st.integers(-12, 12))
    def set_clock(self, hours: int) -> None:
        self.real.host.wall += hours * 3600.0

    @rule()
    def restart_dockerd(self) -> None:
        self.real.host.instance += "+"
        self.real.host.since = self.real.host.boot
        self.real.host.destroyed.clear()

    @rule(seconds=st.sampled_from([1.0, 6.0, 60.0, 130.0, 900.0]))
    def wait(self, seconds: float) -> None:
        self.real.host.pass_time(seconds)

    # --- what the daemon does -----------------------------------------------------------------

    @rule(times=st.integers(1, 4), step=st.sampled_from([5.0, 60.0]))
    def sweep(self, times: int, step: float) -> None:
        for _ in range(times):
            self.real.look()
            self.real.host.pass_time(step)

    @rule(some=st.frozensets(names, min_size=1, max_size=2))
    def look_at(self, some: frozenset[ContainerName]) -> None:
        self.real.look(some)

    @invariant()
    def books_are_whole(self) -> None:
        if not hasattr(self, "real"):
            return
        state = self.real.host.state
        assert isinstance(state, AllocatorState)
        assert {name for s in state.slots.values() for name in s.containers} <= set(NAMES)

    def teardown(self) -> None:
        """Quiet, all sources up: nothing stays but what only a person can settle."""
        if not hasattr(self, "real"):
            return
        self.real.host.failing = set()
        self._end_ghosts()
        last = self.real.settle_down(QUIET)
        left = [one for one in last.drifts if one.gate is not WaitReason.BLOCKED]
        assert not left, left
        self._nobody_alive_is_without()

    def _nobody_alive_is_without(self) -> None:
        state = self.real.host.state
        assert isinstance(state, AllocatorState)
        booked = {(n, device_of(s)) for s in state.slots.values() for n in s.containers}
        # A slot whose device was taken away stays for its holder, and nobody else comes onto it.
        there = {device_of(s) for s in state.slots.values()} & devices(self.real.host.gpu)
        for one in self.real.host.containers.values():
            asked = one.labelled and one.state.alive and self.real.config.policy.adopt != "off"
            if asked and _by_uuid(one):
                for device in self.real.got[one.id] & there:
                    assert (one.name, device) in booked, f"{one.name} has {device} unbooked"

    # --- words --------------------------------------------------------------------------------

    def _there(self, name: ContainerName) -> Container | None:
        return next((c for c in self.real.host.containers.values() if c.name == name), None)

    def _digest(self) -> Digest:
        self.made += 1
        return Digest(f"w{self.made}")

    def _write(self, place: str, listing: Listing, users: Mapping[str, int] | None = None) -> None:
        state = self.real.host.state
        assert isinstance(state, AllocatorState)
        if SlotId(place) not in state.slots:
            return
        old = state.slots[SlotId(place)]
        listed = listing(old.containers)
        count = {"alice": len(listed)} if listed else {}
        new = replace(old, containers=listed, users=users or count)
        slots = {**state.slots, new.id: new}
        self.real.host.state = replace(state, slots=slots, digest=self._digest())

    def _processes(self, *more: GpuProcess) -> None:
        host = self.real.host
        assert host.gpu is not None
        host.gpu = replace(host.gpu, processes=(*host.gpu.processes, *more))

    def _end_processes(self, one: Container) -> None:
        host = self.real.host
        assert host.gpu is not None
        left = tuple(p for p in host.gpu.processes if p.container != one.id)
        host.gpu = replace(host.gpu, processes=left)

    def _end_ghosts(self) -> None:
        host = self.real.host
        assert host.gpu is not None
        left = tuple(p for p in host.gpu.processes if p.container in host.containers)
        host.gpu = replace(host.gpu, processes=left)

    def _migs(self, migs: Iterable[MigDevice]) -> None:
        host = self.real.host
        assert host.gpu is not None
        host.gpu = replace(host.gpu, migs=tuple(migs))


def _by_uuid(one: Container) -> bool:
    """By index it may have started while nobody could tell what that meant."""
    refs = one.request.devices if isinstance(one.request, Request) else ()
    return any(ref.kind is RefKind.UUID for ref in refs)


TestLifeOfAHost = LifeOfAHost.TestCase
TestLifeOfAHost.settings = settings(
    max_examples=int(settings.get_profile("deciding").max_examples * 0.2), stateful_step_count=30
)


def test_an_index_of_the_moment_before_an_unseen_renumbering_costs_nobody_a_slot() -> None:
    """Found by the rules above: start, renumbering and the next sample at the same time."""
    life = LifeOfAHost()
    life.begin(config(whole_gpus="without-mig", adopt="managed", pace_count=1, pace_fraction=0.0))
    life.create(form="{}:{}", labelled=False, name=NAMES[1], place="1.0")
    life.renumber(gpu=1)
    life.allocate(name=NAMES[1], place="1.0")
    life.teardown()
