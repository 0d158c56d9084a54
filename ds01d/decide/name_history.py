"""When a name was present, absent, destroyed or unlabelled, updated by one list of Docker. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ds01d.decide.identities import is_creation_step, is_running_elsewhere, update_identity
from ds01d.model.checkpoint import Checkpoint, Identity
from ds01d.model.containers import Container, Destroyed, Engine
from ds01d.model.primitives import Boot, ContainerId, ContainerName
from ds01d.model.snapshot import Snapshot


class NameHistory:
    """What a checkpoint has of names, on the way to the next checkpoint.

    Invariant: of the names that were noted, those without a container are in `absent`, since the
    first list that lacked them; those with one are neither in `absent` nor in `destroyed`.
    """

    def __init__(self, snapshot: Snapshot, engine: Engine, checkpoint: Checkpoint) -> None:
        self._snapshot, self._engine, self._checkpoint = snapshot, engine, checkpoint
        # By ID, because the name of a destroyed container may already belong to another one.
        self._events: Mapping[ContainerId, Destroyed] = {
            event.id: event for event in engine.destroyed.values()
        }
        self.identities: dict[ContainerName, Identity] = dict(checkpoint.identities)
        self.absent: dict[ContainerName, Boot] = dict(checkpoint.absent)
        self.destroyed: dict[ContainerName, tuple[ContainerId, Boot]] = dict(checkpoint.destroyed)
        self.unlabelled: dict[ContainerName, Boot] = dict(checkpoint.unlabelled)

    def note_absent(self, name: ContainerName) -> None:
        """Note that no container is bound to `name`."""
        seen_at, identity = self._snapshot.observed_at, self.identities.get(name)
        if name not in self.absent and name in self.unlabelled:
            # The last time that it was seen, unless it went even before.
            self.unlabelled[name] = seen_at
        # First sight only: a moment that each pass sets again would never end a grace.
        self.absent.setdefault(name, seen_at)
        last = self._engine.destroyed.get(name)
        event = last if identity is None else self._events.get(identity.id)
        if event is not None:
            self.destroyed[name] = (event.id, event.at)
        if last is not None and (identity is None or identity.id != last.id):
            self._note_unlisted(last)

    def note_present(self, name: ContainerName, container: Container) -> None:
        """Note that `container` is bound to `name`."""
        identity = self.identities.get(name)
        self.absent.pop(name, None)
        self.destroyed.pop(name, None)
        # Decision 17: wrappers create, commit and create again; each step without labels shows
        # that the creation still runs.
        noted_at = self.unlabelled.get(name)
        if not container.labelled and is_creation_step(container, identity, noted_at):
            self.unlabelled[name] = self._snapshot.observed_at
        # Decision 69: the old container may still run under its new name; until its booking has
        # followed, the name keeps pointing to it.
        if not is_running_elsewhere(name, identity, container, self._engine, self._snapshot):
            self.identities[name] = update_identity(
                container, identity, self._engine, self._checkpoint, self._snapshot.now.boot
            )

    def _note_unlisted(self, event: Destroyed) -> None:
        """A container that came and went between two lists: its name was in use until then."""
        name, at = event.name, event.at
        self.absent[name] = max(self.absent[name], at)
        if event.labelled:
            return
        # One without labels is a step of a creation, which no earlier container has ended.
        self.unlabelled[name] = max(self.unlabelled.get(name, at), at)
        if name in self.identities:
            self.identities[name] = replace(self.identities[name], labelled=False, created=None)
