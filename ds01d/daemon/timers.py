"""Timers that mark names dirty. The only module that imports APScheduler.

Times are on CLOCK_BOOTTIME. APScheduler waits by the wall clock, so a clock step or a suspended
host may delay a job for hours: the worker waits at most `wait_s` and then calls `fire_due`. Each
timer fires once, by whichever comes first.
"""

from __future__ import annotations

import contextlib
import random
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Final

from apscheduler.executors.debug import DebugExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger

from ds01d.adapters.host.clocks import read_boottime
from ds01d.daemon.dirty_set import EVERYTHING, Names
from ds01d.errors import ConfigError
from ds01d.model.primitives import Boot

HEARTBEAT_S: Final = 5.0
_SWEEP: Final = "sweep"
_SAME_S: Final = 0.005
_MARGIN_S: Final = 0.001  # a timer that rings early would find nothing due


def validate_cron(text: str) -> None:
    """Raise `ConfigError` for an invalid cron expression, or one without a next time; "" = none."""
    if text:
        _cron_delay_s(text, _local_now())


def _local_now() -> datetime:
    return datetime.now(timezone.utc).astimezone()


@dataclass(eq=False, slots=True)
class _Timer:
    due: float
    names: Names
    job: Any = None


class Timers:
    """Timers by key. `mark` is called from the scheduler's thread or from that of `fire_due`."""

    def __init__(
        self,
        mark: Callable[[Names], None],
        *,
        boot: Callable[[], float] = read_boottime,
        wall: Callable[[], datetime] = _local_now,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._mark = mark
        self._boot = boot
        self._wall = wall
        self._random = chance
        self._lock = threading.Lock()  # never held while APScheduler is called: it has one as well
        self._timers: dict[str, _Timer] = {}
        self._sweep: tuple[float, float, str] | None = None
        self._stopped = False
        # DebugExecutor is the one that runs a job in the scheduler's own thread, a daemon thread.
        self._scheduler = BackgroundScheduler(
            executors={"default": DebugExecutor()},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone=timezone.utc,
        )

    def start(self) -> None:
        self._scheduler.start()

    def stop(self) -> None:
        """Fire nothing any more. May be called twice, and without `start`."""
        with self._lock:
            self._stopped = True
            self._timers.clear()
        if self._scheduler.running:
            self._scheduler.remove_all_jobs()  # its thread dies of one that rings while it stops
            self._scheduler.shutdown(wait=False)

    def schedule_sweeps(self, interval_s: float, jitter_s: float, cron: str) -> None:
        """Mark everything again and again: by `cron` if there is one, else by the interval."""
        self._sweep = (interval_s, jitter_s, cron)
        self._schedule_sweep()

    def schedule(self, key: str, delay_s: float, names: Names) -> None:
        """Mark `names` after the delay; replaces what was planned under `key`."""
        timer = _Timer(self._boot() + max(delay_s, 0.0), names)
        with self._lock:
            if self._stopped:
                return
            old = self._timers.get(key)
            # A deadline is planned again after each pass, mostly unchanged: APScheduler's queue is
            # left alone.
            if old and old.names == names and abs(old.due - timer.due) < _SAME_S:
                return
            self._timers[key] = timer
        when = self._wall() + timedelta(seconds=max(delay_s, 0.0) + _MARGIN_S)
        self._remove_job(old)
        timer.job = self._scheduler.add_job(
            self._fire, "date", run_date=when, args=(key, timer), name=key
        )

    def cancel(self, key: str) -> None:
        with self._lock:
            timer = self._timers.pop(key, None)
        self._remove_job(timer)

    def fire_due(self) -> None:
        """Fire what is due by CLOCK_BOOTTIME, also after a step of the wall clock."""
        now = self._boot()
        with self._lock:
            late = [(key, timer) for key, timer in self._timers.items() if timer.due <= now]
        for key, timer in late:
            self._fire(key, timer)
            self._remove_job(timer)

    def next_due(self) -> Boot | None:
        """When the next timer is due."""
        with self._lock:
            return Boot(min(timer.due for timer in self._timers.values())) if self._timers else None

    def next_sweep(self) -> Boot | None:
        with self._lock:
            timer = self._timers.get(_SWEEP)
            return Boot(timer.due) if timer else None

    def wait_s(self) -> float:
        """How long the worker may wait before it calls `fire_due`."""
        due = self.next_due()
        return HEARTBEAT_S if due is None else min(max(due - self._boot(), 0.0), HEARTBEAT_S)

    def _fire(self, key: str, timer: _Timer) -> None:
        with self._lock:
            # It may ring in both threads: by the wall clock there, by CLOCK_BOOTTIME here.
            if self._timers.get(key) is not timer:
                return  # replaced, cancelled, or has rung
            del self._timers[key]
        self._mark(timer.names)
        if key == _SWEEP:
            self._schedule_sweep()

    def _schedule_sweep(self) -> None:
        if self._sweep is None:
            return
        interval_s, jitter_s, cron = self._sweep
        delay_s = _cron_delay_s(cron, self._wall()) if cron else interval_s
        self.schedule(_SWEEP, delay_s + self._random() * jitter_s, EVERYTHING)

    def _remove_job(self, timer: _Timer | None) -> None:
        if timer is not None and timer.job is not None:
            with contextlib.suppress(JobLookupError):  # it has run
                timer.job.remove()


def _cron_delay_s(text: str, now: datetime) -> float:
    """Seconds to the next moment that `text` names, in the time zone of `now`, but not this one."""
    fields = text.split()
    # Cron has 0 for Sunday, APScheduler for Monday: nobody would see the difference until the day
    # is wrong.
    if len(fields) == 5 and re.search(r"[0-9]", fields[4]):
        raise ConfigError(
            f"daemon.sweep_cron: {text!r}: write days of the week by name, like mon-fri "
            "(cron and APScheduler number them differently)"
        )
    try:
        trigger = CronTrigger.from_crontab(text, timezone=now.tzinfo)
        moment = trigger.get_next_fire_time(None, now + timedelta(seconds=1))
    except (ValueError, OverflowError) as error:
        raise ConfigError(
            f"daemon.sweep_cron: invalid cron expression {text!r} ({error}): write five fields, "
            'like "*/2 * * * *"'
        ) from error
    if moment is None:
        raise ConfigError(f"daemon.sweep_cron: {text!r} has no next time")
    return float((moment - now).total_seconds())
