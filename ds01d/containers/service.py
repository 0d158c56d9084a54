"""The calls of io.github.ds01.Containers: what the container commands do, for users without Docker.

Each is served in a thread of its own. What they book goes through the daemon's worker, as the
caller's own calls: one writer, the same rules, the same history.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from ds01d.adapters.host.callers import find_user, look_up_person
from ds01d.config import Config
from ds01d.containers.confinement import confine_container
from ds01d.containers.context import CommandContext, ContainerServices
from ds01d.containers.creation_calls import CreationCalls
from ds01d.containers.listing import list_containers
from ds01d.containers.order import read_root_catalogue
from ds01d.containers.pending_creations import PendingCreations, Store
from ds01d.containers.ports import ContainerEngine
from ds01d.containers.service_call import CallInterrupt, ContainerCall
from ds01d.containers.service_replies import describe_error, encode_row
from ds01d.containers.session_calls import SessionCalls
from ds01d.decide.short_names import split_name
from ds01d.errors import NoSuchContainer, Refused
from ds01d.model.creation import Caller, Person
from ds01d.model.primitives import ContainerName
from ds01d.service.call_threads import CallThreads, Handler
from ds01d.service.client import CONTAINERS
from ds01d.service.container_parameters import (
    ListParameters,
    NameParameters,
    RemoveParameters,
    StopParameters,
)
from ds01d.service.internal_calls import SubmitCall, WorkerAllocator
from ds01d.service.requests import PendingCall
from ds01d.service.varlink import method_not_found, parse_parameters

_KILL_AFTER_S: Final = 10
OpenServices = Callable[[Config], AbstractContextManager[ContainerServices]]


class ContainerService:
    """Serves the calls by the configuration applied last; `submit` queues calls for the worker."""

    def __init__(
        self,
        config: Config,
        submit: SubmitCall,
        open_services: OpenServices,
        open_store: Callable[[Config], Store],
        find_user: Callable[[int | str], Person] = find_user,
    ) -> None:
        self._config, self._submit, self._open_services = config, submit, open_services
        self._open_store, self._find_user = open_store, find_user
        self._threads = CallThreads(describe_error)
        self._creations = CreationCalls(self._open_call, find_user)
        sessions = SessionCalls(open_call=self._open_call, require_confined=self._require_confined)
        # With whether it may wait for a slot or an image.
        self._handlers: Final[Mapping[str, tuple[Handler, bool]]] = {
            f"{CONTAINERS}.Create": (self._creations.create_container, True),
            f"{CONTAINERS}.Start": (self._start_container, False),
            f"{CONTAINERS}.Stop": (self._stop_container, False),
            f"{CONTAINERS}.Remove": (self._remove_container, False),
            f"{CONTAINERS}.List": (self._list_containers, False),
            f"{CONTAINERS}.Enter": (sessions.start_session, False),
            f"{CONTAINERS}.Resize": (sessions.resize_session, False),
            f"{CONTAINERS}.InspectSession": (sessions.inspect_session, False),
            f"{CONTAINERS}.Logs": (sessions.send_logs, False),
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
            self._threads.start_call(request, handler[0], is_long=handler[1])

    def apply_config(self, config: Config) -> None:
        self._config = config
        # Once: at a reload, creations of this process would be taken for leftovers.
        if self.is_offered and self._creations.pending is None:
            self._creations.pending = PendingCreations(self._open_store(config), self._open_engine)
            self._creations.pending.remove_leftovers()

    @contextmanager
    def _open_engine(self) -> Iterator[ContainerEngine]:
        with self._open_services(self._config) as services:
            yield services.engine

    def stop(self) -> None:
        self._threads.stop_calls()

    def join(self) -> None:
        self._threads.join_threads()

    # --- the methods

    def _require_confined(self, call: ContainerCall, name: ContainerName) -> None:
        """Refuse a container that the service would not make like that. Raises `Ds01Error`."""
        if call.peer.is_operator:
            return
        _, uid = split_name(name)
        owner = self._find_user(call.peer.uid)
        if uid != owner.uid:
            raise Refused(f"{name} was not made by the service: only operators may use it")
        setup = read_root_catalogue(call.config).setup
        # Decision 194: compared with what would be made now; no label proves who made it.
        confinement = confine_container(setup, owner, None, call.surroundings)
        try:
            excess = call.context.engine.find_excess(name, confinement)
        except NoSuchContainer:
            return  # the start reports it better
        if excess:
            raise Refused(
                f"{name} is not for users: it has more than the rules allow now"
                f" ({', '.join(excess)}); remove it and create it again, or ask an operator"
            )

    def _start_container(self, request: PendingCall) -> object:
        wanted = parse_parameters(request.call, NameParameters)
        with self._open_call(request) as call:
            name = call.find_own(wanted.name)
            self._require_confined(call, name)
            container = call.context.engine.find_container(name)
            if container is not None:
                call.lifecycle.rebooking.require_own_slots(container)
            booked = call.lifecycle.start_container(name)
            slots = [booking.slot for booking in booked]
            return {"name": name, "slots": slots, "warnings": call.warnings}

    def _stop_container(self, request: PendingCall) -> object:
        wanted = parse_parameters(request.call, StopParameters)
        kill_after_s = _KILL_AFTER_S if wanted.kill_after_s is None else wanted.kill_after_s
        with self._open_call(request) as call:
            stopped = call.lifecycle.stop_container(call.find_own(wanted.name), kill_after_s)
            return {
                "name": stopped.name,
                "ran": stopped.ran,
                "slots": list(stopped.slots),
                "hold_s": stopped.hold_s,
                "hold_problem": stopped.hold_problem,
                "warnings": call.warnings,
            }

    def _remove_container(self, request: PendingCall) -> object:
        wanted = parse_parameters(request.call, RemoveParameters)
        with self._open_call(request) as call:
            name = call.find_own(wanted.name)
            slots = call.lifecycle.remove_container(name, force=bool(wanted.force))
            return {"name": name, "slots": list(slots), "warnings": call.warnings}

    def _list_containers(self, request: PendingCall) -> object:
        wanted = parse_parameters(request.call, ListParameters)
        caller = Caller(person=look_up_person(request.peer.uid), root=request.peer.is_operator)
        with self._open_services(self._config) as services:
            visible = list_containers(services.world, caller, with_stopped=bool(wanted.all))
        # Unknown is not none: an empty list would say that there are no containers.
        rows = None if "docker" in visible.failures else list(map(encode_row, visible.rows))
        return {"containers": rows, "more": visible.more, "failures": dict(visible.failures)}

    @contextmanager
    def _open_call(self, request: PendingCall) -> Iterator[ContainerCall]:
        """What a call works with. Bookings are made as the peer's own calls."""
        config, warnings = self._config, list[str]()
        with self._open_services(config) as services:
            allocator = WorkerAllocator(request.peer, self._submit)
            context = CommandContext(
                engine=services.engine,
                allocator=allocator,
                world=services.world,
                keeps_log=False,  # ds01d logs what it sees
                warn=warnings.append,
                interrupt=CallInterrupt(request),
            )
            yield ContainerCall(
                request=request,
                config=config,
                services=services,
                context=context,
                allocator=allocator,
                warnings=warnings,
            )
