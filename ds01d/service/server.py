"""The socket: an event loop in a thread of its own reads calls and writes replies.

A peer that sends nothing, half a message or too much, or never reads, costs one connection for some
seconds, and delays nobody. Only whole calls of peers who are known reach the worker.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from typing import Any, Final, Protocol

import structlog

from ds01d.errors import Ds01Error
from ds01d.reporting.message_ids import Event
from ds01d.service.admission import Admission
from ds01d.service.exchange import MAX_MESSAGE_BYTES
from ds01d.service.interface import answer_standard_call
from ds01d.service.listening import BACKLOG
from ds01d.service.peer_connection import PeerConnection
from ds01d.service.peers import read_credentials
from ds01d.service.requests import PendingCall
from ds01d.service.rules import Peer, unavailable
from ds01d.service.varlink import (
    MalformedMessage,
    MethodCall,
    VarlinkError,
    encode_error,
    encode_reply,
    parse_call,
)

SEND_S: Final = 5.0  # for one message, in either direction
IDLE_S: Final = 60.0  # without a call
SERVE_S: Final = 60.0  # until the worker takes a call
_JOIN_S: Final = 1.0
_IDENTIFIED_S: Final = 1.0  # from the connection to its first call
_ACCEPTED_AT_ONCE: Final = 8  # who is refused has a descriptor and a buffer, too, for a moment

# From Python 3.13 on closing a server removes the path of its socket, which is systemd's.
_KEEP_PATH: Final[dict[str, Any]] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
IdentifyPeer = Callable[[socket.socket], Peer]
"""Who is connected. May wait for the user database; raises `VarlinkError` for who may not call."""
Reply = tuple[bytes, bool]
"""A message, and whether it is the last one."""
Replies = asyncio.Queue[Reply]


class CallHandlers(Protocol):
    """Who serves the calls."""

    def list_interfaces(self) -> Sequence[str]:
        """The interfaces that are offered."""

    def submit(self, request: PendingCall) -> None:
        """Serve a call of one of them, some time. Returns at once."""


class BookingServer:
    """Serves listening Unix sockets from `start` until `close`."""

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        identify: IdentifyPeer,
        handlers: CallHandlers,
        *,
        send_s: float = SEND_S,
        idle_s: float = IDLE_S,
        serve_s: float = SERVE_S,
    ) -> None:
        self._sockets, self._identify, self._handlers = sockets, identify, handlers
        self._send_s, self._idle_s, self._serve_s = send_s, idle_s, serve_s
        self._log = structlog.get_logger()
        self._admission = Admission(time.monotonic)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run_loop, name="ds01d-service", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop listening and disconnect all peers, once their last replies are written."""
        with suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_JOIN_S)

    def _run_loop(self) -> None:
        try:
            self._loop.run_until_complete(self._serve_sockets())
        except Exception as error:  # noqa: BLE001 - the thread must log why it ends
            self._log.error(Event.SERVICE_FAILED, reason=str(error), exc_info=True)
        finally:
            self._loop.close()

    async def _serve_sockets(self) -> None:
        servers = [
            await asyncio.start_unix_server(
                self._handle_connection,
                sock=listening,
                limit=MAX_MESSAGE_BYTES,
                backlog=_ACCEPTED_AT_ONCE,
                **_KEEP_PATH,
            )
            for listening in self._sockets
        ]
        for listening in self._sockets:
            listening.listen(BACKLOG)  # asyncio takes `backlog` for both
        await self._stop.wait()
        for server in servers:
            server.close()
        connections = asyncio.all_tasks() - {asyncio.current_task()}
        if connections:
            # A moment for the last replies; who does not read them does not delay the stop.
            _, left = await asyncio.wait(connections, timeout=_JOIN_S / 2)
            for connection in left:
                connection.cancel()

    async def _handle_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        peer_socket: socket.socket = writer.get_extra_info("socket")
        # Counted by uid before the user database is asked: that may take seconds.
        _, uid = read_credentials(peer_socket)
        connection = PeerConnection(reader, writer, self._send_s)
        refusal = self._admission.open_connection(uid)
        try:
            if refusal:
                await connection.send(encode_error(unavailable(refusal)))
                return
            try:
                await self._serve_connection(connection, uid, peer_socket)
            finally:
                self._admission.close_connection(uid)
        # Whatever a peer does ends its own connection only.
        except (
            OSError,
            EOFError,
            MalformedMessage,
            asyncio.TimeoutError,
            asyncio.LimitOverrunError,
        ):
            pass
        finally:
            connection.abort()

    async def _serve_connection(
        self, connection: PeerConnection, uid: int, peer_socket: socket.socket
    ) -> None:
        # At once: who waits until the pid is another's would be taken for them.
        peer = await self._identify_peer(peer_socket)
        identified_until = self._loop.time() + _IDENTIFIED_S
        while isinstance(peer, Peer) and not self._stop.is_set():
            message = await connection.next_message(self._idle_s, self._stop)
            if message is None:
                return
            call = parse_call(message)
            over = self._admission.count_call(uid)
            if over:
                await connection.send(encode_error(unavailable(over)))
                continue
            # And for each call: a connection may outlive the right to make it. But nearly every
            # one brings its only call along.
            if self._loop.time() > identified_until:
                peer = await self._identify_peer(peer_socket)
            identified_until = -inf
            if isinstance(peer, Peer):
                await self._answer_call(connection, peer, call)
        # No waiting for a call: a user with 65,536 uids (subuid(5)) would take all connections.
        if isinstance(peer, VarlinkError):
            await connection.send(encode_error(peer))

    async def _identify_peer(self, peer_socket: socket.socket) -> Peer | VarlinkError:
        # In a thread: the user database may be an LDAP server that hangs.
        try:
            return await self._loop.run_in_executor(None, self._identify, peer_socket)
        except Ds01Error as error:
            return error if isinstance(error, VarlinkError) else unavailable(str(error))

    async def _answer_call(self, connection: PeerConnection, peer: Peer, call: MethodCall) -> None:
        try:
            # By this thread, so that `varlinkctl info` works while the worker is in a pass.
            standard = answer_standard_call(call, self._handlers.list_interfaces())
        except VarlinkError as error:
            await connection.send(encode_error(error), unless=call.oneway)
            return
        if standard is not None:
            await connection.send(encode_reply(standard), unless=call.oneway)
            return
        replies: Replies = asyncio.Queue()

        def queue_reply(message: bytes, is_last: bool) -> None:  # noqa: FBT001 - as `SendReply` has it
            with suppress(RuntimeError):  # the loop was closed: nobody waits any more
                self._loop.call_soon_threadsafe(replies.put_nowait, (message, is_last))

        request = PendingCall(peer, call, queue_reply)
        self._handlers.submit(request)
        try:
            await self._relay_replies(connection, request, replies)
        finally:
            # Also where a reply could not be written: its server is not to go on for nobody.
            request.withdraw()
            if (left := request.take_stream()) is not None:
                left.socket.close()

    async def _relay_replies(
        self, connection: PeerConnection, request: PendingCall, replies: Replies
    ) -> None:
        """Send replies until the last one, or until the peer is gone."""
        deadline = self._loop.time() + self._serve_s
        is_served = is_last = False
        while not is_last:
            # Only until it is served: a call that waits for a slot may take hours.
            left = None if is_served else max(0.0, deadline - self._loop.time())
            reply = await connection.wait_for(replies.get(), left)
            if reply is not None:
                message, is_last = reply
                stream = request.take_stream() if is_last else None
                if stream is not None:
                    # Decision 198: the peer gets a descriptor of its own; ours is always closed.
                    with stream.socket:
                        if not request.call.oneway:
                            await connection.send_stream(stream, message)
                else:
                    message = message or request.take_offer()
                    await connection.send(message, unless=request.call.oneway)
                is_served = True
            elif not is_served and self._loop.time() >= deadline:
                # Withdrawn, it will never be made; already taken, it is worth waiting for.
                is_served = not request.withdraw_queued()
                if not is_served:
                    busy = f"ds01d is busy: the call was not served within {self._serve_s:.0f} s"
                    error = encode_error(unavailable(busy))
                    await connection.send(error, unless=request.call.oneway)
                    return
