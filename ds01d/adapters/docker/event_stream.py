"""The thread that follows Docker's stream of events, and opens it again when it breaks.

It reports what it hears and when it missed something; it keeps no facts and makes no list. Whoever
listens must be quick and must not call Docker: an engine skips a slow subscriber without a word.

A stream that something in between has cut is opened again, and the engine's memory of its events
tells what the gap hid (`docker_replay`): then nothing was missed, and `opening` stays what it was.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from ds01d.adapters.docker.event_replay import RING, Gap, bridge_gap
from ds01d.adapters.docker.http_client import HttpClient
from ds01d.adapters.docker.parsing import EVENT_FILTER, EngineEvent, read_event, read_info
from ds01d.adapters.docker.stream_cuts import StreamCuts
from ds01d.errors import EngineFailed, EngineRefused, EngineUnresponsive, Malformed
from ds01d.model.primitives import Boot, Wall

_FIRST_DELAY_S = 0.1
_LONGEST_DELAY_S = 30.0
_STEADY_S = 0.5  # A stream that lived that long was a good one: the next delay is short again.
_AT_ONCE_S = 1.0  # so soon after the end of the last stream no other dockerd can have started
_CLOCK_STEP_S = 1.0
_ATTEMPTS = 3  # to learn the engine's clock
_LOSSY_S = 1800.0
_MEMORY_S = 3600.0  # how far back the engine is asked for its events
_FILTERS = {"type": ["container"], "event": list(EVENT_FILTER)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stream:
    """One stream of events: when it was opened, by which process ("" = not known).

    `offset_s`: how far the engine's clock was ahead of CLOCK_BOOTTIME; None: it does not say.
    """

    opened: Boot
    instance: str
    offset_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cut:
    """The end of a stream, and the number that it had.

    `ended`: until when it surely told everything. `recycled`: this end broke it.
    """

    stream: _Stream
    opening: int
    ended: Boot
    recycled: bool = False


class EventStream:
    """Follows the events. `opening` counts the streams; None while there is none to rely on.

    One that continues another without a gap has its number. `openings` counts them all.
    """

    def __init__(
        self,
        client: HttpClient,
        *,
        idle_s: float,
        clock_boot: Callable[[], float],
        on_event: Callable[[EngineEvent], None],
        on_open: Callable[[bool], None],
        on_break: Callable[[], None],
        on_miss: Callable[[], None],
    ) -> None:
        """`on_open` hears whether nothing was missed since `on_break`; `on_miss`: all may be."""
        self.opening: int | None = None
        self.openings = 0
        self.trouble = "not opened yet"
        self._client = client
        self._idle_s = idle_s
        self._clock_boot = clock_boot
        self._on_event, self._on_open = on_event, on_open
        self._on_break, self._on_miss = on_break, on_miss
        self._cuts = StreamCuts()
        self._received: deque[EngineEvent] = deque(maxlen=RING)
        self._stream: _Stream | None = None
        self._cut: _Cut | None = None
        self._losses: deque[Boot] = deque(maxlen=3)
        self._tried = threading.Event()
        self._wake = threading.Event()
        self._refused = self._refused_in_words = self._missed = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="docker-events", daemon=True)

    def start(self, wait_s: float) -> None:
        """Begin, and wait for the first attempt: a list made after it has no gap to the events."""
        self._thread.start()
        self._tried.wait(wait_s)

    def recycle(self, whole_until: Boot | None = None) -> None:
        """Break the stream and open another: this one is not to be trusted.

        `whole_until`: when it had surely told everything; None: that does not matter any more.
        """
        stream, opening = self._stream, self.opening
        if opening is None or stream is None:
            return
        if whole_until is not None:
            self._losses.append(Boot(self._clock_boot()))
            ended = max(whole_until, stream.opened)
            self._cut = _Cut(stream=stream, opening=opening, ended=ended, recycled=True)
        self.opening = None
        self._client.abort()

    @property
    def loses_events(self) -> bool:
        """Whether events have been missing again and again of late."""
        full = len(self._losses) == self._losses.maxlen
        return full and self._clock_boot() - self._losses[0] < _LOSSY_S

    @property
    def bridged(self) -> bool:
        """Whether nothing was missed when the stream was cut for the last time."""
        return not self._missed

    @property
    def refusal(self) -> str:
        """Why the engine refuses the stream; "" while it does not, or answers nothing at all."""
        return self.trouble if self._refused_in_words else ""

    def cut_interval_s(self) -> float | None:
        """How often something between us and the engine cuts the stream, if it does so for ever."""
        stream = self._stream if self.opening is not None else None
        return self._cuts.interval_s(0.0 if stream is None else self._clock_boot() - stream.opened)

    def hurry(self) -> None:
        """The engine answers: if it refused the stream before, it may not any more."""
        if self._refused:
            self._wake.set()

    def close(self, wait_s: float) -> None:
        """End the thread, whatever it waits for."""
        self._closed = True
        self._wake.set()
        self._client.close()
        if self._thread.is_alive():
            self._thread.join(wait_s)

    def _run(self) -> None:
        failures = 0
        while not self._closed:
            lived_s = self._follow()
            self._tried.set()
            failures = 0 if lived_s >= _STEADY_S else failures + 1
            longest = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2 ** min(failures, 10))
            self._wake.wait(random.uniform(0.5, 1.0) * longest)  # noqa: S311 - no secret, a jitter
            self._wake.clear()

    def _follow(self) -> float:
        """Follow one stream to its end; how long it lived, in seconds."""
        try:
            lines = self._client.follow_events(_FILTERS, self._idle_s)
        except EngineFailed as failure:
            self._refused, self.trouble = True, str(failure)
            self._refused_in_words = isinstance(failure, EngineRefused)
            if self._cut is not None:
                self._give_up_cut()
            return 0.0
        began = Boot(self._clock_boot())
        was_cut = False
        try:
            self._open(began)
            for line in lines:
                self._receive(read_event(line))
            self.trouble, was_cut = "the engine ended the stream of events", True
        except EngineUnresponsive as failure:
            self.trouble = str(failure)
        except EngineFailed as failure:
            self.trouble, was_cut = str(failure), True
        except Exception as error:  # noqa: BLE001 - a listener's fault must not end the watch
            self.trouble = str(error) or repr(error)
        return self._end(began, was_cut=was_cut)

    def _open(self, began: Boot) -> None:
        """A stream is open: find out what was missed before it, then say so."""
        cut, self._cut = self._cut, None
        self._stream = self._describe(began)
        missed = None if cut is None else self._bridge(cut, self._stream)
        self.openings += 1
        if cut is not None and not cut.recycled:
            self._cuts.reopened(cut.ended - cut.stream.opened)
            self._missed = missed is None
        self._refused = self._refused_in_words = False
        self.trouble = ""
        for event in missed or ():
            self._receive(event)
        self.opening = self.openings if cut is None or missed is None else cut.opening
        self._tried.set()
        self._on_open(missed is not None)

    def _end(self, began: Boot, *, was_cut: bool) -> float:
        """A stream has ended; how long it lived, in seconds."""
        ended = Boot(self._clock_boot())
        opening, self.opening = self.opening, None
        self._client.abort()
        if not self._closed:
            self._on_break()
            if was_cut and opening is not None and self._stream is not None:
                self._cut = _Cut(stream=self._stream, opening=opening, ended=ended)
            elif self._cut is None:
                self._give_up_cut()
        return ended - began

    def _give_up_cut(self) -> None:
        """What happened since the last stream cannot be known any more."""
        self._cut = None
        self._cuts.forget()
        self._on_miss()

    def _receive(self, event: EngineEvent | None) -> None:
        if event is not None:
            self._received.append(event)
            self._on_event(event)

    # --- what a gap hid

    def _describe(self, opened: Boot) -> _Stream:
        """The stream that was just opened, with the engine's clock."""
        instance = self._client.instance
        return _Stream(opened=opened, instance=instance, offset_s=self._offset_s())

    def _offset_s(self) -> float | None:
        """How far the engine's clock is ahead of ours, from an answer that came quickly.

        A slow one, or a pause of our own after it, would look as if that clock had been set.
        """
        measured: list[tuple[float, float]] = []
        for _ in range(_ATTEMPTS):
            began = self._clock_boot()
            try:
                time_there = read_info(self._client.get("/info")).time
            except (EngineFailed, Malformed):
                return None
            if time_there is None:
                return None
            ended = self._clock_boot()
            measured.append((ended - began, time_there - ended))
            if measured[-1][0] < _CLOCK_STEP_S / 2:
                break
        return min(measured)[1]

    def _bridge(self, cut: _Cut, stream: _Stream) -> tuple[EngineEvent, ...] | None:
        """The events between two streams; None where that is not known."""
        before = cut.stream
        if not self._client.is_dockerd or before.instance != stream.instance:
            return None
        if before.offset_s is None or stream.offset_s is None:
            return None
        offset_s = stream.offset_s
        if abs(offset_s - before.offset_s) > _CLOCK_STEP_S:
            return None  # the engine's clock was set: its times do not compare
        since, now = cut.ended + offset_s - _MEMORY_S, self._clock_boot() + offset_s
        try:
            body = self._client.fetch_past_events(since, now)
        except EngineFailed:
            return None
        gap = Gap(
            opened=Wall(before.opened + offset_s),
            ended=Wall(cut.ended + offset_s),
            reopened_at_once=stream.opened - cut.ended < _AT_ONCE_S,
        )
        return bridge_gap(body, gap, self._received)
