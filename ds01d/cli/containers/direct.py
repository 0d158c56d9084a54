"""The container commands for those who can reach Docker; for all others ds01d carries them out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ds01d import config_text
from ds01d.adapters.host.callers import look_up_person
from ds01d.cli.base.command import print_error
from ds01d.cli.base.context import Invocation
from ds01d.cli.base.signals import defer_signals
from ds01d.cli.base.waiting import show_waiting
from ds01d.cli.containers.pulls import show_pull_progress
from ds01d.containers.commands import (
    CommandOutput,
    ContainerCommands,
    CreatedContainer,
    RemoteContainers,
)
from ds01d.containers.context import CommandContext, ContainerServices, Interrupt
from ds01d.containers.create import Creation
from ds01d.containers.lifecycle import ContainerLifecycle, Stopped
from ds01d.containers.listing import VisibleContainers, list_containers, list_names
from ds01d.containers.names import resolve_name
from ds01d.containers.order import CreateOptions, build_order, check_binds, owner_of_new
from ds01d.containers.preview import CreationPlan, preview_creation
from ds01d.containers.rebooking import Rebooking
from ds01d.errors import ConfigError
from ds01d.model.allocation import Allocated, Rejected
from ds01d.model.primitives import ContainerName, SlotId, UserName
from ds01d.reconcile.allocator import Allocator
from ds01d.service.allocator_client import RemoteAllocator
from ds01d.service.client import ServiceClient, find_service

if TYPE_CHECKING:
    from ds01d.config import Config
    from ds01d.model.creation import Caller, Order

Client = TypeVar("Client", bound=ServiceClient)
_UNDO = "interrupted: removing what was created so far"
_UNDO_REMOTELY = "interrupted: ds01d removes what was created so far"
_FINISH = "interrupted: finishing the current operation"


def find_remote(config: Config, make_client: Callable[[Path], Client]) -> Client | None:
    """ds01d, for those who cannot reach Docker and where it has this interface; else None."""
    if can_reach_docker(config):  # decision 197
        return None
    return find_service(config.booking_socket, make_client)


def make_remote(path: Path) -> RemoteContainers:
    """The commands by the calls of ds01d, with what they show."""
    output = CommandOutput(
        warn=print_warning,
        show_waiting=show_waiting,
        show_pull=show_pull_progress,
        defer=_defer_abort,
    )
    return RemoteContainers(path, output)


def _defer_abort(on_signal: Callable[[], None]) -> AbstractContextManager[Interrupt]:
    interrupt = Interrupt()

    @contextmanager
    def hold_signals() -> Iterator[Interrupt]:
        with defer_signals(interrupt, _UNDO_REMOTELY, on_signal):
            yield interrupt

    return hold_signals()


def can_reach_docker(config: Config) -> bool:
    """Whether this process may connect to Docker, or nobody can: then Docker's own error counts."""
    try:
        path = config_text.engine_endpoint(config.docker.url).path
    except ValueError as error:
        raise ConfigError(f"docker.url: {error}") from error
    return not path or not os.path.exists(path) or os.access(path, os.R_OK | os.W_OK)  # noqa: PTH110


def print_warning(text: str) -> None:
    """Print a warning on stderr."""
    print_error("container", text)


def command_context(services: ContainerServices, config: Config) -> CommandContext:
    """What a container command works with, showing its progress on stderr."""
    service = find_service(config.booking_socket, RemoteAllocator)
    # Where only ds01d may write the log, it logs what it sees by itself.
    may_log = service is None or os.access(config.logs.operations, os.W_OK)
    return CommandContext(
        engine=services.engine,
        allocator=service or Allocator(services.world, config),
        world=services.world,
        keeps_log=may_log,
        warn=print_warning,
        show_pull=show_pull_progress,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectContainers:
    """Changes containers in Docker by itself; signals take effect between the steps."""

    services: ContainerServices
    config: Config
    caller: Caller

    def preview_container(self, options: CreateOptions) -> CreationPlan:
        services = self.services
        return preview_creation(
            self._build_order(options), services.engine, services.world, self.config
        )

    def survey_slots(self, name: ContainerName) -> Mapping[SlotId | None, Allocated | Rejected]:
        owner = owner_of_new(name, self.caller)
        allocator = Allocator(self.services.world, self.config)
        return allocator.preview_slots(UserName(owner.name), name)

    def create_container(self, options: CreateOptions) -> CreatedContainer:
        order = self._build_order(options)
        context = command_context(self.services, self.config)
        if options.wait:
            context = replace(context, show_waiting=show_waiting)

        def abort_waits() -> None:
            self.services.engine.cancel_pull()
            if isinstance(context.allocator, RemoteAllocator):
                context.allocator.cancel_wait()

        with defer_signals(context.interrupt, _UNDO, abort_waits):
            created = Creation(order, context).run()
        return CreatedContainer(
            name=created.name,
            image=order.image,
            slots=tuple(booking.slot for booking in created.booked),
            is_started=order.start,
        )

    def start_container(self, name: str) -> tuple[ContainerName, Sequence[SlotId]]:
        with self._open_lifecycle(name) as (lifecycle, name_in_docker):
            check_binds(lifecycle.context.engine, name_in_docker)
            booked = lifecycle.start_container(name_in_docker)
        return name_in_docker, [booking.slot for booking in booked]

    def stop_container(self, name: str, kill_after_s: int) -> Stopped:
        with self._open_lifecycle(name, defers=False) as (lifecycle, name_in_docker):
            return lifecycle.stop_container(name_in_docker, kill_after_s)

    def remove_container(self, name: str, *, force: bool) -> tuple[ContainerName, Sequence[SlotId]]:
        with self._open_lifecycle(name) as (lifecycle, name_in_docker):
            return name_in_docker, lifecycle.remove_container(name_in_docker, force=force)

    def list_containers(self, *, with_stopped: bool) -> VisibleContainers:
        return list_containers(self.services.world, self.caller, with_stopped=with_stopped)

    def _build_order(self, options: CreateOptions) -> Order:
        return build_order(options, self.config, self.caller, self.services.world.limits.read())

    @contextmanager
    def _open_lifecycle(
        self, name: str, *, defers: bool = True
    ) -> Iterator[tuple[ContainerLifecycle, ContainerName]]:
        """The lifecycle for the caller, and the name in Docker. `defers`: signals wait."""
        context = command_context(self.services, self.config)
        rebooking = Rebooking(context=context, user_of=lambda uid: look_up_person(uid).name)
        lifecycle = ContainerLifecycle(context=context, caller=self.caller, rebooking=rebooking)
        name_in_docker = resolve_name(
            name,
            self.caller,
            self.services.engine.find_container,
            lambda: list_names(self.services.world),
        )
        if not defers:
            yield lifecycle, name_in_docker
            return
        # Between start and booking a signal would leave one without the other.
        with defer_signals(context.interrupt, _FINISH, _do_nothing):
            yield lifecycle, name_in_docker


def _do_nothing() -> None:
    """Do nothing: there is nothing to abort."""


@contextmanager
def open_commands(invocation: Invocation) -> Iterator[ContainerCommands]:
    """The commands for the caller."""
    config = invocation.config()
    remote = find_remote(config, make_remote)
    if remote is not None:
        yield remote
        return
    caller = invocation.environment.find_caller()
    with invocation.environment.open_container_services(config) as services:
        yield DirectContainers(services=services, config=config, caller=caller)
