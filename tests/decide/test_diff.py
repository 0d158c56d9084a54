"""Every kind of drift and every finding: found, explained, settled or reported; alone and together.

Each fault lives on a GPU of its own (two MIG devices) and has a container of its own, so that one
host can have all of them at once. `before` is what was right; `fault` is what went wrong since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest

from ds01d.decide.ownership import parse_uid
from ds01d.model.books import AllocatorState, BadRecord, Record, Slot, Unreadable
from ds01d.model.containers import GpuRequestKind, Request, State
from ds01d.model.devices import Gpu, MigDevice
from ds01d.model.drift import Finding, FindingKind, GatedDrift, Kind, Outcome, WaitReason
from ds01d.model.limits import HoldRule
from ds01d.model.primitives import BookingId, ContainerName, Digest, SlotId, UserName
from ds01d.model.reservation import BOOKING_LABEL
from ds01d.reconcile.report import Report
from tests.support.build import (
    ALL,
    HOUR,
    LIMITS,
    Life,
    books,
    config,
    gpu,
    inventory,
    mig,
    named,
    slot,
)

FOR_EVER = HoldRule(seconds=None, source="user_overrides.bob")
AT_EASE = config(pace_count=100)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one fault happens: GPU `g`, and the container that it is about."""

    life: Life
    g: int
    name: ContainerName

    @property
    def first(self) -> str:
        return f"{self.g}.0"

    @property
    def second(self) -> str:
        return f"{self.g}.1"

    @property
    def uuid(self) -> str:
        return f"MIG-{self.g}-0"

    @property
    def other(self) -> ContainerName:
        return ContainerName(f"other-{self.name}")

    def booked(self) -> set[str]:
        return self.booked_for(self.name)

    def booked_for(self, name: ContainerName) -> set[str]:
        return {place for who, place in self.life.host.bookings() if who == name}

    def slot(self, place: str) -> SlotId:
        return SlotId(place)

    def write_slot(self, place: str, **fields: object) -> Life:
        """Somebody writes into the state, past all of us."""
        state = self.life.host.state
        assert isinstance(state, AllocatorState)
        changed = replace(state.slots[SlotId(place)], **fields)  # type: ignore[arg-type]
        slots = {**state.slots, changed.id: changed}
        self.life.host.state = replace(state, slots=slots, digest=Digest(f"{state.digest}!"))
        return self.life

    @property
    def record(self) -> Record | BadRecord | None:
        return self.life.host.records.get(self.name)


Step = Callable[[Place], object]


@dataclass(frozen=True, kw_only=True)
class Fault:
    kind: Kind
    before: Step
    fault: Step
    mended: Callable[[Place], bool]
    about: str = "container"
    telling: str = "docker:"


def running(p: Place, user: str = "alice") -> Life:
    p.life.book(p.first, name=p.name, user=UserName(user)).run(p.uuid, name=p.name)
    return p.write_slot(p.first, users={user: 1})


def reserved(p: Place) -> None:
    """A reservation, whose container is still to come."""
    booking = BookingId(f"r-{p.g:012x}")
    p.life.book(p.first, name=p.name, allocated_at_ago=0.0, booking=booking)
    p.write_slot(p.first, users={"alice": 1})


def claimed(p: Place) -> None:
    """A container of another name and the same owner has its ID in a label."""
    uid, labels = parse_uid(p.other), {BOOKING_LABEL: f"r-{p.g:012x}"}
    if uid is None:
        labels["ds01.user"] = "alice"
    else:
        p.life.host.passwd[uid] = "alice"
    p.life.run(p.uuid, name=p.other, labels=labels, created_ago=0.0)


def nothing(p: Place) -> None:
    """Nothing happens."""


def long_name(p: Place) -> ContainerName:
    return ContainerName(p.name.rjust(252, "x"))


