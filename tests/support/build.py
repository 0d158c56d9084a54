"""Builders for hosts in memory: a few words for GPUs, slots, containers, records, and what happens.

The usual host has two GPUs cut into two MIG devices each; the usual container is `train._.1001` of
alice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from ds01d.config import BooksConfig, Config, DaemonConfig, Policy
from ds01d.model.books import AllocatorState, Record, Slot, SlotType
from ds01d.model.containers import (
    NO_REQUEST,
    Container,
    DeviceRef,
    GpuRequestKind,
    RefKind,
    Request,
    State,
)
from ds01d.model.devices import Gpu, GpuProcess, Inventory, MigDevice
from ds01d.model.limits import HoldRule, Limits
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
from tests.support.world import WALL, Host

NAME = ContainerName("train._.1001")
OTHER = ContainerName("eval._.1002")
LABELS: Mapping[str, str] = {"aime.mlc": "alice", "aime.mlc.USER": "alice"}
ALLOCATED = Wall(WALL - 20_000)
CREATED = Wall(WALL - 19_900)
STARTED = Wall(WALL - 19_800)
HOUR = 3600.0
ALWAYS_UNLIMITED = Limits(
    holds={}, unknown_user=HoldRule(seconds=None, source="defaults"), default_quota=None
)
LIMITS = Limits(
    holds={UserName("alice"): HoldRule(seconds=900.0, source="groups.students")},
    unknown_user=HoldRule(seconds=1800.0, source="defaults", problem="user not in any group"),
    default_priority=10,
)


def gpu(index: int, *, mig: bool | None = None, uuid: str = "", **fields: Any) -> Gpu:
    return Gpu(uuid=DeviceUuid(uuid or f"GPU-{index}"), index=index, minor=index, mig=mig, **fields)


def mig(gpu_index: int, index: int, uuid: str = "", gpu_uuid: str = "") -> MigDevice:
    return MigDevice(
        uuid=DeviceUuid(uuid or f"MIG-{gpu_index}-{index}"),
        gpu=DeviceUuid(gpu_uuid or f"GPU-{gpu_index}"),
        gpu_index=gpu_index,
        index=index,
        profile="1g.10gb",
        gi=index + 7,
        ci=0,
    )


def inventory(*devices: Gpu | MigDevice, **fields: Any) -> Inventory:
    return Inventory(
        gpus=tuple(d for d in devices if isinstance(d, Gpu)),
        migs=tuple(d for d in devices if isinstance(d, MigDevice)),
        **fields,
    )


def two_by_two() -> Inventory:
    """Two GPUs, two MIG devices on each."""
    return inventory(gpu(0, mig=True), gpu(1, mig=True), mig(0, 0), mig(0, 1), mig(1, 0), mig(1, 1))


def whole(count: int) -> Inventory:
    """GPUs that are not cut."""
    return inventory(*(gpu(index) for index in range(count)))


def process(
    device: str, container: str | Unknown | None, pid: int = 4711, **fields: Any
) -> GpuProcess:
    return GpuProcess(
        pid=pid,
        device=DeviceUuid(device),
        container=ContainerId(container) if isinstance(container, str) else container,
        command="python",
        **fields,
    )


def slot(
    place: str,
    *names: str,
    users: Mapping[str, int] | None = None,
    uuid: str | None = "",
    profile: str | None = "1g.10gb",
) -> Slot:
    """A slot as the allocator has it; every container is alice's unless `users` says otherwise."""
    index, _, part = place.replace(":", ".").partition(".")
    is_mig = bool(part)
    behind = DeviceUuid(f"MIG-{index}-{part}") if uuid == "" else uuid and DeviceUuid(uuid)
    return Slot(
        id=SlotId(place),
        type=SlotType.MIG if is_mig else SlotType.PHYSICAL,
        gpu_index=int(index),
        mig_index=int(part) if is_mig else None,
        containers=tuple(ContainerName(name) for name in names),
        users=({"alice": len(set(names))} if names else {}) if users is None else users,
        uuid=(behind or None) if is_mig else None,
        profile=profile if is_mig else None,
    )


