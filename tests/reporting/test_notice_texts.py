"""The texts of notices: whatever the notice has, there is one."""

from __future__ import annotations

import pytest

from ds01d.model.notice import Notice, NoticeKind
from ds01d.model.primitives import SlotId, UserName, Wall
from ds01d.reporting.notice_texts import describe_notice


@pytest.mark.parametrize("kind", [NoticeKind.GPU_IDLE, NoticeKind.HOLD_ENDING])
@pytest.mark.parametrize("at", [9e300, -9e300, 3e11])
def test_a_damaged_time_is_shown_as_unknown(kind: NoticeKind, at: float) -> None:
    moment = Wall(at)
    notice = Notice(
        kind=kind,
        user=UserName("alice"),
        subject="train._.1001",
        slots=frozenset({SlotId("0")}),
        until=moment,
        since=moment,
    )
    assert "an unknown time" in describe_notice(notice)
