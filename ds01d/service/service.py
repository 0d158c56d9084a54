"""The booking service as the daemon has it: a socket with its thread, and calls for the worker."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Final

from ds01d.adapters.host.processes import Processes
from ds01d.adapters.host.users import UserDatabase
from ds01d.service.peers import PeerReader
from ds01d.service.requests import PendingCall, RequestQueue
from ds01d.service.server import BookingServer

_USERS_S: Final = 2.0


class Service:
    """Listens from `start` until `close`, also while a configuration is reloaded.

    `wake` has to make the worker look for calls soon.
    """

    def __init__(
        self, sockets: Sequence[socket.socket], wake: Callable[[], None], *, from_containers: bool
    ) -> None:
        self._queue = RequestQueue(wake)
        # Patient: who is not known to be an operator in time is none, and nobody else is delayed.
        users = UserDatabase(wait_s=_USERS_S)
        peers = PeerReader(users, Processes(), from_containers=from_containers)
        self._server = BookingServer(sockets, peers.identify, self._queue)

    def start(self) -> None:
        self._server.start()

    def take_request(self) -> PendingCall | None:
        """The next call to serve; None if there is none."""
        return self._queue.take()

    @property
    def has_requests(self) -> bool:
        return self._queue.has_requests

    def reject(self, reason: str) -> None:
        """Fail the calls that wait, and all that come from now on. Returns at once."""
        self._queue.close(reason)

    def close(self) -> None:
        """Stop listening and disconnect all peers; within a second."""
        self._server.close()
