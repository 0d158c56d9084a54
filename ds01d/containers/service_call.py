"""One call of io.github.ds01.Containers while it is served, and what it works with."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Final

from ds01d.adapters.host.callers import look_up_person
from ds01d.adapters.host.engine_files import EngineFiles
from ds01d.config import Config
from ds01d.containers.confinement import Surroundings
from ds01d.containers.context import CommandContext, ContainerServices, Interrupt
from ds01d.containers.lifecycle import ContainerLifecycle
from ds01d.containers.listing import list_names
from ds01d.containers.names import resolve_name
from ds01d.containers.rebooking import Rebooking
from ds01d.errors import Interrupted
from ds01d.model.books import AllocatorState
from ds01d.model.creation import Caller, Progress
from ds01d.model.primitives import ContainerName, Unknown
from ds01d.service import rules
from ds01d.service.allocator_client import Waiting
from ds01d.service.internal_calls import WorkerAllocator
from ds01d.service.requests import PendingCall
from ds01d.service.rules import Peer, unavailable

_PROGRESS_EVERY_S: Final = 0.25


class CallInterrupt(Interrupt):
    """Whether the peer is gone, checked between two steps."""

    def __init__(self, request: PendingCall) -> None:
        super().__init__()
        self._request = request

    def raise_if_interrupted(self) -> None:
        if not self._request.is_open:
            raise Interrupted("the caller is gone, or ds01d stops", signal=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerCall:
    """A call that is being served, and what it works with. `warnings` go into its reply."""

    request: PendingCall
    config: Config
    services: ContainerServices
    context: CommandContext
    allocator: WorkerAllocator
    warnings: list[str]

    @property
    def peer(self) -> Peer:
        return self.request.peer

    @property
    def caller(self) -> Caller:
        return Caller(person=look_up_person(self.peer.uid), root=self.peer.is_operator)

    @property
    def lifecycle(self) -> ContainerLifecycle:
        rebooking = Rebooking(context=self.context, user_of=lambda uid: look_up_person(uid).name)
        return ContainerLifecycle(context=self.context, caller=self.caller, rebooking=rebooking)

    @property
    def surroundings(self) -> Surroundings:
        """The host as the engine sees it."""
        engine = self.context.engine
        remaps_users = engine.remaps_users()  # asked first: it shows which process answers
        files = EngineFiles(engine.instance)
        return Surroundings(
            read_status=files.read_status,
            root_inside=remaps_users and self.config.service.root_in_containers,
        )

    def abort_waits(self) -> None:
        """End a pull, and the wait for a slot. For any thread."""
        self.context.engine.cancel_pull()
        self.allocator.cancel_wait()

    def send_place(self, place: Waiting) -> None:
        """Send the place in the queue to a caller that takes several replies."""
        self._send_progress(waiting=asdict(place))

    def send_pull(self, steps: Iterator[Progress], image: str) -> None:
        """Follow a pull, and send its progress now and then."""
        next_at = 0.0
        for step in steps:
            if time.monotonic() >= next_at:
                next_at = time.monotonic() + _PROGRESS_EVERY_S
                self._send_progress(pull={"image": image, **asdict(step)})

    def _send_progress(self, *, pull: object = None, waiting: object = None) -> None:
        if self.request.call.more:
            progress = {
                "created": None,
                "plan": None,
                "pull": pull,
                "waiting": waiting,
                "warnings": [],
            }
            self.request.send_progress(progress)

    def find_own(self, text: str) -> ContainerName:
        """The name in Docker of a container that the caller may change. Raises `Ds01Error`."""
        world, engine = self.context.world, self.context.engine
        name = resolve_name(
            text, self.caller, engine.find_container, lambda: list_names(self.services.world)
        )
        records, state = world.metadata.read(frozenset((name,))), world.state.read()
        # A booking decides whose a container is before its name does.
        if isinstance(records, Unknown) or not isinstance(state, AllocatorState):
            raise unavailable("cannot read the books, so it is unknown whose container this is")
        record = records.get(name)
        is_booked = record is not None or bool(state.find_slots(name))
        container = engine.find_container(name)
        rules.require_own(self.peer, name, record, container, is_booked=is_booked)
        return name
