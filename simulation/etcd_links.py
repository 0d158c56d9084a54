"""The links between the members of an etcd cluster: one can be cut off from its peers.

Clients still reach a member that is cut off, and it still answers what needs no majority, as old as
that may be. A proxy stands before each member's port for peers. Each connection between members
says in its first request who opened it (`X-Server-From`), so both directions can be cut.
"""

import contextlib
import re
import socket
import threading
from collections.abc import Callable
from typing import Final

from simulation.etcd import EtcdCluster, EtcdMember

_HEAD_BYTES: Final = 65536
_FROM: Final = re.compile(rb"^x-server-from:\s*([0-9a-f]+)\s*$", re.IGNORECASE | re.MULTILINE)


class PeerLinks:
    """Pass `prepare` to `etcd_cluster`; a context manager around it."""

    def __init__(self) -> None:
        self._cut: set[str] = set()
        """Names of members that are cut off."""
        self._names: dict[bytes, str] = {}
        """Of members, by the ID that they send."""
        self._lock = threading.Lock()
        self._listeners: list[socket.socket] = []
        self._open: dict[tuple[socket.socket, socket.socket], tuple[str, bytes]] = {}

    def __enter__(self) -> "PeerLinks":  # noqa: PYI034 - typing has no Self in Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        for listener in self._listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self._end_connections(lambda *_: True)

    def prepare(self, cluster: EtcdCluster) -> None:
        """Put a proxy before each member, before any is started."""
        for member in cluster.members:
            listener = socket.create_server(("127.0.0.1", 0))
            self._listeners.append(listener)
            member.advertised_peer_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            words = (listener, member)
            threading.Thread(target=self._accept, args=words, daemon=True).start()

    def learn_ids(self, cluster: EtcdCluster) -> None:
        """Ask who is who, once all run; again after a restore, which gives new IDs."""
        rows = cluster.run_etcdctl("member", "list").splitlines()
        with self._lock:
            for row in rows:
                words = [word.strip() for word in row.split(",")]
                self._names[words[0].lstrip("0").encode()] = words[2]

    def cut_off(self, member: EtcdMember) -> None:
        """No peer reaches it, and it reaches no peer."""
        with self._lock:
            self._cut.add(member.name)
        self._end_connections(self._is_cut)

    def heal(self) -> None:
        with self._lock:
            self._cut.clear()

    def _is_cut(self, target: str, sender: bytes) -> bool:
        # Who does not say who it is may be the one.
        return bool(self._cut) and (
            target in self._cut or self._names.get(sender, "") in self._cut | {""}
        )

    def _end_connections(self, is_wanted: Callable[[str, bytes], bool]) -> None:
        with self._lock:
            chosen = [pair for pair, (to, sender) in self._open.items() if is_wanted(to, sender)]
        for pair in chosen:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket, member: EtcdMember) -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(peer, member), daemon=True).start()

    def _serve(self, peer: socket.socket, member: EtcdMember) -> None:
        with peer, contextlib.suppress(OSError):
            head = _read_head(peer)
            found = _FROM.search(head.replace(b"\r\n", b"\n"))
            sender = found.group(1).lstrip(b"0").lower() if found else b""
            with self._lock:
                if self._is_cut(member.name, sender):
                    return
            with socket.create_connection(("127.0.0.1", member.peer_port)) as target:
                pair = (peer, target)
                with self._lock:
                    self._open[pair] = (member.name, sender)
                try:
                    target.sendall(head)
                    back = threading.Thread(target=_pump, args=(target, peer), daemon=True)
                    back.start()
                    _pump(peer, target)
                    back.join()
                finally:
                    with self._lock:
                        del self._open[pair]


def _read_head(peer: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head and len(head) < _HEAD_BYTES:
        data = peer.recv(_HEAD_BYTES)
        if not data:
            break
        head += data
    return head


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Pass bytes on until one of the two ends; then end the other."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
