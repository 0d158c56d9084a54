"""What holds on every host, whatever happens: nothing alive loses a GPU, and drift goes away.

`tests.support.reality` makes the hosts and judges every single pass; see `Reality.judge`.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ds01d.model.books import AllocatorState
from ds01d.model.containers import EngineIdentity, GpuRequestKind, State
from ds01d.model.drift import Outcome, WaitReason
from ds01d.model.primitives import ContainerName, Source, Unknown, UserName
from ds01d.reconcile.checkpoint_store import CheckpointStore
from tests.support.reality import Reality, bookings, device_of, devices, fork, realities, told
from tests.support.world import IDENTITY, Died

pytestmark = pytest.mark.timeout(600)  # thousands of hosts, perhaps on a slow machine
ALL_EXAMPLES = settings.get_profile("deciding").max_examples  # shared among the tests below


def share(part: float) -> settings:
    return settings(max_examples=int(ALL_EXAMPLES * part))


@share(0.25)
@given(realities())
def test_passes_converge(real: Reality) -> None:
    """After all graces, nothing is due or waits, and the bookings are what the oracle expects."""
    before = bookings(real.host.state)
    report = real.settle_down()
    left = [g for g in report.drifts if g.gate is not WaitReason.BLOCKED]
    assert not left, left
    after = bookings(real.host.state)
    for name, (least, most) in expected(real, before).items():
        assert least <= {slot for n, slot in after if n == name} <= most, name


def expected(
    real: Reality, before: set[tuple[str, str]]
) -> dict[ContainerName, tuple[set[str], set[str]]]:
    """The simple cases: alive with named devices, absent, or stopped and held no longer.

    What has to be booked in the end, and what may be.
    """
    found: dict[ContainerName, tuple[set[str], set[str]]] = {}
    host, there = real.host, {c.name: c for c in real.host.containers.values()}
    assert isinstance(host.state, AllocatorState)
    home = {device_of(s): str(s.id) for s in host.state.slots.values()}
    for name in {ContainerName(n) for n, _ in before} | there.keys():
        booked, one = {s for n, s in before if n == name}, there.get(name)
        if one is None:
            found[name] = (set(), booked if any(real.haunted(s) for s in booked) else set())
            continue
        if "aime.mlc" not in one.labels or isinstance(one.request, Unknown):
            continue
        got = real.got[one.id]
        by_uuid = all(ref.kind.value == "uuid" for ref in one.request.devices)
        clear = (
            one.request.ask is GpuRequestKind.NAMED
            and by_uuid
            and got <= home.keys() & devices(host.gpu)
        )
        booking = booked or real.config.policy.adopt == "managed"
        ends = host.limits.find_hold(UserName("alice")).seconds is not None
        if one.state.alive and clear and booking:
            asked = {home[d] for d in got}
            used = {home[d] for d in real.used(one.id) if d in home}
            found[name] = (asked | (used & booked), asked | used)
        elif one.state is State.EXITED and one.finished is not None and ends:
            found[name] = (set(), set())
    return found


@share(0.15)
@given(realities(), st.integers(0, 12))
def test_a_second_pass_finds_nothing_due_and_writes_nothing(real: Reality, sweeps: int) -> None:
    for _ in range(sweeps):
        real.look()
        real.host.pass_time(130.0)
    real.look()
    state, records = real.host.state, dict(real.host.records)
    history = len(real.host.history)
    again = real.look()
    assert [g for g in again.drifts if g.outcome is not Outcome.WAITING] == []
    assert real.host.state is state
    assert real.host.records == records
    assert len(real.host.history) == history


@share(0.2)
@given(realities(), st.integers(0, 10), st.lists(st.integers(0, 12), min_size=1, max_size=6))
def test_a_killed_pass_is_finished_by_a_later_one(
    real: Reality, sweeps: int, kills: list[int]
) -> None:
    """Killed between any two writes, again and again: the same books in the end."""
    for _ in range(sweeps):
        real.look()
        real.host.pass_time(130.0)
    reference = fork(real)
    for at in kills:
        before, memory = bookings(real.host.state), len(paced(real))
        real.host.steps, real.host.die_at = 0, at
        try:
            real.look()
        except Died:
            gone = before - bookings(real.host.state)
            unproven = {(n, s) for n, s in gone if n not in real.host.destroyed}
            assert len(paced(real)) >= min(len(unproven), memory + len(unproven))
        real.host.die_at = None
        real.host.pass_time(50.0)
    real.settle_down()
    reference.settle_down()
    assert told(real.host) == told(reference.host)


def paced(real: Reality) -> tuple[float, ...]:
    memory, trouble = CheckpointStore(real.host.world().state_dir).load()
    assert not trouble
    return memory.released


FAULTS = st.sampled_from(
    [
        *("docker", "nvml", "state", "metadata", "operations", "limits"),
        *("all up", "all up", "time", "time", "time", "long time"),
        *("clock forward", "clock back", "reboot", "engine restart"),
        *("other engine", "same engine", "memory lost", "memory broken", "one name"),
    ]
)


def strike(real: Reality, what: str) -> frozenset[ContainerName] | None:
    """Something goes wrong (or time passes); gives the names to look at."""
    host = real.host
    if what in {source.value for source in Source}:
        host.failing.add(Source(what))
    elif what == "all up":
        host.failing.clear()
    elif what == "time":
        host.pass_time(70.0)
    elif what == "long time":
        host.pass_time(1_000.0)
    elif what == "clock forward":
        host.wall += 7 * 3600
    elif what == "clock back":
        host.wall -= 7 * 3600
    elif what == "reboot":
        host.pass_time(100.0)
        shift = host.boot - 1_000.0
        real.made = {one: at - shift for one, at in real.made.items()}
        host.boot, host.boot_id = 1_000.0, host.boot_id + "+"
    elif what == "engine restart":
        host.instance += "+"
    elif what == "other engine":
        host.identity = EngineIdentity(id="OTHER", root_dir="/mnt", inode=1, device=1)
    elif what == "same engine":
        host.identity = IDENTITY
    elif what in ("memory lost", "memory broken"):
        host.memory = None if what == "memory lost" else b'{"version":1,"memory":{"boot_id":'
        real.trusted = ""
    names = frozenset(c.name for c in host.containers.values())
    return frozenset(sorted(names)[:1]) if what == "one name" else None


@share(0.2)
@given(realities(), st.lists(FAULTS, max_size=25))
def test_no_fault_makes_a_pass_take_what_is_alive(real: Reality, faults: list[str]) -> None:
    """Failing sources, clocks, boots, engines, lost memory: every pass is judged by the oracle."""
    for what in faults:
        names = strike(real, what)
        report = real.look(names)
        assert all(g.outcome is not Outcome.FAILED for g in report.drifts)
