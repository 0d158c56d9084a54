"""Which container a booking belongs to after `docker rename`. Pure.

A booking belongs to a container ID. The books list names, so between a rename and the moment at
which the books follow, a name in the books and a name in Docker are two things: `home` is the name
under which the books have a container, and its current name is another one. All that is remembered
by name (first sight, absence, deadlines, identity) belongs to the home, and moves with the books.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from ds01d.model.checkpoint import Checkpoint, Identity
from ds01d.model.containers import Container, Engine
from ds01d.model.primitives import ContainerId, ContainerName


@dataclass(frozen=True, slots=True, kw_only=True)
class Renames:
    """Renames that the books have not followed yet.

    `after`: home → current name. `before`: current name → its homes, nearly always one. `orphans`:
    booked names whose container is gone, and which another one has taken.
    """

    current_name: Mapping[ContainerName, ContainerName] = field(default_factory=dict)
    previous_names: Mapping[ContainerName, tuple[ContainerName, ...]] = field(default_factory=dict)
    orphans: frozenset[ContainerName] = frozenset()

    def name_in_books(self, name: ContainerName) -> ContainerName:
        """The name under which books and memory have the container that is called `name` now."""
        homes = self.previous_names.get(name)
        return name if homes is None else homes[0]

    def is_displaced(self, name: ContainerName) -> bool:
        """Whether the books of `name` belong to another container than the one that has it now.

        So it is when names are swapped or rotated. A container made anew under the old name is no
        such one: what it holds cannot be told apart from what the renamed one holds.
        """
        return name in self.previous_names and (name in self.current_name or name in self.orphans)

    def connect_names(self, names: Iterable[ContainerName]) -> set[ContainerName]:
        """`names`, and all names that renames connect with them: a swap is one change."""
        found = set(names)
        left = list(found)
        while left:
            name = left.pop()
            near = (
                *self.previous_names.get(name, ()),
                *(n for n in (self.current_name.get(name),) if n),
            )
            left += (new := set(near) - found)
            found |= new
        return found


NO_RENAMES = Renames()
K = TypeVar("K", bound=str)
V = TypeVar("V")


def find_renames(
    memory: Checkpoint,
    engine: Engine,
    booked: Collection[ContainerName],
    recorded: Collection[ContainerName],
) -> Renames:
    """The renames that concern a name in the books, those of the names it was swapped with too.

    `booked`: the names that slots list; `recorded`: those that have metadata.
    """
    after: dict[ContainerName, ContainerName] = {}
    for name, known in memory.identities.items():
        container = engine.containers.get(known.id)
        if container is not None and container.name != name:
            after[name] = container.name
    if not after:  # as nearly always
        return NO_RENAMES
    before: dict[ContainerName, tuple[ContainerName, ...]] = {}
    for name, now in after.items():
        before[now] = (*before.get(now, ()), name)
    every = Renames(current_name=after, previous_names=before)
    wanted = every.connect_names(name for name in after if name in booked or name in recorded)
    return Renames(
        current_name={name: now for name, now in after.items() if name in wanted},
        previous_names={now: names for now, names in before.items() if now in wanted},
        orphans=frozenset(
            name
            for name in before.keys() & wanted
            if name in booked
            and (bound := memory.identities.get(name)) is not None
            and bound.id not in engine.containers
        ),
    )


def find_bound_container(
    home: ContainerName, memory: Checkpoint, engine: Engine, renames: Renames
) -> Container | None:
    """The container that what is remembered of `home` is about; None if it is gone."""
    there = engine.by_name.get(home)
    if home in renames.current_name and (there is None or home in renames.previous_names):
        return engine.containers[memory.identities[home].id]
    return None if home in renames.orphans else there


def follow_renames(
    memory: Checkpoint, bearers: Mapping[ContainerName, ContainerId | None]
) -> Checkpoint:
    """The memory once the books have followed: each name in `bearers` is that container's home.

    None: no container has that name, and nothing is left of it in the books. Does nothing for names
    that are their container's home already, so it may be repeated.
    """
    source = {name: _home_of(name, bearers, memory) for name in bearers}
    moved = {name: before for name, before in source.items() if before != name}
    if not moved:
        return memory
    identities = _moved(memory.identities, moved)
    for name, bearer in bearers.items():
        if bearer is not None and name not in identities:
            identities[name] = Identity(id=bearer, labelled=False, created=None)
    allocated = {
        f"allocated|{name}": None if home is None else f"allocated|{home}"
        for name, home in moved.items()
    }
    return replace(
        memory,
        identities=identities,
        appeared=_moved(memory.appeared, moved),
        unlabelled=_moved(memory.unlabelled, moved),
        absent={n: at for n, at in memory.absent.items() if n not in moved},
        destroyed={n: at for n, at in memory.destroyed.items() if n not in moved},
        starts=_moved(memory.starts, allocated),
    )


def _home_of(
    name: ContainerName, bearers: Mapping[ContainerName, ContainerId | None], memory: Checkpoint
) -> ContainerName | None:
    """The home so far of the container that is called `name` now."""
    bearer = bearers[name]
    if bearer is None:
        return None
    others = (other for other in bearers if other != name)
    candidates = (*others, name, *memory.identities)
    return next((one for one in candidates if _is_of(one, bearer, memory)), None)


def _is_of(name: ContainerName, bearer: ContainerId, memory: Checkpoint) -> bool:
    known = memory.identities.get(name)
    return known is not None and known.id == bearer


def _moved(old: Mapping[K, V], moved: Mapping[K, K | None]) -> dict[K, V]:
    """`old` with each key of `moved` having what its value had; None had nothing."""
    new = {key: value for key, value in old.items() if key not in moved}
    return new | {key: old[was] for key, was in moved.items() if was is not None and was in old}
