"""Inspects containers: those that may have changed, within bounds, and one by ID and by name."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from math import inf

from ds01d.adapters.docker.cache import DockerCache
from ds01d.adapters.docker.engine_info import EngineInfo
from ds01d.adapters.docker.http_client import HttpClient
from ds01d.adapters.docker.parsing import read_container
from ds01d.errors import EngineFailed, Malformed, NoSuchContainer
from ds01d.model.containers import Container, NotFound
from ds01d.model.primitives import ContainerId, ContainerName

# decision 59: the longest that one pass inspects, however many events arrive meanwhile.
INSPECT_S = 0.15


class Inspector:
    """Keeps the cache's inspects up to date. `on_postpone` gets the names that had to wait."""

    def __init__(
        self,
        client: HttpClient,
        cache: DockerCache,
        timeout_s: float,
        on_postpone: Callable[[frozenset[ContainerName]], None],
    ) -> None:
        self._client, self._cache, self._timeout_s = client, cache, timeout_s
        self._on_postpone = on_postpone

    def inspect_stale(
        self, info: EngineInfo, names: frozenset[ContainerName] | None, *, bounded: bool
    ) -> bool:
        """Inspect the stale containers. False if one failed that is in no list yet.

        `bounded`: after `INSPECT_S` the rest is unknown, and has to wait for another pass.
        """
        complete, wasted_s = True, 0.0
        stale = self._cache.select_stale(names)
        deadline = time.monotonic() + (INSPECT_S if bounded else inf)
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
        # Only the container that was asked for may be stored under its ID.
        if container.id != container_id:
            raise Malformed(f"inspect of {container_id} returned {container.id}")
        return container

    def look_up(
        self, name: ContainerName, known_id: ContainerId | None, info: EngineInfo
    ) -> Container | NotFound:
        """Inspect by ID (if known) and by name, past the cache. Raises `Ds01Error`."""
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

    def _postpone(self, container_ids: Collection[ContainerId]) -> None:
        for container_id in container_ids:
            self._cache.store_failure(container_id, "not inspected yet: too many events at once")
        # Unknown until then, so nothing is decided about them in this pass.
        self._on_postpone(self._cache.affected_names(container_ids))


def _parse_inspect(body: bytes, info: EngineInfo) -> Container:
    return read_container(
        body, default_runtime=info.default_runtime, nvidia_runtimes=info.nvidia_runtimes
    )
