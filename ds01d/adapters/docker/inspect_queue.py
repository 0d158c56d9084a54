"""The containers that must be inspected, in the order in which they became stale."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from ds01d.model.primitives import ContainerId, ContainerName


class InspectQueue:
    """Not for several threads: `DockerCache` calls it with its lock held.

    A container is *stale* after an event or a row that its cached state does not explain, and
    *failed* from the beginning of an inspect until its answer.
    """

    def __init__(self) -> None:
        # Container → the names that are undecided until it is inspected; longest stale first.
        self._stale: dict[ContainerId, frozenset[ContainerName]] = {}
        self._failed: set[ContainerId] = set()

    def __contains__(self, container_id: ContainerId) -> bool:
        """The cached state of this container is not up to date."""
        return container_id in self._stale or container_id in self._failed

    def is_stale(self, container_id: ContainerId) -> bool:
        return container_id in self._stale

    def mark_stale(self, container_id: ContainerId, names: frozenset[ContainerName]) -> None:
        self._stale[container_id] = self._stale.get(container_id, frozenset()) | names

    def select_due(self, names: frozenset[ContainerName] | None) -> list[ContainerId]:
        """The containers to inspect before anything is decided about `names`; None: all of them.

        With None those whose last inspect failed are tried again, last of all.
        """
        stale = [
            container_id
            for container_id, affected in self._stale.items()
            # An event without a name may be about any name.
            if names is None or not affected or not affected.isdisjoint(names)
        ]
        # Last: a container that hangs must not delay those that would answer.
        retries = self._failed - self._stale.keys() if names is None else ()
        return [*sorted(stale, key=self._failed.__contains__), *retries]

    def affected_names(self, container_ids: Iterable[ContainerId]) -> frozenset[ContainerName]:
        """The names that are undecided until these containers are inspected."""
        return frozenset().union(*(self._stale.get(key, frozenset()) for key in container_ids))

    def begin_inspect(self, container_id: ContainerId) -> None:
        """Events from now on make the container stale again."""
        self._stale.pop(container_id, None)
        # Failed until it is answered: whatever ends this inspect, it is not taken for fresh.
        self._failed.add(container_id)

    def end_inspect(self, container_id: ContainerId) -> None:
        """There is an answer."""
        self._failed.discard(container_id)

    def remove(self, container_id: ContainerId) -> None:
        self._stale.pop(container_id, None)
        self._failed.discard(container_id)

    def retain(self, current: AbstractSet[ContainerId]) -> None:
        """Remove all others."""
        self._stale = {key: names for key, names in self._stale.items() if key in current}
        self._failed &= current
