"""The log: structlog to the journal, to a terminal in colour, or as lines of JSON.

Never raises and never blocks: an entry that cannot be written is counted, and the count is logged
once writing works again. Newlines and control characters of values are escaped, long ones cut.
Callers use `structlog.get_logger()` with an `Event` and keys.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Literal, NoReturn, TextIO

import structlog

from ds01d.reporting.journal_socket import JournalSocket
from ds01d.reporting.log_values import MAX_TEXT_LENGTH, Plain, clean_value, escape_line, value_text
from ds01d.reporting.log_writers import LEVELS, Write, to_console, to_journal, to_lines
from ds01d.reporting.message_ids import Event, Priority, find_message
from ds01d.reporting.message_templates import render_message

Form = Literal["auto", "journal", "console", "json"]

REPEAT_AFTER_S = 3600.0
_JOURNAL = JournalSocket()  # connects at the first entry
_METHODS = {
    "debug": Priority.DEBUG,
    "warning": Priority.WARNING,
    "error": Priority.ERR,
    "exception": Priority.ERR,
    "critical": Priority.ERR,
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
    # JOURNAL_STREAM is inherited by children with other outputs, so it is compared, not believed.
    chosen = _detect_form(stream, environ) if form == "auto" else form
    writers: Mapping[str, Callable[[], Write]] = {
        "journal": lambda: to_journal(send or _JOURNAL.send),
        "console": lambda: to_console(stream, environ),
        "json": lambda: to_lines(stream),
    }
    least = next((p for p, name in LEVELS.items() if name == level), Priority.INFO)
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
            # Counted, since an entry about it would fail for the same reason.
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
        # By the priority of the event's type: the method that a caller chose may differ.
        if priority > self._min_priority:
            return
        self._send(name, priority, keys)
        # After an entry has got through: now there is room for the report of the losses.
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
        # By the message's template: its arguments differ each time.
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
        # systemd sets the variable for a stream that a shell may have redirected since.
        opened = os.fstat(stream.fileno())
        if environ.get("JOURNAL_STREAM") == f"{opened.st_dev}:{opened.st_ino}":
            return "journal"
        return "console" if stream.isatty() else "json"
    except (OSError, ValueError):  # closed, or no file at all
        return "json"
