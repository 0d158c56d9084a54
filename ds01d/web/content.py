"""What the page shows, read at most as often as it can have changed, however many look.

For one thread: the server answers its clients one after the other.
"""

from __future__ import annotations

import json
import math
import operator
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final

from ds01d.errors import Ds01Error
from ds01d.web.bodies import JSON, Body
from ds01d.web.hiding import hide_users

POLL_S: Final = 5.0
"""How often a page asks: what changed is seen by then, and fifty readers cost next to nothing."""
# A host where things happen publishes each second, and its document costs ds01d 17 ms.
_STATUS_S: Final = 5.0
_STATUS_LASTS_S: Final = 60.0
_ACTIVITY_S: Final = 5.0
_WEEK_S: Final = 600.0
_FAILURE_S: Final = 15.0
# It is written every 30 s, and its version says so.
_FLEET_LASTS_S: Final = 60.0

Section = Mapping[str, Any]
ReadSection = Callable[[], Section]
"""Reads a part of what is shown. Raises `Ds01Error`."""


class CachedSection:
    """A part, read again after `lasts_s`, or when `find_version` gives something else.

    Never more often than every `pause_s`, whatever is asked. A failure is cached as well, as
    {"error": reason}: who cannot be reached is not asked by each reader.
    """

    def __init__(
        self,
        read: ReadSection,
        *,
        pause_s: float,
        lasts_s: float,
        find_version: Callable[[], Hashable] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read, self._find_version, self._clock = read, find_version, clock
        self._pause_s, self._lasts_s = pause_s, lasts_s
        self._read_at = -math.inf
        self._version: Hashable = None
        self._section: Section = {}

    def find_section(self) -> Section:
        """The part as it is now; the same object as long as nothing has changed."""
        age = self._clock() - self._read_at
        if age < self._pause_s:
            return self._section
        # The version before the reading: what changes meanwhile is read again.
        version = self._find_version()
        # A failure ends sooner than a week's use changes.
        lasts_s = min(self._lasts_s, _FAILURE_S) if "error" in self._section else self._lasts_s
        if age < lasts_s and version == self._version:
            return self._section
        try:
            section = self._read()
        except (Ds01Error, OSError) as error:
            section = {"error": str(error)}
        except Exception as error:  # noqa: BLE001 - the other parts are shown, and it is kept as well
            section = {"error": f"internal error: {type(error).__name__}: {error}"}
        self._version, self._read_at = version, self._clock()
        if section != self._section:
            self._section = section
        return self._section


class PageContent:
    """The bodies of /status.json and /page.json.

    `read_fleet`: of all hosts, None where there is only this one. `hides_users`: without what names
    a user.
    """

    def __init__(
        self,
        *,
        read_status: ReadSection,
        find_status_version: Callable[[], Hashable],
        read_activity: ReadSection,
        read_week: ReadSection,
        read_fleet: ReadSection | None = None,
        find_fleet_version: Callable[[], Hashable] = lambda: None,
        hides_users: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hides_users = hides_users
        self._sections = {
            "status": CachedSection(
                read_status,
                pause_s=_STATUS_S,
                lasts_s=_STATUS_LASTS_S,
                find_version=find_status_version,
                clock=clock,
            ),
            "activity": CachedSection(
                read_activity, pause_s=_ACTIVITY_S, lasts_s=_ACTIVITY_S, clock=clock
            ),
            "week": CachedSection(read_week, pause_s=_WEEK_S, lasts_s=_WEEK_S, clock=clock),
        }
        if read_fleet is not None:
            self._sections["fleet"] = CachedSection(
                read_fleet,
                pause_s=_STATUS_S,
                lasts_s=_FLEET_LASTS_S,
                find_version=find_fleet_version,
                clock=clock,
            )
        self._encoded: dict[str, tuple[tuple[Section, ...], Body]] = {}

    def find_status(self) -> Body:
        """The document of `ds01ctl status --json`."""
        return self._find_body("status.json", ("status",), lambda parts: parts["status"])

    def find_data(self) -> Body:
        """Everything that the page shows."""
        return self._find_body(
            "page.json",
            tuple(self._sections),
            lambda parts: {**parts, "hides_users": self._hides_users, "poll_s": POLL_S},
        )

    def _find_body(
        self,
        name: str,
        wanted: tuple[str, ...],
        build: Callable[[Mapping[str, Section]], Section],
    ) -> Body:
        sections = tuple(self._sections[part].find_section() for part in wanted)
        encoded = self._encoded.get(name)
        # One that has not changed is the same object, so nothing is compared key by key.
        if encoded is not None and all(map(operator.is_, encoded[0], sections)):
            return encoded[1]
        parts = dict(zip(wanted, sections, strict=True))
        if self._hides_users:
            parts = hide_users(parts)
        text = json.dumps(build(parts), indent=2 if name == "status.json" else None)
        body = Body(text.encode() + b"\n", JSON)
        self._encoded[name] = (sections, body)
        return body
