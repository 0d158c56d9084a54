"""Which container a booking belongs to after `docker rename`. Pure.

A booking belongs to a container ID. The books list names, so between a rename and the moment at
which the books follow, a container has two names: that in the books, and its current one. All that
the checkpoint keeps by name (first sight, absence, deadlines, identity) is kept under the name in
the books, and moves with them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import TypeVar

from ds01d.model.books import AllocatorState
from ds01d.model.checkpoint import Checkpoint, Identity
from ds01d.model.containers import Container, Engine
from ds01d.model.primitives import ContainerId, ContainerName, Unknown
from ds01d.model.snapshot import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Renames:
    """Renames that the books have not followed yet.

    `current_name`: name in the books → current name. `previous_names`: current name → its names in
    the books, nearly always one. `orphans`: booked names whose container is gone, and which another
    one has taken.
    """

    current_name: Mapping[ContainerName, ContainerName] = field(default_factory=dict)
    previous_names: Mapping[ContainerName, tuple[ContainerName, ...]] = field(default_factory=dict)
    orphans: frozenset[ContainerName] = frozenset()

    def name_in_books(self, name: ContainerName) -> ContainerName:
        """The name under which books and checkpoint have what is called `name` now."""
        recorded_names = self.previous_names.get(name)
        return name if recorded_names is None else recorded_names[0]

    def is_displaced(self, name: ContainerName) -> bool:
        """Whether the books of `name` belong to another container than the one that has it now.

        True when names are swapped or rotated. A new container under the old name does not displace
        it: what the two hold cannot be separated (decision 69).
        """
        return name in self.previous_names and (name in self.current_name or name in self.orphans)

    def connect_names(self, names: Iterable[ContainerName]) -> set[ContainerName]:
        """`names`, and all names that renames connect with them: a swap is one change."""
        connected = set(names)
        pending = list(connected)
        while pending:
            name = pending.pop()
            neighbours = (
                *self.previous_names.get(name, ()),
                *(n for n in (self.current_name.get(name),) if n),
            )
            pending += (new := set(neighbours) - connected)
            connected |= new
        return connected


NO_RENAMES = Renames()
K = TypeVar("K", bound=str)
V = TypeVar("V")


def find_renames(
    checkpoint: Checkpoint, snapshot: Snapshot, booked: Collection[ContainerName]
) -> Renames:
    """The renames that concern a name in the books, those of the names it was swapped with too.

    `booked`: the names that slots list. None while Docker does not answer.
    """
    engine = snapshot.docker
    if isinstance(engine, Unknown):
        return NO_RENAMES
    # By ID: Docker keeps it through `docker rename`, and nothing else links the two names. Every
    # pass looks at all that are remembered, so without a call of Python for each.
    ids = map(attrgetter("id"), checkpoint.identities.values())
    containers = map(engine.containers.get, ids)
    current_name = {
        name: container.name
        for name, container in zip(checkpoint.identities, containers, strict=True)
        if container is not None and container.name != name
    }
    # Nearly always nothing was renamed; a sweep over hundreds of names stops here.
    if not current_name:
        return NO_RENAMES
    # Decision 375: what follows from requests has the present names already. It is nothing to be
    # moved, nor does it keep the name for the container that had it before.
    derived = _list_derived_names(snapshot)
    current_name = {name: new for name, new in current_name.items() if name not in derived}
    records = {} if isinstance(snapshot.metadata, Unknown) else snapshot.metadata
    previous_names: dict[ContainerName, tuple[ContainerName, ...]] = {}
    for name, new_name in current_name.items():
        previous_names[new_name] = (*previous_names.get(new_name, ()), name)
    all_renames = Renames(current_name=current_name, previous_names=previous_names)
    # A swap or a rotation is one change, so names that are not in the books themselves come along
    # if a rename connects them.
    wanted = all_renames.connect_names(
        name for name in current_name if name in booked or name in records
    )
    return Renames(
        current_name={name: new_name for name, new_name in current_name.items() if name in wanted},
        previous_names={
            new_name: names for new_name, names in previous_names.items() if new_name in wanted
        },
        orphans=frozenset(
            name
            for name in previous_names.keys() & wanted
            if name in booked
            and name not in derived
            and (bound := checkpoint.identities.get(name)) is not None
            and bound.id not in engine.containers
        ),
    )


def _list_derived_names(snapshot: Snapshot) -> frozenset[ContainerName]:
    """With Docker as the books: the names that have something, of which nothing is stored."""
    state = snapshot.state
    if not isinstance(state, AllocatorState) or not state.derived:
        return frozenset()
    stored = (state.list_bookings() - state.derived) | state.doubled | state.merge
    records = {} if isinstance(snapshot.metadata, Unknown) else snapshot.metadata
    return frozenset(
        {name for name, _ in state.derived}
        - {name for name, _ in stored}
        # Without a digest it is derived, too.
        - {name for name, record in records.items() if record.digest}
    )


def find_bound_container(
    recorded_name: ContainerName, checkpoint: Checkpoint, engine: Engine, renames: Renames
) -> Container | None:
    """The container that what is remembered of `home` is about; None if it is gone."""
    current = engine.by_name.get(recorded_name)
    if recorded_name in renames.current_name and (
        current is None or recorded_name in renames.previous_names
    ):
        return engine.containers[checkpoint.identities[recorded_name].id]
    return None if recorded_name in renames.orphans else current


def follow_renames(
    checkpoint: Checkpoint, container_by_name: Mapping[ContainerName, ContainerId | None]
) -> Checkpoint:
    """The checkpoint once the books have followed: each name is that of its container there.

    None: no container has that name, and nothing is left of it in the books. Does nothing for names
    that are their container's home already, so it may be repeated.
    """
    previous = {
        name: _find_recorded_name(name, container_by_name, checkpoint) for name in container_by_name
    }
    moved = {
        name: recorded_name for name, recorded_name in previous.items() if recorded_name != name
    }
    if not moved:
        return checkpoint
    identities = _move_keys(checkpoint.identities, moved)
    for name, container_id in container_by_name.items():
        # Without an identity the next rename of this container would look like an absence and a new
        # container.
        if container_id is not None and name not in identities:
            identities[name] = Identity(id=container_id, labelled=False, created=None)
    allocated = {
        f"allocated|{name}": None if recorded_name is None else f"allocated|{recorded_name}"
        for name, recorded_name in moved.items()
    }
    return replace(
        checkpoint,
        identities=identities,
        appeared=_move_keys(checkpoint.appeared, moved),
        unlabelled=_move_keys(checkpoint.unlabelled, moved),
        absent={n: at for n, at in checkpoint.absent.items() if n not in moved},
        destroyed={n: at for n, at in checkpoint.destroyed.items() if n not in moved},
        starts=_move_keys(checkpoint.starts, allocated),
    )


def _find_recorded_name(
    name: ContainerName,
    container_by_name: Mapping[ContainerName, ContainerId | None],
    checkpoint: Checkpoint,
) -> ContainerName | None:
    """The home so far of the container that is called `name` now."""
    container_id = container_by_name[name]
    if container_id is None:
        return None
    others = (other for other in container_by_name if other != name)
    candidates = (*others, name, *checkpoint.identities)
    return next(
        (
            candidate
            for candidate in candidates
            if _is_recorded_as(candidate, container_id, checkpoint)
        ),
        None,
    )


def _is_recorded_as(name: ContainerName, container_id: ContainerId, checkpoint: Checkpoint) -> bool:
    identity = checkpoint.identities.get(name)
    return identity is not None and identity.id == container_id


def _move_keys(old: Mapping[K, V], moved: Mapping[K, K | None]) -> dict[K, V]:
    """`old` with each key of `moved` having what its value had; None had nothing."""
    new = {key: value for key, value in old.items() if key not in moved}
    return new | {
        key: old[old_key]
        for key, old_key in moved.items()
        if old_key is not None and old_key in old
    }
