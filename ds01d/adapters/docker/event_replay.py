"""Whether an engine's memory of its events bridges a cut in their stream. Pure.

dockerd keeps the last 256 events of its process, of every type (moby, daemon/events/events.go,
`eventsLimit`), and gives those after a given time to whoever asks. A new process begins with none.
So an event from before the cut proves two things: the process is the same, and nothing that came
after that event has been dropped. That holds for dockerd alone: Podman 4.3, asked for its events up
to a moment, gives only some of them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ds01d.adapters.docker.parsing import ACTIONS, EngineEvent, event_time, read_event
from ds01d.errors import Malformed
from ds01d.model.primitives import Wall

RING = 256
_SLACK_S = 0.5  # between our clock and the engine's as it was asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """The gap after a stream: on the engine's clock, when that was opened, and when it ended.

    `reopened_at_once`: the first attempt to open it again succeeded, within a second. No
    dockerd stops and starts in that time.
    """

    opened: Wall
    ended: Wall
    reopened_at_once: bool


def bridge_gap(
    body: bytes, gap: Gap, received: Collection[EngineEvent]
) -> tuple[EngineEvent, ...] | None:
    """The events of containers that the cut stream did not bring, oldest first.

    None where some may be missing: `body`, the engine's memory of its events, neither reaches back
    to before the cut, nor is it all that there was. `received`: the last ones that were brought.
    """
    try:
        lines = body.split(b"\n")
        times = [event_time(line) for line in lines if line]
        events = [event for line in lines if line and (event := read_event(line)) is not None]
    except Malformed:
        return None
    reaches_back = bool(times) and min(times) < gap.ended - _SLACK_S
    complete = len(times) < RING and gap.reopened_at_once
    if not (reaches_back or complete):
        return None
    known = set(map(_key, received))
    return tuple(
        event
        for event in events
        if event.action in ACTIONS and event.at >= gap.opened and _key(event) not in known
    )


def _key(event: EngineEvent) -> tuple[str, str, float]:
    return event.id, event.action, event.at