def books(*slots: Slot, digest: str = "0", **fields: Any) -> AllocatorState:
    return AllocatorState(
        slots={slot.id: slot for slot in slots},
        mig_enabled=any(slot.mig_index is not None for slot in slots),
        digest=Digest(digest),
        **fields,
    )


def four_slots(**booked: str) -> AllocatorState:
    """The slots of `two_by_two`; `_1_0="train._.1001"` books (several names with a blank)."""
    at = {key.strip("_").replace("_", "."): names.split() for key, names in booked.items()}
    return books(*(slot(place, *at.get(place, ())) for place in ("0.0", "0.1", "1.0", "1.1")))


def named(*texts: str) -> Request:
    """A request for these devices, each understood by how it looks."""
    return Request(ask=GpuRequestKind.NAMED, devices=tuple(_ref(text) for text in texts))


def _ref(text: str) -> DeviceRef:
    if text.startswith("MIG-GPU-"):
        kind = RefKind.LEGACY_MIG
    elif text.startswith(("GPU-", "MIG-")):
        kind = RefKind.UUID
    elif text.startswith("/dev/nvidia"):
        return DeviceRef(kind=RefKind.MINOR, text=text.removeprefix("/dev/nvidia"))
    else:
        kind = RefKind.MIG_INDEX if ":" in text else RefKind.INDEX
    return DeviceRef(kind=kind, text=text)


ALL = Request(ask=GpuRequestKind.ALL)


def count(number: int) -> Request:
    return Request(ask=GpuRequestKind.COUNT, count=number)


def container(
    name: str = NAME,
    request: Request | Unknown = NO_REQUEST,
    *,
    id: str = "",  # noqa: A002 - as the fact calls it
    state: State = State.RUNNING,
    labels: Mapping[str, str] = LABELS,
    **fields: Any,
) -> Container:
    """A finished DS01 container that runs since long ago, unless told otherwise."""
    started = None if state is State.CREATED else STARTED
    return Container(
        id=ContainerId(id or f"id-{name}"),
        name=ContainerName(name),
        state=state,
        labels=labels,
        request=request,
        **({"created": CREATED, "started": started} | fields),
    )


def record(name: str = NAME, gpu_id: str | None = "1.0", **fields: Any) -> Record:
    """Metadata of a booking made long ago, by alice."""
    at = fields.get("allocated_at", ALLOCATED)
    stopped = fields.get("stopped_at")
    texts = {
        "allocated_text": None if at is None else f"at {at}",
        "stopped_text": None if stopped is None else f"at {stopped}",
    }
    known: dict[str, Any] = {
        "user": UserName("alice"),
        "priority": 10,
        "allocated_at": at,
        "digest": Digest("r"),
    }
    return Record(
        container=ContainerName(name),
        gpu_id=None if gpu_id is None else SlotId(gpu_id),
        **(known | texts | fields),
    )


def config(*, mode: str = "repair", whole_gpus: str = "without-mig", **policy: Any) -> Config:
    """The defaults, but for what is named; `policy` as in [policy]."""
    return Config(
        daemon=DaemonConfig(mode=mode),  # type: ignore[arg-type]
        books=BooksConfig(whole_gpus=whole_gpus),  # type: ignore[arg-type]
        policy=Policy(**policy),
    )


def with_docker_books(settings: Config) -> Config:
    """The same, with Docker as the books."""
    fields = {name: getattr(settings, name) for name in settings.__struct_fields__}
    books = msgspec.structs.replace(settings.books, kind="docker")
    # Not by `replace`: that of older versions of msgspec calls no __post_init__.
    return Config(**{**fields, "books": books})


