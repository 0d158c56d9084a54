"""Calls on their way from the socket's thread to the worker's, and the replies back.

The worker serves them between passes: one writer, so no lock is needed between two. A call that is
withdrawn before the worker took it is never made; one that was taken is finished.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum, auto
from typing import NamedTuple

from ds01d.service.rules import Peer, unavailable
from ds01d.service.varlink import MethodCall, VarlinkError, encode_error, encode_reply

SendReply = Callable[[bytes, bool], None]


EncodeData = Callable[[bytes], object]
"""The parameters of a reply with a part of a stream."""


class Stream(NamedTuple):
    """A stream for a peer; `encode` None: its descriptor."""

    socket: socket.socket
    encode: EncodeData | None


class _Stage(Enum):
    QUEUED = auto()
    TAKEN = auto()
    OVER = auto()


class PendingCall:
    """One call. `send` gets each reply as bytes, and whether it is the last; from any thread."""

    def __init__(self, peer: Peer, call: MethodCall, send: SendReply) -> None:
        self.peer, self.call = peer, call
        self._send = send
        self._lock = threading.Lock()
        self._state = _Stage.QUEUED
        self._aborted = False
        self._offered = b""
        self._on_abort: Callable[[], None] | None = None
        self._stream: Stream | None = None
        self._closed = threading.Event()

    @property
    def is_open(self) -> bool:
        """The peer still waits for a reply."""
        return self._state is not _Stage.OVER

    def take(self) -> bool:
        """Begin to serve it; False if it was withdrawn."""
        with self._lock:
            if self._state is not _Stage.QUEUED:
                return False
            self._state = _Stage.TAKEN
            return True

    def withdraw_queued(self) -> bool:
        """Make sure that it is never served; False if it was taken already."""
        with self._lock:
            if self._state is _Stage.QUEUED:
                self._state = _Stage.OVER
            return self._state is _Stage.OVER

    def withdraw(self) -> None:
        """The peer is gone, or has its last reply: nobody reads another."""
        self._closed.set()
        with self._lock:
            is_over, self._state = self._state is _Stage.OVER, _Stage.OVER
        if not is_over:
            self.abort_work()

    def abort_work(self) -> None:
        """Have its server end it."""
        with self._lock:
            self._aborted, callback = True, self._on_abort
        # Outside of the lock: what is called may come back to this call.
        if callback is not None:
            callback()

    def wait_sent(self, timeout_s: float) -> bool:
        """Wait until the last reply is sent, if there is one; False if it was not."""
        return not self.is_open and self._closed.wait(timeout_s)

    def call_on_abort(self, callback: Callable[[], None]) -> None:
        """Call it when the peer is gone, in any thread; at once if it is gone already."""
        with self._lock:
            self._on_abort, is_aborted = callback, self._aborted
        # The peer may have gone before it was known what there is to end.
        if is_aborted:
            callback()

    def attach_stream(self, stream: socket.socket, encode: EncodeData | None = None) -> None:
        """Give the peer a stream, and close it when the call is over, whatever happened.

        Its descriptor goes with the last reply; with `encode`, what it has is sent in replies of
        their own before the last one, which then has to follow at once.
        """
        with self._lock:
            if self._state is not _Stage.OVER:
                self._stream = Stream(stream, encode)
                return
        stream.close()

    def take_stream(self) -> Stream | None:
        """What was attached; the caller closes it."""
        with self._lock:
            stream, self._stream = self._stream, None
        return stream

    def send_progress(self, parameters: object) -> None:
        """Send a reply that others follow; only for a call with `more`."""
        if self.is_open:
            self._send(encode_reply(parameters, continues=True), False)

    def offer_reply(self, message: bytes) -> None:
        """Send a reply that others follow, unless a newer one comes before the peer takes it."""
        with self._lock:
            if self._state is _Stage.OVER:
                return
            # One placeholder at most is on its way: a slow reader costs one message, no queue.
            is_queued, self._offered = bool(self._offered), message
        if not is_queued:
            self._send(b"", False)  # stands for what is offered then

    def take_offer(self) -> bytes:
        """The newest reply that was offered."""
        with self._lock:
            message, self._offered = self._offered, b""
        return message

    def finish(self, parameters: object) -> None:
        """Send the last reply."""
        self._end_call(encode_reply(parameters))

    def fail(self, error: VarlinkError) -> None:
        """Send an error as the last reply."""
        self._end_call(encode_error(error))

    def _end_call(self, message: bytes) -> None:
        with self._lock:
            # The first end counts: the stop of the service ends calls that others still serve.
            if self._state is _Stage.OVER:
                return
            self._state = _Stage.OVER
        self._send(message, True)


class RequestQueue:
    """Any thread submits; the worker takes what is there.

    `wake` has to make the worker look soon.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._queued: deque[PendingCall] = deque()
        self._came = 0  # calls so far, those that were served as well
        self._closed = ""

    @property
    def has_requests(self) -> bool:
        return bool(self._queued)

    def submit(self, request: PendingCall) -> None:
        """Queue a call; one that comes after `close` fails at once."""
        with self._lock:
            closed = self._closed
            if not closed:
                self._queued.append(request)
                self._came += 1
        if closed:
            request.fail(unavailable(closed))
        else:
            self._wake()

    def take_requests(self) -> Iterator[PendingCall]:
        """Those that have come by now, each taken when it is its turn, if it still waits then."""
        with self._lock:
            came = self._came
        return self._take_first(came)

    def _take_first(self, came: int) -> Iterator[PendingCall]:
        while True:
            with self._lock:
                if not self._queued or self._came - len(self._queued) >= came:
                    return
                # One that was withdrawn is still in the queue, and is passed over.
                request = self._queued.popleft()
            if request.take():
                yield request

    def close(self, reason: str) -> None:
        """Fail what is queued, and whatever comes from now on."""
        with self._lock:
            # Both at once: a call that came between them would wait for ever.
            self._closed = reason
            left, self._queued = [*self._queued], deque()
        for request in left:
            request.fail(unavailable(reason))
