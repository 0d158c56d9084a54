"""One peer's streams, with a limit for the time of each message. For the socket's event loop."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import time
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, Final, TypeVar

from ds01d.service.requests import Stream
from ds01d.service.varlink import END, MalformedMessage, encode_reply

_HANG_UP_S: Final = 1.0
_FULL_S: Final = 0.05
_PART_BYTES: Final = 32 << 10  # of a stream: base64 makes a third more of it
T = TypeVar("T")


class PeerConnection:
    """Reads calls and writes replies."""

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

    async def wait_for(self, awaited: Awaitable[T], timeout_s: float | None) -> T | None:
        """What is waited for; None after the timeout. Raises `EOFError` when the peer is gone.

        A message that the peer sends meanwhile is kept for `next_message`.
        """
        waiting = asyncio.ensure_future(awaited)
        # Nothing but a read shows that the peer is gone, so one goes on meanwhile. It is not
        # cancelled with the wait: what it has taken from the stream would be lost.
        reading = self._begin_reading()
        watched: set[asyncio.Future[Any]] = {waiting, reading}
        if reading.done():
            watched.discard(reading)
            # No more is read behind a message that is kept, so the end of the peer is not seen.
            if _has_hung_up(self._writer):
                waiting.cancel()
                raise EOFError
            # So the end of the peer is looked for now and then.
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

    async def send(self, message: bytes, *, unless: bool = False, is_patient: bool = False) -> None:
        """Write a message; raises `asyncio.TimeoutError` if the peer does not take it in time."""
        if not unless:
            self._writer.write(message)
            limit_s = None if is_patient else self._send_s
            await asyncio.wait_for(self._writer.drain(), limit_s)

    async def _send_descriptor(self, message: bytes, stream: socket.socket) -> None:
        """The same, with a descriptor: it goes with the first byte (SCM_RIGHTS)."""
        # Past the writer, which has nothing left to write: all that was sent is drained.
        ours: socket.socket = self._writer.get_extra_info("socket")
        with socket.socket(fileno=os.dup(ours.fileno())) as duplicate:
            deadline = time.monotonic() + self._send_s
            while time.monotonic() < deadline:
                with suppress(BlockingIOError):
                    socket.send_fds(duplicate, [message[:1]], [stream.fileno()])
                    break
                await asyncio.sleep(_FULL_S)  # the peer does not read
            else:
                raise asyncio.TimeoutError
        await self.send(message[1:])

    async def send_stream(self, stream: Stream, message: bytes) -> None:
        """Send the descriptor with a last reply, or what the stream has before it."""
        if stream.encode is None:
            await self._send_descriptor(message, stream.socket)
            return
        stream.socket.setblocking(False)
        receive = asyncio.get_running_loop().sock_recv
        data: bytes | None = None
        while data != b"":
            data = await self.wait_for(receive(stream.socket, _PART_BYTES), None)
            if data:
                reply = encode_reply(stream.encode(data), continues=True)
                # Without a limit: a reader may stop for an hour. It costs one of its connections.
                await self.send(reply, is_patient=True)
        await self.send(message)

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
        # Without a limit for the first byte (a peer may be idle), with one for all the others.
        first = await self._reader.readexactly(1)
        if first == END:
            raise MalformedMessage("an empty message")
        rest = await asyncio.wait_for(self._reader.readuntil(END), self._send_s)
        return first + rest[:-1]


def _has_hung_up(writer: asyncio.StreamWriter) -> bool:
    poll = select.poll()
    # Asked of the kernel: the reader shows the end only behind all that it still holds.
    poll.register(writer.get_extra_info("socket").fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))
