"""Between systemd and the daemon: signals in, readiness, status and the watchdog out.

The main thread waits here and nowhere else; it installs no signal handler. The watchdog is fed only
while the worker proves progress, so a worker that hangs is restarted by systemd. Notifying systemd
neither fails nor waits: without its socket nothing is sent, and while nobody reads from it the
newest values are kept and sent later.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import structlog

from ds01d.config import Config
from ds01d.daemon.metric_warnings import MetricWarnings
from ds01d.daemon.notify_socket import Notifier, open_notify_socket
from ds01d.model.primitives import Word
from ds01d.reporting.logs import escape_line
from ds01d.reporting.message_ids import Event

STOP_WITHIN_S: Final = 4.5
KILL_WITHIN_S: Final = 4.9
"""SIGALRM ends the process then, by the kernel: also one whose interpreter stands still."""
RETRY_S: Final = 1.0
PATIENCE_S: Final = 30.0
LONG_PASS_S: Final = 30.0
_WORKER_ENDED: Final = (
    signal.SIGUSR2
)  # from the worker to the main thread, which cannot wait for both
_STOP_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT})
SIGNALS: Final = _STOP_SIGNALS | {signal.SIGHUP, signal.SIGUSR1, _WORKER_ENDED}
_LONGEST_WAIT_S: Final = 3600.0
_NOTIFY: Final = "the notify socket of systemd (status, readiness and watchdog come late)"


class ExitReason(Word):
    """Why `Supervisor.run` came back."""

    STOPPED = "stopped"  # told to, and the worker finished
    FORCED = "forced"  # told twice, or the worker took too long: leave with os._exit
    BROKEN = "broken"  # the worker ended though nobody told it to


def block_signals() -> None:
    """Call first, before any thread starts: from now on signals wait for `Supervisor.run`.

    Children inherit this. One that outlives a moment has to call `unblock_signals` in itself.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def unblock_signals() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _next_signal(timeout_s: float) -> int | None:
    caught = signal.sigtimedwait(SIGNALS, timeout_s)
    return caught.si_signo if caught else None


def _arm_alarm(seconds: float) -> None:
    """Have the kernel end this process then, whatever it does; SIGALRM's default action."""
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
        self._troubles = MetricWarnings(clock)
        self._arm = arm
        self._clock = clock
        self._wait = wait
        self._every_s = _watchdog_interval_s(environ)
        self._fed = self._progressed = clock()
        self._ready = False
        self._silent = False
        self._status = self._before = ""
        self._over = threading.Event()
        self._log = structlog.get_logger()

    def ready(self, status: str) -> None:
        """READY=1, with the status. Once, after the first pass; a reload is `run`'s affair."""
        self._ready = True
        self._status = status
        self._tell("READY=1", f"STATUS={escape_line(status, 500)}")

    def status(self, status: str) -> None:
        """STATUS=, if it has changed."""
        if status != self._status:
            self._status = status
            self._tell(f"STATUS={escape_line(status, 500)}")

    def progress(self) -> None:
        """The worker calls this each time round its loop, idle or not, and between steps."""
        self._progressed = self._clock()

    def over(self) -> None:
        """The worker calls this when it ends, for whatever reason."""
        self._over.set()
        os.kill(os.getpid(), _WORKER_ENDED)

    def run(
        self, *, reload: Callable[[], None], stop: Callable[[], None], dump: Callable[[], None]
    ) -> ExitReason:
        """Answer signals and feed the watchdog until the worker is over, or must not be waited for.

        SIGHUP reloads, SIGTERM and SIGINT stop, SIGUSR1 dumps. The three have to return soon.
        """
        deadline: float | None = None
        while True:
            number = self._wait(self._pause_s(deadline))
            if self._over.is_set():
                return ExitReason.BROKEN if deadline is None else ExitReason.STOPPED
            self._feed()
            self._retry()
            if number in _STOP_SIGNALS and deadline is None:
                deadline = self._clock() + STOP_WITHIN_S
                self._arm(KILL_WITHIN_S)
                self._tell("STOPPING=1", "STATUS=Stopping")
                stop()
            elif deadline is not None:
                if number in _STOP_SIGNALS or self._clock() >= deadline:
                    return ExitReason.FORCED
            elif number == signal.SIGHUP:
                self._reload(reload)
            elif number == signal.SIGUSR1:
                dump()

    def _reload(self, reload: Callable[[], None]) -> None:
        if not self._ready:  # READY=1 must not come before the first pass
            reload()
            return
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            reload()
        finally:
            self._tell("READY=1")

    def _pause_s(self, deadline: float | None) -> float:
        now = self._clock()
        feed = _LONGEST_WAIT_S if self._every_s is None else self._fed + self._every_s - now
        end = _LONGEST_WAIT_S if deadline is None else deadline - now
        again = RETRY_S if self._notifier.blocked else _LONGEST_WAIT_S
        return max(0.0, min(feed, end, again))

    def _feed(self) -> None:
        now = self._clock()
        if self._every_s is None or now < self._fed + self._every_s:
            return
        self._fed = now  # the next look, also when there was nothing to feed for
        silent_s = now - self._progressed
        if silent_s <= self.patience_s:
            self._silent = False
            self._tell("WATCHDOG=1", *self._long_pass(silent_s))
        else:
            if not self._silent:
                self._log.error(Event.DAEMON_SILENT, seconds=round(silent_s))
            self._silent = True
            self._tell(f"STATUS=The worker has been silent for {silent_s:.0f} s")
            self._status = ""

    def _long_pass(self, silent_s: float) -> Iterator[str]:
        """A STATUS= for a pass that takes long: what the last one said may not be so any more."""
        if silent_s >= LONG_PASS_S:
            before, self._status = self._status or self._before, ""
            self._before = before
            text = f"a pass takes long, for {silent_s:.0f} s now; before: {before}"
            yield f"STATUS={escape_line(text, 500)}"

    def _tell(self, *lines: str) -> None:
        self._notifier.notify(*lines)
        self._report_blocked()

    def _retry(self) -> None:
        if self._notifier.blocked:
            self._notifier.retry()
            self._report_blocked()

    def _report_blocked(self) -> None:
        blocked = self._notifier.blocked
        self._troubles.tell(_NOTIFY, "its queue is full, nobody reads it" if blocked else "")


def _watchdog_interval_s(environ: Mapping[str, str]) -> float | None:
    """Half of what systemd waits for, if it waits for this process."""
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
