"""Docker as a pass sees it: every container with its facts, or the reason why there is no answer.

List, then watch: a stream of events shows which container to inspect again, and each sweep lists
all of them to check that the stream has lost none. Docker is called in the caller's thread, never
in the stream's. Nothing here decides, and nothing raises: a failure is an answer (`Unknown`).

`Engine.since` is reset after a gap: a failed list or identity, a stream of events that broke and
could not be bridged, another dockerd process. A failed inspect is no gap: one container that hangs
must not stop the waiting times of all the others.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import msgspec

from ds01d.adapters.docker.cache import DockerCache
from ds01d.adapters.docker.engine_identity import EngineIdentifier, describe_identity
from ds01d.adapters.docker.engine_warnings import collect_warnings
from ds01d.adapters.docker.event_stream import EventStream
from ds01d.adapters.docker.gap_tracker import GapTracker
from ds01d.adapters.docker.http_client import HttpClient
from ds01d.adapters.docker.inspector import Inspector
from ds01d.adapters.docker.listing import ClockReading, Listing
from ds01d.adapters.docker.parsing import EngineEvent, read_rows
from ds01d.errors import EngineFailed, Malformed
from ds01d.model.containers import Container, Engine, NotFound
from ds01d.model.primitives import (
    BookingId,
    Boot,
    ContainerId,
    ContainerName,
    Source,
    Unknown,
    Wall,
)
from ds01d.model.reservation import BOOKING_LABEL

OnChange = Callable[[frozenset[ContainerName] | None], None]
OnEvent = Callable[[EngineEvent], None]

_IDLE_S = 15.0
_OPENING_S = 1.0
_CLOSE_S = 0.8


class DockerEngine:
    """The adapter for `EnginePort`. Without `start` there is no stream, and `observe` always lists.

    `on_change` gets the names whose containers may have changed, or None for all of them (the
    stream broke or was opened again); `on_event` gets every event. Both are called in the stream's
    thread and must be quick.
    """

    def __init__(
        self,
        url: str,
        timeout_s: float,
        clock_boot: Callable[[], float],
        on_change: OnChange | None = None,
        on_event: OnEvent | None = None,
        *,
        clock_wall: Callable[[], float] = time.time,
        idle_s: float = _IDLE_S,
    ) -> None:
        self._clock_boot, self._clock_wall = clock_boot, clock_wall
        self._on_change, self._on_event = on_change, on_event
        self._client = HttpClient(url, timeout_s)
        self._cache = DockerCache()
        self._gaps = GapTracker(clock_boot)
        # With a client of its own: its connection stays open while the other makes calls.
        self._stream = EventStream(
            HttpClient(url, timeout_s),
            idle_s=idle_s,
            clock_boot=clock_boot,
            on_event=self._on_stream_event,
            on_open=self._on_stream_open,
            on_break=self._gaps.record_break,
            on_miss=self._on_events_missed,
        )
        self._identifier = EngineIdentifier(self._client)
        self._inspector = Inspector(self._client, self._cache, timeout_s, self._report_change)
        self._call_lock = threading.Lock()  # one caller at a time
        self._was_observed = False
        self._confirmed_at: Boot | None = None  # the last list in which no event was missing
        self._listed_stream: int | None = None  # `EventStream.opening` at the last list

    def start(self) -> None:
        """Open the stream of events."""
        self._stream.start(_OPENING_S)

    def close(self) -> None:
        """Abort every call in progress, in any thread, and end the stream."""
        self._client.close()
        self._stream.close(_CLOSE_S)

    # --- the port

    def observe(self, names: frozenset[ContainerName] | None) -> Engine | Unknown:
        """All containers; those called `names` are up to date, with None all of them.

        With None it lists; else the cache answers, if the stream has been open since the last list.
        """
        return self._try_to_observe(names, lists=names is None)

    def observe_changes(self) -> Engine | Unknown:
        """All containers, up to date, without a list if the stream has been open since the last."""
        return self._try_to_observe(None, lists=False)

    def look_up(
        self, name: ContainerName, known_id: ContainerId | None
    ) -> Container | NotFound | Unknown:
        """Inspect by ID (if known) and by name, past every cache. `NotFound` only if each is a 404.

        After a gap since the last `observe` the answer is Unknown. A name that Docker could not
        have is not found without a call. The answer is cached too, or the next pass would decide
        by the old one again.
        """
        with self._call_lock:
            try:
                answer = self._inspector.look_up(name, known_id, self._identifier.fetch_info())
                # decision 3: a 404 of another engine, or after a gap, proves no absence.
                if not self._gaps.is_continuous(self._client.instance):
                    raise self._client.make_error("gap in its answers since the last list")
            except (EngineFailed, Malformed) as error:
                return self._make_unknown(error)
            if isinstance(answer, Container):
                self._cache.store_inspect(answer)
            return answer

    def list_claimants(self, booking: BookingId | None) -> frozenset[ContainerId] | Unknown:
        """List the containers whose label names an allocation, or all; after a gap as `look_up`."""
        parameters = {"all": "1"}
        if booking is not None:
            filters = {"label": [f"{BOOKING_LABEL}={booking}"]}
            parameters["filters"] = msgspec.json.encode(filters).decode()
        with self._call_lock:
            try:
                rows = read_rows(self._client.get("/containers/json", parameters))
                if not self._gaps.is_continuous(self._client.instance):
                    raise self._client.make_error("gap in its answers since the last list")
            except (EngineFailed, Malformed) as failure:
                return self._make_unknown(failure)
        return frozenset(row.id for row in rows if booking in (None, row.labels.get(BOOKING_LABEL)))

    def has_cached(self, container_id: ContainerId) -> bool:
        """The engine had this container at the last list. Makes no call."""
        return self._cache.has_container(container_id)

    def hides_processes(self) -> bool:
        """The engine's processes cannot be seen from here (decision 152). Makes no call."""
        return self._client.is_hidden

    # --- across restarts

    def export_cache(self) -> bytes:
        """The inspected containers, for `import_cache` at the next start; b"" if there are none."""
        return self._cache.export_bytes()

    def import_cache(self, exported: bytes) -> None:
        """Take in an export before the first list, to save inspects. Invalid bytes are ignored.

        A container in it is used only where ID, name and state agree with its row and the age in
        the row proves that it neither started nor ended meanwhile (see `list_status`).
        """
        self._cache.restore_bytes(exported)

    # --- counters

    @property
    def received(self) -> int:
        """Events received."""
        return self._cache.events_received

    @property
    def lost(self) -> int:
        """Changes that a list has shown and no event has."""
        return self._cache.events_lost

    @property
    def reconnects(self) -> int:
        """How often the stream of events was opened again."""
        return max(0, self._stream.openings - 1)

    @property
    def stream_problem(self) -> str:
        """Why the stream of events is not open; "" if it is."""
        return self._stream.problem

    # --- observing

    def _try_to_observe(
        self, names: frozenset[ContainerName] | None, *, lists: bool
    ) -> Engine | Unknown:
        with self._call_lock:
            # Before the first observe nothing is known that an event could change.
            self._was_observed = True
            try:
                return self._observe(names, lists=lists)
            except (EngineFailed, Malformed) as error:
                self._record_failure()
                return self._make_unknown(error)

    def _observe(self, names: frozenset[ContainerName] | None, *, lists: bool) -> Engine:
        is_current = self._is_stream_current(self._stream.opening)
        if not is_current:
            names, lists = None, True
        if lists:
            self._list_containers()
        info = self._identifier.fetch_info()
        complete = self._inspector.inspect_stale(info, names, bounded=is_current)
        if not complete and not lists:
            self._list_containers()
        # An answer of another dockerd process must not be joined to the list (decision 3).
        if self._client.instance != self._gaps.instance:
            raise self._client.make_error("dockerd was restarted between two answers")
        identity, since = describe_identity(info), self._gaps.record_answer()
        containers, by_name, destroyed = self._cache.read_all()
        return Engine(
            identity=identity,
            instance=self._gaps.instance,
            since=since,
            containers=containers,
            destroyed=destroyed,
            by_name=by_name,
            warnings=collect_warnings(info, self._stream),
        )

    def _is_stream_current(self, opening: int | None) -> bool:
        """The stream has been open without a gap since the last list."""
        return opening is not None and opening == self._listed_stream

    def _list_containers(self) -> None:
        # Read before the list: a stream that is reopened meanwhile may have missed events.
        opening = self._stream.opening
        self._cache.begin_list()
        asked = self._read_clocks()
        rows = read_rows(self._client.get("/containers/json", {"all": "1"}))
        restarted = self._gaps.record_instance(self._client.instance)
        gapless = not restarted and self._is_stream_current(opening)
        if not gapless:
            self._identifier.invalidate()
        listing = Listing(asked=asked, answered=self._read_clocks(), gapless=gapless)
        lost = self._cache.apply_list(rows, listing)
        self._listed_stream = opening
        if lost:
            self._stream.reopen_stream(complete_until=self._confirmed_at)
        elif not self._cache.awaits_events:
            self._confirmed_at = asked.boot
        self._stream.retry_now()

    def _record_failure(self) -> None:
        """A list or the identity failed: the next answer cannot be joined to the ones before."""
        self._gaps.record_failure()
        self._identifier.invalidate()
        self._listed_stream = None
        self._stream.reopen_stream()

    def _read_clocks(self) -> ClockReading:
        return ClockReading(wall=Wall(self._clock_wall()), boot=Boot(self._clock_boot()))

    # --- in the stream's thread

    def _on_stream_event(self, event: EngineEvent) -> None:
        names = self._cache.apply_event(event, at=Boot(self._clock_boot()))
        if self._on_event is not None:
            self._on_event(event)
        if names:
            self._report_change(names)

    def _report_change(self, names: frozenset[ContainerName]) -> None:
        if self._on_change is not None:
            self._on_change(names)

    def _on_stream_open(self, bridged: bool) -> None:  # noqa: FBT001 - of a callback
        # The process may look the same and have been restarted in another configuration.
        self._identifier.invalidate()
        if bridged:
            self._gaps.record_bridge()
        elif self._stream.openings:  # there was one before
            self._gaps.record_gap()
        self._request_sweep()

    def _on_events_missed(self) -> None:
        self._gaps.record_gap()
        self._request_sweep()

    def _request_sweep(self) -> None:
        if self._on_change is not None and self._was_observed:
            self._on_change(None)

    def _make_unknown(self, error: EngineFailed | Malformed) -> Unknown:
        failure = error if isinstance(error, EngineFailed) else self._client.make_error(str(error))
        return Unknown(source=Source.DOCKER, reason=str(failure))
