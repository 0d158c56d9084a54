"""Lines of container-operations.log: seven escaped fields, so that no name forges a separator."""

from __future__ import annotations

import re
import sys

from ds01d.adapters.books.timestamps import format_log_time, parse_time
from ds01d.model.books import LogLine

_FIELDS = 7
_AT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}")
_ESCAPED = re.compile(r"\\(?:\\|n|r|t|x[0-9a-f]{2}|u[0-9a-f]{4}|U00[0-9a-f]{6})")
_SHORT = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_LONG = {short: sign for sign, short in _SHORT.items()}


def escape_field(field: str) -> str:
    """Make a field fit for one line between separators; `unescape_field` gives it back."""
    if field.isprintable() and "|" not in field and "\\" not in field:  # as nearly all
        return field
    return "".join(map(_escape_character, field))


def _escape_character(character: str) -> str:
    if character in _SHORT:
        return _SHORT[character]
    # What is printable stays as it is: people read and grep this log.
    if character != "|" and character.isprintable():
        return character
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def unescape_field(field: str) -> str:
    return _ESCAPED.sub(lambda match: _unescape_code(match[0]), field)


def _unescape_code(code: str) -> str:
    if code in _LONG:
        return _LONG[code]
    digits = code[2:]
    number = int(digits, 16)
    return chr(number) if number <= sys.maxunicode else code


def format_line(line: LogLine) -> str:
    """One line, without its end."""
    details = "; ".join(filter(None, (line.details, "" if line.actor is None else str(line.actor))))
    words = (line.operation, line.user, line.container, line.gpu, line.status, details)
    return "|".join((format_log_time(line.at), *map(escape_field, words)))


def parse_line(text: str) -> LogLine | None:
    """Read a line, also one of those who do not escape; None for an invalid line."""
    # The details come last and may contain the separator, as former writers left it.
    fields = text.rstrip("\r\n").split("|", _FIELDS - 1)
    if len(fields) < _FIELDS - 1 or not _AT.fullmatch(fields[0]):
        return None
    at = parse_time(fields[0])
    if at is None:
        return None
    operation, user, container, gpu, status = map(unescape_field, fields[1:6])
    details = unescape_field(fields[6]) if len(fields) == _FIELDS else ""
    return LogLine(
        at=at,
        operation=operation,
        user=user,
        container=container,
        gpu=gpu,
        status=status,
        details=details,
    )
