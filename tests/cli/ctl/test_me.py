"""`me`: what one user has, may have and should know, from real documents."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ds01d.cli.base.context import Environment
from ds01d.cli.ctl.me_sources import PersonalSources
from ds01d.config import Config, NotifyConfig
from ds01d.documents.notices import OwnNotice, OwnNoticeRequest, OwnNotices
from ds01d.documents.personal import has_room
from ds01d.documents.quota import OtherHosts, QuotaDocument, WaitingRequest
from ds01d.documents.values import DisplayTime
from ds01d.errors import Refused
from ds01d.model.books import SlotType
from ds01d.model.creation import Caller, Person
from ds01d.model.drift import Action, Finding, FindingKind, Kind, Outcome
from ds01d.model.primitives import ContainerName, SlotId, Source, Wall
from ds01d.reporting.status import PublishedDrift, SlotStatus
from ds01d.reporting.status_file import write_status
from tests.cli.ctl.test_status_forms import with_readings
from tests.support.commands import Desk

ALICE = Caller(person=Person(uid=1001, name="alice"), root=False)
HOSTILE = "\x1b]0;x\x07\n"


def quota_of_alice(**changes: Any) -> QuotaDocument:
    quota = QuotaDocument(
        user="alice",
        group="staff",
        priority=50,
        unit="gpus",
        limit=2.0,
        used=1.1429,
        reserved=0.0,
        left=0.8571,
        slots_per_container=1,
        source="limits.yaml: groups.staff",
        waiting=1,
        ahead=0,
        requests=(
            WaitingRequest(
                container=f"next{HOSTILE}",
                position=2,
                since=DisplayTime(Wall(time.time() - 3 * 3600)),
                count=2,
                slot=None,
                profile="1g.10gb",
                reason="no slot is free",
            ),
        ),
    )
    return msgspec.structs.replace(quota, **changes)


class OwnDesk(Desk):
    """Alice's. `quota`, `notices`: what she is answered, or why not."""

    quota: QuotaDocument | str = quota_of_alice()
    notices: OwnNotices | str = OwnNotices()
    caller = ALICE

    def environment(self) -> Environment:
        return replace(
            super().environment(),
            find_caller=lambda: self.caller,
            read_quota=self._read,
            read_notices=self._read_notices,
        )

    def _read(self, _: Config, user: str | None) -> QuotaDocument:
        assert user == ("alice" if self.caller.root else None)
        if isinstance(self.quota, str):
            raise Refused(self.quota)
        return self.quota

    def _read_notices(self, _: Config, user: str | None) -> OwnNotices:
        assert user == ("alice" if self.caller.root else None)
        if isinstance(self.notices, str):
            raise Refused(self.notices)
        return self.notices


@pytest.fixture
def desk(desk: Desk, tmp_path: Path) -> OwnDesk:
    desk.host.failing.add(Source.STATE)
    own = OwnDesk(host=desk.host, state_dir=tmp_path)
    status = with_readings()
    drift = PublishedDrift(
        kind=Kind.EXPIRED_HOLD,
        container=ContainerName("old._.1001"),
        slot=SlotId("1.2"),
        action=Action.RELEASE,
        outcome=Outcome.WAITING,
        difference="its hold is over",
    )
    findings = (
        Finding(kind=FindingKind.BROAD_REQUEST, container=ContainerName("train._.1001"), slot=None,
                reason=f"asks for all{HOSTILE}"),
        Finding(kind=FindingKind.BROAD_REQUEST, container=ContainerName("look._.1002"), slot=None,
                reason="asks for all"),
        Finding(kind=FindingKind.SHARED_SLOT, container=None, slot=SlotId("0"), reason="two"),
    )  # fmt: skip
    status = msgspec.structs.replace(status, findings=findings, open_drifts=(drift,))
    write_status(status, tmp_path)
    return own


def words(desk: Desk) -> list[str]:
    result = desk.call("me")
    assert result.exit_code == 0, result.output
    assert all(line.isprintable() for line in result.stdout.splitlines())
    return [" ".join(line.split()) for line in result.stdout.splitlines()]


