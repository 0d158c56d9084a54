"""The running containers by the daemon's cache: no call of Docker while nothing has changed."""

from __future__ import annotations

import time

from ds01d.adapters.docker.engine import DockerEngine
from ds01d.model.containers import State
from ds01d.model.primitives import Unknown
from ds01d.model.usage import Running

_SHORT_ID_LENGTH = 12


class CachedRunning:
    """One engine whose events are followed.

    `just_created_s`: how long a created container may take to start.
    """

    def __init__(self, engine: DockerEngine, just_created_s: float) -> None:
        self._engine, self._just_created_s = engine, just_created_s

    def read(self, known_ids: frozenset[str]) -> Running | Unknown:
        """Those that run or were just created; their requests unless in `known_ids` (short IDs)."""
        engine = self._engine.observe_changes()
        if isinstance(engine, Unknown):
            return engine
        # One that was created longer ago and never started holds no GPU for ever.
        oldest = time.time() - self._just_created_s
        living = [
            c
            for c in engine.containers.values()
            if c.state.alive
            or (c.state is State.CREATED and c.created is not None and c.created > oldest)
        ]
        # A request never changes, so those that were published need no second look.
        unknown = [c for c in living if c.id[:_SHORT_ID_LENGTH] not in known_ids]
        failed = [
            f"{c.name}: {c.request.reason}" for c in unknown if isinstance(c.request, Unknown)
        ]
        return Running(
            names={c.id: c.name for c in living},
            containers=tuple(c for c in unknown if not isinstance(c.request, Unknown)),
            problem=f"what GPUs they have is not known: {'; '.join(failed)}" if failed else "",
        )