class Life:
    """A host and what happens on it: time passes while a daemon watches (or repairs).

    Everything is about `NAME` unless another name is given. `wall` and `boot` of the host move
    together; the daemon sweeps every minute, so that Docker's answers have no gap.
    """

    def __init__(self, settings: Config | None = None, **fields: Any) -> None:
        self.config = settings or config(mode="observe")
        known: dict[str, Any] = {"gpu": two_by_two(), "state": four_slots(), "limits": LIMITS}
        self.host = Host(**(known | fields))
        self._ids = 0

    def book(self, *places: str, name: str = NAME, **fields: Any) -> Life:
        """Book slots the way the allocator does: state, then metadata."""
        self.list_in(*places, name=name)
        known: dict[str, Any] = {"gpu_id": places[0]}
        self.host.records[ContainerName(name)] = record(name, **(known | self._times(fields)))
        return self

    def list_in(self, *places: str, name: str = NAME) -> Life:
        """Book slots in the state alone."""
        state = self.host.state
        assert isinstance(state, AllocatorState)
        slots = dict(state.slots)
        for place in places:
            old = slots[SlotId(place)]
            slots[old.id] = slot(place, *old.containers, name, uuid=old.uuid)
        self.host.state = books(*slots.values(), digest=f"{state.digest}+")
        return self

    def run(self, *devices: str, name: str = NAME, **fields: Any) -> Life:
        """Let a container run on these devices, in the place of one that has the name already."""
        request = named(*devices) if devices else NO_REQUEST
        for old in [c.id for c in self.host.containers.values() if c.name == name]:
            del self.host.containers[old]
        self._ids += 1
        own = f"id-{name}" + ("" if self._ids == 1 else f"-{self._ids}")
        known: dict[str, Any] = {"request": request, "id": own}
        self.host.run(container(name, **(known | self._times(fields))))
        return self

    def start_now(self, *devices: str, name: str = NAME, **fields: Any) -> Life:
        return self.run(*devices, name=name, started=Wall(self.host.wall), **fields)

    def stop(self, name: str = NAME, **fields: Any) -> Life:
        known: dict[str, Any] = {"state": State.EXITED, "finished": Wall(self.host.wall)}
        self.host.change(name, **(known | self._times(fields)))
        return self

    def remove(self, name: str = NAME, *, told: bool = True) -> Life:
        self.host.remove(name, told=told)
        return self

    def change(self, name: str = NAME, **fields: Any) -> Life:
        self.host.change(name, **self._times(fields))
        return self

    def rename(self, before: str, after: str) -> Life:
        self.host.change(before, name=ContainerName(after))
        return self

    def use(self, device: str, by: str | Unknown | None) -> Life:
        """Let a process of a container (its id; None = of the host) use a device."""
        assert self.host.gpu is not None
        more = (*self.host.gpu.processes, process(device, by, pid=4000 + len(device)))
        self.set_gpu(processes=more)
        return self

    def set_gpu(self, **fields: Any) -> Life:
        assert self.host.gpu is not None
        self.host.gpu = replace(self.host.gpu, **fields)
        return self

    def fail(self, *sources: Source) -> Life:
        self.host.failing |= set(sources)
        return self

    def mend(self) -> Life:
        self.host.failing.clear()
        return self

    def set_wall(self, forward: float) -> Life:
        """Somebody sets the wall clock."""
        self.host.wall += forward
        return self

    def _times(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """`created_ago=60` is `created` a minute before now."""
        return {
            key.removesuffix("_ago"): Wall(self.host.wall - value)
            if key.endswith("_ago")
            else value
            for key, value in fields.items()
        }

    def sweep(self) -> Report:
        return Reconciler(self.host.world(), self.config).run()

    def plan(self) -> Report:
        return Reconciler(self.host.world(), self.config).plan()

    def after(self, seconds: float) -> Life:
        """Sweep now, every minute, and once so much time has passed."""
        self.sweep()
        left = seconds
        while left > 0:
            step = min(60.0, left)
            self.host.pass_time(step)
            left -= step
            self.sweep()
        return self
