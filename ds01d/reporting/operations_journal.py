"""Copies the lines of the operations log to syslog: `journalctl -t ds01-container`.

Decision 122: with journald each line is an entry with fields. Never blocks longer than `patience_s`
and never raises: lines that syslog does not take wait here, up to a bound, and `lost` counts the
others. A host without syslog gets none.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from ds01d.model.books import LogLine
from ds01d.reporting.journal_socket import encode_field
from ds01d.reporting.message_ids import Event, find_message

IDENTIFIER: Final = "ds01-container"
JOURNAL: Final = Path("/run/systemd/journal/socket")
SYSLOG: Final = Path("/dev/log")
_MAX_WAITING: Final = 10_000
_MAX_VALUE_BYTES: Final = 32_768  # bytes of a value: a datagram has room for some of them
_INFO: Final = 6
_USER_INFO: Final = 14  # facility user, priority info
_PAUSE_S: Final = 0.02


class OperationsJournal:
    """Sends lines. `patience_s`: how long to wait for a busy syslog."""

    def __init__(
        self, *, patience_s: float = 0.0, journal: Path = JOURNAL, syslog: Path = SYSLOG
    ) -> None:
        self.lost = 0
        self._reported_lost = 0
        self._patience_s = patience_s
        self._journal, self._syslog = journal, syslog
        self._waiting: deque[tuple[LogLine, str]] = deque()

    def send(self, lines: Iterable[tuple[LogLine, str]]) -> None:
        """Send lines: what each means, and its text as in the file."""
        for line in lines:
            # The oldest goes: what happens now is what somebody looks for.
            if len(self._waiting) >= _MAX_WAITING:
                self._waiting.popleft()
                self.lost += 1
            self._waiting.append(line)
        self.flush()

    def flush(self) -> bool:
        """Send what waits; whether all of it is gone."""
        if not self._waiting:
            return True
        native = self._journal.exists()
        path = self._journal if native else self._syslog
        until = time.monotonic() + self._patience_s
        # A new socket each time: journald may have been restarted, and lines are few.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
            while self._waiting:
                line, text = self._waiting[0]
                data = encode_entry(line, text) if native else encode_syslog(text)
                number = _send(sender, data, path)
                # Any other error is about this one line; waiting would not help it.
                if number in {errno.EAGAIN, errno.ENOBUFS}:
                    if time.monotonic() >= until:
                        return False
                    time.sleep(_PAUSE_S)
                    continue
                self._waiting.popleft()
        return True

    def take_problem(self) -> str:
        """How many lines were lost since the last call; "" for none."""
        # Only those since the last call: else each later call would warn of the same lines.
        lost, self._reported_lost = self.lost - self._reported_lost, self.lost
        return f"{lost} lines of the operations log are missing in syslog" if lost else ""


def _send(sender: socket.socket, data: bytes, path: Path) -> int:
    """0, or the error's number."""
    try:
        sender.sendto(data, os.fsencode(path))
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def encode_entry(line: LogLine, text: str) -> bytes:
    """A line as an entry in journald's own protocol."""
    fields = {
        "MESSAGE": text,
        "PRIORITY": str(_INFO),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        "DS01_OPERATION": line.operation,
        "DS01_CONTAINER": line.container,
        "DS01_SLOT": line.gpu,
        "DS01_USER": line.user,
        "DS01_OUTCOME": line.status,
    }
    message_type = find_message(Event.BOOKING_CHANGED, {"operation": line.operation})
    if message_type is not None and line.actor is not None:
        fields |= {"MESSAGE_ID": message_type.id, "DS01_EVENT": Event.BOOKING_CHANGED.value}
        fields["DS_CONTAINER"] = line.container  # for the explanation of `journalctl -x`
    # Last, so that no field of the line can pass for the actor's.
    fields |= actor_fields(line)
    filled = (f"{name}={value}" for name, value in fields.items() if value)
    return b"".join(encode_field(field, _MAX_VALUE_BYTES) for field in filled)


def actor_fields(line: LogLine) -> Mapping[str, str]:
    """The actor, as the logging process claims it; `_UID` is what journald has verified."""
    actor = line.actor
    if actor is None:
        return {}
    fields = {"DS01_UID": str(actor.uid), "DS01_LOGIN": actor.login, "DS01_PID": str(actor.pid)}
    if actor.sudo_uid is not None:
        fields |= {"DS01_SUDO_UID": str(actor.sudo_uid), "DS01_SUDO_LOGIN": actor.sudo_login}
    return fields


def encode_syslog(text: str) -> bytes:
    """A line as syslog(3) sends it."""
    now = time.strftime("%b %e %H:%M:%S")
    return f"<{_USER_INFO}>{now} {IDENTIFIER}: {text}".encode(errors="backslashreplace")[
        :_MAX_VALUE_BYTES
    ]
