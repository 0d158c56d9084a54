"""The container of a creation in Docker: made by its plan, known by its token, removed on failure.

Whether it exists may be unknown: then it counts as left until Docker answers that it does not.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress

from ds01d.containers.labels import CREATION
from ds01d.containers.ports import ContainerEngine
from ds01d.errors import Ds01Error, EngineFailed, EngineRefused, Refused
from ds01d.model.confinement import Confinement
from ds01d.model.creation import Plan
from ds01d.model.primitives import ContainerId, ContainerName


class PlannedContainer:
    """`is_left`: it exists, or may exist. `token`: no other container of that name has it."""

    def __init__(
        self, engine: ContainerEngine, name: ContainerName, warn: Callable[[str], None]
    ) -> None:
        self._engine, self._name, self._warn = engine, name, warn
        self.token = secrets.token_hex(16)
        self.is_left = False
        self._id: ContainerId | None = None
        self._unanswered_by: str | None = None  # the dockerd that did not answer the create

    def create(self, plan: Plan) -> ContainerId:
        """Create it. Raises `EngineFailed`, or `Refused` if Docker did not confine it."""
        try:
            self.is_left = True
            self._id, warnings = self._engine.create_container(plan)
        except EngineRefused as refusal:
            # On a server error Docker may have created the container before it failed.
            if refusal.status >= 500:  # Docker cleans up after a failure; make sure that it did
                with suppress(Ds01Error):
                    self._id = self._find_by_token()
            raise
        except EngineFailed:
            self._unanswered_by = self._engine.instance
            raise
        if plan.confinement is not None:
            self._require_confined(self._id, plan.confinement)
        # A kernel without a memory controller discards a limit, and Docker reports that only here.
        for warning in warnings:
            self._warn(f"Docker warns: {warning}")
        return self._id

    def _require_confined(self, container: ContainerId, confinement: Confinement) -> None:
        # An engine that does not know one of our settings passes over it.
        excess = self._engine.find_excess(container, confinement)
        if excess:
            raise Refused(f"Docker did not confine the container: {', '.join(excess)}")

    def remove(self) -> str:
        """Remove it; "" once Docker confirms that it is gone, else why it may still exist."""
        problem = self._try_to_remove()
        self.is_left = bool(problem)
        return problem

    def _try_to_remove(self) -> str:
        if self._id is None and self._unanswered_by is None:
            return ""
        try:
            container = self._id or self._find_unanswered()
            if container is None:
                return ""
            self._engine.remove_container(container, force=True)
            if self._engine.find_container(container) is None:
                return ""
        except Ds01Error as error:
            return str(error)
        return "Docker has not removed it yet"

    def _find_unanswered(self) -> ContainerId | None:
        """The container of a create that got no answer. Raises `Ds01Error` if it may yet appear."""
        container = self._find_by_token()
        # Another container of that name means that ours could not be created.
        if container is not None or self._engine.find_container(self._name) is not None:
            return container
        answering = self._engine.instance
        # The same dockerd may still be working on the request; a new one has forgotten it.
        if not answering or answering == self._unanswered_by:
            raise Ds01Error("Docker may still be creating it")
        return None

    def _find_by_token(self) -> ContainerId | None:
        container = self._engine.find_container(self._name)
        is_own = container is not None and container.labels.get(CREATION) == self.token
        return container.id if container is not None and is_own else None
