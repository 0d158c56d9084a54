"""The thread that follows Docker's stream of events, and opens it again when it breaks.

It reports each event, and when events may have been missed. Its callbacks must be quick and must
not call Docker: an engine drops the events of a slow subscriber without notice.

Where a proxy cut the stream, and dockerd's memory of its events shows what the gap hid
(`stream_bridge`), nothing was missed, and `opening` keeps its value.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable

from ds01d.adapters.docker.event_replay import RING
from ds01d.adapters.docker.http_client import HttpClient
from ds01d.adapters.docker.parsing import EVENT_FILTER, EngineEvent, read_event
from ds01d.adapters.docker.stream_bridge import CutStream, OpenStream, StreamBridge
from ds01d.adapters.docker.stream_cuts import StreamCuts
from ds01d.errors import EngineFailed, EngineRefused, EngineUnresponsive
from ds01d.model.primitives import Boot

_FIRST_DELAY_S = 0.1
_LONGEST_DELAY_S = 30.0
_STABLE_S = 0.5  # after a stream that lasted that long the next delay is short again
_LOSSY_S = 1800.0
_FILTERS = {"type": ["container"], "event": list(EVENT_FILTER)}


class EventStream:
    """Follows the events. `opening` numbers the stream that is open; None while none is usable.

    A stream that continues another without a gap keeps its number. `openings` counts them all.
    `problem`: why none is open.
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
        """`on_open` gets whether no event was missed since `on_break`; `on_miss`: some may be."""
        self.opening: int | None = None
        self.openings = 0
        self.problem = "not opened yet"
        self._client = client
        self._idle_s = idle_s
        self._clock_boot = clock_boot
        self._on_event, self._on_open = on_event, on_open
        self._on_break, self._on_miss = on_break, on_miss
        self._bridge = StreamBridge(client, clock_boot)
        self._cuts = StreamCuts()
        self._received: deque[EngineEvent] = deque(maxlen=RING)
        self._stream: OpenStream | None = None
        self._cut: CutStream | None = None
        self._losses: deque[Boot] = deque(maxlen=3)
        self._was_tried = threading.Event()
        self._wake = threading.Event()
        self._has_failed = self._was_refused = self._has_missed = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="docker-events", daemon=True)

    def start(self, wait_s: float) -> None:
        """Start the thread, and wait for the first attempt: a list after it has no gap to it."""
        self._thread.start()
        # A list made before the stream is open would have a gap to it, and be repeated.
        self._was_tried.wait(wait_s)

    def reopen_stream(self, complete_until: Boot | None = None) -> None:
        """Break the stream, which has lost events, and open another.

        `complete_until`: until when it surely had brought every event; None: no event was lost.
        """
        stream, opening = self._stream, self.opening
        if opening is None or stream is None:
            return
        # Only a stream that lost events has to be bridged; the others go on where they were.
        if complete_until is not None:
            self._losses.append(Boot(self._clock_boot()))
            ended = max(complete_until, stream.opened)
            self._cut = CutStream(stream=stream, opening=opening, ended=ended, reopened=True)
        self.opening = None
        self._client.abort()

    @property
    def loses_events(self) -> bool:
        """Events were lost three times within half an hour."""
        is_repeated = len(self._losses) == self._losses.maxlen
        return is_repeated and self._clock_boot() - self._losses[0] < _LOSSY_S

    @property
    def was_bridged(self) -> bool:
        """No event was missed when the stream was last cut."""
        return not self._has_missed

    @property
    def refusal(self) -> str:
        """Why the engine refuses the stream; "" while it does not, or cannot be reached."""
        return self.problem if self._was_refused else ""

    def cut_interval_s(self) -> float | None:
        """How often a proxy between ds01d and the engine cuts the stream, if one keeps doing so."""
        stream = self._stream if self.opening is not None else None
        return self._cuts.interval_s(0.0 if stream is None else self._clock_boot() - stream.opened)

    def retry_now(self) -> None:
        """The engine answers other calls: try again at once if the last attempt failed."""
        # A stream that is open must not be hurried: it would be opened a second time.
        if self._has_failed:
            self._wake.set()

    def close(self, wait_s: float) -> None:
        """End the thread, also while it waits for the engine."""
        self._closed = True
        self._wake.set()
        self._client.close()
        if self._thread.is_alive():
            self._thread.join(wait_s)

    def _run(self) -> None:
        failures = 0
        while not self._closed:
            lived_s = self._follow_stream()
            self._was_tried.set()
            # An engine that accepts and hangs up at once counts as one that fails.
            failures = 0 if lived_s >= _STABLE_S else failures + 1
            delay_s = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2 ** min(failures, 10))
            # With a jitter: all daemons of a site would call a proxy that restarts at the same
            # moment.
            self._wake.wait(random.uniform(0.5, 1.0) * delay_s)  # noqa: S311 - no secret, a jitter
            self._wake.clear()

    def _follow_stream(self) -> float:
        """Follow one stream to its end; its lifetime in seconds."""
        try:
            lines = self._client.follow_events(_FILTERS, self._idle_s)
        except EngineFailed as failure:
            self._has_failed, self.problem = True, str(failure)
            self._was_refused = isinstance(failure, EngineRefused)
            if self._cut is not None:
                self._report_miss()
            return 0.0
        began = Boot(self._clock_boot())
        was_cut = False
        try:
            self._accept_stream(began)
            for line in lines:
                self._receive(read_event(line))
            self.problem, was_cut = "the engine ended the stream of events", True
        except EngineUnresponsive as failure:
            self.problem = str(failure)
        except EngineFailed as failure:
            self.problem, was_cut = str(failure), True
        except Exception as error:  # noqa: BLE001 - a fault of a callback must not end the thread
            self.problem = str(error) or repr(error)
        return self._end_stream(began, was_cut=was_cut)

    def _accept_stream(self, began: Boot) -> None:
        """A stream is open: fetch what was missed before it, then report it as open."""
        cut, self._cut = self._cut, None
        self._stream = self._bridge.describe_stream(began)
        missed = None
        if cut is not None:
            # Decision 82: dockerd's own memory of its events bridges a gap, not the list alone.
            missed = self._bridge.fetch_missed(cut, self._stream, self._received)
        if cut is not None and not cut.reopened:
            self._cuts.record_cut(cut.ended - cut.stream.opened)
            self._has_missed = missed is None
        self._has_failed = self._was_refused = False
        self.problem = ""
        # Before the stream counts as open, so that a pass never sees a part of a gap.
        for event in missed or ():
            self._receive(event)
        self.opening = self.openings + 1 if cut is None or missed is None else cut.opening
        self._was_tried.set()
        self._on_open(missed is not None)
        self.openings += 1

    def _end_stream(self, began: Boot, *, was_cut: bool) -> float:
        """A stream has ended; its lifetime in seconds."""
        ended = Boot(self._clock_boot())
        opening, self.opening = self.opening, None
        self._client.abort()
        if not self._closed:
            self._on_break()
            if was_cut and opening is not None and self._stream is not None:
                self._cut = CutStream(stream=self._stream, opening=opening, ended=ended)
            elif self._cut is None:
                self._report_miss()
        return ended - began

    def _report_miss(self) -> None:
        """The events since the last stream cannot be fetched any more."""
        self._cut = None
        self._cuts.clear()
        self._on_miss()

    def _receive(self, event: EngineEvent | None) -> None:
        if event is not None:
            # What dockerd gives again after a cut is recognized by these.
            self._received.append(event)
            self._on_event(event)
