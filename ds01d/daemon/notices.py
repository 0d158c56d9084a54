"""Gives users their notices: each once, whatever becomes of it. Decides and stops nothing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Final, Protocol

from ds01d.decide.notices import explain_answer, find_notices
from ds01d.errors import Ds01Error
from ds01d.model.allocation import Allocated, Rejected
from ds01d.model.notice import Alert, Notice, NoticeKey, NoticeKind
from ds01d.model.primitives import Boot, Now, UserName, Wall
from ds01d.reconcile.report import Report
from ds01d.reporting.notice_texts import describe_notice

REPEAT_QUOTA_S: Final = 4 * 3600.0
"""A quota is reached and refused again and again: one notice in this time."""
_MAX_KEYS: Final = 10_000
_RETRY_S: Final = 60.0


class NoticeTarget(Protocol):
    """Where notices go."""

    def add(self, user: UserName, alerts: Sequence[Alert], at: Wall) -> None:
        """Add what the user does not have yet. Raises `WriteFailed`."""


class Notices:
    """For the worker's thread. `target`: None where notices are off."""

    def __init__(
        self, target: NoticeTarget | None, hold_warning_s: float, now: Callable[[], Now]
    ) -> None:
        self._target, self._hold_warning_s, self._now = target, hold_warning_s, now
        self._pending: OrderedDict[NoticeKey, Notice] = OrderedDict()
        self._sent: OrderedDict[NoticeKey, Boot] = OrderedDict()
        self._retry_at: dict[UserName, Boot] = {}
        self._failure = ""

    def take_failure(self) -> str:
        """Why a notice could not be given since the last call; "" if none failed."""
        failure, self._failure = self._failure, ""
        return failure

    def add_report(self, report: Report) -> None:
        """Give the notices of a pass, and those that could not be given before."""
        if self._target is None or not report.is_applied:
            return
        notices = list(find_notices(report.decision, report.drifts, self._hold_warning_s))
        # Only a complete sweep shows that a hold is gone; one that was merely not seen would be
        # noticed twice.
        if report.is_sweep and report.needed_sources_ok:
            self._forget_ended({notice.key for notice in notices})
        for notice in notices:
            self._add(notice)
        self._send(self._target)

    def add_answer(
        self,
        answer: Allocated | Rejected,
        find_quota: Callable[[UserName], tuple[int | Fraction, int | Fraction | None]],
    ) -> None:
        """Give the notice of a booking or of its refusal, if it is about the user's quota."""
        if self._target is None:
            return
        try:
            notice = explain_answer(answer, *find_quota(answer.user))
        except Ds01Error as error:
            # The answer stands: a quota that cannot be read costs only its notice.
            self._failure = str(error)
            return
        if notice is not None:
            self._add(notice)
            self._send(self._target)

    def _add(self, notice: Notice) -> None:
        sent_at, now = self._sent.get(notice.key), self._now().boot
        quota = notice.kind in (NoticeKind.QUOTA_REACHED, NoticeKind.QUOTA_REFUSED)
        # Decision 239: what a restart forgets, the target still knows.
        is_repeated = sent_at is not None and (
            notice.kind.is_lasting or (quota and now - sent_at < REPEAT_QUOTA_S)
        )
        if not is_repeated:
            self._pending[notice.key] = notice
            if len(self._pending) > _MAX_KEYS:
                # Of a target that fails for long, the oldest notice is worth least.
                self._pending.popitem(last=False)

    def _forget_ended(self, present: set[NoticeKey]) -> None:
        """A hold that ended or was prolonged may be noticed again the next time."""
        for keys in (self._sent, self._pending):
            for key in [key for key in keys if key.kind.is_lasting and key not in present]:
                del keys[key]

    def _send(self, target: NoticeTarget) -> None:
        now = self._now()
        of_user: dict[UserName, list[Notice]] = {}
        for notice in self._pending.values():
            of_user.setdefault(notice.user, []).append(notice)
        self._retry_at = {user: at for user, at in self._retry_at.items() if user in of_user}
        for user, notices in of_user.items():
            if now.boot < self._retry_at.get(user, 0.0):
                continue
            alerts = [Alert(notice.kind.value, describe_notice(notice)) for notice in notices]
            try:
                target.add(user, alerts, now.wall)
            except Ds01Error as error:
                # The notices of others are not kept back by one file that is broken.
                self._retry_at[user] = Boot(now.boot + _RETRY_S)
                self._failure = str(error)
                continue
            for notice in notices:
                del self._pending[notice.key]
                # To the end of the order again, so that the bound below forgets the oldest.
                self._sent.pop(notice.key, None)
                self._sent[notice.key] = now.boot
                if len(self._sent) > _MAX_KEYS:
                    self._sent.popitem(last=False)
