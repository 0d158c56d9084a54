"""Sends entries to journald by its native protocol, and waits for it no longer than a moment.

`sd_journal_sendv` sends with a blocking sendmsg(2), and systemd-python holds the interpreter's lock
meanwhile: with a journald that is stopped or hung, its queue full, the whole process would stand
still, SIGTERM included. Here an entry that does not fit is refused, and the log counts it.

The protocol: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/. One datagram of fields; a longer entry
is passed as a sealed memfd.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import threading
from typing import Final

ADDRESS: Final = "/run/systemd/journal/socket"
PATIENCE_S: Final = 0.1
"""How long the first refused entry waits for room; those after it wait for nothing."""
_SEND_BUFFER: Final = 8 * 2**20  # as sd_journal_sendv does: many entries fit into one datagram
_TOO_LONG: Final = frozenset({errno.EMSGSIZE, errno.ENOBUFS})
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class JournalSocket:
    """`send("MESSAGE=…", "PRIORITY=6", …)`, as `systemd.journal.sendv`; for several threads."""

    def __init__(self, address: str = ADDRESS) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._wait_s = PATIENCE_S

    def send(self, *fields: str) -> None:
        """Send one entry. Raises OSError if journald does not take it now, or is not there."""
        entry = b"".join(map(encode_field, fields))
        with self._lock:
            try:
                self._send_entry(entry)
            except OSError as error:
                self._disconnect()
                if isinstance(error, TimeoutError | BlockingIOError):
                    # journald is busy or stopped: only the first entry waits, or each would delay a
                    # pass.
                    self._wait_s = 0.0
                    raise TimeoutError(
                        errno.ETIMEDOUT, f"journald takes no entry at {self._address}"
                    ) from error
                raise
            self._wait_s = PATIENCE_S

    def close(self) -> None:
        """Disconnect; the next entry connects again."""
        with self._lock:
            self._disconnect()

    def _send_entry(self, entry: bytes) -> None:
        # Connected, because only then does poll(2) show whether the receiver's queue has room.
        connected = self._socket or self._connect()
        connected.settimeout(self._wait_s)
        try:
            connected.send(entry)
        except OSError as error:
            if error.errno in _TOO_LONG:
                _send_sealed(connected, entry)
            elif error.errno in {errno.ECONNREFUSED, errno.ENOTCONN}:  # journald has restarted
                self._disconnect()
                self._connect().send(entry)
            else:
                raise

    def _connect(self) -> socket.socket:
        fresh = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            with contextlib.suppress(OSError):
                fresh.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            fresh.settimeout(self._wait_s)
            fresh.connect(self._address)
        except OSError:
            fresh.close()
            raise
        self._socket = fresh
        return fresh

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def encode_field(field: str, longest: int | None = None) -> bytes:
    """One `NAME=value`, at most `longest` bytes of the value; a newline in it does not end it."""
    name, _, value = field.encode("utf-8", "backslashreplace").partition(b"=")
    value = value[:longest]
    if b"\n" not in value:
        return b"%s=%s\n" % (name, value)
    return b"%s\n%s%s\n" % (name, len(value).to_bytes(8, "little"), value)


def _send_sealed(connected: socket.socket, entry: bytes) -> None:
    """Pass an entry that is too long for a datagram as a memfd that nobody can change any more."""
    memory = os.memfd_create("ds01d-journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(entry)
        while view:
            # write(2) may take a part of it.
            view = view[os.write(memory, view) :]
        # journald refuses a memfd that its sender could still change.
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
        socket.send_fds(connected, [b""], [memory])
    finally:
        os.close(memory)
