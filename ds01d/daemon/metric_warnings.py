"""What goes wrong with the metrics, told when it begins and when it ends. For several threads."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from ds01d.daemon.flap_filter import FlapFilter
from ds01d.model.primitives import Boot
from ds01d.reporting.message_ids import Event


class MetricWarnings:
    """By what they are about. `boot`: seconds on CLOCK_BOOTTIME."""

    def __init__(self, boot: Callable[[], float]) -> None:
        self._log = structlog.get_logger()
        self._boot = boot
        self._lock = threading.Lock()
        self._there: dict[str, str] = {}
        self._told: dict[str, str] = {}
        self._lasting: FlapFilter[str] = FlapFilter()

    def tell(self, subject: str, reason: str) -> None:
        """`subject` fails for this reason, or works (""). To be called again and again."""
        with self._lock:
            if reason:
                self._there[subject] = f"{subject}: {reason}"
            else:
                self._there.pop(subject, None)
            now = Boot(self._boot())
            for key in self._lasting.met(self._there, now):
                self._told[key] = self._there[key]
                self._log.info(Event.TROUBLE_MET, reason=self._told[key])
            for over in self._lasting.missed(self._there, now):
                again = {"times": over.times} if over.times > 1 else {}
                keys = {"reason": self._told.pop(over.key), "seconds": round(over.seconds)}
                self._log.info(Event.TROUBLE_OVER, **keys, **again)
