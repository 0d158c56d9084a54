"""Random hosts, and an oracle that knows the truth about them.

The oracle is independent of `ds01d.decide`: it keeps what every container really got when it
started, and judges each pass by what the books lost in it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace

from hypothesis import strategies as st

from ds01d.config import Config
from ds01d.model.books import AllocatorState, Attempt, BadRecord, Record, Slot, Unreadable
from ds01d.model.containers import NO_REQUEST, Container, GpuRequestKind, RefKind, Request, State
from ds01d.model.devices import Inventory
from ds01d.model.limits import HoldRule
from ds01d.model.primitives import (
    ContainerId,
    ContainerName,
    DeviceUuid,
    Digest,
    SlotId,
    Source,
    Unknown,
    UserName,
    Wall,
)
from ds01d.reconcile.reconciler import Reconciler
from ds01d.reconcile.report import Report
from tests.support.build import (
    ALL,
    LIMITS,
    books,
    config,
    container,
    count,
    gpu,
    inventory,
    mig,
    named,
    process,
    record,
    slot,
    two_by_two,
    whole,
)
from tests.support.world import Host

NAMES = tuple(ContainerName(f"{word}._.{1001 + i}") for i, word in enumerate(("a", "b", "c", "d")))
CREATION_GRACE = 900.0
LONGEST = 9_000.0  # longer than all graces, holds and windows of these hosts, one after another

Lost = frozenset[tuple[ContainerName, SlotId, DeviceUuid | None]]


@dataclass
class Reality:
    """A host with the truth about it: what each container got at its start, when it was made."""

    host: Host
    config: Config
    got: dict[ContainerId, frozenset[DeviceUuid]] = field(default_factory=dict)
    made: dict[ContainerId, float] = field(default_factory=dict)
    trusted: str = ""
    renamed: set[ContainerName] = field(default_factory=set)
    former: dict[ContainerName, set[ContainerId]] = field(default_factory=dict)
    """Who bore a name before a rename: its books follow the container."""
    released: int = 0

    def start(self, one: Container, *, anew: bool = True) -> None:
        """A container is there; one that starts anew has the devices that its request means now."""
        self.host.run(one)
        ago = self.host.wall - one.created if one.created is not None else 0.0
        self.made.setdefault(one.id, self.host.boot - ago)
        if anew:
            self.got[one.id] = meaning(one.request, self.host.gpu)

    def rename(self, *, before: ContainerName, after: ContainerName) -> None:
        """`docker rename`. Where `after` has a container too, the two of them swap their names."""
        pairs = [(before, after), (after, before)]
        both = [
            (one, other, replace(self.host.containers[ident], name=other))
            for one, other in pairs
            for ident in [i for i, c in self.host.containers.items() if c.name == one]
        ]
        for one, _, moved in both:
            self.host.containers[moved.id] = moved
            self.renamed.add(one)
            self.former.setdefault(one, set()).add(moved.id)

    def look(self, names: frozenset[ContainerName] | None = None) -> Report:
        """A pass by a fresh process, judged."""
        before = self.host.state, dict(self.host.records)
        if not self.trusted and Source.DOCKER not in self.host.failing:
            self.trusted = self.host.identity.id
        try:
            return Reconciler(self.host.world(), self.config).run(names)
        finally:  # also where it was killed
            self.judge(*before)

    @property
    def other_engine(self) -> bool:
        """Another engine answers than the first one that was remembered."""
        return self.host.identity.id != (self.trusted or self.host.identity.id)

    def judge(
        self,
        state: AllocatorState | Unreadable,
        records: dict[ContainerName, Record | BadRecord],
    ) -> None:
        now = self.host.state
        if not isinstance(state, AllocatorState) or not isinstance(now, AllocatorState):
            return
        lost = self.lost(state, now)
        self.released += len(lost)
        gone = {n for n, r in records.items() if n not in self.host.records}
        unread = {n for n in gone if isinstance(records[n], BadRecord)}
        living = {c.name for c in self.host.containers.values() if c.state.alive}
        there = {c.name for c in self.host.containers.values()}
        for name, place, device in lost:
            if any((new, place) in bookings(now) for new in self.new_names(name)):
                continue
            assert not self.needs(name, device), f"{name} lost {place} ({device}), which it has"
            if name not in there and name not in self.renamed:
                assert not self.haunted(place), f"{name} lost {place}, which somebody still uses"
        stayed = {n for n in gone if not self.new_names(n) & self.host.records.keys()}
        assert not (stayed - unread) & living, "metadata of a living container is gone"
        failing = self.host.failing
        if failing & {Source.DOCKER, Source.STATE, Source.METADATA} or self.other_engine:
            assert not lost, "released in the dark"
            assert not gone, "metadata removed in the dark"
        for name, place, _ in lost:
            if Source.NVML in failing:
                assert name in there or name in self.renamed, f"{name} lost {place} without NVML"
            if Source.LIMITS in failing and name in there - self.renamed:
                assert name in living, f"the hold of {name} ended without limits"

    def new_names(self, name: ContainerName) -> set[ContainerName]:
        """What those are called now who bore `name` before."""
        ids = self.former.get(name, set()) & self.host.containers.keys()
        return {self.host.containers[ident].name for ident in ids} - {name}

    def needs(self, name: ContainerName, device: DeviceUuid | None) -> bool:
        """Whether a container of that name has, or uses, that device; or was made just now."""
        for one in self.host.containers.values():
            if one.name != name:
                continue
            if one.state is State.CREATED and self.host.boot < self.made[one.id] + CREATION_GRACE:
                return True
            if one.state.alive and (device in self.got[one.id] or device in self.used(one.id)):
                return True
        return False

    def haunted(self, place: str) -> bool:
        """Whether a process on that slot belongs to a container that the engine does not list."""
        state, gpus = self.host.state, self.host.gpu
        if not isinstance(state, AllocatorState) or gpus is None:
            return False
        one = state.slots.get(SlotId(place))
        parts = {m.uuid for m in gpus.migs if one is not None and m.gpu == device_of(one)}
        if one is not None and (behind := device_of(one)) is not None:
            parts.add(behind)
        return any(
            isinstance(p.container, str) and p.container not in self.host.containers
            for p in gpus.processes
            if p.device in parts
        )

    def used(self, one: ContainerId) -> set[DeviceUuid]:
        processes = self.host.gpu.processes if self.host.gpu is not None else ()
        return {p.device for p in processes if p.container == one}

    def lost(self, before: AllocatorState, after: AllocatorState) -> Lost:
        """Bookings of `before` that are not in `after`: by device, or by place if that is dead."""
        kept_device = {(n, device_of(s)) for s in after.slots.values() for n in s.containers}
        kept_place = {(n, s.id) for s in after.slots.values() for n in s.containers}
        there = devices(self.host.gpu)
        return frozenset(
            (name, one.id, device_of(one))
            for one in before.slots.values()
            for name in one.containers
            if (name, device_of(one)) not in kept_device
            and (device_of(one) in there or (name, one.id) not in kept_place)
        )

    def settle_down(self, within: float = LONGEST, step: float = 230.0) -> Report:
        """Sweep until nothing is due or waits, or so much time has passed."""
        report = self.look()
        ends = self.host.boot + within
        while self.host.boot < ends:
            self.host.pass_time(step)
            report = self.look()
        return report


def devices(gpus: Inventory | None) -> set[DeviceUuid]:
    if gpus is None:
        return set()
    return {g.uuid for g in gpus.gpus} | {m.uuid for m in gpus.migs}


def device_of(one: Slot) -> DeviceUuid | None:
    """The device behind a slot; whole GPUs of these hosts never change places."""
    return one.uuid or (DeviceUuid(f"GPU-{one.gpu_index}") if one.mig_index is None else None)


def meaning(request: Request | Unknown, gpus: Inventory | None) -> frozenset[DeviceUuid]:
    """What a request gives a container that starts now."""
    if isinstance(request, Unknown) or gpus is None:
        return frozenset()
    if request.ask is GpuRequestKind.ALL:
        return frozenset(devices(gpus))
    if request.ask is GpuRequestKind.COUNT:
        return frozenset(g.uuid for g in gpus.gpus if g.index < request.count)
    place = {str(g.index): g.uuid for g in gpus.gpus}
    place |= {f"{m.gpu_index}:{m.index}": m.uuid for m in gpus.migs}
    texts = [ref.text for ref in request.devices if ref.kind is not RefKind.LEGACY_MIG]
    return frozenset(place.get(text, DeviceUuid(text)) for text in texts)


# --- random hosts -----------------------------------------------------------------------------


def _mixed() -> Inventory:
    return inventory(gpu(0), gpu(1, mig=True), mig(1, 0), mig(1, 1))


LAYOUTS = {"mig": two_by_two, "whole": lambda: whole(3), "mixed": _mixed}
PLACES = {
    "mig": ("0.0", "0.1", "1.0", "1.1"),
    "whole": ("0", "1", "2"),
    "mixed": ("0", "1.0", "1.1"),
}
BEHIND = {"0": "GPU-0", "1": "GPU-1", "2": "GPU-2"}

configs = st.builds(
    config,
    whole_gpus=st.sampled_from(["without-mig", "always"]),
    adopt=st.sampled_from(["managed", "managed", "off"]),
    pace_count=st.sampled_from([1, 2, 50]),
    pace_fraction=st.sampled_from([0.0, 0.25, 1.0]),
)
holds = st.sampled_from([0.0, 900.0, None])
labels = st.sampled_from([*[{"aime.mlc": "alice"}] * 5, {}, {"ds01.protected": "true"}])
metadata = st.sampled_from(
    [*["right"] * 4, "none", "broken", "blocked", "other slot", "undated", "new"]
)
states = st.sampled_from(
    [
        *[State.RUNNING] * 3,
        State.PAUSED,
        State.RESTARTING,
        State.EXITED,
        State.EXITED,
        State.DEAD,
        State.CREATED,
        State.REMOVING,
        None,
        None,
    ]
)


def behind(place: str) -> str:
    """The UUID of the device that `place` means on a fresh host."""
    return BEHIND.get(place) or f"MIG-{place.replace('.', '-')}"


def requests(places: tuple[str, ...]) -> st.SearchStrategy[Request | Unknown]:
    by_uuid = [named(behind(place)) for place in places]
    by_index = [named(place.replace(".", ":")) for place in places]
    pairs = [named(behind(one), behind(two)) for one in places for two in places if one < two]
    broad = [ALL, count(1), count(2), NO_REQUEST]
    odd = [named("MIG-dead"), Unknown(source=Source.DOCKER, reason="inspect timed out")]
    return st.sampled_from([*by_uuid, *by_uuid, *by_uuid, *by_index, *pairs, *broad, *odd])


@st.composite
def realities(draw: st.DrawFn) -> Reality:
    """A host that nobody has watched yet.

    It has up to four DS01 names, each with a container, bookings and metadata, right or wrong.
    """
    layout = draw(st.sampled_from(sorted(LAYOUTS)))
    places = PLACES[layout]
    host = Host(gpu=LAYOUTS[layout](), limits=replace(LIMITS, holds=_rules(draw(holds))))
    real = Reality(host=host, config=draw(configs))
    listed: dict[str, list[str]] = {place: [] for place in places}
    some = st.lists(st.sampled_from(places), max_size=2, unique=True)
    for name in NAMES[: draw(st.integers(1, len(NAMES)))]:
        booked = draw(some)
        for place in booked:
            listed[place].append(name)
        made = _container(draw, host, name, places)
        if made is not None:
            real.start(made)
            _processes(draw, host, made, places)
        _record(draw, host, name, booked, places)
    if draw(st.sampled_from([False, False, False, True])):
        _use(host, behind(draw(st.sampled_from(places))), "id-of-nobody")
    host.state = _state(draw, listed, layout)
    return real


def _rules(seconds: float | None) -> dict[UserName, HoldRule]:
    return {UserName("alice"): HoldRule(seconds=seconds, source="groups.all")}


def _container(
    draw: st.DrawFn, host: Host, name: ContainerName, places: tuple[str, ...]
) -> Container | None:
    state = draw(states)
    if state is None:
        return None
    made = draw(st.sampled_from([30.0, 5_000.0, 90_000.0]))
    ended = draw(st.sampled_from([10.0, 600.0, 4_000.0, None]))
    stopped = not state.alive and state is not State.CREATED
    return container(
        name,
        draw(requests(places)),
        state=state,
        labels=draw(labels),
        created=Wall(host.wall - made),
        started=None if state is State.CREATED else Wall(host.wall - made + 5),
        finished=Wall(host.wall - ended) if stopped and ended is not None else None,
    )


def _processes(draw: st.DrawFn, host: Host, one: Container, places: tuple[str, ...]) -> None:
    if not one.state.alive or not draw(st.booleans()):
        return
    device = draw(st.sampled_from([behind(place) for place in places]))
    _use(host, device, one.id)


def _use(host: Host, device: str, by: str) -> None:
    assert host.gpu is not None
    host.gpu = replace(host.gpu, processes=(*host.gpu.processes, process(device, by)))


def _record(
    draw: st.DrawFn, host: Host, name: ContainerName, booked: list[str], places: tuple[str, ...]
) -> None:
    what = draw(metadata)
    if what == "none" or (what == "right" and not booked):
        return
    if what in ("broken", "blocked"):
        host.records[name] = BadRecord(
            container=name, reason="is not JSON", digest=Digest("x"), replaceable=what == "broken"
        )
        return
    slot_id = booked[0] if booked and what != "other slot" else places[-1]
    ago = 60.0 if what == "new" else 100_000.0
    at = None if what == "undated" else Wall(host.wall - ago)
    host.records[name] = record(name, slot_id, allocated_at=at)
    if what == "new" and draw(st.booleans()):
        host.attempts[name] = Attempt(started=Wall(host.wall - 50), failed=Wall(host.wall - 10))


def _state(draw: st.DrawFn, listed: dict[str, list[str]], layout: str) -> AllocatorState:
    wrong = draw(st.sampled_from(["", "", "double", "count", "dead", "vanished", "missing"]))
    slots: list[Slot] = []
    for i, (place, names) in enumerate(listed.items()):
        one = slot(place, *names)
        if i == 0 and wrong == "double":
            one = replace(one, containers=(*one.containers, *one.containers))
        if i == 0 and wrong == "count":
            one = replace(one, users={"alice": 7, "bob": 1})
        if i == 0 and wrong == "dead" and one.uuid is not None:
            one = replace(one, uuid=DeviceUuid("MIG-dead"))
        if not (wrong == "missing" and i == len(listed) - 1 and not names):
            slots.append(one)
    if wrong == "vanished":
        slots.append(slot("7.0", uuid="MIG-gone"))
    return replace(books(*slots), mig_enabled=layout != "whole")


def bookings(state: object) -> set[tuple[str, str]]:
    assert isinstance(state, AllocatorState)
    return {(c, s.id) for s in state.slots.values() for c in s.containers}


def told(host: Host) -> tuple[object, ...]:
    """The books without digests and without the times that ds01d itself had to make up."""
    assert isinstance(host.state, AllocatorState)
    slots = {
        s.id: (sorted(s.containers), dict(s.users), s.uuid, s.profile)
        for s in host.state.slots.values()
    }
    records = {n: _said(r) for n, r in host.records.items()}
    return slots, records


def _said(one: Record | BadRecord) -> object:
    return one.reason if isinstance(one, BadRecord) else (one.user, one.gpu_id, one.priority)


def fork(real: Reality) -> Reality:
    """A copy that goes its own way."""
    return copy.deepcopy(real)
