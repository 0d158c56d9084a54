"""Whether dockerd's memory of its events shows every event of a gap in their stream. Pure.

dockerd keeps the last 256 events of its process, of every type (moby, daemon/events/events.go,
`eventsLimit`), and returns those after a given time. A new process begins with none. So an event
from before the gap proves that the process is the same, and that no later event was dropped. That
holds for dockerd alone: Podman 4.3, asked for its events up to a moment, returns only some of them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ds01d.adapters.docker.parsing import ACTIONS, EngineEvent, read_event, read_event_time
from ds01d.errors import Malformed
from ds01d.model.primitives import Wall

RING = 256
_SLACK_S = 0.5  # error of the measured offset between the two clocks


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """The gap after a stream: when that was opened, and when it ended, on the engine's clock.

    `reopened_at_once`: the next stream was open sooner than any dockerd can be restarted.
    """

    opened: Wall
    ended: Wall
    reopened_at_once: bool


def replay_events(
    body: bytes, gap: Gap, received: Collection[EngineEvent]
) -> tuple[EngineEvent, ...] | None:
    """The events of containers that the cut stream did not bring, oldest first.

    `body`: the engine's memory of its events; `received`: the last events of the stream. None where
    some may be missing: the memory neither begins before the gap nor holds all of the process's
    events.
    """
    try:
        lines = body.split(b"\n")
        times = [read_event_time(line) for line in lines if line]
        events = [event for line in lines if line and (event := read_event(line)) is not None]
    except Malformed:
        return None
    # An older event in the memory shows that nothing of the gap has been pushed out of it.
    reaches_back = bool(times) and min(times) < gap.ended - _SLACK_S
    # A memory that is not full holds everything since its process started.
    is_complete = len(times) < RING and gap.reopened_at_once
    if not (reaches_back or is_complete):
        return None
    received_before = set(map(_event_key, received))
    return tuple(
        event
        for event in events
        if event.action in ACTIONS
        and event.at >= gap.opened
        and _event_key(event) not in received_before
    )


def _event_key(event: EngineEvent) -> tuple[str, str, float]:
    return event.id, event.action, event.at