def test_it_is_all_on_one_screen_and_nothing_of_others(desk: OwnDesk) -> None:
    shown = words(desk)
    assert shown == [
        "alice holds 2 slots: 1.1429 of 2 GPUs, 0.8571 GPUs left",
        "SLOT TYPE CONTAINER STATE UNTIL UTIL MEMORY PROCESSES OTHERS",
        "0 physical_gpu train._.1001 running - 0% 3.0/80.0 GiB 2 look._.1002",
        "1.0 1g.10gb idle._.1001 running - - 0.0/10.0 GiB 0 -",
        "readings of NVML: 2 h ago",
        "",
        "WAITING FOR SLOTS",
        "CONTAINER PLACE WANTS SINCE REASON",
        next(line for line in shown if line.startswith("next")),
        "",
        "DRIFTS",
        "KIND CONTAINER SLOT VERDICT UNTIL REASON",
        "expired-hold old._.1001 1.2 waiting - its hold is over",
        "",
        "FINDINGS",
        "KIND CONTAINER SLOT REASON",
        r"broad-request train._.1001 - asks for all\x1b]0;x\x07\n",
        "",
        "FREE SLOTS",
        "TYPE FREE BY QUOTA SLOTS",
        r"1g.10gb 2 allowed 1.2, a\x1b[31m\nb\u202e",
    ]
    waiting = next(line for line in shown if line.startswith("next"))
    assert waiting.startswith(r"next\x1b]0;x\x07\n 2 2 1g.10gb 20")
    # The tests may have begun some minutes ago.
    assert re.search(r"\(3 h( \d+ m)? ago\) no slot is free$", waiting), waiting


def test_json_has_the_same(desk: OwnDesk) -> None:
    document = desk.json("me")
    assert document["user"] == "alice"
    assert [slot["slot"] for slot in document["slots"]] == ["0", "1.0"]
    assert document["slots"][0]["memory_used"] == 3 * 2**30
    assert document["quota"]["requests"][0]["since"].endswith("+00:00")
    assert document["free"] == [
        {"type": "1g.10gb", "slots": ["1.2", "a\x1b[31m\nb\u202e"], "allowed": True}
    ]
    assert [finding["container"] for finding in document["findings"]] == ["train._.1001"]
    assert document["problems"] == []


def test_a_use_without_a_booking_is_named(desk: OwnDesk) -> None:
    desk.caller = Caller(person=Person(uid=1002, name="bob"), root=False)
    desk.quota = "no group"
    shown = words(desk)
    assert shown[0] == "the quota is not known: no group"
    assert shown[1] == "bob holds 1 slot"
    assert "1.1 1g.10gb web running, not booked - - - - -" in shown
    assert "1g.10gb 2 - 1.2, a\\x1b[31m\\nb\\u202e" in shown


def test_with_sudo_it_is_the_user_behind_it(desk: OwnDesk) -> None:
    desk.caller = replace(ALICE, root=True)
    assert words(desk)[0].startswith("alice holds 2 slots")


def test_without_a_daemon_the_bookings_are_shown_and_the_doubt_first(
    desk: OwnDesk, tmp_path: Path
) -> None:
    (tmp_path / "status.json").unlink()
    desk.host.failing.clear()
    desk.quota = "cannot reach ds01d"
    shown = words(desk)
    assert shown[0].startswith("ds01d is not running (")
    assert shown[2:4] == ["the quota is not known: cannot reach ds01d", "alice holds 1 slot"]
    assert any(line.startswith("1.0 1g.10gb train._.1001 unknown") for line in shown)


def test_without_readable_books_the_exit_code_is_1(desk: OwnDesk, tmp_path: Path) -> None:
    (tmp_path / "status.json").unlink()
    result = desk.call("me")
    assert result.exit_code == 1
    assert "cannot read the books" in result.stdout


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (
            [{"type": "hold", "message": f"ends soon{HOSTILE}", "created_at": "2026-11-29"}, 7],
            r"2026-11-29 hold ends soon\x1b]0;x\x07\n",
        ),
        ([{"type": "hold", "message": "m", "created_at": 3}], "- hold m"),
        ({"no": "list"}, "the notices cannot be read:"),
    ],
)
def test_notices_are_those_of_the_login(
    desk: OwnDesk, tmp_path: Path, content: object, shown: str
) -> None:
    folder = tmp_path / "alerts"
    folder.mkdir()
    (folder / "alice.json").write_text(json.dumps(content))
    (folder / "bob.json").write_text(json.dumps([{"type": "hold", "message": "of bob"}]))
    desk.config = msgspec.structs.replace(desk.config, notify=NotifyConfig(alerts=str(folder)))
    lines = words(desk)
    assert any(line.startswith(shown) for line in lines)
    assert not any("of bob" in line for line in lines)


def own_notice(message: str, at: str = "2026-11-29T14:05:00+00:00") -> OwnNotice:
    return OwnNotice(
        type="gpu_free", message=message, created_at=at, container=None, slots=("1.0",)
    )


