"""Reads the spool and has each target served by its own thread: one that hangs delays no other."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from ds01d.errors import Ds01Error
from ds01d.model.notice import SpooledNotice
from ds01d.notifier.delivery import Delivery

POLL_S: Final = 2.0
STOP_WITHIN_S: Final = 25.0
"""Longer than any attempt takes: a notice that is being sent is sent and recorded."""
_REFRESH_S: Final = 60.0
_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


class Spool(Protocol):
    """Where notices come from. Raises `Ds01Error`."""

    def read_if_changed(self) -> Sequence[SpooledNotice] | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What serves one target. `refresh` gets what was given, now and then, and may raise."""

    delivery: Delivery
    refresh: Callable[[Sequence[SpooledNotice], float], None] | None = None


class _TargetThread:
    """Serves one target until it is stopped."""

    def __init__(self, target: Target, warn: Callable[[str], None]) -> None:
        self._target, self._warn = target, warn
        self._changed = threading.Condition()
        self._spooled: Sequence[SpooledNotice] | None = None
        self._is_stopping = False
        # Also without a new notice: a greeting has to lose what is over.
        self._refreshed_at = float("-inf")
        # A daemon thread: one that hangs in a name server does not keep the process from its end.
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def offer(self, spooled: Sequence[SpooledNotice]) -> None:
        with self._changed:
            self._spooled = spooled
            self._changed.notify()

    def stop(self) -> None:
        with self._changed:
            self._is_stopping = True
            self._changed.notify()

    def join(self, timeout_s: float) -> None:
        self._thread.join(max(0.0, timeout_s))

    def _run(self) -> None:
        delivery = self._target.delivery
        spooled_now: list[SpooledNotice] = []
        while True:
            with self._changed:
                wait_s = delivery.wait_s()
                if not self._is_stopping and self._spooled is None and wait_s != 0.0:
                    self._changed.wait(_REFRESH_S if wait_s is None else min(wait_s, _REFRESH_S))
                if self._is_stopping:
                    return
                # Taken under the lock: an offer that comes meanwhile is for the next round.
                spooled, self._spooled = self._spooled, None
            if spooled is not None:
                spooled_now = [*spooled]
                delivery.offer(spooled)
            self._refresh(spooled_now, is_changed=spooled is not None)
            delivery.run_once()

    def _refresh(self, spooled_now: Sequence[SpooledNotice], *, is_changed: bool) -> None:
        now = time.monotonic()
        refresh = self._target.refresh
        if refresh is None or not (is_changed or now - self._refreshed_at >= _REFRESH_S):
            return
        self._refreshed_at = now
        given = self._target.delivery.given
        try:
            refresh([notice for notice in spooled_now if notice.id in given], time.time())
        except Ds01Error as error:
            self._warn(str(error))
        except Exception as error:  # noqa: BLE001 - as an attempt: notices go on
            name = self._target.delivery.name
            self._warn(f"{name}: internal error: {type(error).__name__}: {error}")


class NoticeService:
    """For the main thread. `open_targets` reads the configuration; it raises `Ds01Error`."""

    def __init__(
        self,
        spool: Callable[[], Spool],
        open_targets: Callable[[], Sequence[Target]],
        warn: Callable[[str], None],
        ready: Callable[[str], None],
    ) -> None:
        self._open_spool, self._open_targets = spool, open_targets
        self._warn, self._ready = warn, ready

    def run(self) -> None:
        """Serve until a signal ends it, or nothing is to be done; SIGHUP reads it again."""
        # Before any thread starts, so that each inherits it: the signals are the main thread's.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        targets, spool = self._open_targets(), self._open_spool()
        while True:
            threads = [_TargetThread(target, self._warn) for target in targets]
            for thread in threads:
                thread.start()
            names = ", ".join(target.delivery.name for target in targets)
            self._ready(f"sends to {names}" if names else "[notify] has no target for it")
            # systemd counts that as success: a unit without a target has nothing to restart for.
            if not threads:
                return
            # What waits in a thread is recorded, so its successor goes on with it.
            received = self._serve(threads, spool)
            _stop_all(threads)
            if received != signal.SIGHUP:
                return
            try:
                targets = self._open_targets()
            except Ds01Error as error:
                self._warn(f"the configuration is refused, the former one stays: {error}")
            spool = self._open_spool()

    def _serve(self, threads: Sequence[_TargetThread], spool: Spool) -> int:
        while True:
            try:
                spooled = spool.read_if_changed()
            except Ds01Error as error:
                self._warn(str(error))
                spooled = None
            for thread in threads if spooled is not None else ():
                thread.offer(spooled or ())
            # Polled: a notice can wait two seconds, and a rotated spool would lose its watch.
            received = signal.sigtimedwait(_SIGNALS, POLL_S)
            if received is not None:
                return received.si_signo


def _stop_all(threads: Sequence[_TargetThread]) -> None:
    """Let each finish the attempt that it is making."""
    for thread in threads:
        thread.stop()
    # All are stopped first, so that they end together and not one after the other.
    until = time.monotonic() + STOP_WITHIN_S
    for thread in threads:
        thread.join(until - time.monotonic())