def two_running(p: Place) -> None:
    """Alice's container and bob's, on a slot each."""
    running(p)
    p.life.book(p.second, name=p.other, user=UserName("bob"))
    p.life.run(f"MIG-{p.g}-1", name=p.other)
    p.write_slot(p.second, users={"bob": 1})


def swap_names(p: Place) -> None:
    """Two renames and back."""
    between = f"between-{p.name}"
    p.life.rename(p.name, between).rename(p.other, p.name).rename(between, p.other)


def user_of(p: Place, name: ContainerName) -> str | None:
    there = p.life.host.records.get(name)
    return there.user if isinstance(there, Record) else None


def remount(p: Place, **fields: object) -> None:
    """The first MIG device of this GPU is another one now."""
    gpus = p.life.host.gpu
    assert gpus is not None
    new = mig(p.g, 0, uuid=f"MIG-new-{p.g}")
    p.life.set_gpu(migs=tuple(new if m.uuid == p.uuid else m for m in gpus.migs))


def broken(p: Place, *, replaceable: bool = True) -> None:
    p.life.host.records[p.name] = BadRecord(
        container=p.name, reason="is not JSON", digest=Digest("bad"), replaceable=replaceable
    )


def rewritten(p: Place, **fields: object) -> None:
    old = p.life.host.records[p.name]
    p.life.host.records[p.name] = replace(old, digest=Digest("w"), **fields)  # type: ignore[arg-type]


DRIFTS = (
    Fault(
        kind=Kind.STALE_ALLOCATION,
        before=running,
        fault=lambda p: p.life.remove(p.name, told=False),
        mended=lambda p: not p.booked() and p.record is None,
    ),
    Fault(
        kind=Kind.EXPIRED_HOLD,
        before=lambda p: (running(p), p.life.stop(p.name)),
        fault=nothing,  # but time passes
        mended=lambda p: not p.booked() and p.record is None,
    ),
    Fault(
        kind=Kind.ORPHANED_METADATA,
        before=running,
        fault=lambda p: (p.life.remove(p.name), p.write_slot(p.first, containers=(), users={})),
        mended=lambda p: p.record is None,
    ),
    Fault(
        kind=Kind.MISSING_METADATA,
        before=running,
        fault=lambda p: p.life.host.records.pop(p.name),
        mended=lambda p: isinstance(p.record, Record) and p.record.user == "alice",
    ),
    Fault(
        kind=Kind.WRONG_METADATA,
        before=running,
        fault=lambda p: rewritten(p, gpu_id=SlotId("0.1"), stopped_at=1.0),
        mended=lambda p: (
            isinstance(p.record, Record)
            and (p.record.gpu_id, p.record.stopped_at) == (p.first, None)
        ),
    ),
    Fault(
        kind=Kind.UNTRACKED_CONTAINER,
        before=nothing,
        fault=lambda p: p.life.run(p.uuid, name=p.name),
        mended=lambda p: p.booked() == {p.first} and isinstance(p.record, Record),
    ),
    Fault(
        kind=Kind.LOST_ALLOCATION,
        before=lambda p: (running(p, user="bob"), p.life.stop(p.name)),
        fault=lambda p: p.write_slot(p.first, containers=(), users={}),
        mended=lambda p: p.booked() == {p.first},
    ),
    Fault(
        kind=Kind.WRONG_SLOT,
        before=nothing,
        fault=lambda p: p.life.book(p.second, name=p.name).run(p.uuid, name=p.name),
        mended=lambda p: p.booked() == {p.first},
    ),
    Fault(
        kind=Kind.DUPLICATE_ALLOCATION,
        before=nothing,
        fault=lambda p: p.life.book(p.first, p.second, name=p.name).run(p.uuid, name=p.name),
        mended=lambda p: p.booked() == {p.first},
    ),
    Fault(
        kind=Kind.WRONG_COUNT,
        before=running,
        fault=lambda p: p.write_slot(p.first, users={"alice": 3, "bob": 1}),
        mended=lambda p: _slot(p).users == {"alice": 1},
        about="slot",
        telling="state:",
    ),
    Fault(
        kind=Kind.RENAMED_CONTAINER,
        before=running,
        fault=lambda p: p.life.rename(p.name, p.other),
        mended=lambda p: (
            (p.booked(), p.booked_for(p.other)) == (set(), {p.first}) and p.record is None
        ),
    ),
    Fault(
        kind=Kind.RENAMED_CONTAINER,
        before=reserved,
        fault=claimed,
        mended=lambda p: (
            (p.booked(), p.booked_for(p.other)) == (set(), {p.first}) and p.record is None
        ),
        about="claim",
    ),
    Fault(
        kind=Kind.RENAMED_CONTAINER,
        before=two_running,
        fault=swap_names,
        mended=lambda p: (
            (p.booked(), p.booked_for(p.other)) == ({p.second}, {p.first})
            and (user_of(p, p.name), user_of(p, p.other)) == ("bob", "alice")
        ),
        about="swap",
    ),
    Fault(
        kind=Kind.STALE_SLOT,
        before=nothing,
        fault=remount,
        mended=lambda p: _slot(p).uuid == f"MIG-new-{p.g}",
        about="slot",
        telling="nvml:",
    ),
    Fault(
        kind=Kind.VANISHED_SLOT,
        before=nothing,
        fault=lambda p: p.life.set_gpu(migs=tuple(m for m in _migs(p.life) if m.uuid != p.uuid)),
        mended=lambda p: SlotId(p.first) not in _state(p.life).slots,
        about="slot",
        telling="nvml:",
    ),
    Fault(
        kind=Kind.UNREADABLE_METADATA,
        before=running,
        fault=broken,
        mended=lambda p: isinstance(p.record, Record),
    ),
)


