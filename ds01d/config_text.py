"""A configuration as text: reading the file, finding a key's line, understanding single values.

Serves `config` alone and does not know its keys. Every refusal is a ValueError (or an OSError of
the file) whose text names what would be right.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

MAX_FILE_BYTES = 256 * 1024
_MAX_S = 366 * 86400.0
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_DURATION = re.compile(f"(?:{_PART.pattern})+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_GLOB = re.compile(r"(?:[\w./:@#-]|[*?]|\[!?[\w.-]+\])+", re.ASCII)
_LABEL = re.compile(r"[\w./-]+", re.ASCII)
_NAME, _LITERAL = re.compile(r"[\w.-]+", re.ASCII), re.compile(r"\[([0-9A-Fa-f:.]+)\]")
_HEADER = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]")
_ENTRY = re.compile(r"\s*([^=#\[]+?)\s*=")


def read_config(file: Path) -> str:
    """The text of a regular file of sane size; never waits (a FIFO is refused)."""
    if not stat.S_ISREG(file.stat().st_mode):
        raise ValueError("it is not a regular file: name a TOML file")
    # One byte more than allowed shows that there is more, and no file fills the memory.
    with file.open("rb") as opened:
        content = opened.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"it has more than {MAX_FILE_BYTES} bytes: is it the right file?")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {row} is not UTF-8: save it as UTF-8") from error


def locate_key(text: str, key: str) -> str:
    """', line 7' where the text sets `key` (a table or table.key), '' if it is not found."""
    table = ""
    for number, content in enumerate(text.split("\n"), 1):
        if header := _HEADER.match(content):
            current = table = header[1]
        elif entry := _ENTRY.match(content):
            current = f"{table}.{entry[1]}" if table else entry[1]
        else:
            continue
        # TOML allows quotes and spaces around the parts of a key.
        if re.sub(r"[\"'\s]", "", current) == key:
            return f", line {number}"
    return ""


def suggest_name(name: str, names: Iterable[str]) -> str:
    """What was probably meant, to be put behind a complaint."""
    names = list(names)
    import difflib  # noqa: PLC0415 - only for a wrong name

    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(names)}"


def show_value(value: object) -> str:
    """A value for a message: one short line whatever it holds."""
    text = _CONTROL.sub("?", f'"{value}"' if isinstance(value, str) else repr(value))
    return text if len(text) <= 80 else f"{text[:80]}…"


def parse_seconds(value: object) -> float:
    """A duration, like "1h30m"."""
    if not isinstance(value, str) or not _DURATION.fullmatch(value.strip()):
        raise ValueError(
            f"invalid duration {show_value(value)}: write a number with its unit,"
            ' like "10s" or "1h30m"'
        )
    result = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(value))
    if not result <= _MAX_S:
        raise ValueError(f'{show_value(value)} is too long: write at most "366d"')
    return result


def parse_path(value: object) -> Path:
    """An absolute path, with `..` and double slashes resolved by its text alone."""
    if not isinstance(value, str) or not value.startswith("/") or _CONTROL.search(value):
        raise ValueError(
            f'invalid path {show_value(value)}: write an absolute one, like "/var/lib/ds01d"'
        )
    return Path("/" + os.path.normpath(value).lstrip("/"))


def name_pattern_problem(pattern: str) -> str | None:
    """What is wrong with a pattern for names of containers or images; None if nothing is.

    One that fits everything is refused.
    """
    if _GLOB.fullmatch(pattern) and pattern.strip("*?"):
        return None
    return (
        f"{show_value(pattern)} is not a valid pattern for names: write a name, with * for any"
        ' characters and ? for one, like "dcgm-exporter*"'
    )


def label_pattern_problem(pattern: str) -> str | None:
    """What is wrong with a pattern for a label, `key` or `key=value`; None if nothing is."""
    key, given, value = pattern.partition("=")
    if _LABEL.fullmatch(key) and (not given or _GLOB.fullmatch(value)):
        return None
    return (
        f"{show_value(pattern)} is not a valid pattern for a label: write its key, or key=value"
        ' with * for any characters, like "app=dcgm*"'
    )


class Endpoint(NamedTuple):
    """Where a Docker engine listens: the path of a unix socket, or else a host and a port."""

    path: str = ""
    host: str = ""
    port: int = 0


def engine_endpoint(value: str) -> Endpoint:
    """The address of a Docker engine. The one reader of `docker.url`: for check, daemon, commands.

    `unix:///PATH`, `tcp://HOST:PORT` and `http://HOST:PORT`, which are the same. Raises ValueError
    with what would be right.
    """
    scheme, separator, rest = value.partition("://")
    # First, since what follows quotes the value in a message.
    if _CONTROL.search(value) or " " in value:
        raise _make_endpoint_error(value, "it contains spaces or control characters")
    if not separator:
        near = f"unix://{value}" if value.startswith("/") else _LOCAL_ENGINE
        raise _make_endpoint_error(value, "it has no scheme", near)
    if scheme == "unix":
        return Endpoint(path=_socket_path(value, rest))
    if scheme in {"tcp", "http"}:
        return _remote_endpoint(value, rest)
    reason = _UNSUPPORTED.get(scheme, f'the scheme "{show_value(scheme)[1:-1]}" is unknown')
    raise _make_endpoint_error(value, reason)


_LOCAL_ENGINE = "unix:///run/docker.sock"
MAX_SOCKET_BYTES = 107  # bytes, struct sockaddr_un
_UNSUPPORTED = {
    "https": "TLS is not supported",
    "ssh": "ssh is not supported (forward the socket: ssh -L /run/NAME.sock:/run/docker.sock HOST)",
    "fd": "fd:// is for dockerd itself",
    "npipe": "named pipes exist on Windows alone",
    "http+unix": "that is how the Docker SDK writes it",
}


def _make_endpoint_error(value: str, reason: str, suggestion: str = "") -> ValueError:
    expected = f'"{suggestion}"' if suggestion else f'"{_LOCAL_ENGINE}" or "tcp://HOST:2375"'
    return ValueError(
        f"{show_value(value)} is not the address of an engine: {reason}; write {expected}"
    )


def _socket_path(value: str, path: str) -> str:
    if not path.strip("/"):
        raise _make_endpoint_error(value, "it names no socket", _LOCAL_ENGINE)
    if not path.startswith("/"):
        raise _make_endpoint_error(value, "the path is relative", f"unix:///{path.rstrip('/')}")
    if path.endswith("/"):
        raise _make_endpoint_error(
            value, "a socket is not a directory", f"unix://{path.rstrip('/')}"
        )
    if len(os.fsencode(path)) > MAX_SOCKET_BYTES:
        reason = f"a socket's path has at most {MAX_SOCKET_BYTES} bytes"
        raise _make_endpoint_error(value, reason, _LOCAL_ENGINE)
    return path


def _remote_endpoint(value: str, rest: str) -> Endpoint:
    address = rest.removesuffix("/")
    try:
        host, port = host_and_port(address)
    except ValueError:
        literal = ":" in address and _is_ipv6(address)
        host = f"[{address}]" if literal else address if _NAME.fullmatch(address) else "HOST"
        reason = "expected a host and a port, and nothing behind them"
        raise _make_endpoint_error(value, reason, f"tcp://{host}:2375") from None
    if ":" in host and not _is_ipv6(host):
        raise _make_endpoint_error(
            value, f"{show_value(host)} is not an IPv6 address", "tcp://[::1]:2375"
        )
    return Endpoint(host=host, port=port)


def _is_ipv6(text: str) -> bool:
    try:
        import ipaddress  # noqa: PLC0415 - few configurations need it

        return bool(ipaddress.IPv6Address(text))
    except ValueError:
        return False


def host_and_port(value: str) -> tuple[str, int]:
    """An address to listen on; an IPv6 address stands in brackets."""
    host, _, port = value.rpartition(":")
    literal = _LITERAL.fullmatch(host)
    is_valid = re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) <= 65535
    if not is_valid or not (literal or _NAME.fullmatch(host)):
        raise ValueError(
            f"invalid address {show_value(value)}: write host:port,"
            ' like "127.0.0.1:9464" or "[::1]:9464"'
        )
    return literal[1] if literal else host, int(port)


def parse_web_address(value: str) -> Path | tuple[str, int]:
    """The path of a unix socket, or host and port. Raises ValueError with what would be right."""
    if not value.startswith("/"):
        return host_and_port(value)
    path = parse_path(value)
    if len(os.fsencode(path)) > MAX_SOCKET_BYTES:
        raise ValueError(f"longer than {MAX_SOCKET_BYTES} bytes: choose a shorter path")
    return path


def is_loopback(host: str) -> bool:
    """Whether only processes of this host reach an address."""
    import ipaddress  # noqa: PLC0415 - few configurations need it

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def host_name_problem(name: str) -> str | None:
    """What is wrong with the name of a host, without a port; None if nothing is."""
    if _NAME.fullmatch(name) or ((literal := _LITERAL.fullmatch(name)) and _is_ipv6(literal[1])):
        return None
    return (
        f"{show_value(name)} is not the name of a host: write it without scheme and port,"
        ' like "gpu.example.org"'
    )
