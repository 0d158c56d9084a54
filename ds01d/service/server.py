"""The socket: an event loop in a thread of its own reads calls and writes replies.

A peer that sends nothing, half a message or too much, or never reads, costs one connection for some
seconds, and delays nobody. Only whole calls of peers who are known reach the worker.
"""

from __future__ import annotations

import asyncio
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

import structlog

from ds01d.errors import Ds01Error
from ds01d.reporting.message_ids import Event
from ds01d.service.admission import Admission
from ds01d.service.interface import answer_standard_call
from ds01d.service.listening import BACKLOG
from ds01d.service.peers import read_credentials
from ds01d.service.requests import PendingCall
from ds01d.service.rules import Peer, unavailable
from ds01d.service.varlink import (
    END,
    MAX_MESSAGE_BYTES,
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
_ACCEPTED_AT_ONCE: Final = 8  # who is refused has a descriptor and a buffer, too, for a moment
_HANG_UP_S: Final = 1.0

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
        self._thread = threading.Thread(target=self._run, name="ds01d-service", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop listening and disconnect all peers, once their last replies are written."""
        with suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_JOIN_S)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except Exception as error:  # noqa: BLE001 - the thread must log why it ends
            self._log.error(Event.SERVICE_FAILED, reason=str(error), exc_info=True)
        finally:
            self._loop.close()

    async def _serve(self) -> None:
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
            _, left = await asyncio.wait(connections, timeout=_JOIN_S / 2)
            for connection in left:
                connection.cancel()

    async def _handle_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        peer_socket: socket.socket = writer.get_extra_info("socket")
        _, uid = read_credentials(peer_socket)
        connection = _PeerConnection(reader, writer, self._send_s)
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
        self, connection: _PeerConnection, uid: int, peer_socket: socket.socket
    ) -> None:
        # At once: who waits until the pid is another's would be taken for them.
        peer = await self._identify_peer(peer_socket)
        while not self._stop.is_set():
            message = await connection.next_message(self._idle_s, self._stop)
            if message is None:
                return
            call = parse_call(message)
            over = self._admission.count_call(uid)
            if over:
                await connection.send(encode_error(unavailable(over)))
                continue
            # And for each call: a connection may outlive the right to make it.
            if isinstance(peer, Peer):
                peer = await self._identify_peer(peer_socket)
            await self._answer(connection, peer, call)

    async def _identify_peer(self, peer_socket: socket.socket) -> Peer | VarlinkError:
        # In a thread: the user database may be an LDAP server that hangs.
        try:
            return await self._loop.run_in_executor(None, self._identify, peer_socket)
        except VarlinkError as error:
            return error
        except Ds01Error as error:
            return unavailable(str(error))

    async def _answer(
        self, connection: _PeerConnection, peer: Peer | VarlinkError, call: MethodCall
    ) -> None:
        if isinstance(peer, VarlinkError):
            await connection.send(encode_error(peer), unless=call.oneway)
            return
        try:
            standard = answer_standard_call(call, self._handlers.list_interfaces())
        except VarlinkError as error:
            await connection.send(encode_error(error), unless=call.oneway)
            return
        if standard is not None:
            await connection.send(encode_reply(standard), unless=call.oneway)
            return
        replies: Replies = asyncio.Queue()

        def send(message: bytes, is_last: bool) -> None:  # noqa: FBT001 - as `SendReply` has it
            with suppress(RuntimeError):  # the loop was closed: nobody waits any more
                self._loop.call_soon_threadsafe(replies.put_nowait, (message, is_last))

        request = PendingCall(peer, call, send)
        self._handlers.submit(request)
        try:
            await self._relay(connection, request, replies)
        finally:
            request.withdraw()

    async def _relay(
        self, connection: _PeerConnection, request: PendingCall, replies: Replies
    ) -> None:
        """Send replies until the last one, or until the peer is gone."""
        deadline = self._loop.time() + self._serve_s
        is_served = is_last = False
        while not is_last:
            left = None if is_served else max(0.0, deadline - self._loop.time())
            reply = await connection.wait_reply(replies, left)
            if reply is not None:
                message, is_last = reply
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


class _PeerConnection:
    """One peer's streams, with a limit for the time of each message."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, send_s: float
    ) -> None:
        self._reader, self._writer, self._send_s = reader, writer, send_s
        self._next: asyncio.Task[bytes] | None = None
        writer.transport.set_write_buffer_limits(high=0)  # `drain` waits for the peer

    async def next_message(self, idle_s: float, stop: asyncio.Event) -> bytes | None:
        """The next message without its NUL byte; None when the service stops, or nothing comes.

        Raises `EOFError` (IncompleteReadError) when the peer is gone.
        """
        reading = self._begin_reading()
        stopping = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait(
                {reading, stopping}, timeout=idle_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            stopping.cancel()
        if not reading.done():
            return None
        self._next = None
        return reading.result()

    async def wait_reply(self, replies: Replies, timeout_s: float | None) -> Reply | None:
        """The next reply to send; None after the timeout. Raises `EOFError` when the peer is gone.

        A message that the peer sends meanwhile is kept for `next_message`.
        """
        waiting = asyncio.ensure_future(replies.get())
        reading = self._begin_reading()
        watched: set[asyncio.Task[Any]] = {waiting, reading}
        if reading.done():
            watched.discard(reading)
            # No more is read behind a message that is kept, so the end of the peer is not seen.
            if _has_hung_up(self._writer):
                raise EOFError
            timeout_s = _HANG_UP_S if timeout_s is None else min(timeout_s, _HANG_UP_S)
        try:
            await asyncio.wait(watched, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return waiting.result()
            if reading.done():
                reading.result()  # raises if the peer is gone
            return None
        finally:
            waiting.cancel()

    async def send(self, message: bytes, *, unless: bool = False) -> None:
        """Write a message; raises `asyncio.TimeoutError` if the peer does not take it in time."""
        if not unless:
            self._writer.write(message)
            await asyncio.wait_for(self._writer.drain(), self._send_s)

    def abort(self) -> None:
        """Disconnect; what was written already still reaches a peer that reads."""
        if self._next is not None:
            self._next.cancel()
            if self._next.done() and not self._next.cancelled():
                self._next.exception()  # asyncio logs one that nobody looked at
        if self._writer.transport.get_write_buffer_size():
            self._writer.transport.abort()  # a peer that does not read would keep it open
        else:
            self._writer.close()

    def _begin_reading(self) -> asyncio.Task[bytes]:
        if self._next is None:
            self._next = asyncio.ensure_future(self._read_message())
        return self._next

    async def _read_message(self) -> bytes:
        first = await self._reader.readexactly(1)
        if first == END:
            raise MalformedMessage("an empty message")
        rest = await asyncio.wait_for(self._reader.readuntil(END), self._send_s)
        return first + rest[:-1]


def _has_hung_up(writer: asyncio.StreamWriter) -> bool:
    poll = select.poll()
    poll.register(writer.get_extra_info("socket").fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))
