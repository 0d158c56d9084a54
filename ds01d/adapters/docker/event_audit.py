"""Finds events that the stream has lost, by comparing each list of containers with it.

A list may be ahead of the stream by a moment, so a change that it shows without an event only
*awaits* one. If none has come by the next list on the same stream, the event is lost.
"""

from __future__ import annotations

from ds01d.model.containers import State
from ds01d.model.primitives import ContainerId

# Docker sends no event for these two states: a `destroy` follows when the container is gone.
SILENT_STATES = frozenset((State.REMOVING, State.DEAD))


class EventAudit:
    """Not for several threads: `DockerCache` calls it with its lock held."""

    def __init__(self) -> None:
        self.received = 0
        self.lost = 0
        self.since_list: set[ContainerId] = set()
        """The containers with an event since the last list was asked for."""
        self._awaited: set[ContainerId] = set()

    @property
    def is_awaiting(self) -> bool:
        """The last list was ahead of the stream."""
        return bool(self._awaited)

    def count_event(self, container_id: ContainerId) -> None:
        self.received += 1
        self.since_list.add(container_id)
        self._awaited.discard(container_id)

    def await_event(self, container_id: ContainerId, state: State) -> None:
        """A list shows a change of this container, which is in `state`, and no event has come."""
        if container_id not in self.since_list and state not in SILENT_STATES:
            self._awaited.add(container_id)

    def count_lost(self, *, gapless: bool) -> int:
        """Give up what is awaited since the list before; how many of these events are lost.

        After a gap in the stream none of them counts: the events may lie in the gap.
        """
        # A list that is a moment ahead of the stream is no loss; by the next one the event has
        # come.
        lost = len(self._awaited) if gapless else 0
        self.lost += lost
        self._awaited.clear()
        return lost