def _state(life: Life) -> AllocatorState:
    assert isinstance(life.host.state, AllocatorState)
    return life.host.state


def _slot(p: Place) -> Slot:
    return _state(p.life).slots[SlotId(p.first)]


def _migs(life: Life) -> tuple[MigDevice, ...]:
    assert life.host.gpu is not None
    return life.host.gpu.migs


def host_with(gpus: int) -> Life:
    """So many GPUs of two MIG devices each, all with their slots, nothing booked."""
    cut = [mig(g, i) for g in range(gpus) for i in (0, 1)]
    return Life(
        AT_EASE,
        gpu=inventory(*(gpu(g, mig=True, pci=f"0000:{g:02x}:00") for g in range(gpus)), *cut),
        state=books(*(slot(f"{g}.{i}") for g in range(gpus) for i in (0, 1))),
        limits=replace(LIMITS, holds={**LIMITS.holds, UserName("bob"): FOR_EVER}),
    )


def places(life: Life, kinds: Iterable[Kind | FindingKind]) -> list[Place]:
    return [
        Place(life=life, g=g, name=ContainerName(f"{kind}._.{1000 + g}"))
        for g, kind in enumerate(kinds)
    ]


def live(life: Life, seconds: float = HOUR / 2) -> list[Report]:
    """Sweep every half minute."""
    reports = []
    for _ in range(int(seconds / 30)):
        reports.append(life.sweep())
        life.host.pass_time(30.0)
    return reports


def met(reports: Iterable[Report], fault: Fault, place: Place) -> list[GatedDrift]:
    """What the reports say of this very drift."""
    return [
        one
        for report in reports
        for one in report.drifts
        if one.drift.kind is fault.kind
        and (
            one.drift.container == place.name
            if fault.about == "container"
            else one.drift.slot == place.first
        )
    ]


@pytest.mark.parametrize("fault", DRIFTS, ids=lambda fault: fault.kind.value)
def test_a_drift_alone(fault: Fault) -> None:
    life = host_with(1)
    (place,) = places(life, [fault.kind])
    fault.before(place)
    live(life, 300.0)
    assert not life.plan().drifts
    fault.fault(place)
    reports = live(life)
    _judge(fault, place, reports)
    assert {one.drift.kind for report in reports for one in report.drifts} == {fault.kind}
    assert not life.sweep().drifts


