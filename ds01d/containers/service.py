"""The calls of io.github.ds01.Containers: what the container commands do, for users without Docker.

Each is served in a thread of its own. What they book goes through the daemon's worker, as the
caller's own calls: one writer, the same rules, the same history.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Final

from ds01d.adapters.host.callers import look_up_person
from ds01d.config import Config
from ds01d.containers.context import CommandContext, ContainerServices, Interrupt
from ds01d.containers.lifecycle import ContainerLifecycle
from ds01d.containers.listing import ContainerListRow, list_containers
from ds01d.containers.names import resolve_name, split_name
from ds01d.containers.rebooking import Rebooking
from ds01d.errors import ConfigError, Ds01Error, Interrupted, Malformed, NotPermitted, Refused
from ds01d.model.books import AllocatorState
from ds01d.model.creation import Caller
from ds01d.model.primitives import ContainerName, Unknown
from ds01d.service import rules
from ds01d.service.call_threads import CallThreads, Handler
from ds01d.service.client import CONTAINERS, INTERFACE, ServiceRefused
from ds01d.service.container_parameters import (
    ListParameters,
    NameParameters,
    RemoveParameters,
    StopParameters,
)
from ds01d.service.internal_calls import SubmitCall, WorkerAllocator
from ds01d.service.requests import PendingCall
from ds01d.service.rules import Peer, unavailable
from ds01d.service.varlink import VarlinkError, method_not_found, parse_parameters

_KILL_AFTER_S: Final = 10
OpenServices = Callable[[Config], AbstractContextManager[ContainerServices]]


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
    context: CommandContext
    warnings: list[str] = field(default_factory=list)

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

    def find_own(self, text: str) -> ContainerName:
        """The name in Docker of a container that the caller may change. Raises `Ds01Error`."""
        world, engine = self.context.world, self.context.engine
        name = resolve_name(text, self.caller, engine.find_container)
        records, state = world.metadata.read(frozenset((name,))), world.state.read()
        if isinstance(records, Unknown) or not isinstance(state, AllocatorState):
            raise unavailable("cannot read the books, so it is unknown whose container this is")
        record = records.get(name)
        is_booked = record is not None or bool(state.find_slots(name))
        container = engine.find_container(name)
        rules.require_own(self.peer, name, record, container, is_booked=is_booked)
        return name


class ContainerService:
    """Serves the calls by the configuration applied last; `submit` queues calls for the worker."""

    def __init__(self, config: Config, submit: SubmitCall, open_services: OpenServices) -> None:
        self._config, self._submit, self._open_services = config, submit, open_services
        self._threads = CallThreads(describe_error)
        # With whether it may wait for a slot or an image.
        self._handlers: Final[Mapping[str, tuple[Handler, bool]]] = {
            f"{CONTAINERS}.Start": (self._start, False),
            f"{CONTAINERS}.Stop": (self._stop, False),
            f"{CONTAINERS}.Remove": (self._remove, False),
            f"{CONTAINERS}.List": (self._list, False),
        }

    @property
    def is_offered(self) -> bool:
        return self._config.service.containers and self._config.daemon.mode == "repair"

    def submit(self, request: PendingCall) -> None:
        """Serve a call in a thread. Returns at once."""
        handler = self._handlers.get(request.call.method)
        if handler is None:
            request.fail(method_not_found(request.call.method))
        else:
            self._threads.start(request, handler[0], is_long=handler[1])

    def apply_config(self, config: Config) -> None:
        self._config = config

    def stop(self) -> None:
        self._threads.stop()

    def join(self) -> None:
        self._threads.join()

    # --- the methods

    def _start(self, request: PendingCall) -> object:
        wanted = parse_parameters(request.call, NameParameters)
        with self._open_call(request) as call:
            name = call.find_own(wanted.name)
            booked = call.lifecycle.start(name)
            slots = [booking.slot for booking in booked]
            return {"name": name, "slots": slots, "warnings": call.warnings}

    def _stop(self, request: PendingCall) -> object:
        wanted = parse_parameters(request.call, StopParameters)
        kill_after_s = _KILL_AFTER_S if wanted.kill_after_s is None else wanted.kill_after_s
        with self._open_call(request) as call:
            stopped = call.lifecycle.stop(call.find_own(wanted.name), kill_after_s)
            return {
                "name": stopped.name,
                "ran": stopped.ran,
                "slots": list(stopped.slots),
                "hold_s": stopped.hold_s,
                "hold_problem": stopped.hold_problem,
                "warnings": call.warnings,
            }

    def _remove(self, request: PendingCall) -> object:
        wanted = parse_parameters(request.call, RemoveParameters)
        with self._open_call(request) as call:
            name = call.find_own(wanted.name)
            slots = call.lifecycle.remove(name, force=bool(wanted.force))
            return {"name": name, "slots": list(slots), "warnings": call.warnings}

    def _list(self, request: PendingCall) -> object:
        wanted = parse_parameters(request.call, ListParameters)
        caller = Caller(person=look_up_person(request.peer.uid), root=request.peer.is_operator)
        with self._open_services(self._config) as services:
            visible = list_containers(services.world, caller, with_stopped=bool(wanted.all))
        rows = None if "docker" in visible.failures else list(map(encode_row, visible.rows))
        return {"containers": rows, "more": visible.more, "failures": dict(visible.failures)}

    @contextmanager
    def _open_call(self, request: PendingCall) -> Iterator[ContainerCall]:
        """What a call works with. Bookings are made as the peer's own calls."""
        config, warnings = self._config, list[str]()
        with self._open_services(config) as services:
            context = CommandContext(
                engine=services.engine,
                allocator=WorkerAllocator(request.peer, self._submit),
                world=services.world,
                keeps_log=False,  # ds01d logs what it sees
                warn=warnings.append,
                interrupt=CallInterrupt(request),
            )
            yield ContainerCall(request=request, config=config, context=context, warnings=warnings)


def describe_error(error: Ds01Error) -> VarlinkError:
    """An error as this interface has it."""
    if isinstance(error, ServiceRefused):  # of a booking, by the worker
        error = VarlinkError(error.error, **error.parameters)
    if isinstance(error, VarlinkError):
        name = error.error.removeprefix(f"{INTERFACE}.")
        if name == error.error:
            return error  # one of the standard's
        if name == "Refused":
            reason = "{code} ({detail})".format_map(error.parameters)
            return VarlinkError(f"{CONTAINERS}.Refused", reason=reason)
        return VarlinkError(f"{CONTAINERS}.{name}", **error.parameters)
    if isinstance(error, Refused | Malformed | NotPermitted | ConfigError):
        return VarlinkError(f"{CONTAINERS}.Refused", reason=str(error))
    return VarlinkError(f"{CONTAINERS}.Unavailable", reason=str(error))


def encode_row(row: ContainerListRow) -> dict[str, object]:
    """A container as the interface describes it."""
    container = row.container
    return {
        "name": container.name,
        "short_name": split_name(container.name)[0],
        "id": container.id,
        "user": row.user,
        "state": container.state.value,
        "slots": None if row.slots is None else list(row.slots),
        "framework": container.labels.get("aime.mlc.FRAMEWORK"),
        "created": container.created,
        "started": container.started,
        "finished": container.finished,
    }
