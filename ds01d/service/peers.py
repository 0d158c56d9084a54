"""Who is at the other end of a Unix socket: by the kernel (SO_PEERCRED) and the user database.

What a peer claims, and what stands in /proc of its pid, identifies nobody: it may have
ended, and the pid be another's. Only that it is in a container is read there, and refuses.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

from ds01d.adapters.host.processes import Processes
from ds01d.adapters.host.users import UserDatabase
from ds01d.model.primitives import Unknown
from ds01d.service.rules import OPERATORS, Peer, not_permitted, unavailable

_UCRED: Final = struct.Struct("3i")  # pid, uid, gid: struct ucred, unix(7)


def read_credentials(connection: socket.socket) -> tuple[int, int]:
    """The peer's pid and uid when it connected."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, _ = _UCRED.unpack(raw)
    return pid, uid


class PeerReader:
    """Identifies peers. Any thread."""

    def __init__(self, users: UserDatabase, processes: Processes, *, from_containers: bool) -> None:
        """`from_containers`: whether processes in containers may call."""
        self._users, self._processes = users, processes
        self._from_containers = from_containers

    def identify_peer(self, connection: socket.socket) -> Peer:
        """Raises `VarlinkError` for those who may not call, and where that is not known."""
        pid, uid = read_credentials(connection)
        if not self._from_containers:
            self._refuse_containers(pid)
        login = self._users.find_logins(frozenset({uid})).get(uid)
        # Decision 209: a user has 65,536 subordinate uids, none of them with a login.
        if login is None:
            raise unavailable(
                f"uid {uid} has no login here, or the user database did not answer in time"
            )
        return Peer(
            uid=uid,
            login=login,
            pid=pid,
            is_operator=uid == 0 or self._users.is_member(login, OPERATORS),
        )

    def _refuse_containers(self, pid: int) -> None:
        # Root in a container has uid 0 here, too, unless the engine remaps users.
        process = self._processes.look_up([pid]).get(pid)
        # A child may have its connection, and where that runs is not known.
        if process is None:
            raise unavailable(
                f"process {pid} has ended, so it cannot be seen whether it ran in a container"
            )
        if isinstance(process.container, Unknown):
            raise unavailable(f"process {pid}: {process.container.reason}")
        if process.container is not None:
            raise not_permitted("a process outside of containers (service.from_containers)")