def before_all_drifts() -> tuple[Life, list[Place]]:
    """A host with a place for each drift, as it is before that drift."""
    life = host_with(len(DRIFTS))
    everywhere = places(life, (fault.kind for fault in DRIFTS))
    for fault, place in zip(DRIFTS, everywhere, strict=True):
        fault.before(place)
    live(life, 300.0)
    return life, everywhere


def test_all_drifts_at_once() -> None:
    life, everywhere = before_all_drifts()
    assert not life.plan().drifts
    for fault, place in zip(DRIFTS, everywhere, strict=True):
        fault.fault(place)
    reports = live(life)
    for fault, place in zip(DRIFTS, everywhere, strict=True):
        _judge(fault, place, reports)
    assert not life.sweep().drifts
    assert life.sweep().is_consistent


def _judge(fault: Fault, place: Place, reports: list[Report]) -> None:
    told = met(reports, fault, place)
    assert told, "it was not found"
    for one in told:
        assert one.drift.reason
        assert any(line.startswith(fault.telling) for line in one.drift.evidence)
        assert one.outcome is Outcome.DONE or (one.reason and one.until is not None)
    assert [one.outcome for one in told].count(Outcome.DONE) == 1, "settled once, and for good"
    assert fault.mended(place)


def test_a_listing_twice_is_a_duplicate_of_the_slot() -> None:
    life = host_with(1)
    (place,) = places(life, [Kind.DUPLICATE_ALLOCATION])
    running(place)
    place.write_slot(place.first, containers=(place.name, place.name), users={"alice": 2})
    done = [one for report in live(life, 60.0) for one in report.drifts]
    assert {(one.drift.kind, one.drift.slot) for one in done} == {
        (Kind.DUPLICATE_ALLOCATION, place.first)
    }
    assert _slot(place) == slot(place.first, place.name)


def test_one_record_that_may_not_be_replaced_is_held_and_hinders_nothing() -> None:
    life = host_with(len(DRIFTS) + 1)
    everywhere = places(life, [*(fault.kind for fault in DRIFTS), Kind.UNREADABLE_METADATA])
    link = replace(everywhere[-1], name=ContainerName("link._.999"))
    running(link)
    broken(link, replaceable=False)
    for fault, place in zip(DRIFTS, everywhere, strict=False):
        fault.before(place)
    live(life, 300.0)
    for fault, place in zip(DRIFTS, everywhere, strict=False):
        fault.fault(place)
    reports = live(life)
    for fault, place in zip(DRIFTS, everywhere, strict=False):
        _judge(fault, place, reports)
    (left,) = life.sweep().drifts
    assert (left.drift.container, left.outcome, left.gate) == (
        link.name,
        Outcome.WAITING,
        WaitReason.BLOCKED,
    )
    assert isinstance(link.record, BadRecord)
    assert link.booked() == {link.first}


@pytest.mark.python_neutral
@pytest.mark.parametrize("broken_one", [fault.kind for fault in DRIFTS], ids=str)
def test_one_failing_metadata_write_hinders_no_other(broken_one: Kind) -> None:
    life, everywhere = before_all_drifts()
    for fault, place in zip(DRIFTS, everywhere, strict=True):
        fault.fault(place)
        if fault.kind is broken_one:
            life.host.unwritable |= {f"metadata {place.name}", f"metadata {place.other}"}
    reports = live(life)
    for fault, place in zip(DRIFTS, everywhere, strict=True):
        if fault.kind is not broken_one:
            _judge(fault, place, reports)
    life.host.unwritable.clear()
    live(life)
    for fault, place in zip(DRIFTS, everywhere, strict=True):
        assert fault.mended(place), fault.kind
    assert not life.sweep().drifts