def test_notices_of_the_service_are_shown_with_those_of_the_lab_each_once(
    desk: OwnDesk, tmp_path: Path
) -> None:
    folder = tmp_path / "alerts"
    folder.mkdir()
    alerts = [
        {"type": "gpu_free", "message": "GPU 1.0 is free", "created_at": "2026-11-29T14:05:00Z"},
        {"type": "lab", "message": "reboot", "created_at": "2026-11-29T15:00:00Z"},
    ]
    (folder / "alice.json").write_text(json.dumps(alerts))
    notify = NotifyConfig(alerts=str(folder), greetings=True)
    desk.config = msgspec.structs.replace(desk.config, notify=notify)
    wish = OwnNoticeRequest(
        slot=None,
        count=2,
        profile=f"1g{HOSTILE}",
        since=DisplayTime(Wall(time.time() - 60)),
        until=DisplayTime(Wall(time.time() + 86400)),
    )
    desk.notices = OwnNotices(
        notices=(
            own_notice("GPU 1.0 is free"),
            own_notice(f"late{HOSTILE}", "2026-11-29T16:00:00+00:00"),
        ),
        requests=(wish,),
    )
    lines = words(desk)
    shown = lines[lines.index("NOTICES") + 2 : lines.index("WANTED NOTICES") - 1]
    assert [line.rpartition(") ")[2] for line in shown] == [
        "gpu_free GPU 1.0 is free",
        "lab reboot",
        r"gpu_free late\x1b]0;x\x07\n",
    ]
    assert lines[lines.index("WANTED NOTICES") + 2].startswith(r"2 1g\x1b]0;x\x07\n 20")
    document = desk.json("me")
    assert [notice["slots"] for notice in document["notices"]] == [["1.0"], [], ["1.0"]]
    assert [wanted["count"] for wanted in document["notice_requests"]] == [2]


def test_notices_that_cannot_be_asked_for_are_a_line_and_the_rest_is_shown(desk: OwnDesk) -> None:
    desk.notices = "cannot reach ds01d"
    assert words(desk)[0].startswith("alice holds")  # without a target nobody asks
    notify = NotifyConfig(greetings=True)
    desk.config = msgspec.structs.replace(desk.config, notify=notify)
    assert words(desk)[:2] == [
        "the notices are not known: cannot reach ds01d",
        "alice holds 2 slots: 1.1429 of 2 GPUs, 0.8571 GPUs left",
    ]


def test_other_hosts_are_a_line_below_and_may_leave_nothing(desk: OwnDesk) -> None:
    at = DisplayTime(Wall(time.time() - 7200))
    there = OtherHosts(used=1.0, hosts=("gpu02", f"gpu03{HOSTILE}"), at=at, problem="")
    desk.quota = quota_of_alice(left=0.0, other_hosts=there)
    shown = words(desk)
    assert shown[0] == "alice holds 2 slots: 1.1429 of 2 GPUs, 0 GPUs left"
    assert re.fullmatch(
        r"on other hosts: 1 GPU on gpu02, gpu03\\x1b\]0;x\\x07\\n \(2 h.* ago\)", shown[1]
    )
    assert r"1g.10gb 2 none left 1.2, a\x1b[31m\nb\u202e" in shown
    assert desk.json("me")["quota"]["other_hosts"]["held"] == 1.0


def test_unknown_hosts_leave_room_at_most_and_promise_none(desk: OwnDesk) -> None:
    there = OtherHosts(used=None, hosts=(), at=None, problem="cannot reach etcd")
    desk.quota = quota_of_alice(other_hosts=there)
    shown = words(desk)
    assert shown[:2] == [
        "alice holds 2 slots: 1.1429 of 2 GPUs, at most 0.8571 GPUs left",
        "on other hosts: unknown: cannot reach etcd",
    ]
    assert r"1g.10gb 2 - 1.2, a\x1b[31m\nb\u202e" in shown


def test_who_watches_asks_the_service_every_ten_seconds(desk: OwnDesk) -> None:
    """Of the sixty calls a minute that a user has, most are left for other commands."""
    notify = NotifyConfig(greetings=True)
    desk.config = msgspec.structs.replace(desk.config, notify=notify)
    asked: list[str] = []

    def read_quota(_: Config, user: str | None) -> QuotaDocument:
        asked.append("quota")
        raise Refused("no group")

    environment = replace(desk.environment(), read_quota=read_quota)
    seconds = 0.0
    sources = PersonalSources(environment, desk.config, ALICE, lambda: seconds)
    for second in range(60):
        seconds = float(second)
        # A failure is kept as long as an answer.
        assert sources.read_answers().problems == ("the quota is not known: no group",)
    assert len(asked) == 6


@pytest.mark.parametrize(
    ("left", "unit", "profile", "room"),
    [
        (None, "slots", None, True),
        (0.0, "slots", "1g.10gb", False),
        (1.0, "slots", None, True),
        (0.1429, "gpus", "1g.10gb", True),  # a seventh, as it is rounded
        (0.1429, "gpus", "2g.20gb", False),
        (0.8571, "gpus", None, False),
        (0.9, "gpus", "odd", False),
        (1.0, "gpus", "odd", True),
    ],
)
def test_what_a_quota_has_room_for(
    left: float | None, unit: str, profile: str | None, room: bool
) -> None:
    quota = quota_of_alice(left=left, unit=unit)
    kind = SlotType.PHYSICAL if profile is None else SlotType.MIG
    assert has_room(quota, SlotStatus(id=SlotId("1.0"), type=kind, profile=profile)) is room
