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


@pytest.mark.parametrize("kind", NoticeKind)
def test_every_kind_has_one_line_whatever_users_have_named(kind: NoticeKind) -> None:
    hostile = "\x1b]0;x\x07\n" + "x" * 10_000
    notice = Notice(
        kind=kind,
        user=UserName(hostile),
        subject=hostile,
        slots=frozenset({SlotId("0"), SlotId("1.0")}),
        reason=hostile,
    )
    text = describe_notice(notice)
    assert text.isprintable()
    assert len(text) < 1000
