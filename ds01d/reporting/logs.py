"""The log: structlog to the journal, to a terminal in colour, or as lines of JSON.

Never raises and never blocks: an entry that cannot be written is counted, and the count is logged
once writing works again. Newlines and control characters of values are escaped, long ones cut.
Callers use `structlog.get_logger()` with an `Event` and keys.
"""

from __future__ import annotations

import errno
import io
import json
import logging
import math
import os
import re
import select
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, MutableMapping
from datetime import datetime, timezone
from typing import Any, Literal, NoReturn, TextIO

import structlog

from ds01d.reporting.journal_socket import PATIENCE_S, JournalSocket
from ds01d.reporting.message_ids import Event, Priority, find_message
from ds01d.reporting.message_templates import render_message
from ds01d.text import make_printable

Form = Literal["auto", "journal", "console", "json"]
Plain = None | bool | int | float | str | list["Plain"]
Write = Callable[[str, Priority, str, Mapping[str, Plain]], None]

MAX_TEXT_LENGTH = 4000
REPEAT_AFTER_S = 3600.0
# Decision 31: a message catalog substitutes only fields without digits, so the fields that it uses
# are written a second time under such a name.
CATALOG_KEYS = frozenset(
    ("container", "slot", "drift", "finding", "source", "seconds", "count", "subject", "library")
)
_MAX_ITEMS = 100
_JOURNAL = JournalSocket()  # connects at the first entry
_METHODS = {
    "debug": Priority.DEBUG,
    "warning": Priority.WARNING,
    "error": Priority.ERR,
    "exception": Priority.ERR,
    "critical": Priority.ERR,
}
_LEVELS: Mapping[Priority, str] = {
    Priority.ERR: "error",
    Priority.WARNING: "warning",
    Priority.NOTICE: "notice",
    Priority.INFO: "info",
    Priority.DEBUG: "debug",
}


