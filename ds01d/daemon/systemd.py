"""Between systemd and the daemon: signals in, readiness, status and the watchdog out.

The main thread waits here and nowhere else; it installs no signal handler. The watchdog is fed only
while the worker makes progress, so systemd restarts a worker that hangs. Notifying never blocks and
never fails: what does not fit into the socket is sent later.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import structlog
from systemd.daemon import listen_fds

from ds01d.config import Config
from ds01d.daemon.metric_warnings import MetricWarnings
from ds01d.daemon.notify_socket import Notifier, open_notify_socket
from ds01d.model.primitives import Word
from ds01d.reporting.log_values import escape_line
from ds01d.reporting.message_ids import Event

STOP_WITHIN_S: Final = 4.5
KILL_WITHIN_S: Final = 4.9
"""When SIGALRM ends the process (decision 102), even if a call holds the interpreter lock."""
RETRY_S: Final = 1.0
PATIENCE_S: Final = 30.0
LONG_PASS_S: Final = 30.0
# From the worker to the main thread, which cannot wait for a signal and an event at once.
_WORKER_ENDED: Final = signal.SIGUSR2
_STOP_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT})
SIGNALS: Final = _STOP_SIGNALS | {signal.SIGHUP, signal.SIGUSR1, _WORKER_ENDED}
_LONGEST_WAIT_S: Final = 3600.0
_NOTIFY: Final = "notify socket of systemd (status, readiness and watchdog are late)"


class ExitReason(Word):
    """Why `Supervisor.run` came back."""

    STOPPED = "stopped"  # by a signal, and the worker finished
    FORCED = "forced"  # by a second signal, or the worker took too long: leave with os._exit
    BROKEN = "broken"  # the worker ended without a signal


def block_signals() -> None:
    """Call first, before any thread starts: from now on signals wait for `Supervisor.run`.

    Children inherit this. One that outlives a moment has to call `unblock_signals` in itself.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def take_sockets() -> list[socket.socket]:
    """The listening sockets that systemd hands over (sd_listen_fds(3)); children get none."""
    return [socket.socket(fileno=number) for number in listen_fds(unset_environment=True)]


def unblock_signals() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _next_signal(timeout_s: float) -> int | None:
    caught = signal.sigtimedwait(SIGNALS, timeout_s)
    return caught.si_signo if caught else None


def _arm_alarm(seconds: float) -> None:
    """Have the kernel end this process then, whatever it does; SIGALRM's default action."""
    # Decision 102: the default action needs no interpreter, which may stand still in a call.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    signal.setitimer(signal.ITIMER_REAL, seconds)


