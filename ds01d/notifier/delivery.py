"""One target and the notices that it is still to get: which is tried when, and when no more.

Decision 260: at least once, and each attempt counted before it is made. So a process that is killed
in the middle loses no notice, and one that dies of each attempt does not repeat it without end.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, Protocol

from ds01d.errors import DeliveryFailed, Ds01Error
from ds01d.model.notice import DeliveryRecord, SpooledNotice
from ds01d.notify_settings import QuietHours

MAX_ATTEMPTS: Final = 12
FIRST_RETRY_S: Final = 5.0
LAST_RETRY_S: Final = 900.0
"""Twelve attempts, each after twice the wait: about an hour and a quarter."""
MAX_AGE_S: Final = 12 * 3600.0
NEW_TARGET_AGE_S: Final = 600.0
"""A target without a record gets what is younger: not the whole spool at once."""
MAX_PER_HOUR: Final = 20
"""Notices to one user at one target."""
MAX_QUEUED: Final = 2000
"""Notices that wait at one target; the spool has about as many."""
_HOUR_S: Final = 3600.0


class Channel(Protocol):
    """A way to give notices. `name`: also that of its file."""

    @property
    def name(self) -> str: ...

    def send(self, notice: SpooledNotice) -> None:
        """Raises `DeliveryFailed`."""


class RecordStore(Protocol):
    """Where it is kept what became of them. Raises `Ds01Error`."""

    def load(self) -> DeliveryRecord | None: ...

    def save(self, record: DeliveryRecord) -> None: ...


class Delivery:
    """For one thread. `warn` gets what failed, `quiet`: when nothing is sent; times are wall times.

    `monotonic` counts waits; `local_minute` gives the minute of the day of a time.
    """

    def __init__(
        self,
        channel: Channel,
        store: RecordStore,
        warn: Callable[[str], None],
        quiet: QuietHours | None = None,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        local_minute: Callable[[float], int] | None = None,
    ) -> None:
        self._channel, self._store, self._warn, self._quiet = channel, store, warn, quiet
        self._wall, self._monotonic = wall, monotonic
        self._local_minute = local_minute or _find_local_minute
        self._queue: deque[SpooledNotice] = deque()
        self._queued: set[str] = set()
        self._record, self._is_new = self._load()
        self._finished = set(self._record.finished)
        self._attempts = dict(self._record.attempts)
        # In memory alone: a restart allows as many again, and users cannot bring one about.
        self._sent_at: deque[tuple[float, str]] = deque()
        self._failures = 0
        self._retry_at = 0.0

    def offer(self, spooled: Sequence[SpooledNotice]) -> None:
        """Take over what is in the spool now, and forget what is no longer in it."""
        present = {notice.id for notice in spooled}
        now = self._wall()
        if self._is_new:
            self._is_new = False
            self._finished = {notice.id for notice in spooled if now - notice.at > NEW_TARGET_AGE_S}
        # What has left the spool does not come again: its ID need not be kept.
        self._finished &= present
        # What waits here may have left the spool, and its attempts still count.
        remaining = present | self._queued
        self._attempts = {key: count for key, count in self._attempts.items() if key in remaining}
        for notice in spooled:
            if notice.id not in self._finished and notice.id not in self._queued:
                self._queue.append(notice)
                self._queued.add(notice.id)
        if len(self._queue) > MAX_QUEUED:
            self._warn(f"{self._channel.name}: more than {MAX_QUEUED} wait: the oldest are dropped")
            self._drop([*self._queue][: len(self._queue) - MAX_QUEUED])

    @property
    def name(self) -> str:
        return self._channel.name

    @property
    def given(self) -> frozenset[str]:
        """The IDs that are not tried any more."""
        return frozenset(self._finished)

    def wait_s(self) -> float | None:
        """Seconds until the next attempt; None if there is nothing to do."""
        if not self._queue:
            return None
        quiet_s = self._find_quiet_s()
        return max(quiet_s, self._retry_at - self._monotonic(), 0.0)

    def run_once(self) -> None:
        """Try the oldest notice, if it is time. Never raises `Ds01Error`."""
        self._drop_outdated()
        if self.wait_s() != 0.0:
            return
        notice = self._queue.popleft()
        self._queued.discard(notice.id)
        if self._is_too_many(notice.user):
            self._warn(
                f"{self._channel.name}: more than {MAX_PER_HOUR} notices in an hour to one"
                " user: the others are dropped"
            )
            self._finish(notice, dropped=1)
            return
        attempts = self._attempts.get(notice.id, 0) + 1
        if attempts > MAX_ATTEMPTS:
            # Each attempt ended the process, or what recorded its outcome failed each time.
            self._warn(f"{self._channel.name}: no outcome of {MAX_ATTEMPTS} attempts; given up")
            self._finish(notice, failed=1)
            return
        self._attempts[notice.id] = attempts
        if not self._save():
            # What cannot be recorded would be sent again and again.
            self._put_back(notice)
            return
        try:
            self._channel.send(notice)
        except DeliveryFailed as error:
            self._note_failure(notice, error, attempts)
            return
        except Exception as error:  # noqa: BLE001 - one target that fails stops no other
            text = f"{self._channel.name}: internal error: {type(error).__name__}: {error}"
            self._note_failure(notice, DeliveryFailed(text, is_final=True), attempts)
            return
        self._failures = 0
        self._sent_at.append((self._monotonic(), notice.user))
        self._finish(notice, sent=1)

    def _note_failure(self, notice: SpooledNotice, error: DeliveryFailed, attempts: int) -> None:
        is_last = error.is_final or attempts >= MAX_ATTEMPTS
        self._warn(f"{error}" + (f"; given up after {attempts} attempts" if is_last else ""))
        self._record = replace(
            self._record, failure=str(error), failed_at=self._wall(), is_failing=True
        )
        if is_last:
            self._finish(notice, failed=1)
        # A login without mail is no evidence for the next notice: only what may pass is waited for.
        if not error.is_final:
            if not is_last:
                self._put_back(notice)
            self._pause()
            self._save()

    def _pause(self) -> None:
        self._failures += 1
        # The exponent is bounded, too: after weeks of failures the power would be huge before it is
        # cut.
        wait_s = min(LAST_RETRY_S, FIRST_RETRY_S * 2 ** (min(self._failures, 16) - 1))
        self._retry_at = self._monotonic() + wait_s

    def _put_back(self, notice: SpooledNotice) -> None:
        """Behind the others, some of which may work."""
        self._queue.append(notice)
        self._queued.add(notice.id)

    def _finish(
        self, notice: SpooledNotice, *, sent: int = 0, failed: int = 0, dropped: int = 0
    ) -> None:
        self._finished.add(notice.id)
        self._attempts.pop(notice.id, None)
        self._record = replace(
            self._record,
            sent=self._record.sent + sent,
            failed=self._record.failed + failed,
            dropped=self._record.dropped + dropped,
            is_failing=self._record.is_failing and not sent,
        )
        self._save()

    def _drop_outdated(self) -> None:
        """Drop what nobody needs any more: too old, or about a moment that has passed."""
        now = self._wall()
        self._drop([notice for notice in self._queue if notice.is_outdated(now, MAX_AGE_S)])

    def _drop(self, notices: Sequence[SpooledNotice]) -> None:
        if not notices:
            return
        dropped = {notice.id for notice in notices}
        self._queue = deque(notice for notice in self._queue if notice.id not in dropped)
        self._queued -= dropped
        self._finished |= dropped
        self._attempts = {key: count for key, count in self._attempts.items() if key not in dropped}
        self._record = replace(self._record, dropped=self._record.dropped + len(dropped))
        # Once for all of them: the record is one file.
        self._save()

    def _is_too_many(self, user: str) -> bool:
        now = self._monotonic()
        while self._sent_at and now - self._sent_at[0][0] > _HOUR_S:
            self._sent_at.popleft()
        return sum(receiver == user for _, receiver in self._sent_at) >= MAX_PER_HOUR

    def _find_quiet_s(self) -> float:
        if self._quiet is None:
            return 0.0
        # To the minute is enough: it is looked again then.
        left = self._quiet.find_left_minutes(self._local_minute(self._wall()))
        return min(left * 60.0, 60.0)

    def _load(self) -> tuple[DeliveryRecord, bool]:
        try:
            record = self._store.load()
        except Ds01Error as error:
            self._warn(f"{self._channel.name}: {error}; a new record is begun")
            record = None
        return (DeliveryRecord(), True) if record is None else (record, False)

    def _save(self) -> bool:
        self._record = replace(
            self._record, finished=tuple(sorted(self._finished)), attempts=dict(self._attempts)
        )
        try:
            self._store.save(self._record)
        except Ds01Error as error:
            self._warn(f"{self._channel.name}: {error}")
            self._pause()
            return False
        return True


def _find_local_minute(wall: float) -> int:
    local = time.localtime(wall)
    return local.tm_hour * 60 + local.tm_min
