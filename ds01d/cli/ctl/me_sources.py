"""What `ds01ctl me` asks the service, and what it reads of the lab's folder of notices."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from ds01d.cli.base.context import Environment
from ds01d.config import Config
from ds01d.documents.notices import OwnNotice, OwnNotices, merge_notices
from ds01d.documents.quota import QuotaDocument
from ds01d.errors import Ds01Error
from ds01d.model.creation import Caller

ASK_EVERY_S: Final = 10.0


class PersonalAnswers(NamedTuple):
    """`quota` None: not known. `problems`: what of it all cannot be had, and why."""

    quota: QuotaDocument | None
    notices: OwnNotices
    problems: tuple[str, ...]


class PersonalSources:
    """Of one caller. Answers are kept for ten seconds, for a view that is watched."""

    def __init__(
        self,
        environment: Environment,
        config: Config,
        caller: Caller,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._environment, self._config, self._clock = environment, config, clock
        self._user = caller.person.name
        # The daemon sees root behind sudo, and would show root's.
        self._wanted = self._user if caller.root else None
        self._last_answers: tuple[float, PersonalAnswers] | None = None

    def read_answers(self) -> PersonalAnswers:
        # Two calls each second or two would use up the sixty that a user has in a minute, and
        # their next booking would be refused.
        if self._last_answers is None or self._clock() - self._last_answers[0] >= ASK_EVERY_S:
            self._last_answers = (self._clock(), self._ask())
        return self._last_answers[1]

    def _ask(self) -> PersonalAnswers:
        quota, quota_problem = self._read_quota()
        notices, notices_problem = self._read_notices()
        alerts, alerts_problem = _read_alerts(self._config.notify.folder, self._user)
        return PersonalAnswers(
            quota=quota,
            notices=OwnNotices(
                notices=merge_notices(alerts, notices.notices), requests=notices.requests
            ),
            problems=(*filter(None, (quota_problem, notices_problem, alerts_problem)),),
        )

    def _read_quota(self) -> tuple[QuotaDocument | None, str]:
        try:
            return self._environment.read_quota(self._config, self._wanted), ""
        except (Ds01Error, OSError) as error:
            return None, f"the quota is not known: {error}"

    def _read_notices(self) -> tuple[OwnNotices, str]:
        notify = self._config.notify
        # Without a target there are none, and no call is made for them.
        if not notify.uses_sender and notify.folder is None:
            return OwnNotices(), ""
        try:
            return self._environment.read_notices(self._config, self._wanted), ""
        except (Ds01Error, OSError) as error:
            return OwnNotices(), f"the notices are not known: {error}"


def _read_alerts(folder: Path | None, user: str) -> tuple[tuple[OwnNotice, ...], str]:
    if folder is None:
        return (), ""
    from ds01d.adapters.alerts_folder import AlertsFolder  # noqa: PLC0415 - few hosts have one

    try:
        # The lab's own greeting reads that file too: here is no second opinion of what is new.
        alerts = AlertsFolder(folder).read(user)
    except Ds01Error as error:
        return (), f"the notices cannot be read: {error}"
    return tuple(
        OwnNotice(type=alert.type, message=alert.message, created_at=at, container=None, slots=())
        for alert, at in alerts
    ), ""
