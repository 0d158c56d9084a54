"""Keeps the view of all hosts for processes that cannot ask hosts themselves, as the web page.

One file, replaced as a whole. What is in it came from other hosts: it is bounded when it is
written, and parsed into typed values when it is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import msgspec

from ds01d.adapters.files.atomic_write import replace_file
from ds01d.adapters.files.safe_read import NotRead, read_bytes
from ds01d.errors import Ds01Error, Malformed
from ds01d.model.fleet import FleetHost, FleetView, HostName, HostState
from ds01d.model.primitives import Wall

MAX_HOST_BYTES: Final = 512 << 10
"""Of a host in the file: 3,000 containers with the longest usual names."""
# The page's process may have 128 MB, and a parsed document is ten times its text.
MAX_VIEW_BYTES: Final = 4 << 20
_ENVELOPE_BYTES: Final = 4 << 10


# Until the year 5138: what lies further away breaks whatever counts with it.
_Time = Annotated[float, msgspec.Meta(ge=0, le=1e11)]
_Interval = Annotated[float, msgspec.Meta(ge=0.1, le=86400)]


class _View(msgspec.Struct, frozen=True, tag="1", tag_field="v"):
    viewed_at: _Time
    every_s: _Interval
    # Decision 356: each is parsed by itself, so that one that is damaged hides no other.
    hosts: tuple[msgspec.Raw, ...]


class _Named(msgspec.Struct, frozen=True):
    name: HostName


def write_view(path: Path, view: FleetView) -> None:
    """Replace the file, readable by everybody. Raises `WriteFailed`."""
    hosts = tuple(map(msgspec.Raw, _fit_hosts(view.hosts)))
    raw = _View(viewed_at=view.viewed_at, every_s=view.every_s, hosts=hosts)
    # Not synced: after a crash of the host it is written again within seconds.
    replace_file(path, msgspec.json.encode(raw), durable=False)


def read_view(path: Path) -> FleetView:
    """What `write_view` wrote last; a host whose part is invalid is unknown.

    Raises `Ds01Error` where there is none.
    """
    data = read_bytes(path, MAX_VIEW_BYTES)
    if isinstance(data, NotRead):
        raise Ds01Error(data.reason)
    try:
        raw = msgspec.json.decode(data, type=_View)
        hosts = tuple(map(_parse_host, raw.hosts))
    # Text nested too deep, or a lone surrogate.
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Malformed(f"{path} is not a view of hosts: {error}") from error
    return FleetView(viewed_at=Wall(raw.viewed_at), every_s=raw.every_s, hosts=hosts)


def _fit_hosts(hosts: Iterable[FleetHost]) -> Iterator[bytes]:
    """The hosts as JSON; of one that takes too much nothing but that, so that it hides no other."""
    room = MAX_VIEW_BYTES - _ENVELOPE_BYTES
    for host in hosts:
        data = msgspec.json.encode(host)
        if len(data) >= min(room, MAX_HOST_BYTES):
            reason = f"its status takes more than {min(room, MAX_HOST_BYTES) >> 10} KiB"
            data = msgspec.json.encode(
                replace(host, state=HostState.UNKNOWN, status=None, age_s=None, reason=reason)
            )
        room -= len(data) + 1
        yield data


def _parse_host(data: msgspec.Raw) -> FleetHost:
    try:
        host = msgspec.json.decode(data, type=FleetHost)
        _check_times(host)
    # What is there came from another host, and whoever reads this has all the others to show.
    except (msgspec.DecodeError, ValueError) as error:
        name = msgspec.json.decode(data, type=_Named).name
        reason = f"what is kept of it is invalid: {error}"
        return FleetHost(name=name, state=HostState.UNKNOWN, status=None, reason=reason)
    return host


def _check_times(host: FleetHost) -> None:
    published_at = None if host.status is None else host.status.published_at
    for moment in (host.unknown_since, host.answered_at, published_at, host.age_s):
        if moment is not None and not 0 <= moment <= 1e11:
            raise ValueError("a time is out of range")
