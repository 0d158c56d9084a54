"""Writes log entries to the journal, to a terminal in colour, or as lines of JSON.

Never blocks: a stream or a journal that nobody reads loses entries. Raises what went wrong.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import select
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import TextIO

import structlog

from ds01d.reporting.journal_socket import PATIENCE_S
from ds01d.reporting.log_values import Plain, value_text
from ds01d.reporting.message_ids import Priority, find_message

Write = Callable[[str, Priority, str, Mapping[str, Plain]], None]

# Decision 31: a message catalog substitutes only fields without digits, so the fields that it uses
# are written a second time under such a name.
CATALOG_KEYS = frozenset(
    ("container", "slot", "drift", "finding", "source", "seconds", "count", "subject", "library")
)
LEVELS: Mapping[Priority, str] = {
    Priority.ERR: "error",
    Priority.WARNING: "warning",
    Priority.NOTICE: "notice",
    Priority.INFO: "info",
    Priority.DEBUG: "debug",
}


def to_journal(send: Callable[..., None]) -> Write:
    def write(name: str, priority: Priority, text: str, keys: Mapping[str, Plain]) -> None:
        message_type = find_message(name, {key: value_text(value) for key, value in keys.items()})
        fields = {
            "MESSAGE": text,
            "PRIORITY": str(int(priority)),
            "SYSLOG_IDENTIFIER": "ds01d",
            "MESSAGE_ID": "" if message_type is None else message_type.id,
            "DS01_EVENT": name,
        }
        for key, value in keys.items():
            # No key of an entry may replace a field that identifies it.
            fields.setdefault(journal_field(key), value_text(value))
            if key in CATALOG_KEYS:
                fields[f"DS_{key.upper()}"] = value_text(value)
        send(*(f"{name}={value}" for name, value in fields.items() if value))

    return write


def journal_field(key: str) -> str:
    """The journal's field for a key of an entry."""
    return "DS01_" + re.sub(r"[^A-Z0-9_]", "_", key.upper())[:59]


def to_console(stream: TextIO, environ: Mapping[str, str]) -> Write:
    colours = stream.isatty() and "NO_COLOR" not in environ
    styles = structlog.dev.ConsoleRenderer.get_default_level_styles(colors=colours)
    render = structlog.dev.ConsoleRenderer(
        colors=colours, level_styles={**styles, "notice": styles["info"]}, pad_event_to=0
    )
    lines = _LineWriter(stream)

    def write(name: str, priority: Priority, text: str, keys: Mapping[str, Plain]) -> None:
        now = datetime.now(timezone.utc).astimezone().strftime("%H:%M:%S")
        entry = {**keys, "timestamp": now, "level": LEVELS[priority], "event": text}
        lines.write(str(render(None, "", {**entry, "id": name})))

    return write


def to_lines(stream: TextIO) -> Write:
    lines = _LineWriter(stream)

    def write(name: str, priority: Priority, text: str, keys: Mapping[str, Plain]) -> None:
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        head = {"timestamp": now.replace("+00:00", "Z"), "level": LEVELS[priority]}
        entry = {**head, "event": name, "message": text}
        lines.write(json.dumps({**entry, **{k: v for k, v in keys.items() if k not in entry}}))

    return write


class _LineWriter:
    """Writes lines to a stream without blocking; a reader that does not read loses some.

    The first line that does not fit waits 0.1 s for room, those after it do not.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._wait_s = PATIENCE_S
        self._cut = False

    def write(self, text: str) -> None:
        """Write one line. Raises OSError if it does not fit, ValueError on a closed stream."""
        try:
            descriptor = self._stream.fileno()
        except io.UnsupportedOperation:  # kept in memory
            self._stream.write(text + "\n")
            self._stream.flush()
            return
        with self._lock:
            self._stream.flush()
            # A line that was cut must not run into the next one.
            line = ("\n" if self._cut else "") + text + "\n"
            encoding = self._stream.encoding or "utf-8"
            self._write_all(descriptor, line.encode(encoding, "backslashreplace"))

    def _write_all(self, descriptor: int, data: bytes) -> None:
        """Write in pieces that a pipe takes whole, as soon as poll(2) calls it writable."""
        view = memoryview(data)
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        while view:
            if not poll.poll(self._wait_s * 1000):
                self._wait_s, self._cut = 0.0, self._cut or len(view) < len(data)
                raise TimeoutError(errno.ETIMEDOUT, "the reader of the log's stream does not read")
            view = view[os.write(descriptor, view[: select.PIPE_BUF]) :]
        self._wait_s, self._cut = PATIENCE_S, False
