"""A user's notices and requests for one, as parts of documents. Decides nothing."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from ds01d.documents.values import DisplayTime, DocumentPart
from ds01d.model.notice import NoticeRequest, SpooledNotice
from ds01d.model.primitives import SlotId, Wall


class OwnNotice(DocumentPart, frozen=True):
    """A notice to the user; `created_at` as its writer has it.

    `container`: None where it is about no one container, or where only the lab's folder has it.
    """

    type: str
    message: str
    created_at: str | None
    container: str | None
    slots: tuple[str, ...]


class OwnNoticeRequest(DocumentPart, frozen=True):
    """A notice comes when so many slots, or `slot`, can be booked; `until`: then it ends."""

    slot: SlotId | None
    count: int
    profile: str | None
    since: DisplayTime
    until: DisplayTime


class OwnNotices(DocumentPart, frozen=True):
    """The newest notices to a user, oldest first, and what they want a notice of."""

    notices: tuple[OwnNotice, ...] = ()
    requests: tuple[OwnNoticeRequest, ...] = ()


def describe_notice_request(request: NoticeRequest) -> OwnNoticeRequest:
    return OwnNoticeRequest(
        slot=request.slot,
        count=request.count,
        profile=request.profile,
        since=DisplayTime(request.since),
        until=DisplayTime(request.until),
    )


def describe_spooled_notice(notice: SpooledNotice) -> OwnNotice:
    return OwnNotice(
        type=notice.kind,
        message=notice.message,
        created_at=DisplayTime(Wall(notice.at)).to_utc(),
        container=notice.container or None,
        slots=notice.slots,
    )


def parse_creation(notice: OwnNotice) -> datetime | None:
    """When it was written; None where its writer has no moment there. Without a zone: local."""
    try:
        # Python 3.10 does not know Z.
        return datetime.fromisoformat((notice.created_at or "").replace("Z", "+00:00"))
    except ValueError:
        return None


def merge_notices(
    alerts: Iterable[OwnNotice], spooled: Iterable[OwnNotice]
) -> tuple[OwnNotice, ...]:
    """Both, oldest first; what is in both once, as ds01d gave it."""
    by_text = {(notice.type, notice.message): notice for notice in spooled}
    # The lab's folder has every notice of ds01d as well, and those of others beside them.
    others = [notice for notice in alerts if (notice.type, notice.message) not in by_text]
    return tuple(sorted((*others, *by_text.values()), key=_order_by_creation))


def _order_by_creation(notice: OwnNotice) -> float:
    moment = parse_creation(notice)
    try:
        return 0.0 if moment is None else moment.timestamp()
    except (ValueError, OverflowError):  # the year 1, in a zone east of here
        return 0.0
