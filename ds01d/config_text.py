"""A configuration as text: reading the file, finding a key's line, understanding single values.

Serves `config` alone and does not know its keys. Every refusal is a ValueError (or an OSError of
the file) whose text says what would be right.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

LARGEST_FILE = 256 * 1024
_LONGEST_S = 366 * 86400.0
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_DURATION = re.compile(f"(?:{_PART.pattern})+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_GLOB = re.compile(r"(?:[\w./:@#-]|[*?]|\[!?[\w.-]+\])+", re.ASCII)
_LABEL = re.compile(r"[\w./-]+", re.ASCII)
_NAME, _LITERAL = re.compile(r"[\w.-]+", re.ASCII), re.compile(r"\[([0-9A-Fa-f:.]+)\]")
_HEADER = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]")
_ENTRY = re.compile(r"\s*([^=#\[]+?)\s*=")


def read(file: Path) -> str:
    """The text of a regular file of sane size; never waits (a FIFO is refused)."""
    if not stat.S_ISREG(file.stat().st_mode):
        raise ValueError("it is no regular file: name a TOML file")
    with file.open("rb") as opened:
        content = opened.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise ValueError(f"it has more than {LARGEST_FILE} bytes: is it the right file?")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {row} is not UTF-8: save it as UTF-8") from error


def line(text: str, key: str) -> str:
    """', line 7' where the text sets `key` (a table or table.key), '' where that can't be told."""
    table = ""
    for number, content in enumerate(text.split("\n"), 1):
        if header := _HEADER.match(content):
            here = table = header[1]
        elif entry := _ENTRY.match(content):
            here = f"{table}.{entry[1]}" if table else entry[1]
        else:
            continue
        if re.sub(r"[\"'\s]", "", here) == key:
            return f", line {number}"
    return ""


def nearest(word: str, known: Iterable[str]) -> str:
    """What was probably meant, to be put behind a complaint."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"


def shown(value: object) -> str:
    """A value for a message: one short line whatever it holds."""
    text = _CONTROL.sub("?", f'"{value}"' if isinstance(value, str) else repr(value))
    return text if len(text) <= 80 else f"{text[:80]}…"


def seconds(value: object) -> float:
    """A duration, like "1h30m"."""
    if not isinstance(value, str) or not _DURATION.fullmatch(value.strip()):
        raise ValueError(
            f'{shown(value)} is no duration: write a number with its unit, like "10s" or "1h30m"'
        )
    result = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(value))
    if not result <= _LONGEST_S:
        raise ValueError(f'{shown(value)} is too long: write at most "366d"')
    return result


def path(value: object) -> Path:
    """An absolute path, with `..` and double slashes resolved by its text alone."""
    if not isinstance(value, str) or not value.startswith("/") or _CONTROL.search(value):
        raise ValueError(f'{shown(value)} is no absolute path: write one, like "/var/lib/ds01d"')
    return Path("/" + os.path.normpath(value).lstrip("/"))


def name_pattern_problem(pattern: str) -> str | None:
    """What is wrong with a pattern for names of containers or images; None if nothing is.

    One that fits everything is refused.
    """
    if _GLOB.fullmatch(pattern) and pattern.strip("*?"):
        return None
    return (
        f"{shown(pattern)} is not a valid pattern for names: write a name, with * for any"
        ' characters and ? for one, like "dcgm-exporter*"'
    )


def label_pattern_problem(pattern: str) -> str | None:
    """What is wrong with a pattern for a label, `key` or `key=value`; None if nothing is."""
    key, given, value = pattern.partition("=")
    if _LABEL.fullmatch(key) and (not given or _GLOB.fullmatch(value)):
        return None
    return (
        f"{shown(pattern)} is not a valid pattern for a label: write its key, or key=value with"
        ' * for any characters, like "app=dcgm*"'
    )


def engine_url(value: str) -> None:
    """Check the address of a Docker engine."""
    try:
        url = urlsplit(value)
        local = url.scheme == "unix" and not url.netloc and len(url.path) > 1
        remote = url.scheme in {"tcp", "http", "https"} and url.hostname and url.port != 0
    except ValueError:
        local = remote = False
    if not (local or remote) or _CONTROL.search(value) or " " in value:
        raise ValueError(
            f"{shown(value)} is no address of an engine: write "
            '"unix:///run/docker.sock", "tcp://host:2375" or "https://host:2376"'
        )


def host_and_port(value: str) -> tuple[str, int]:
    """An address to listen on; an IPv6 address stands in brackets."""
    host, _, port = value.rpartition(":")
    literal = _LITERAL.fullmatch(host)
    sane = re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) <= 65535
    if not sane or not (literal or _NAME.fullmatch(host)):
        raise ValueError(
            f'{shown(value)} is no host:port: write one, like "127.0.0.1:9464" or "[::1]:9464"'
        )
    return literal[1] if literal else host, int(port)
