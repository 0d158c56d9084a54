"""Logs failures that stop no repair when they begin and when they end. For several threads."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from ds01d.daemon.flap_filter import FlapFilter
from ds01d.model.primitives import Boot
from ds01d.reporting.message_ids import Event


class MetricWarnings:
    """Open failures by subject. `boot`: seconds on CLOCK_BOOTTIME."""

    def __init__(self, boot: Callable[[], float]) -> None:
        self._log = structlog.get_logger()
        self._boot = boot
        self._lock = threading.Lock()
        self._current: dict[str, str] = {}
        self._logged: dict[str, str] = {}
        self._flaps: FlapFilter[str] = FlapFilter()

    def report_state(self, subject: str, reason: str) -> None:
        """Report that `subject` fails for this reason, or works (""); may be repeated."""
        # Called by the worker, the listener and the text file's thread.
        with self._lock:
            if reason:
                self._current[subject] = f"{subject}: {reason}"
            else:
                self._current.pop(subject, None)
            now = Boot(self._boot())
            for key in self._flaps.begin_present(self._current, now):
                # The text of the beginning, so that the entry of the end can be matched with it.
                self._logged[key] = self._current[key]
                self._log.info(Event.DEGRADED_BEGIN, reason=self._logged[key])
            for over in self._flaps.end_absent(self._current, now):
                again = {"times": over.times} if over.times > 1 else {}
                keys = {"reason": self._logged.pop(over.key), "seconds": round(over.seconds)}
                self._log.info(Event.DEGRADED_OVER, **keys, **again)
