"""The call with which users create a container: whose it becomes, and how many they may have."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from ds01d.containers.confinement import confine_container
from ds01d.containers.create import Creation
from ds01d.containers.listing import list_containers
from ds01d.containers.order import CreateOptions, build_confined_order
from ds01d.containers.pending_creations import PendingCreations
from ds01d.containers.preview import preview_creation
from ds01d.containers.service_call import ContainerCall
from ds01d.containers.service_replies import encode_creation, encode_plan
from ds01d.decide.short_names import SEPARATOR, split_name
from ds01d.errors import Refused
from ds01d.model.creation import Caller, Created, Order, Person
from ds01d.model.primitives import ContainerName
from ds01d.service import rules
from ds01d.service.container_parameters import CreateParameters
from ds01d.service.requests import PendingCall
from ds01d.service.rules import Peer, unavailable
from ds01d.service.varlink import parse_parameters


class CreationCalls:
    """`pending`: creations that are not complete; None until ds01d can have any."""

    def __init__(
        self,
        open_call: Callable[[PendingCall], AbstractContextManager[ContainerCall]],
        find_user: Callable[[int | str], Person],
    ) -> None:
        self._open_call, self._find_user = open_call, find_user
        self.pending: PendingCreations | None = None
        self._creating = threading.Lock()  # two creations must not count the same containers

    def create_container(self, request: PendingCall) -> object:
        wanted = parse_parameters(request.call, CreateParameters)
        with self._open_call(request) as call:
            owner = self._choose_owner(request.peer, wanted)
            order = build_confined_order(
                CreateOptions(
                    name=wanted.name,
                    framework=wanted.framework,
                    gpus=wanted.gpus,
                    slots=wanted.slots,
                    image=wanted.image,
                    architecture=wanted.architecture,
                    start=wanted.start is not False,
                ),
                call.config,
                Caller(person=owner, root=False),
                call.context.world.limits.read(),
                lambda setup, person: confine_container(
                    setup, person, wanted.workdir, call.surroundings
                ),
            )
            if wanted.dry_run:
                engine, world = call.context.engine, call.context.world
                return encode_plan(preview_creation(order, engine, world, call.config))
            created = self._run_creation(call, order, wait=bool(wanted.wait))
            return encode_creation(created, order, call.warnings)

    def _run_creation(self, call: ContainerCall, order: Order, *, wait: bool) -> Created:
        creations = self.pending
        if creations is None:
            raise unavailable("ds01d has not started yet")
        context = call.context
        if wait:
            context = replace(context, show_waiting=lambda: nullcontext(call.send_place))
        creation = Creation(order, replace(context, show_pull=call.send_pull))
        # From here on an abort ends what it waits for; between two steps it is noticed anyhow.
        call.request.call_on_abort(call.abort_waits)
        with self._creating:
            self._require_room(call, order, creations)
            creations.begin_creation(order.name, creation.container.token, starts=order.start)
        return creations.run_creation(creation)

    def _require_room(self, call: ContainerCall, order: Order, creations: PendingCreations) -> None:
        """Refuse more containers than the limits let a user have. Raises `Ds01Error`."""
        most = order.resources.max_containers
        if most is None:
            return
        owner = Caller(person=order.owner, root=False)
        visible = list_containers(call.services.world, owner, with_stopped=True)
        # Unknown is not none: the limit would be no limit while Docker does not answer.
        if "docker" in visible.failures:
            raise unavailable(f"cannot count containers: {visible.failures['docker']}")
        suffix = f"{SEPARATOR}{order.owner.uid}"
        names = {row.name for row in visible.rows}
        # Those that are being created, which Docker may not have yet.
        names |= {name for name in creations.list_names() if name.endswith(suffix)}
        if len(names) >= most:
            raise Refused(
                f"{order.owner.name} has {len(names)} containers, and may have {most}:"
                " container-remove one first"
            )

    def _choose_owner(self, peer: Peer, wanted: CreateParameters) -> Person:
        """Whose container it becomes: the caller's, or for operators another user's."""
        _, uid = split_name(ContainerName(wanted.name))
        if wanted.user is not None:
            return self._find_user(rules.choose_user(peer, wanted.user))
        if uid is not None and uid != peer.uid:
            rules.require_operator(peer)
            return self._find_user(uid)
        return self._find_user(peer.uid)
