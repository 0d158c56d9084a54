"""Docker as a pass sees it: every container with its facts, or the reason why there is no answer.

List, then watch: a stream of events shows which container to inspect again, and each sweep lists
all of them to check that the stream has lost none. Docker is called in the caller's thread, never
in the stream's. Nothing here decides, and nothing raises: a failure is an answer (`Unknown`).

`Engine.since` is set anew after a gap: a failed list or identity, a stream of events that broke and
could not be bridged, another dockerd process. A failed inspect is no gap: one container that hangs
must not stop the waiting times of all the others.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from math import inf

from ds01d.adapters.docker.cache import DockerCache
from ds01d.adapters.docker.engine_identity import EngineIdentifier, describe_identity
from ds01d.adapters.docker.engine_info import EngineInfo
from ds01d.adapters.docker.engine_warnings import (
    warn_no_lasting_id,
    warn_stream_cut,
    warn_stream_lossy,
    warn_stream_refused,
)
from ds01d.adapters.docker.event_stream import EventStream
from ds01d.adapters.docker.gap_tracker import GapTracker
from ds01d.adapters.docker.http_client import HttpClient
from ds01d.adapters.docker.listing import ClockReading, Listing
from ds01d.adapters.docker.parsing import (
    EngineEvent,
    read_container,
    read_rows,
)
from ds01d.errors import EngineFailed, Malformed, NoSuchContainer
from ds01d.model.containers import Container, Engine, EngineWarning, NotFound
from ds01d.model.primitives import Boot, ContainerId, ContainerName, Source, Unknown, Wall

OnChange = Callable[[frozenset[ContainerName] | None], None]
OnEvent = Callable[[EngineEvent], None]

_IDLE_S = 15.0
_OPENING_S = 1.0
_CLOSE_S = 0.8
# decision 59: the longest that one pass inspects, however many events arrive meanwhile.
_INSPECT_S = 0.15


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
        self._timeout_s = timeout_s
        self._clock_boot, self._clock_wall = clock_boot, clock_wall
        self._on_change, self._on_event = on_change, on_event
        self._client = HttpClient(url, timeout_s)
        self._cache = DockerCache()
        self._gaps = GapTracker(clock_boot)
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
        with self._call_lock:
            self._was_observed = True
            try:
                return self._observe(names)
            except EngineFailed as failure:
                self._record_failure()
                return _unknown(failure)
            except Malformed as error:
                self._record_failure()
                return _unknown(self._client.make_error(str(error)))

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
                answer = self._look_up(name, known_id)
                # decision 3: a 404 of another engine, or after a gap, proves no absence.
                if not self._gaps.is_continuous(self._client.instance):
                    raise self._client.make_error("gap in its answers since the last list")
            except EngineFailed as failure:
                return _unknown(failure)
            except Malformed as error:
                return _unknown(self._client.make_error(str(error)))
            if isinstance(answer, Container):
                self._cache.store_inspect(answer)
            return answer

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

    def _observe(self, names: frozenset[ContainerName] | None) -> Engine:
        is_current = self._is_stream_current(self._stream.opening)
        if not is_current:
            names = None
        if names is None:
            self._list_containers()
        info = self._identifier.fetch_info()
        limit_s = _INSPECT_S if is_current else inf
        if not self._inspect_stale(info, names, limit_s) and names is not None:
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
            warnings=self._collect_warnings(info),
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

    def _inspect_stale(
        self, info: EngineInfo, names: frozenset[ContainerName] | None, limit_s: float
    ) -> bool:
        """Inspect the stale containers. False if one failed that is in no list yet."""
        # After `limit_s` the rest is unknown, and `on_change` asks for another pass over it.
        complete, wasted_s = True, 0.0
        stale = self._cache.select_stale(names)
        deadline = time.monotonic() + limit_s
        for number, container_id in enumerate(stale):
            # A container that hangs costs a timeout. After two the rest waits for the next pass,
            # where it comes first: a pass must not take a timeout for each.
            if wasted_s > 1.5 * self._timeout_s:
                reason = "not inspected: other containers took too long"
                complete &= self._cache.store_failure(container_id, reason)
                continue
            began = time.monotonic()
            if number and began - wasted_s > deadline:
                self._postpone(stale[number:])
                break
            self._cache.begin_inspect(container_id)
            try:
                self._cache.store_inspect(self._inspect(container_id, info))
            except NoSuchContainer:
                self._cache.drop_missing(container_id)
            except (EngineFailed, Malformed) as failure:
                wasted_s += time.monotonic() - began
                complete &= self._cache.store_failure(container_id, str(failure))
        return complete

    def _inspect(self, container_id: ContainerId, info: EngineInfo) -> Container:
        body = self._client.inspect(container_id)
        container = _parse_inspect(body, info)
        if container.id != container_id:
            raise Malformed(f"inspect of {container_id} returned {container.id}")
        return container

    def _look_up(self, name: ContainerName, known_id: ContainerId | None) -> Container | NotFound:
        info = self._identifier.fetch_info()
        if known_id is not None:
            try:
                return self._inspect(known_id, info)
            except NoSuchContainer:
                self._cache.drop_missing(known_id)
        try:
            body = self._client.inspect(name)
        except NoSuchContainer:
            return NotFound()
        container = _parse_inspect(body, info)
        if container.name == name:
            return container
        # Docker takes the beginning of an ID for a name, but only if nothing has that name.
        if container.id.startswith(name):
            return NotFound()
        raise Malformed(f"inspect of {name!a} returned {container.name!a}")

    def _collect_warnings(self, info: EngineInfo) -> tuple[EngineWarning, ...]:
        stream, warnings = self._stream, []
        if not info.id:
            warnings.append(warn_no_lasting_id(info.root_dir))
        if (interval_s := stream.cut_interval_s()) is not None:
            warnings.append(warn_stream_cut(interval_s, bridged=stream.was_bridged))
        if stream.refusal:
            warnings.append(warn_stream_refused(stream.refusal))
        if stream.loses_events:
            warnings.append(warn_stream_lossy())
        return tuple(warnings)

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
        if self._on_change is not None and names:
            self._on_change(names)

    def _on_stream_open(self, bridged: bool) -> None:  # noqa: FBT001 - of a callback
        # The process may look the same and have been restarted in another configuration.
        self._identifier.invalidate()
        if bridged:
            self._gaps.record_bridge()
        elif self._stream.openings > 1:
            self._gaps.record_gap()
        self._request_sweep()

    def _on_events_missed(self) -> None:
        self._gaps.record_gap()
        self._request_sweep()

    def _postpone(self, container_ids: Collection[ContainerId]) -> None:
        for container_id in container_ids:
            self._cache.store_failure(container_id, "not inspected yet: too many events at once")
        if self._on_change is not None:
            self._on_change(self._cache.affected_names(container_ids))

    def _request_sweep(self) -> None:
        if self._on_change is not None and self._was_observed:
            self._on_change(None)


def _parse_inspect(body: bytes, info: EngineInfo) -> Container:
    return read_container(
        body, default_runtime=info.default_runtime, nvidia_runtimes=info.nvidia_runtimes
    )


def _unknown(failure: EngineFailed) -> Unknown:
    return Unknown(source=Source.DOCKER, reason=str(failure))
