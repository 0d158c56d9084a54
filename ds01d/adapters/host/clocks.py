"""Both clocks of the host, and the id of this boot."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ds01d.model.primitives import Boot, Now, Wall

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_WRAPPED_TICKS = (1 << 64) * os.sysconf("SC_CLK_TCK") // 10**9


def read_boottime() -> Boot:
    """CLOCK_BOOTTIME in seconds: goes on during suspend, never steps."""
    return Boot(time.clock_gettime(time.CLOCK_BOOTTIME))


class HostClock:
    """The clocks of a pass."""

    def __init__(self) -> None:
        self._boot_id = _BOOT_ID.read_text(encoding="ascii").strip()

    def now(self) -> Now:
        """The time; and from here on the zone of this host as it is now, which may have changed."""
        # decision 49: writers of the books use the zone of the moment, so each pass reads it again.
        time.tzset()
        return Now(wall=Wall(time.time()), boot=read_boottime(), boot_id=self._boot_id)

    def read_boot(self) -> Boot:
        """CLOCK_BOOTTIME alone: a zone that is read again costs a call of the kernel each time."""
        return read_boottime()


def to_signed_ticks(ticks: int) -> int:
    """A start time of /proc/PID/stat; negative for a process older than its time namespace.

    The kernel adds the namespace's offset to unsigned nanoseconds and divides afterwards, so that
    the time of such a process wraps around (time_namespaces(7)).
    """
    return ticks - _WRAPPED_TICKS if ticks > _WRAPPED_TICKS // 2 else ticks
