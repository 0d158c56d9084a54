"""A small host with a bit of everything: one runs, one is gone, one rests, and a slot is free."""

from __future__ import annotations

from ds01d.model.containers import Container, State
from ds01d.model.primitives import ContainerName, UserName, Wall
from tests.support.build import books, gpu, inventory, mig, named, process, record, slot
from tests.support.build import container as a_container
from tests.support.world import WALL, Host

TRAIN, GONE, REST = "train._.1001", "gone._.1002", "rest._.1003"
ALLOCATED = "2027-01-15T07:00:00"


def container(name: str, number: int, user: str, state: State, device: str) -> Container:
    """A container of two hours ago; a stopped one ended a minute ago."""
    return a_container(
        name,
        named(device),
        id=f"{number:064x}",
        state=state,
        labels={"aime.mlc": user, "aime.mlc.USER": user, "other": "label"},
        created=Wall(WALL - 7200),
        started=Wall(WALL - 7200),
        finished=None if state.alive else Wall(WALL - 60),
    )


def a_host() -> Host:
    """Make it."""
    using = process("MIG-1-0", f"{1:064x}", user="alice", memory=3 * 2**30)
    host = Host(
        gpu=inventory(gpu(1, mig=True), *(mig(1, index) for index in range(4)), processes=(using,)),
        state=books(
            slot("1.0", TRAIN, users={"alice": 1}),
            slot("1.1", GONE, users={"bob": 1}),
            slot("1.2", REST, users={"carol": 1}),
            slot("1.3"),
        ),
    )
    host.run(container(TRAIN, 1, "alice", State.RUNNING, "MIG-1-0"))
    host.run(container(REST, 3, "carol", State.EXITED, "MIG-1-2"))
    stop = {"stopped_at": Wall(WALL - 60), "stopped_text": "2027-01-15T07:59:00"}
    for name, user, where in (
        (TRAIN, "alice", "1.0"),
        (GONE, "bob", "1.1"),
        (REST, "carol", "1.2"),
    ):
        host.records[ContainerName(name)] = record(
            name,
            where,
            user=UserName(user),
            allocated_at=Wall(WALL - 7200),
            allocated_text=ALLOCATED,
            **(stop if name == REST else {}),
        )
    return host