def test_an_unreadable_state_among_all_other_drifts() -> None:
    """First the state is rebuilt from its last good copy, then all the rest is settled."""
    life, everywhere = before_all_drifts()
    for fault, place in zip(DRIFTS, everywhere, strict=True):
        fault.fault(place)
    life.host.state = Unreadable(
        reason="line 1: expected a value", digest=Digest("broken"), last_good=_state(life)
    )
    first = life.sweep()
    assert [one.drift.kind for one in first.drifts] == [Kind.UNREADABLE_STATE]
    assert first.drifts[0].gate is WaitReason.SETTLE
    assert not first.is_consistent
    life.host.pass_time(30.0)
    reports = live(life)
    assert reports[0].drifts[0].outcome is Outcome.DONE
    for fault, place in zip(DRIFTS, everywhere, strict=True):
        assert fault.mended(place), fault.kind
    assert not life.sweep().drifts


# --- findings ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Oddity:
    """What can only be reported: about whom, and a word that the reason has to say."""

    kind: FindingKind
    fault: Step
    says: str
    about: Callable[[Place], object] = lambda p: (p.name, p.first)


def running_as(**fields: object) -> Step:
    def step(p: Place) -> None:
        p.life.book(p.first, name=p.name).run(name=p.name, **fields)

    return step


ODDITIES = (
    Oddity(
        kind=FindingKind.SHARED_SLOT,
        fault=lambda p: [
            p.life.book(p.first, name=name).run(p.uuid, name=name) for name in (p.name, p.other)
        ],
        says="other-shared-slot",
        about=lambda p: (None, p.first),
    ),
    Oddity(
        kind=FindingKind.ROGUE_PROCESS,
        fault=lambda p: (
            p.life.book(p.second, name=p.name).run(f"MIG-{p.g}-1", name=p.name, id=f"id-{p.name}"),
            p.life.use(p.uuid, f"id-{p.name}"),
        ),
        says="process 40",
    ),
    Oddity(
        kind=FindingKind.FOREIGN_USE,
        fault=lambda p: p.life.run(p.uuid, name="vscode", labels={}),
        says="vscode",
        about=lambda p: ("vscode", p.first),
    ),
    Oddity(kind=FindingKind.BROAD_REQUEST, fault=running_as(request=ALL), says="asks for all GPUs"),
    Oddity(
        kind=FindingKind.BOOKING_WITHOUT_DEVICE,
        fault=running_as(),
        says="no GPU by its request",
    ),
    Oddity(
        kind=FindingKind.DEVICE_WITHOUT_SLOT,
        fault=running_as(request=named("MIG-of-nobody")),
        says="MIG-of-nobody",
        about=lambda p: (p.name, None),
    ),
    Oddity(
        kind=FindingKind.NOT_ADOPTED,
        fault=lambda p: p.life.run(f"{p.g}:0", name=p.name),
        says="which GPU is unknown",
        about=lambda p: (p.name, None),
    ),
    Oddity(
        kind=FindingKind.LABEL_CONTRADICTION,
        fault=lambda p: p.life.book(p.first, name=p.name).run(
            p.uuid, name=p.name, labels={"aime.mlc": "alice", "ds01.user": "mallory"}
        ),
        says="mallory",
    ),
    Oddity(
        kind=FindingKind.UNHEALTHY_GPU,
        fault=lambda p: p.life.set_gpu(
            gpus=tuple(
                replace(one, health=("is lost",)) if one.index == p.g else one
                for one in _gpus(p.life)
            )
        ),
        says="is lost",
        about=lambda p: (None, p.first),
    ),
    Oddity(
        kind=FindingKind.STUCK_REMOVAL,
        fault=lambda p: (
            p.life.book(p.first, name=p.name, user=UserName("bob")),
            p.life.run(p.uuid, name=p.name, labels={"aime.mlc": "bob"}, state=State.REMOVING),
            p.write_slot(p.first, users={"bob": 1}),
        ),
        says="can never be started again",
    ),
    Oddity(
        kind=FindingKind.LONG_NAME,
        fault=lambda p: p.life.list_in(p.first, name=long_name(p)).run(p.uuid, name=long_name(p)),
        says="a metadata file takes 250",
        about=lambda p: (long_name(p), p.first),
    ),
    Oddity(
        kind=FindingKind.UNCLEAR_LIMITS,
        fault=lambda p: (
            p.life.book(p.first, name=p.name, user=UserName("mallory")),
            p.life.run(p.uuid, name=p.name, labels={"aime.mlc": "mallory"}),
            p.write_slot(p.first, users={"mallory": 1}),
        ),
        says="not in any group",
    ),
    Oddity(
        kind=FindingKind.UNCLEAR_REQUEST,
        fault=running_as(request=Request(ask=GpuRequestKind.UNCLEAR, unclear=("device /dev/dri",))),
        says="not understood: device /dev/dri",
    ),
)


