"""Gives users their notices: each once, whatever becomes of it. Decides and stops nothing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Final, NamedTuple, Protocol

from ds01d.decide.notices import explain_answer, explain_end_of_wait, find_notices
from ds01d.errors import Ds01Error
from ds01d.model.allocation import Allocated, Rejected
from ds01d.model.notice import GivenNotice, Notice, NoticeKey, NoticeKind, WrittenNotice
from ds01d.model.primitives import Boot, Now, UserName, Wall
from ds01d.reconcile.report import Report
from ds01d.reporting.notice_texts import describe_notice

REPEAT_S: Final = 4 * 3600.0
"""A quota is reached, or a reading is lost, again and again: one notice in this time."""
_MAX_KEYS: Final = 10_000
_RETRY_S: Final = 60.0
_SAME_END_S: Final = 60.0
"""An end that is computed again differs by less."""
_QUOTA_KINDS: Final = frozenset({NoticeKind.QUOTA_REACHED, NoticeKind.QUOTA_REFUSED})


class NoticeTarget(Protocol):
    """Where notices go."""

    def add(self, user: UserName, notices: Sequence[WrittenNotice], at: Wall) -> None:
        """Add what the user does not have yet. Raises `WriteFailed`."""

    def list_given(self) -> Sequence[GivenNotice]:
        """What it has from before a restart, oldest first. Raises `Ds01Error`."""


class Notices:
    """For the worker's thread. `targets`: none where notices are off."""

    def __init__(
        self,
        targets: Sequence[NoticeTarget],
        hold_warnings_s: Sequence[float],
        now: Callable[[], Now],
    ) -> None:
        # Apart: one that fails keeps nothing back from the others.
        self._outboxes = [_Outbox(target, now) for target in targets]
        self._hold_warnings_s = hold_warnings_s
        self._failure = ""

    def take_failure(self) -> str:
        """Why a notice could not be given since the last call; "" if none failed."""
        failures = [self._failure, *(outbox.take_failure() for outbox in self._outboxes)]
        self._failure = ""
        return next(filter(None, failures), "")

    def add_report(self, report: Report) -> None:
        """Give the notices of a pass, and those that could not be given before."""
        if not self._outboxes or not report.is_applied:
            return
        notices = list(find_notices(report.decision, report.drifts, self._hold_warnings_s))
        # Only a complete sweep shows that a hold is gone; one that was merely not seen would be
        # noticed twice.
        is_whole = report.is_sweep and report.needed_sources_ok
        for outbox in self._outboxes:
            if is_whole:
                outbox.forget_ended({notice.key for notice in notices})
            outbox.send(notices)

    def add_answer(
        self,
        answer: Allocated | Rejected,
        find_quota: Callable[[UserName], tuple[int | Fraction, int | Fraction | None]],
        *,
        has_waited: bool = False,
    ) -> None:
        """Give the notices of a booking or of its refusal: a quota, the end of a wait."""
        if not self._outboxes:
            return
        notices = [explain_end_of_wait(answer)] if has_waited else []
        try:
            notices.append(explain_answer(answer, *find_quota(answer.user)))
        except Ds01Error as error:
            # The answer stands: a quota that cannot be read costs only its notice.
            self._failure = str(error)
        for outbox in self._outboxes:
            outbox.send([notice for notice in notices if notice is not None])

    def add_notice(self, notice: Notice) -> None:
        """Give a notice that something else has decided about."""
        for outbox in self._outboxes:
            outbox.send([notice])


class _Sent(NamedTuple):
    at: float  # on CLOCK_BOOTTIME; before this boot: negative
    until: Wall | None


class _Outbox:
    """What one target is still to get, and what it has."""

    def __init__(self, target: NoticeTarget, now: Callable[[], Now]) -> None:
        self._target, self._now = target, now
        self._pending: OrderedDict[NoticeKey, Notice] = OrderedDict()
        self._sent: OrderedDict[NoticeKey, _Sent] = OrderedDict()
        self._retry_at: dict[UserName, Boot] = {}
        self._failure = ""
        self._is_loaded = False

    def take_failure(self) -> str:
        failure, self._failure = self._failure, ""
        return failure

    def forget_ended(self, present: set[NoticeKey]) -> None:
        """What ended, or a hold that was prolonged, may be noticed again the next time."""
        self._load()
        now = self._now().boot
        for keys in (self._sent, self._pending):
            for key in [key for key in keys if key.kind.is_lasting and key not in present]:
                sent = self._sent.get(key)
                # A reading that fails hides a finding, which did not end by that.
                if key.kind.is_of_finding and sent is not None and now - sent.at < REPEAT_S:
                    continue
                keys.pop(key, None)

    def send(self, notices: Sequence[Notice]) -> None:
        """Give these and what is pending, as far as the target takes them."""
        self._load()
        for notice in notices:
            self._add(notice)
        if not self._pending:
            return
        now = self._now()
        of_user: dict[UserName, list[Notice]] = {}
        for notice in self._pending.values():
            of_user.setdefault(notice.user, []).append(notice)
        self._retry_at = {user: at for user, at in self._retry_at.items() if user in of_user}
        for user, of_this_user in of_user.items():
            if now.boot < self._retry_at.get(user, 0.0):
                continue
            try:
                written = [
                    WrittenNotice(notice, describe_notice(notice)) for notice in of_this_user
                ]
                self._target.add(user, written, now.wall)
            except Ds01Error as error:
                # The notices of others are not kept back by one file that is broken.
                self._retry_at[user] = Boot(now.boot + _RETRY_S)
                self._failure = str(error)
                continue
            except Exception as error:  # noqa: BLE001 - a booking stands, and is answered
                # It would fail each time: given up, so that it ends no other pass or call.
                self._failure = f"internal error: {type(error).__name__}: {error}"
            for notice in of_this_user:
                del self._pending[notice.key]
                self._note_sent(notice.key, _Sent(now.boot, notice.until))

    def _load(self) -> None:
        """Take over what the target has from before a restart; once."""
        if self._is_loaded:
            return
        self._is_loaded = True
        now = self._now()
        try:
            for key, at, until in self._target.list_given():
                self._note_sent(key, _Sent(now.boot - max(0.0, now.wall - at), until))
        except Ds01Error as error:
            # Decision 260: a notice that is given twice is better than none.
            self._failure = str(error)

    def _add(self, notice: Notice) -> None:
        sent, now = self._sent.get(notice.key), self._now().boot
        is_same = sent is not None and (
            None in (sent.until, notice.until)
            or abs((sent.until or 0.0) - (notice.until or 0.0)) <= _SAME_END_S
        )
        # Decision 239: what a restart forgets, the target still knows.
        is_repeated = sent is not None and (
            (notice.kind.is_lasting and is_same)
            or (notice.kind in _QUOTA_KINDS and now - sent.at < REPEAT_S)
        )
        if not is_repeated:
            self._pending[notice.key] = notice
            if len(self._pending) > _MAX_KEYS:
                # Of a target that fails for long, the oldest notice is worth least.
                self._pending.popitem(last=False)

    def _note_sent(self, key: NoticeKey, sent: _Sent) -> None:
        # To the end of the order again, so that the bound below forgets the oldest.
        self._sent.pop(key, None)
        self._sent[key] = sent
        if len(self._sent) > _MAX_KEYS:
            self._sent.popitem(last=False)
