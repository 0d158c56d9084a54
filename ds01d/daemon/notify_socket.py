"""systemd's notify socket (sd_notify(3)), without blocking (decision 101).

`sd_notify` blocks in sendmsg(2) once a dozen messages are unread. Here the newest value of each
variable that does not fit is kept and goes with the next message.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Mapping

_BEFORE_READY = ("RELOADING", "MONOTONIC_USEC")


def open_notify_socket(environ: Mapping[str, str] = os.environ) -> Callable[[str], object]:
    """A function that sends one message at once or raises OSError: BlockingIOError if it is full.

    Without a socket in NOTIFY_SOCKET it sends nothing.
    """
    address = environ.get("NOTIFY_SOCKET", "")
    # A vsock address is for machines; systemd gives a service a path or an abstract name.
    if not address.startswith(("/", "@")):
        return lambda _: None
    # The kernel's form of an abstract address.
    where = f"\0{address[1:]}" if address.startswith("@") else address

    def send(message: str) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as fresh:
            fresh.setblocking(False)
            fresh.sendto(message.encode("utf-8", "backslashreplace"), where)

    return send


class Notifier:
    """Sends variables by `send`, and keeps those that do not fit. For several threads."""

    def __init__(self, send: Callable[[str], object]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._pending: dict[str, str] = {}

    @property
    def is_blocked(self) -> bool:
        """Whether variables wait until the socket has room."""
        return bool(self._pending)

    def notify(self, *lines: str) -> None:
        """Send these lines, `NAME=value`, after what is pending. Never waits, never raises."""
        with self._lock:
            for name, _, value in (line.partition("=") for line in lines):
                self._add(name, value)
            self._flush()

    def retry(self) -> None:
        """Try again what is pending."""
        with self._lock:
            self._flush()

    def _add(self, name: str, value: str) -> None:
        if name == "READY":  # the reload is over before it could be announced
            for obsolete in _BEFORE_READY:
                self._pending.pop(obsolete, None)
        elif name == "RELOADING":
            self._pending.pop("READY", None)
        # Nobody needs to know any more that it was ready.
        elif name == "STOPPING":
            self._pending.clear()
        # Decision 101: the newest value counts, and goes where it belongs in the order.
        self._pending.pop(name, None)
        self._pending[name] = value

    def _flush(self) -> None:
        if not self._pending:
            return
        try:
            self._send("\n".join(f"{name}={value}" for name, value in self._pending.items()))
        except BlockingIOError:
            return
        except (OSError, ValueError):
            pass  # no socket or no listener: there is no systemd to notify
        self._pending.clear()
