"""With Docker as the books: whose the containers with slots are, and who pays for them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ds01d.decide.owner_guess import identify_owner
from ds01d.decide.ownership import NOBODY
from ds01d.decide.user_counters import recount_users
from ds01d.model.books import BadRecord, Record, Slot
from ds01d.model.containers import Container, Engine, State
from ds01d.model.limits import Limits
from ds01d.model.ownership import Owner, OwnerSource
from ds01d.model.primitives import ContainerName, SlotId, UserName
from ds01d.model.snapshot import Snapshot

Owners = Mapping[ContainerName, Owner | None]
Records = Mapping[ContainerName, Record | BadRecord]


def find_derived_owners(
    names: Iterable[ContainerName], snapshot: Snapshot, stored: Records
) -> Owners:
    """Whose the containers are; `stored`: the records of reservations."""
    containers = _list_containers(snapshot)
    owners: dict[ContainerName, Owner | None] = {}
    for name in names:
        record = stored.get(name)
        readable = record if isinstance(record, Record) else None
        owners[name] = identify_owner(name, readable, containers.get(name), snapshot)
    return owners


def find_uncharged(owners: Owners, snapshot: Snapshot) -> frozenset[ContainerName]:
    """The containers that count for nobody's quota."""
    return frozenset(_list_uncharged(owners, snapshot))


def _list_uncharged(owners: Owners, snapshot: Snapshot) -> Iterator[ContainerName]:
    containers, limits = _list_containers(snapshot), snapshot.limits
    for name, owner in owners.items():
        container = containers.get(name)
        if owner is not None and owner.is_guess:
            yield name
        # Decision 226: its slots are released a moment later, once that is proven.
        elif container is not None and _has_ended(container) and isinstance(limits, Limits):
            user = None if owner is None else owner.user
            if limits.find_hold(user, container.type).seconds == 0:
                yield name


def count_charged(slot: Slot, names: Iterable[ContainerName], owners: Owners) -> Mapping[str, int]:
    """By owner; of a reservation that lost its record, by what the file counts."""
    users: list[UserName | None] = []
    for name in names:
        owner = owners[name]
        # Decision 225: a guess counts for nobody, not even for whom the file counts.
        users.append(None if owner is None else NOBODY if owner.is_guess else owner.user)
    counts = recount_users(slot.users, users)
    # Nobody's counter would look like that of a user who is called so.
    return {user: count for user, count in counts.items() if user != NOBODY}


def make_records(
    derived: Iterable[tuple[ContainerName, SlotId]],
    owners: Owners,
    snapshot: Snapshot,
    stored: Records,
) -> Mapping[ContainerName, Record]:
    """A record for each container that has something and no record of its own."""
    first = dict(sorted(derived, reverse=True))  # of several slots the lowest, as ever
    containers, limits = _list_containers(snapshot), snapshot.limits
    records = {}
    for name, slot in first.items():
        if name in stored:
            continue
        container, user = containers.get(name), _find_recorded_user(owners[name])
        has_ended = container is not None and _has_ended(container)
        records[name] = Record(
            container=name,
            user=user or NOBODY,
            gpu_id=slot,
            priority=limits.find_priority(user) if isinstance(limits, Limits) else 0,
            allocated_at=container.created if container is not None else None,
            stopped_at=container.finished if container is not None and has_ended else None,
        )
    return records


def _find_recorded_user(owner: Owner | None) -> UserName | None:
    # A record gives rights: of the guesses only a label does, as ever (decision 135).
    if owner is None or (owner.is_guess and owner.source is not OwnerSource.LABEL):
        return None
    return owner.user


def _has_ended(container: Container) -> bool:
    return container.state in (State.EXITED, State.DEAD)


def _list_containers(snapshot: Snapshot) -> Mapping[ContainerName, Container]:
    return snapshot.docker.by_name if isinstance(snapshot.docker, Engine) else {}
