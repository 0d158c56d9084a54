"""Docker as the books, for booking and for commands that look: derived at each reading.

A pass derives them from its own snapshot. Here Docker's cache, the last NVML sample and the last
checkpoint stand behind the ports of the books; only reservations are ever written.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from ds01d.config import Config
from ds01d.decide.docker_books import derive_books, explain_incomplete, list_inputs
from ds01d.decide.engine_identity import same_engine
from ds01d.model.books import AllocatorState
from ds01d.model.checkpoint import Checkpoint
from ds01d.model.containers import Container, Destroyed, Engine, NotFound
from ds01d.model.primitives import ContainerId, ContainerName, Now, Source, Unknown, Wall
from ds01d.model.snapshot import Snapshot
from ds01d.reconcile.checkpoint_store import CheckpointStore
from ds01d.reconcile.derived_ports import DerivedRecords, DerivedState
from ds01d.reconcile.observe import observe_host
from ds01d.reconcile.ports import World

OTHER_ENGINE = "another Docker engine answers than before: ds01ctl thaw --engine trusts it"


def with_current_books(
    world: World, config: Config, checkpoints: CheckpointStore | None = None
) -> World:
    """The world in which the books are as they are now, whatever they are kept in.

    `checkpoints`: those that passes of this process keep.
    """
    if config.books.kind == "files":
        return world
    return DockerBooks(world, config, checkpoints).open_world()


class DockerBooks:
    """The derived books of one world. For one thread."""

    def __init__(
        self, world: World, config: Config, checkpoints: CheckpointStore | None = None
    ) -> None:
        self._stored, self._config = world, config
        self._checkpoints = checkpoints or CheckpointStore(world.state_dir)
        self._locked: tuple[Snapshot, Checkpoint] | None = None
        self._last: tuple[object, Snapshot] | None = None
        self._gone: tuple[ContainerName, Now] | None = None
        self.list_claimants = world.engine.list_claimants
        self.observe = world.engine.observe

    def open_world(self) -> World:
        """The world with the derived books in it."""
        stored = self._stored
        return replace(
            stored,
            engine=self,
            state=DerivedState(stored.state, lambda: self.read().state, self.lock),
            metadata=DerivedRecords(stored.metadata, lambda: self.read().metadata),
        )

    def look_up(
        self, name: ContainerName, known_id: ContainerId | None
    ) -> Container | NotFound | Unknown:
        """As `EnginePort`. What Docker does not have has nothing in the books either."""
        asked = self._stored.clock.now()
        answer = self._stored.engine.look_up(name, known_id)
        # Its destroy event may still be under way; it is no evidence for one made since then.
        self._gone = (name, asked) if isinstance(answer, NotFound) else None
        return answer

    def read(self) -> Snapshot:
        """The books as they are now, in a snapshot; other sources may be those of a moment ago."""
        snapshot, checkpoint = self._locked or self._observe()
        snapshot = replace(
            snapshot, state=self._stored.state.read(), metadata=self._stored.metadata.read()
        )
        # Decision 218: a call reads the books several times, and mostly nothing changed between.
        inputs = list_inputs(snapshot, checkpoint)
        if self._last is not None and self._last[0] == inputs:
            return self._last[1]
        # Something that a container has may be missing in the books: then they are not known.
        incomplete = explain_incomplete(snapshot, checkpoint)
        derived = derive_books(snapshot, checkpoint, self._config)
        if incomplete is not None and isinstance(derived.state, AllocatorState):
            derived = replace(derived, state=incomplete)
        self._last = inputs, derived
        return derived

    @contextmanager
    def lock(self) -> Iterator[None]:
        """The lock of the reservations."""
        # Decision 21: Docker and NVML may take seconds, so they are asked before.
        self._locked = self._observe()
        try:
            with self._stored.state.lock():
                yield
        finally:
            self._locked = None

    def _observe(self) -> tuple[Snapshot, Checkpoint]:
        """What Docker and NVML say now; reservations are read afterwards, under their lock."""
        checkpoint, _ = self._checkpoints.load()
        snapshot = observe_host(self._stored, checkpoint, self._config, frozenset())
        docker = snapshot.docker
        if isinstance(docker, Engine) and not _is_trusted(docker, checkpoint, snapshot):
            docker = Unknown(source=Source.DOCKER, reason=OTHER_ENGINE)
        elif isinstance(docker, Engine) and self._gone is not None:
            name, asked = self._gone
            if snapshot.now.boot - asked.boot < self._config.policy.settle_s:
                docker = _without_name(docker, name, asked.wall, checkpoint)
        return replace(snapshot, docker=docker), checkpoint


def _is_trusted(engine: Engine, checkpoint: Checkpoint, snapshot: Snapshot) -> bool:
    """Whether this is the engine whose containers the checkpoint knows."""
    # Invariant 7: another engine does not list what the trusted one runs.
    same_boot = checkpoint.boot_id == snapshot.now.boot_id
    trusted = checkpoint.engine
    return trusted is None or same_engine(trusted, engine.identity, same_boot=same_boot)


def _without_name(
    engine: Engine, name: ContainerName, asked: Wall, checkpoint: Checkpoint
) -> Engine:
    container, identity = engine.by_name.get(name), checkpoint.identities.get(name)
    if container is not None and (container.created is None or container.created >= asked):
        return engine
    ids = {bearer.id for bearer in (container, identity) if bearer is not None}
    destroyed = {id_: Destroyed(id=id_, name=name, at=engine.since) for id_ in ids}
    return replace(
        engine,
        containers={id_: c for id_, c in engine.containers.items() if id_ not in ids},
        by_name={other: c for other, c in engine.by_name.items() if other != name},
        destroyed={**engine.destroyed, **{ContainerName(i): d for i, d in destroyed.items()}},
    )
