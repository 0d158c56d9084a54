"""A small host with a bit of everything."""

from __future__ import annotations

from ds01d.model.facts import (
    AllocatorState,
    Ask,
    Container,
    ContainerId,
    ContainerName,
    DeviceRef,
    DeviceUuid,
    Digest,
    Gpu,
    GpuProcess,
    Inventory,
    MigDevice,
    Record,
    RefKind,
    Request,
    Slot,
    SlotId,
    SlotType,
    State,
    UserName,
    Wall,
)
from tests.support.world import WALL, Host

TRAIN, GONE, REST = "train._.1001", "gone._.1002", "rest._.1003"


def mig(index: int) -> MigDevice:
    return MigDevice(
        uuid=DeviceUuid(f"MIG-{index}"),
        gpu=DeviceUuid("GPU-1"),
        gpu_index=1,
        index=index,
        profile="1g.10gb",
    )


def slot(index: int, name: str, user: str) -> Slot:
    return Slot(
        id=SlotId(f"1.{index}"),
        type=SlotType.MIG,
        gpu_index=1,
        mig_index=index,
        containers=(ContainerName(name),) if name else (),
        users={user: 1} if user else {},
        uuid=DeviceUuid(f"MIG-{index}"),
        profile="1g.10gb",
    )


def container(name: str, number: int, user: str, state: State, device: str) -> Container:
    stopped = state in (State.EXITED, State.DEAD)
    return Container(
        id=ContainerId(f"{number:064x}"),
        name=ContainerName(name),
        state=state,
        labels={"aime.mlc": user, "aime.mlc.USER": user, "other": "label"},
        request=Request(ask=Ask.NAMED, devices=(DeviceRef(kind=RefKind.UUID, text=device),)),
        created=Wall(WALL - 7200),
        started=Wall(WALL - 7200),
        finished=Wall(WALL - 60) if stopped else None,
    )


def record(name: str, user: str, slot_id: str, **fields: object) -> Record:
    values: dict[str, object] = {
        "container": ContainerName(name),
        "user": UserName(user),
        "gpu_id": SlotId(slot_id),
        "priority": 10,
        "allocated_at": Wall(WALL - 7200),
        "allocated_text": "2027-01-15T07:00:00",
        "digest": Digest(name),
        **fields,
    }
    return Record(**values)  # type: ignore[arg-type]


def a_host() -> Host:
    """One runs, one is gone without a word, one rests in its hold; a slot is free."""
    host = Host(
        gpu=Inventory(
            gpus=(Gpu(uuid=DeviceUuid("GPU-1"), index=1, mig=True),),
            migs=tuple(mig(index) for index in range(4)),
            processes=(
                GpuProcess(
                    pid=4711,
                    device=DeviceUuid("MIG-0"),
                    container=ContainerId(f"{1:064x}"),
                    user="alice",
                    command="python",
                    memory=3 * 2**30,
                ),
            ),
        ),
        state=AllocatorState(
            slots={
                one.id: one
                for one in (
                    slot(0, TRAIN, "alice"),
                    slot(1, GONE, "bob"),
                    slot(2, REST, "carol"),
                    slot(3, "", ""),
                )
            },
            mig_enabled=True,
            digest=Digest("0"),
        ),
    )
    host.run(container(TRAIN, 1, "alice", State.RUNNING, "MIG-0"))
    host.run(container(REST, 3, "carol", State.EXITED, "MIG-2"))
    for name, user, where in ((TRAIN, "alice", "1.0"), (GONE, "bob", "1.1")):
        host.records[ContainerName(name)] = record(name, user, where)
    host.records[ContainerName(REST)] = record(
        REST, "carol", "1.2", stopped_at=Wall(WALL - 60), stopped_text="2027-01-15T08:59:00"
    )
    return host
