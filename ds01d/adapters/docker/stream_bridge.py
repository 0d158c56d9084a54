"""Fetches the events that a gap between two streams hid, from dockerd's memory of them.

`event_replay` judges whether that memory reaches back far enough.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from ds01d.adapters.docker.engine_info import read_info
from ds01d.adapters.docker.event_replay import Gap, replay_events
from ds01d.adapters.docker.http_client import HttpClient
from ds01d.adapters.docker.parsing import EngineEvent
from ds01d.errors import EngineFailed, Malformed
from ds01d.model.primitives import Boot, Wall

_MAX_REOPEN_S = 1.0  # no dockerd stops and starts again within that time
_MAX_CLOCK_STEP_S = 1.0
_CLOCK_ATTEMPTS = 3
_REPLAY_S = 3600.0  # how far back the engine is asked for its events


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenStream:
    """One stream of events: when it was opened, by which process ("" = not known).

    `offset_s`: how far the engine's clock was ahead of CLOCK_BOOTTIME; None: the engine does not
    give its time.
    """

    opened: Boot
    instance: str
    offset_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CutStream:
    """A stream that has ended, and its number `opening`.

    `ended`: until when it has surely brought every event. `reopened`: ds01d broke it on purpose.
    """

    stream: OpenStream
    opening: int
    ended: Boot
    reopened: bool = False


class StreamBridge:
    """One engine, asked in the stream's thread."""

    def __init__(self, client: HttpClient, clock_boot: Callable[[], float]) -> None:
        self._client = client
        self._clock_boot = clock_boot

    def describe_stream(self, opened: Boot) -> OpenStream:
        """The stream that was just opened, with the engine's clock."""
        instance = self._client.instance
        return OpenStream(opened=opened, instance=instance, offset_s=self._measure_offset_s())

    def fetch_missed(
        self, cut: CutStream, stream: OpenStream, received: Collection[EngineEvent]
    ) -> tuple[EngineEvent, ...] | None:
        """The events between two streams; None where some may be missing."""
        before = cut.stream
        # Another process starts with an empty memory of events, and other engines keep none.
        if not self._client.is_dockerd or before.instance != stream.instance:
            return None
        if before.offset_s is None or stream.offset_s is None:
            return None
        offset_s = stream.offset_s
        if abs(offset_s - before.offset_s) > _MAX_CLOCK_STEP_S:
            return None  # the engine's clock was set: its times cannot be compared
        since, now = cut.ended + offset_s - _REPLAY_S, self._clock_boot() + offset_s
        try:
            body = self._client.fetch_past_events(since, now)
        except EngineFailed:
            return None
        gap = Gap(
            opened=Wall(before.opened + offset_s),
            ended=Wall(cut.ended + offset_s),
            reopened_at_once=stream.opened - cut.ended < _MAX_REOPEN_S,
        )
        return replay_events(body, gap, received)

    def _measure_offset_s(self) -> float | None:
        # decision 83: by an answer that came quickly. A slow one, or a pause of this process after
        # it, would look as if the engine's clock had been set.
        measured: list[tuple[float, float]] = []
        for _ in range(_CLOCK_ATTEMPTS):
            began = self._clock_boot()
            try:
                engine_time = read_info(self._client.get("/info")).time
            except (EngineFailed, Malformed):
                return None
            if engine_time is None:
                return None
            ended = self._clock_boot()
            measured.append((ended - began, engine_time - ended))
            if measured[-1][0] < _MAX_CLOCK_STEP_S / 2:
                break
        return min(measured)[1]