def _gpus(life: Life) -> tuple[Gpu, ...]:
    assert life.host.gpu is not None
    return life.host.gpu.gpus


def reported(report: Report, odd: Oddity, place: Place) -> list[Finding]:
    about = odd.about(place)
    return [f for f in report.findings if f.kind is odd.kind and (f.container, f.slot) == about]


@pytest.mark.parametrize("odd", ODDITIES, ids=lambda odd: odd.kind.value)
def test_a_finding_alone(odd: Oddity) -> None:
    life = host_with(1)
    (place,) = places(life, [odd.kind])
    live(life, 300.0)
    assert not life.sweep().findings
    odd.fault(place)
    live(life, 300.0)
    report = life.sweep()
    (found,) = reported(report, odd, place)
    assert odd.says in found.reason
    assert {finding.kind for finding in report.findings} <= {odd.kind} | COMPANIONS.get(
        odd.kind, set()
    )
    assert report.is_consistent, "a finding is no drift"


# A container without its slot's device has two names where it asks for a device that has none.
COMPANIONS = {FindingKind.DEVICE_WITHOUT_SLOT: {FindingKind.BOOKING_WITHOUT_DEVICE}}


def test_all_findings_and_all_drifts_at_once() -> None:
    kinds: list[Kind | FindingKind] = [
        *(fault.kind for fault in DRIFTS),
        *(odd.kind for odd in ODDITIES),
    ]
    life = host_with(len(kinds))
    everywhere = places(life, kinds)
    faulty = list(zip(DRIFTS, everywhere, strict=False))
    odd_ones = list(zip(ODDITIES, everywhere[len(DRIFTS) :], strict=True))
    for fault, place in faulty:
        fault.before(place)
    live(life, 300.0)
    for fault, place in faulty:
        fault.fault(place)
    for odd, place in odd_ones:
        odd.fault(place)
    reports = live(life)
    last = life.sweep()
    for fault, place in faulty:
        _judge(fault, place, reports)
    for odd, place in odd_ones:
        (found,) = reported(last, odd, place)
        assert odd.says in found.reason
    assert last.is_consistent


def test_who_undoes_a_repair_again_and_again_is_reported_and_waited_for() -> None:
    """Each repetition after the third waits twice as long as the one before."""
    life = host_with(1)
    (place,) = places(life, [Kind.WRONG_COUNT])
    running(place)
    live(life, 60.0)
    repaired: list[float] = []
    for _ in range(240):
        place.write_slot(place.first, users={"alice": 5})
        report = life.sweep()
        if any(one.outcome is Outcome.DONE for one in report.drifts):
            repaired.append(life.host.boot)
        life.host.pass_time(6.0)
    waits = [later - earlier for earlier, later in pairwise(repaired)]
    assert waits == sorted(waits)
    assert waits[-1] > 300.0
    (found,) = life.sweep().findings
    assert (found.kind, found.slot) == (FindingKind.OTHER_WRITER, place.first)
    (held,) = life.sweep().drifts
    assert (held.outcome, held.gate) == (Outcome.WAITING, WaitReason.BACKOFF)
