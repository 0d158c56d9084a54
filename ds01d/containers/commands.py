"""What the container commands do, for their caller: by Docker, or by ds01d for those without it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ds01d.containers.context import Interrupt, ShowWaiting
from ds01d.containers.lifecycle import Stopped
from ds01d.containers.listing import ContainerListRow, VisibleContainers
from ds01d.containers.order import CreateOptions
from ds01d.containers.preview import CreationPlan
from ds01d.errors import Refused
from ds01d.model.allocation import Allocated, Refusal, Rejected
from ds01d.model.containers import State
from ds01d.model.creation import Progress
from ds01d.model.primitives import ContainerId, ContainerName, SlotId, UserName, Wall
from ds01d.service.allocator_client import Waiting
from ds01d.service.client import CONTAINERS, ServiceClient
from ds01d.service.exchange import ServiceUnanswered


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedContainer:
    """A container that was created. `slots` are booked for it."""

    name: ContainerName
    image: str
    slots: tuple[SlotId, ...]
    is_started: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandOutput:
    """Shows a user what happens: a line, the place in the queue, a pull.

    `defer`: while it lasts, a signal is noted, and what it was given is called.
    """

    warn: Callable[[str], None]
    show_waiting: ShowWaiting
    show_pull: Callable[[Iterator[Progress], str], None]
    defer: Callable[[Callable[[], None]], AbstractContextManager[Interrupt]]


class ContainerCommands(Protocol):
    """For one caller. A name is a short one of theirs, or the one in Docker.

    All raise `Ds01Error`.
    """

    def preview_container(self, options: CreateOptions) -> CreationPlan:
        """What `create` would do."""

    def survey_slots(self, name: ContainerName) -> Mapping[SlotId | None, Allocated | Rejected]:
        """What a booking of each slot would give, and of any (None)."""

    def create_container(self, options: CreateOptions) -> CreatedContainer:
        """Create a container; nothing is left of one that fails."""

    def start_container(self, name: str) -> tuple[ContainerName, Sequence[SlotId]]:
        """Start it: its name, and what was booked again for it."""

    def stop_container(self, name: str, kill_after_s: int) -> Stopped: ...

    def remove_container(self, name: str, *, force: bool) -> tuple[ContainerName, Sequence[SlotId]]:
        """Remove it: its name, and what it gives back."""

    def list_containers(self, *, with_stopped: bool) -> VisibleContainers: ...


class RemoteContainers(ServiceClient):
    """By the calls of ds01d. `output` shows what the user is to see meanwhile."""

    interface = CONTAINERS

    def __init__(self, path: Path, output: CommandOutput) -> None:
        super().__init__(path)
        self._output = output

    def preview_container(self, options: CreateOptions) -> CreationPlan:
        parameters = _encode_options(options) | {"dry_run": True}
        plan = self._take_warnings(self.call("Create", parameters))["plan"]
        return CreationPlan(**plan | {"name": ContainerName(plan["name"])})

    def survey_slots(self, name: ContainerName) -> Mapping[SlotId | None, Allocated | Rejected]:
        # `Status` is of the interface for bookings, and this client speaks the one for containers.
        status = ServiceClient(self._path).call("Status", {})["status"]
        offers: dict[SlotId | None, Allocated | Rejected] = {
            SlotId(slot["id"]): _parse_offer(slot, name) for slot in status["slots"]
        }
        free = [offer for offer in offers.values() if isinstance(offer, Allocated)]
        nothing = _make_rejection(name, Refusal.NO_GPU_AVAILABLE, "all slots are taken")
        return {None: free[0] if free else nothing} | offers

    def create_container(self, options: CreateOptions) -> CreatedContainer:
        parameters = _encode_options(options)
        with self._output.defer(self.cancel_wait) as interrupt:
            try:
                reply = self._follow_creation(self.stream("Create", parameters))
            except ServiceUnanswered:
                interrupt.raise_if_interrupted()  # our own abort ends the call
                raise
        created = self._take_warnings(reply)["created"]
        return CreatedContainer(
            name=ContainerName(created["name"]),
            image=created["image"],
            slots=tuple(map(SlotId, created["slots"])),
            is_started=created["is_started"],
        )

    def start_container(self, name: str) -> tuple[ContainerName, Sequence[SlotId]]:
        return _parse_slots(self._take_warnings(self.call("Start", {"name": name})))

    def stop_container(self, name: str, kill_after_s: int) -> Stopped:
        # As a call of several replies, which may take as long as the container.
        parameters = {"name": name, "kill_after_s": kill_after_s}
        reply = self._take_warnings(next(self.stream("Stop", parameters)))
        return Stopped(
            name=ContainerName(reply["name"]),
            ran=reply["ran"],
            slots=tuple(map(SlotId, reply["slots"])),
            hold_s=reply["hold_s"],
            hold_problem=reply["hold_problem"],
        )

    def remove_container(self, name: str, *, force: bool) -> tuple[ContainerName, Sequence[SlotId]]:
        reply = self.call("Remove", {"name": name, "force": force})
        return _parse_slots(self._take_warnings(reply))

    def list_containers(self, *, with_stopped: bool) -> VisibleContainers:
        reply = self.call("List", {"all": with_stopped})
        return VisibleContainers(
            rows=tuple(map(_parse_row, reply["containers"] or ())),
            more=reply["more"],
            failures=reply["failures"],
        )

    def _follow_creation(self, replies: Iterator[dict[str, Any]]) -> dict[str, Any]:
        """Show how it goes on; the last reply."""
        show_place: Callable[[Waiting], None] | None = None
        with ExitStack() as shown:
            for reply in replies:
                if reply["waiting"] is not None:
                    # One for the whole wait, which knows since when it goes on.
                    show_place = show_place or shown.enter_context(self._output.show_waiting())
                    show_place(Waiting(**reply["waiting"]))
                    continue
                shown.close()
                if reply["created"] is not None:
                    return reply
                if reply["pull"] is not None:
                    behind: list[dict[str, Any]] = []
                    steps = _read_pull(reply, replies, behind)
                    self._output.show_pull(steps, reply["pull"]["image"])
                    return self._follow_creation(itertools.chain(behind, replies))
        raise ServiceUnanswered("the creation ended without an answer")

    def _take_warnings(self, reply: dict[str, Any]) -> dict[str, Any]:
        for warning in reply["warnings"]:
            self._output.warn(warning)
        return reply


def _encode_options(options: CreateOptions) -> dict[str, object]:
    if options.data is not None:
        raise Refused("--data needs access to Docker: ds01d mounts what the catalogue mounts")
    return {
        "name": options.name,
        "framework": options.framework,
        "image": options.image,
        "architecture": options.architecture,
        "gpus": None if options.slots else options.gpus,
        "slots": list(options.slots) or None,
        "workdir": options.workspace,
        "start": options.start,
        "wait": options.wait or None,
    }


def _read_pull(
    first: Mapping[str, Any], replies: Iterator[dict[str, Any]], behind: list[dict[str, Any]]
) -> Iterator[Progress]:
    """The steps of a pull; the reply behind them goes to `behind`."""
    yield _parse_progress(first["pull"])
    for reply in replies:
        if reply["pull"] is None:
            behind.append(reply)
            return
        yield _parse_progress(reply["pull"])


def _parse_offer(slot: Mapping[str, Any], name: ContainerName) -> Allocated | Rejected:
    """What the status has of a slot; the limits of its user are looked at by the booking."""
    users = [*(holder["container"] for holder in slot["holders"]), *slot["foreign"]]
    if users:
        return _make_rejection(
            name, Refusal.SLOT_TAKEN, f"{slot['id']} is held by {', '.join(users)}"
        )
    return Allocated(
        container=name,
        user=UserName(""),
        slot=SlotId(slot["id"]),
        docker_id=slot["id"],
        device=None,
        priority=0,
    )


def _make_rejection(name: ContainerName, refusal: Refusal, detail: str) -> Rejected:
    return Rejected(container=name, user=UserName(""), refusal=refusal, detail=detail)


def _parse_slots(reply: Mapping[str, Any]) -> tuple[ContainerName, Sequence[SlotId]]:
    return ContainerName(reply["name"]), tuple(map(SlotId, reply["slots"]))


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
