"""The thread that follows Docker's stream of events, and opens it again when it breaks.

It reports what it hears and when it missed something; it keeps no facts and makes no list. Whoever
listens must be quick and must not call Docker: an engine skips a slow subscriber without a word.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from ds01d.adapters.docker_client import Client
from ds01d.adapters.docker_facts import ACTIONS, EngineEvent, read_event
from ds01d.errors import EngineFailed

_FIRST_DELAY_S = 0.1
_LONGEST_DELAY_S = 30.0
_STEADY_S = 10.0  # A stream that lived that long was a good one: the next delay is short again.
_FILTERS = {"type": ["container"], "event": list(ACTIONS)}


class DockerWatch:
    """Follows the events. `opening` counts the streams; None while there is none to rely on."""

    def __init__(
        self,
        client: Client,
        *,
        idle_s: float,
        on_event: Callable[[EngineEvent], None],
        on_open: Callable[[], None],
        on_break: Callable[[], None],
    ) -> None:
        self.opening: int | None = None
        self.openings = 0
        self.trouble = "not opened yet"
        self._client = client
        self._idle_s = idle_s
        self._on_event, self._on_open, self._on_break = on_event, on_open, on_break
        self._tried = threading.Event()
        self._wake = threading.Event()
        self._refused = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="docker-events", daemon=True)

    def start(self, wait_s: float) -> None:
        """Begin, and wait for the first attempt: a list made after it has no gap to the events."""
        self._thread.start()
        self._tried.wait(wait_s)

    def recycle(self) -> None:
        """Break the stream and open another: this one is not to be trusted."""
        if self.opening is not None:
            self.opening = None
            self._client.cut()

    def hurry(self) -> None:
        """The engine answers: if it refused the stream before, it may not any more."""
        if self._refused:
            self._wake.set()

    def close(self, wait_s: float) -> None:
        """End the thread, whatever it waits for."""
        self._closed = True
        self._wake.set()
        self._client.close()
        if self._thread.is_alive():
            self._thread.join(wait_s)

    def _run(self) -> None:
        failures = 0
        while not self._closed:
            lived_s = self._follow()
            self._tried.set()
            failures = 0 if lived_s >= _STEADY_S else failures + 1
            longest = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2 ** min(failures, 10))
            self._wake.wait(random.uniform(0.5, 1.0) * longest)  # noqa: S311 - no secret, a jitter
            self._wake.clear()

    def _follow(self) -> float:
        """Follow one stream to its end; how long it lived."""
        began = time.monotonic()
        try:
            lines = self._client.follow(_FILTERS, self._idle_s)
        except EngineFailed as failure:
            self._refused, self.trouble = True, str(failure)
            return 0.0
        self.openings += 1
        self.opening, self._refused, self.trouble = self.openings, False, ""
        self._tried.set()
        try:
            self._on_open()
            for line in lines:
                event = read_event(line)
                if event is not None:
                    self._on_event(event)
            self.trouble = "the engine ended the stream of events"
        except Exception as error:  # noqa: BLE001 - a listener's fault must not end the watch
            self.trouble = str(error) or repr(error)
        self.opening = None
        self._client.cut()
        if not self._closed:
            self._on_break()
        return time.monotonic() - began
