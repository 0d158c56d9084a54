"""The service as the daemon has it: a socket with its thread, and calls for the worker."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from ds01d.adapters.host.processes import Processes
from ds01d.adapters.host.users import UserDatabase
from ds01d.config import Config
from ds01d.service.client import CONTAINERS, INTERFACE
from ds01d.service.peers import PeerReader
from ds01d.service.report_calls import REPORT, ReportCalls
from ds01d.service.requests import PendingCall, RequestQueue
from ds01d.service.server import BookingServer

_USERS_S: Final = 2.0


class ContainerCalls(Protocol):
    """Serves the calls of io.github.ds01.Containers, in threads of its own."""

    @property
    def is_offered(self) -> bool: ...

    def submit(self, request: PendingCall) -> None:
        """Serve a call. Returns at once."""

    def apply_config(self, config: Config) -> None:
        """Serve the calls that come from now on by another configuration."""

    def stop(self) -> None:
        """Undo what is being created; what comes from now on fails. Returns at once."""

    def join(self) -> None:
        """Wait until that is done, some seconds at most."""


class Service:
    """Listens from `start` until `close`, also while a configuration is reloaded.

    `queue` has the calls for the worker, `reports` those for reports. `containers`: None without
    that interface.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        queue: RequestQueue,
        reports: ReportCalls,
        containers: ContainerCalls | None = None,
        *,
        from_containers: bool,
    ) -> None:
        self._queue, self._reports, self._containers = queue, reports, containers
        # Patient: who is not known to be an operator in time is none, and nobody else is delayed.
        users = UserDatabase(wait_s=_USERS_S)
        peers = PeerReader(users, Processes(), from_containers=from_containers)
        self._server = BookingServer(sockets, peers.identify_peer, self)

    def start(self) -> None:
        self._server.start()

    # --- called by the socket's thread

    def list_interfaces(self) -> Sequence[str]:
        """The interfaces that are offered."""
        if self._containers is not None and self._containers.is_offered:
            return (INTERFACE, CONTAINERS)
        return (INTERFACE,)

    def submit(self, request: PendingCall) -> None:
        """Hand a call to the worker; one for containers, which takes seconds, to a thread."""
        interface, _, _ = request.call.method.rpartition(".")
        if interface == CONTAINERS and self._containers is not None:
            self._containers.submit(request)
        elif request.call.method == REPORT:
            self._reports.submit(request)
        else:
            self._queue.submit(request)

    # --- called by the worker's thread

    def apply_config(self, config: Config) -> None:
        self._reports.apply_config(config)
        if self._containers is not None:
            self._containers.apply_config(config)

    def take_requests(self) -> Iterator[PendingCall]:
        """The calls to serve that have come by now."""
        return self._queue.take_requests()

    @property
    def has_requests(self) -> bool:
        return self._queue.has_requests

    def reject(self, reason: str) -> None:
        """Fail the calls that wait, and all that come from now on. Returns at once."""
        if self._containers is not None:
            self._containers.stop()
        self._reports.stop()
        self._queue.close(reason)

    def close(self) -> None:
        """Stop listening and disconnect all peers; within some seconds."""
        if self._containers is not None:
            self._containers.join()
        self._reports.join()
        self._server.close()