class Supervisor:
    """Feeds the watchdog while the last progress of the worker is at most `patience_s` old."""

    def __init__(
        self,
        patience_s: float,
        *,
        environ: Mapping[str, str] = os.environ,
        send: Callable[[str], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], int | None] = _next_signal,
        arm: Callable[[float], object] = _arm_alarm,
    ) -> None:
        self.patience_s = patience_s
        self._notifier = Notifier(open_notify_socket(environ) if send is None else send)
        self._warnings = MetricWarnings(clock)
        self._arm = arm
        self._clock = clock
        self._wait = wait
        self._watchdog_s = _watchdog_interval_s(environ)
        self._fed_at = self._progressed_at = clock()
        self._ready = False
        self._is_stalled = False
        self._status = self._status_before = ""
        self._worker_ended = threading.Event()
        self._log = structlog.get_logger()

    def notify_ready(self, status: str) -> None:
        """READY=1, with the status. Once, after the first pass; a reload is `run`'s affair."""
        self._ready = True
        self._status = status
        self._notify("READY=1", f"STATUS={escape_line(status, 500)}")

    def notify_status(self, status: str) -> None:
        """STATUS=, if it has changed."""
        if status != self._status:
            self._status = status
            self._notify(f"STATUS={escape_line(status, 500)}")

    def mark_progress(self) -> None:
        """The worker calls this in each turn of its loop, also when idle."""
        # Not in the main thread: a watchdog that is fed beside a worker that hangs proves nothing.
        self._progressed_at = self._clock()

    def mark_worker_ended(self) -> None:
        """The worker calls this when it ends, for whatever reason."""
        self._worker_ended.set()
        # Wakes the main thread, which waits for signals alone.
        os.kill(os.getpid(), _WORKER_ENDED)

    def run(
        self, *, reload: Callable[[], None], stop: Callable[[], None], dump: Callable[[], None]
    ) -> ExitReason:
        """Answer signals and feed the watchdog until the worker is over, or must not be waited for.

        SIGHUP reloads, SIGTERM and SIGINT stop, SIGUSR1 dumps. The three have to return soon.
        """
        deadline: float | None = None
        while True:
            number = self._wait(self._next_wait_s(deadline))
            if self._worker_ended.is_set():
                return ExitReason.BROKEN if deadline is None else ExitReason.STOPPED
            self._feed_watchdog()
            self._retry_notify()
            if number in _STOP_SIGNALS and deadline is None:
                deadline = self._clock() + STOP_WITHIN_S
                self._arm(KILL_WITHIN_S)
                self._notify("STOPPING=1", "STATUS=stopping")
                stop()
            elif deadline is not None:
                if number in _STOP_SIGNALS or self._clock() >= deadline:
                    return ExitReason.FORCED
            elif number == signal.SIGHUP:
                self._handle_reload(reload)
            elif number == signal.SIGUSR1:
                dump()

    def _handle_reload(self, reload: Callable[[], None]) -> None:
        if not self._ready:  # READY=1 must not come before the first pass
            reload()
            return
        # sd_notify(3), Type=notify-reload: systemd takes a READY=1 for the end of this reload by
        # its time.
        self._notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            reload()
        finally:
            self._notify("READY=1")

    def _next_wait_s(self, deadline: float | None) -> float:
        now = self._clock()
        feed = (
            _LONGEST_WAIT_S if self._watchdog_s is None else self._fed_at + self._watchdog_s - now
        )
        end = _LONGEST_WAIT_S if deadline is None else deadline - now
        again = RETRY_S if self._notifier.is_blocked else _LONGEST_WAIT_S
        return max(0.0, min(feed, end, again))

    def _feed_watchdog(self) -> None:
        now = self._clock()
        if self._watchdog_s is None or now < self._fed_at + self._watchdog_s:
            return
        self._fed_at = now  # the next look, also when there was nothing to feed for
        silent_s = now - self._progressed_at
        if silent_s <= self.patience_s:
            self._is_stalled = False
            self._notify("WATCHDOG=1", *self._describe_long_pass(silent_s))
        else:
            if not self._is_stalled:
                self._log.error(Event.DAEMON_STALLED, seconds=round(silent_s))
            self._is_stalled = True
            self._notify(f"STATUS=no progress of the worker for {silent_s:.0f} s")
            # Or the status from before would not be sent again.
            self._status = ""

    def _describe_long_pass(self, silent_s: float) -> Iterator[str]:
        """The STATUS= of a pass that takes long, during which the last one is out of date."""
        if silent_s >= LONG_PASS_S:
            before, self._status = self._status or self._status_before, ""
            self._status_before = before
            text = f"pass running for {silent_s:.0f} s; before: {before}"
            yield f"STATUS={escape_line(text, 500)}"

    def _notify(self, *lines: str) -> None:
        self._notifier.notify(*lines)
        self._report_blocked()

    def _retry_notify(self) -> None:
        if self._notifier.is_blocked:
            self._notifier.retry()
            self._report_blocked()

    def _report_blocked(self) -> None:
        blocked = self._notifier.is_blocked
        self._warnings.report_state(
            _NOTIFY, "its queue is full: systemd does not read it" if blocked else ""
        )


def _watchdog_interval_s(environ: Mapping[str, str]) -> float | None:
    """Half of WatchdogSec=, if systemd set it for this process."""
    # sd_watchdog_enabled(3): half of the time, and only for the process that is named.
    try:
        usec = int(environ.get("WATCHDOG_USEC", ""))
        ours = int(environ.get("WATCHDOG_PID", os.getpid())) == os.getpid()
    except ValueError:
        return None
    return usec / 2_000_000 if usec > 0 and ours else None


def max_pass_s(config: Config) -> float:
    """The longest that a healthy pass may take: every call at its deadline, and some more."""
    gpu = config.gpu.timeout_s if config.gpu.source == "nvml" else 0.0
    return 4 * config.docker.timeout_s + 2 * gpu + config.books.lock_timeout_s + PATIENCE_S
