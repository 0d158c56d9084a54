"""The clock of a campaign."""

from __future__ import annotations

import time


def boot() -> float:
    """CLOCK_BOOTTIME in seconds, on which all moments of a campaign lie."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
