"""What the container commands do, for their caller: by Docker, or by ds01d for those without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
import socket
from pathlib import Path
from typing import Any, Final, Protocol

from ds01d.containers.context import Interrupt
from ds01d.containers.lifecycle import Stopped
from ds01d.containers.listing import ContainerListRow, VisibleContainers
from ds01d.containers.order import CreateOptions
from ds01d.errors import Ds01Error
from ds01d.model.containers import State
from ds01d.model.creation import Progress
from ds01d.model.primitives import ContainerId, ContainerName, SlotId, UserName, Wall
from ds01d.service.client import (
    CONTAINERS,
    TIMEOUT_S,
    ServiceRefused,
    ServiceUnanswered,
    Waiting,
    call_service,
    open_call,
)

_STOP_EXTRA_S: Final = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedContainer:
    """A container that was created. `slots` are booked for it."""

    name: ContainerName
    image: str
    slots: tuple[SlotId, ...]
    is_started: bool


class ContainerCommands(Protocol):
    """For one caller. A name is a short one of theirs, or the one in Docker.

    All raise `Ds01Error`.
    """

    def create(self, options: CreateOptions) -> CreatedContainer:
        """Create a container; nothing is left of one that fails."""

    def start(self, name: str) -> tuple[ContainerName, Sequence[SlotId]]:
        """Start it: its name, and what was booked again for it."""

    def stop(self, name: str, kill_after_s: int) -> Stopped: ...

    def remove(self, name: str, *, force: bool) -> tuple[ContainerName, Sequence[SlotId]]:
        """Remove it: its name, and what it gives back."""

    def list(self, *, with_stopped: bool) -> VisibleContainers: ...


class RemoteContainers:
    """By the calls of ds01d, which listens at `path`. `warn` shows a line to the user."""

    def __init__(
        self,
        path: Path,
        *,
        warn: Callable[[str], None],
        show_place: Callable[[Waiting], None],
        show_pull: Callable[[Iterator[Progress], str], None],
        interrupt: Interrupt,
    ) -> None:
        self._path, self._warn = path, warn
        self._show_place, self._show_pull, self._interrupt = show_place, show_pull, interrupt
        self._creating: socket.socket | None = None

    def create(self, options: CreateOptions) -> CreatedContainer:
        parameters = {
            "name": options.name,
            "framework": options.framework,
            "image": options.image,
            "architecture": options.architecture,
            "gpus": None if options.slots else options.gpus,
            "slots": list(options.slots) or None,
            "start": options.start,
            "wait": options.wait or None,
        }
        try:
            with open_call(self._path, f"{CONTAINERS}.Create", parameters) as (connection, replies):
                self._creating = connection
                self._interrupt.raise_if_interrupted()
                created = self._follow_creation(replies)
        except ServiceUnanswered:
            self._interrupt.raise_if_interrupted()
            raise
        self._show_warnings(created)
        created = created["created"]
        return CreatedContainer(
            name=ContainerName(created["name"]),
            image=created["image"],
            slots=tuple(map(SlotId, created["slots"])),
            is_started=created["is_started"],
        )

    def cancel(self) -> None:
        """End a creation: ds01d undoes it. For any thread."""
        if self._creating is not None:
            with suppress(OSError):
                self._creating.shutdown(socket.SHUT_RDWR)

    def start(self, name: str) -> tuple[ContainerName, Sequence[SlotId]]:
        return self._read_slots(self._call("Start", name=name))

    def stop(self, name: str, kill_after_s: int) -> Stopped:
        timeout_s = kill_after_s + _STOP_EXTRA_S
        reply = self._call("Stop", timeout_s, name=name, kill_after_s=kill_after_s)
        return Stopped(
            name=ContainerName(reply["name"]),
            ran=reply["ran"],
            slots=tuple(map(SlotId, reply["slots"])),
            hold_s=reply["hold_s"],
            hold_problem=reply["hold_problem"],
        )

    def remove(self, name: str, *, force: bool) -> tuple[ContainerName, Sequence[SlotId]]:
        return self._read_slots(self._call("Remove", name=name, force=force))

    def list(self, *, with_stopped: bool) -> VisibleContainers:
        reply = self._call("List", all=with_stopped)
        return VisibleContainers(
            rows=tuple(map(_parse_row, reply["containers"] or ())),
            more=reply["more"],
            failures=reply["failures"],
        )

    def _call(self, method: str, timeout_s: float = TIMEOUT_S, **parameters: object) -> Any:
        reply = call_service(
            self._path, f"{CONTAINERS}.{method}", parameters, timeout_s=timeout_s
        )
        self._show_warnings(reply)
        return reply

    def _follow_creation(self, replies: Iterator[dict[str, Any]]) -> dict[str, Any]:
        """Show how it goes on; the last reply."""
        pending: list[dict[str, Any]] = []

        def pull_steps(first: Mapping[str, Any]) -> Iterator[Progress]:
            yield _parse_progress(first)
            for reply in replies:
                if reply["pull"] is None:
                    pending.append(reply)
                    return
                yield _parse_progress(reply["pull"])

        while True:
            reply = pending.pop() if pending else next(replies)
            if reply["created"] is not None:
                return reply
            if reply["waiting"] is not None:
                self._show_place(Waiting(**reply["waiting"]))
            elif reply["pull"] is not None:
                self._show_pull(pull_steps(reply["pull"]), reply["pull"]["image"])

    def _read_slots(self, reply: Mapping[str, Any]) -> tuple[ContainerName, Sequence[SlotId]]:
        return ContainerName(reply["name"]), tuple(map(SlotId, reply["slots"]))

    def _show_warnings(self, reply: Mapping[str, Any]) -> None:
        for warning in reply.get("warnings") or ():
            self._warn(warning)


def offers_containers(path: Path) -> bool:
    """Whether ds01d at `path` has them. Raises `Ds01Error` where it cannot be asked."""
    info = call_service(path, "org.varlink.service.GetInfo", {})
    return CONTAINERS in info["interfaces"]


def _parse_progress(pull: Mapping[str, Any]) -> Progress:
    return Progress(done=pull["done"], total=pull["total"], doing=pull["doing"])


def _parse_row(row: Mapping[str, Any]) -> ContainerListRow:
    def read_time(key: str) -> Wall | None:
        return None if row[key] is None else Wall(row[key])

    return ContainerListRow(
        name=ContainerName(row["name"]),
        id=ContainerId(row["id"]),
        user=row["user"],
        state=State(row["state"]),
        slots=None if row["slots"] is None else tuple(map(SlotId, row["slots"])),
        framework=row["framework"],
        created=read_time("created"),
        started=read_time("started"),
        finished=read_time("finished"),
    )
