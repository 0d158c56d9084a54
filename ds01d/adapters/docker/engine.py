"""Docker as a pass sees it: every container with its facts, or the reason why there is no answer.

List, then watch: a stream of events says which container to look at again, a list at each sweep
says whether the stream has told everything. Docker is called in the caller's thread, never in the
stream's. Nothing here decides, and nothing raises: a failure is an answer (`Unknown`).

What counts as a break in Docker's answers (`Engine.since` moves): a list or an identity that was
not to be had, a stream of events that broke and could not be bridged, another dockerd process. An
inspect that fails is no such break: one wedged container must not stop time for all the others.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from math import inf

from ds01d.adapters.docker.cache import DockerCache
from ds01d.adapters.docker.engine_warnings import is_cut, is_refused, lacks_id, loses_events
from ds01d.adapters.docker.event_stream import EventStream
from ds01d.adapters.docker.gap_tracker import GapTracker
from ds01d.adapters.docker.http_client import HttpClient
from ds01d.adapters.docker.listing import ClockReading, Listing
from ds01d.adapters.docker.parsing import (
    EngineEvent,
    EngineInfo,
    read_container,
    read_info,
    read_rows,
)
from ds01d.errors import EngineFailed, Malformed, NoSuchContainer
from ds01d.model.containers import Container, Engine, EngineIdentity, EngineWarning, NotFound
from ds01d.model.primitives import Boot, ContainerId, ContainerName, Source, Unknown, Wall

OnChange = Callable[[frozenset[ContainerName] | None], None]
OnEvent = Callable[[EngineEvent], None]

_IDLE_S = 15.0
_OPENING_S = 1.0
_CLOSE_S = 0.8
_INSPECT_S = 0.15  # of one look, while the stream tells of more than can be inspected


class DockerEngine:
    """The adapter for `EnginePort`. Without `start` there is no watch, and every look is a list.

    `on_change` gets the names to look at, or None for all of them (the stream broke or was opened
    anew: something may have been missed, and whoever asks will hear whether Docker is there);
    `on_event` gets every event. Both are called in the stream's thread and must be quick.
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
        self._continuity = GapTracker(clock_boot)
        self._watch = EventStream(
            HttpClient(url, timeout_s),
            idle_s=idle_s,
            clock_boot=clock_boot,
            on_event=self._heard,
            on_open=self._opened,
            on_break=self._continuity.stream_broke,
            on_miss=self._missed,
        )
        self._asking = threading.Lock()  # one caller at a time
        self._asked = False
        self._info: EngineInfo | None = None
        self._lasting_id: str | None = None
        self._agreed_at: Boot | None = None  # when a list was last asked that the stream had told
        self._listed_in: int | None = None  # the opening of the stream that the last list was in

    def start(self) -> None:
        """Begin to watch."""
        self._watch.start(_OPENING_S)

    def close(self) -> None:
        """Break whatever waits for Docker, in any thread, and end the watch."""
        self._client.close()
        self._watch.close(_CLOSE_S)

    # --- the port

    def observe(self, names: frozenset[ContainerName] | None) -> Engine | Unknown:
        """All containers, of whom those called by `names` are as fresh as can be; None: all are.

        For None it lists again; else the watch's cache answers, if it is in step.
        """
        with self._asking:
            self._asked = True
            try:
                return self._observe(names)
            except EngineFailed as failure:
                self._gap()
                return _unknown(failure)
            except Malformed as error:
                self._gap()
                return _unknown(self._client.make_error(str(error)))

    def look_up(
        self, name: ContainerName, known_id: ContainerId | None
    ) -> Container | NotFound | Unknown:
        """Inspect by id (if known) and by name, past every cache. Gone only if each says 404.

        A 404 of another engine proves nothing, so after a break since the last `observe` the answer
        is Unknown. A name that Docker could not have is gone without asking. What is found is kept
        in the cache too: were that wrong, the next pass would decide the same in vain.
        """
        with self._asking:
            try:
                found = self._look_up(name, known_id)
                if not self._continuity.holds(self._client.instance):
                    raise self._client.make_error("there was a gap since the containers were seen")
            except EngineFailed as failure:
                return _unknown(failure)
            except Malformed as error:
                return _unknown(self._client.make_error(str(error)))
            if isinstance(found, Container):
                self._cache.store_inspect(found)
            return found

    def lists(self, container_id: ContainerId) -> bool:
        """Whether the engine is known to have this container. Asks nobody."""
        return self._cache.has_container(container_id)

    def hides_processes(self) -> bool:
        """Whether the engine's processes cannot be seen from here. Asks nobody."""
        return self._client.is_hidden

    # --- across restarts

    def export_cache(self) -> bytes:
        """What inspects have told, for `import_cache` at the next start; b"" if nothing."""
        return self._cache.export_bytes()

    def import_cache(self, exported: bytes) -> None:
        """Before the first look: spare the inspects that the first list shows to be needless.

        Used only where id, name and state agree and the age in the row proves that the container
        neither started nor ended meanwhile (see `docker_age`). Broken bytes are as good as none.
        """
        self._cache.restore_bytes(exported)

    # --- counters

    @property
    def received(self) -> int:
        """Events received."""
        return self._cache.events_received

    @property
    def lost(self) -> int:
        """Changes that a list has shown and no event."""
        return self._cache.events_lost

    @property
    def reconnects(self) -> int:
        """How often the stream of events was opened again."""
        return max(0, self._watch.openings - 1)

    @property
    def trouble(self) -> str:
        """Why the stream of events is not open; "" if it is."""
        return self._watch.trouble

    # --- looking

    def _observe(self, names: frozenset[ContainerName] | None) -> Engine:
        in_step = self._watch.opening is not None and self._watch.opening == self._listed_in
        if not in_step:
            names = None
        if names is None:
            self._list()
        info = self._identify()
        within_s = _INSPECT_S if in_step else inf
        if not self._inspect_wanted(info, names, within_s) and names is not None:
            self._list()
        if self._client.instance != self._continuity.instance:
            raise self._client.make_error("dockerd was started anew while it answered")
        identity, since = _identity(info), self._continuity.answered()
        containers, by_name, destroyed = self._cache.read_all()
        return Engine(
            identity=identity,
            instance=self._continuity.instance,
            since=since,
            containers=containers,
            destroyed=destroyed,
            by_name=by_name,
            warnings=self._warnings(info),
        )

    def _list(self) -> None:
        opening = self._watch.opening
        self._cache.begin_list()
        asked = self._moment()
        rows = read_rows(self._client.get("/containers/json", {"all": "1"}))
        another = self._continuity.met(self._client.instance)
        gapless = not another and opening is not None and opening == self._listed_in
        if not gapless:
            self._info = None
        listing = Listing(asked=asked, answered=self._moment(), gapless=gapless)
        missed = self._cache.apply_list(rows, listing)
        self._listed_in = opening
        if missed:
            self._watch.recycle(whole_until=self._agreed_at)
        elif not self._cache.awaits_events:
            self._agreed_at = asked.boot
        self._watch.hurry()

    def _inspect_wanted(
        self, info: EngineInfo, names: frozenset[ContainerName] | None, within_s: float
    ) -> bool:
        """Inspect whom events or the list made stale. False if one failed that no list has had yet.

        One that hangs costs a deadline. When two have, the rest waits for the next time, where it
        comes first. After `within_s` the rest is unknown, and is to be asked for again at once: a
        storm of events must not keep a sweep.
        """
        complete, wasted_s = True, 0.0
        wanted = self._cache.select_stale(names)
        until = time.monotonic() + within_s
        for number, container_id in enumerate(wanted):
            if wasted_s > 1.5 * self._timeout_s:
                reason = "not inspected: others took too long"
                complete &= self._cache.store_failure(container_id, reason)
                continue
            began = time.monotonic()
            if number and began - wasted_s > until:
                self._put_off(wanted[number:])
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
        container = _read(body, info)
        if container.id != container_id:
            raise Malformed(f"asked for {container_id}, it told of {container.id}")
        return container

    def _look_up(self, name: ContainerName, known_id: ContainerId | None) -> Container | NotFound:
        info = self._identify()
        if known_id is not None:
            try:
                return self._inspect(known_id, info)
            except NoSuchContainer:
                self._cache.drop_missing(known_id)
        try:
            body = self._client.inspect(name)
        except NoSuchContainer:
            return NotFound()
        container = _read(body, info)
        if container.name == name:
            return container
        # Docker takes the beginning of an id for a name, but only if nothing has that name.
        if container.id.startswith(name):
            return NotFound()
        raise Malformed(f"asked for {name!a}, it told of {container.name!a}")

    # --- which engine

    def _identify(self) -> EngineInfo:
        info = self._info
        if info is None:
            info = self._ask_info()
            if info.id != self._lasting_id:
                info = self._verify_id(info)
            self._info = info
        return info

    def _ask_info(self) -> EngineInfo:
        return read_info(self._client.get("/info"))

    def _verify_id(self, info: EngineInfo) -> EngineInfo:
        """Ask again for an ID that is new: some engines make one up for each answer (Podman).

        Of such an engine no ID is known. Two that answer by turns are no engine to rely on.
        """
        self._lasting_id = None
        again = self._ask_info()
        if info.id == again.id:
            self._lasting_id = info.id
            return info
        if self._ask_info().id in {info.id, again.id}:
            raise self._client.make_error("several engines answer there by turns")
        return replace(info, id="")

    def _warnings(self, info: EngineInfo) -> tuple[EngineWarning, ...]:
        interval_s = self._watch.cut_interval_s()
        return tuple(
            warning
            for warning in (
                None if info.id else lacks_id(info.root_dir),
                None if interval_s is None else is_cut(interval_s, bridged=self._watch.bridged),
                is_refused(self._watch.refusal) if self._watch.refusal else None,
                loses_events() if self._watch.loses_events else None,
            )
            if warning is not None
        )

    def _gap(self) -> None:
        """Docker did not answer: what it says next stands alone."""
        self._continuity.failed()
        self._info = self._listed_in = None
        self._watch.recycle()

    def _moment(self) -> ClockReading:
        return ClockReading(wall=Wall(self._clock_wall()), boot=Boot(self._clock_boot()))

    # --- in the stream's thread

    def _heard(self, event: EngineEvent) -> None:
        names = self._cache.apply_event(event, at=Boot(self._clock_boot()))
        if self._on_event is not None:
            self._on_event(event)
        if self._on_change is not None and names:
            self._on_change(names)

    def _opened(self, bridged: bool) -> None:  # noqa: FBT001 - of a callback
        self._info = None  # ask again: the process is the same by all signs, not by its own word
        if bridged:
            self._continuity.bridged()
        elif self._watch.openings > 1:
            self._continuity.missed()
        self._look_at_everything()

    def _missed(self) -> None:
        self._continuity.missed()
        self._look_at_everything()

    def _put_off(self, those: Collection[ContainerId]) -> None:
        for container_id in those:
            self._cache.store_failure(container_id, "not inspected yet: very much happens at once")
        if self._on_change is not None:
            self._on_change(self._cache.affected_names(those))

    def _look_at_everything(self) -> None:
        if self._on_change is not None and self._asked:
            self._on_change(None)


def _read(body: bytes, info: EngineInfo) -> Container:
    return read_container(
        body, default_runtime=info.default_runtime, nvidia_runtimes=info.nvidia_runtimes
    )


def _identity(info: EngineInfo) -> EngineIdentity:
    """With inode and device 0 where the data root cannot be looked at.

    That is so for a remote engine, and for one whose data root is not mounted: either way it is
    the same from look to look, and a data root that comes or goes is a change of identity.
    """
    inode = device = 0
    with suppress(OSError, ValueError):
        root = os.stat(info.root_dir)  # noqa: PTH116 - a path that is not ours, as Docker has it
        inode, device = root.st_ino, root.st_dev
    return EngineIdentity(
        id=info.id,
        root_dir=info.root_dir,
        inode=inode,
        device=device,
        driver=info.driver,
        image_store=info.image_store,
    )


def _unknown(failure: EngineFailed) -> Unknown:
    return Unknown(source=Source.DOCKER, reason=str(failure))
