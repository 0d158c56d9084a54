"""Events that Docker's stream did not deliver, found in what the containers of a sweep show."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from ds01d.daemon.logged_lines import LoggedLines
from ds01d.decide.event_lines import CREATED, ContainerEvent, find_missed, format_utc
from ds01d.model.containers import Container, Engine
from ds01d.model.primitives import Boot, ContainerId, ContainerName, Wall

WAIT_S: Final = 3.0
"""How long an event waits for the line of a wrapper."""
OUTCOME_S: Final = 60.0
"""How long container-create may take from the creation to the line of its outcome."""
CREATE_COMMAND: Final = "container-create"

Labels = Mapping[str, str]


class MissingLine(NamedTuple):
    """An event without a line in the log; `note`: its identity, or what shows that it happened."""

    event: ContainerEvent
    labels: Labels
    note: str


class MissedEventFinder:
    """Compares containers with the lines of the log. Decision 121: by Docker's own times."""

    def __init__(
        self, lines: LoggedLines, wall: Callable[[], Wall], boot: Callable[[], Boot]
    ) -> None:
        self._lines, self._wall, self._boot = lines, wall, boot
        self._absent_since: Mapping[ContainerName, Boot] = {}

    def find(
        self,
        engine: Engine,
        waiting: Collection[ContainerName],
        is_ours: Callable[[ContainerName, Labels], bool],
        absence_grace_s: float,
    ) -> Iterator[MissingLine]:
        """The missing lines of a sweep.

        `waiting`: names with an event that is not written yet; their lines are not missing.
        """
        now = self._wall()

        def is_quiet(name: ContainerName, changed_at: Wall | None, age_s: float) -> bool:
            """No event is on its way: none waits, and the last change is `age_s` old."""
            return name not in waiting and changed_at is not None and changed_at <= now - age_s

        yield from self._find_creations(engine, is_quiet)
        yield from self._find_starts_and_stops(engine, is_ours, is_quiet)
        yield from self._find_removals(engine, is_quiet, absence_grace_s)

    def forget_absences(self) -> None:
        """Start the absence grace again: the trusted engine did not answer."""
        self._absent_since = {}

    def _find_creations(self, engine: Engine, is_quiet: _IsQuiet) -> Iterator[MissingLine]:
        """Creations that are pending in the log although their container exists."""
        for name, line in tuple(self._lines.creating.items()):
            # A container without labels is a step of the creation, which is still pending then.
            container = engine.by_name.get(name)
            if container is None or not container.labelled or container.created is None:
                continue
            # container-create logs the outcome itself once the container runs, unless it is killed.
            age_s = OUTCOME_S if line.details.startswith(CREATE_COMMAND) else 2 * WAIT_S
            if container.created >= line.at and is_quiet(name, container.created, age_s):
                event = ContainerEvent(
                    action="", operation=CREATED, id=container.id, name=name, at=container.created
                )
                note = f"container {container.id[:12]} exists since {format_utc(container.created)}"
                yield MissingLine(event, container.labels, note)

    def _find_starts_and_stops(
        self, engine: Engine, is_ours: Callable[[ContainerName, Labels], bool], is_quiet: _IsQuiet
    ) -> Iterator[MissingLine]:
        """Starts and stops that Docker's times show."""
        for container in engine.containers.values():
            name = container.name
            # Its wrapper logs the outcome; the steps without labels are nobody's starts and stops.
            is_being_created = name in self._lines.creating and not container.labelled
            if is_being_created or not is_ours(name, container.labels):
                continue
            if not is_quiet(name, _last_change(container), 2 * WAIT_S):
                continue
            life = self._lines.lives.get(name)
            for event in find_missed(container, life, since=self._lines.since):
                field = "StartedAt" if event.operation == "start" else "FinishedAt"
                note = f"no event received; {field} of {event.id[:12]} is {format_utc(event.at)}"
                yield MissingLine(event, container.labels, note)

    def _find_removals(
        self, engine: Engine, is_quiet: _IsQuiet, grace_s: float
    ) -> Iterator[MissingLine]:
        """Containers that exist by the log, and that Docker has not listed for `grace_s`."""
        # By the short ID, which is all that a line has.
        listed = {container_id[:12] for container_id in engine.containers}
        gone = {
            name: life
            for name, life in self._lines.lives.items()
            if life.id and life.operation != "remove" and life.id not in listed
        }
        now = self._boot()
        # One list without it may be a mistake of the engine (decision 3): the grace counts.
        self._absent_since = {name: self._absent_since.get(name, now) for name in gone}
        for name, life in gone.items():
            if now - self._absent_since[name] < grace_s:
                continue
            if not is_quiet(name, life.newest_at, 2 * WAIT_S):
                continue
            operations: Sequence[str] = ("remove",)
            # A container that is removed while it runs was stopped first: scripts look for both.
            if life.operation == "start":
                operations = ("stop", "remove")
            for operation in operations:
                event = ContainerEvent(
                    action="",
                    operation=operation,
                    id=ContainerId(life.id),
                    name=name,
                    # When it happened nobody knows: now is the only time that is not before other
                    # lines.
                    at=self._wall(),
                )
                yield MissingLine(event, {}, f"no event received; Docker does not list {life.id}")


_IsQuiet = Callable[[ContainerName, "Wall | None", float], bool]


def _last_change(container: Container) -> Wall | None:
    times = (container.started, container.finished)
    return max((at for at in times if at is not None), default=None)