def setup_logging(
    form: Form = "auto",
    level: str = "info",
    *,
    environ: Mapping[str, str] = os.environ,
    stderr: TextIO | None = None,
    send: Callable[..., None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> LogSink:
    """Send all log entries, also those of libraries, to the journal, a terminal or JSON lines.

    May be called again, with another level after a reload.
    """
    stream = sys.stderr if stderr is None else stderr
    chosen = _detect_form(stream, environ) if form == "auto" else form
    writers: Mapping[str, Callable[[], Write]] = {
        "journal": lambda: _to_journal(send or _JOURNAL.send),
        "console": lambda: _to_console(stream, environ),
        "json": lambda: _to_lines(stream),
    }
    least = next((p for p, name in _LEVELS.items() if name == level), Priority.INFO)
    log = LogSink(writers[chosen](), least)
    structlog.configure(
        processors=[log],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_LibraryHandler(clock)], force=True)
    return log


class LogSink:
    """The end of structlog's chain. `lost` counts entries that could not be written."""

    def __init__(self, write: Write, least: Priority) -> None:
        self.lost = 0
        self._reported = 0
        self._last_error = ""
        self._write = write
        self._min_priority = least

    def __call__(self, _logger: object, method: str, event: MutableMapping[str, Any]) -> NoReturn:
        try:
            self._write_event(method, event)
        except Exception as error:  # noqa: BLE001 - what people see must not stop what is done
            self.lost += 1
            self._last_error = escape_line(f"{type(error).__name__}: {error}", 200)
        raise structlog.DropEvent

    def _write_event(self, method: str, event: MutableMapping[str, Any]) -> None:
        name = escape_line(str(event.pop("event", "")), 200)
        keys = {key: clean_value(value) for key, value in _expand_exception(event).items()}
        texts = {key: text for key, value in keys.items() if (text := value_text(value))}
        message_type = find_message(name, texts)
        priority = message_type.priority if message_type is not None else None
        if priority is None:
            priority = _METHODS.get(method, Priority.INFO)
        if priority > self._min_priority:
            return
        self._send(name, priority, keys)
        if self.lost > self._reported:
            lost, why = self.lost - self._reported, self._last_error
            self._reported = self.lost
            self._send(Event.LOG_FAILED, Priority.WARNING, {"count": lost, "reason": why})

    def _send(self, name: str, priority: Priority, keys: Mapping[str, Plain]) -> None:
        texts = {key: text for key, value in keys.items() if (text := value_text(value))}
        self._write(
            str(name),
            priority,
            escape_line(render_message(str(name), texts), MAX_TEXT_LENGTH),
            keys,
        )


class _LibraryHandler(logging.Handler):
    """Logs the `logging` records of libraries as events of ours, each message once an hour."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock
        self._logged_at: dict[tuple[str, str], float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        key, now = (record.name, str(record.msg)), self._clock()
        if now - self._logged_at.get(key, -math.inf) < REPEAT_AFTER_S:
            return
        self._logged_at = {
            k: at for k, at in self._logged_at.items() if now - at < REPEAT_AFTER_S
        } | {key: now}
        log = structlog.get_logger()
        log_call = log.error if record.levelno >= logging.ERROR else log.warning
        try:
            text = record.getMessage()
        except Exception as error:  # noqa: BLE001 - a library's own mistake
            text = f"{record.msg!r} ({error})"
        log_call(Event.LIBRARY, library=record.name, text=text, exc_info=record.exc_info)


def escape_line(text: str, longest: int = MAX_TEXT_LENGTH) -> str:
    """`text` as one printable line of at most `longest` characters."""
    if len(text) > longest:
        text = f"{text[:longest]}… ({len(text)} characters)"
    return make_printable(text)


def clean_value(value: object) -> Plain:
    """Any value as JSON data: numbers and booleans as they are, the rest as clean text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else list(value)
        more = [f"… ({len(items)} in all)"] if len(items) > _MAX_ITEMS else []
        return [clean_value(item) for item in [*items[:_MAX_ITEMS], *more]]
    try:
        return escape_line(str(value))
    except Exception:  # noqa: BLE001 - a foreign __str__
        return f"<{type(value).__name__}>"


def value_text(value: Plain) -> str:
    """A cleaned value as one text; "" for None and an empty list."""
    if isinstance(value, list):
        return escape_line(", ".join(value_text(item) for item in value))
    return "" if value is None else str(value)


def _expand_exception(event: Mapping[str, Any]) -> dict[str, object]:
    """The keys of an entry, with an exception as `traceback`."""
    keys = dict(event)
    error = keys.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        keys["traceback"] = "".join(traceback.format_exception(error))
    return keys


def _detect_form(
    stream: TextIO, environ: Mapping[str, str]
) -> Literal["journal", "console", "json"]:
    """The journal if stderr is its stream, by JOURNAL_STREAM of systemd."""
    try:
        opened = os.fstat(stream.fileno())
        if environ.get("JOURNAL_STREAM") == f"{opened.st_dev}:{opened.st_ino}":
            return "journal"
        return "console" if stream.isatty() else "json"
    except (OSError, ValueError):  # closed, or no file at all
        return "json"


def _to_journal(send: Callable[..., None]) -> Write:
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
            fields.setdefault(journal_field(key), value_text(value))
            if key in CATALOG_KEYS:
                fields[f"DS_{key.upper()}"] = value_text(value)
        send(*(f"{name}={value}" for name, value in fields.items() if value))

    return write


def journal_field(key: str) -> str:
    """The journal's field for a key of an entry."""
    return "DS01_" + re.sub(r"[^A-Z0-9_]", "_", key.upper())[:59]


def _to_console(stream: TextIO, environ: Mapping[str, str]) -> Write:
    colours = stream.isatty() and "NO_COLOR" not in environ
    styles = structlog.dev.ConsoleRenderer.get_default_level_styles(colors=colours)
    render = structlog.dev.ConsoleRenderer(
        colors=colours, level_styles={**styles, "notice": styles["info"]}, pad_event_to=0
    )
    lines = _LineWriter(stream)

    def write(name: str, priority: Priority, text: str, keys: Mapping[str, Plain]) -> None:
        now = datetime.now(timezone.utc).astimezone().strftime("%H:%M:%S")
        entry = {**keys, "timestamp": now, "level": _LEVELS[priority], "event": text}
        lines.write(str(render(None, "", {**entry, "id": name})))

    return write


def _to_lines(stream: TextIO) -> Write:
    lines = _LineWriter(stream)

    def write(name: str, priority: Priority, text: str, keys: Mapping[str, Plain]) -> None:
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        head = {"timestamp": now.replace("+00:00", "Z"), "level": _LEVELS[priority]}
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
