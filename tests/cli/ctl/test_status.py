"""`status` shows what the daemon published, and without it what the books say."""

from __future__ import annotations

import os
import time
from datetime import datetime
from typing import Any

import msgspec
import pytest

from ds01d.adapters.docker.engine_warnings import warn_stream_cut
from ds01d.model.books import SlotType
from ds01d.model.drift import Action, Kind, Outcome
from ds01d.model.primitives import ContainerName, SlotId, Source, UserName, Wall
from ds01d.reporting.fleet_status import FleetCounts, FleetFindingStatus, FleetStatus
from ds01d.reporting.status import (
    DriftCount,
    Holder,
    PassHealth,
    PublishedDrift,
    SlotStatus,
    SourceStatus,
)
from ds01d.reporting.status_file import write_status
from tests.support.commands import Desk
from tests.support.status import published

BOOKS = """\
ds01d is not running (no status in {state_dir})
showing the bookings in /var/lib/ds01/gpu-state.json
SLOT  TYPE     CONTAINER     USER   STATE    UNTIL  OTHERS
1.0   1g.10gb  train._.1001  alice  unknown  -      -
1.1   1g.10gb  gone._.1002   bob    unknown  -      -
1.2   1g.10gb  rest._.1003   carol  unknown  -      -
1.3   1g.10gb  -             -      free     -      -

3 slots of 4 booked
"""


def test_what_the_daemon_published_is_shown(desk: Desk) -> None:
    desk.host.failing.add(Source.STATE)  # else it is the state that tells who is booked
    write_status(published(), desk.state_dir)
    result = desk.call("status")
    assert result.exit_code == 0
    words = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert words[1].startswith("1.0 1g.10gb rest._.1003 carol exited 20")
    assert words[1].endswith("(in 1 h) web, pid 7")
    assert words[2] == "0 physical_gpu - - free - -"
    assert "1 slot of 2 booked" in words
    assert f"daemon ready, mode repair, version 1.2.3, pid {os.getpid()}" in words
    assert "docker ok for 1 h" in words
    assert "nvml down for 1 m 30 s: no driver" in words
    assert "pace 1 of 2 releases without a destroy event in 10 m" in words
    assert "drifts 2 wrong-slot waiting" in words
    assert "shared-slot - - two" in words


def test_and_as_json(desk: Desk) -> None:
    desk.host.failing.add(Source.STATE)
    write_status(published(), desk.state_dir)
    told = desk.json("status")
    assert told["daemon"]["alive"] is True
    assert told["daemon"]["pace"] == {"used": 1, "limit": 2, "window_s": 600.0}
    assert told["slots"][0]["holders"][0]["container"] == "rest._.1003"
    assert told["slots"][0]["holders"][0]["until"].endswith("+00:00")
    assert told["sources"]["nvml"]["reason"] == "no driver"
    assert told["drifts"] == [{"kind": "wrong-slot", "verdict": "waiting", "count": 2}]
    assert told["findings"][0]["kind"] == "shared-slot"


def test_all_of_a_large_fleet_are_counted_and_a_few_findings_shown(desk: Desk) -> None:
    """The lists of the status are cut at 200, and no terminal shows as many lines."""
    fleet = FleetStatus(
        state="member",
        since=Wall(0.0),
        counts=FleetCounts(
            hosts=300, unseen=7, drifts={"late": {"waiting": 260}}, findings={"odd-key": 250}
        ),
        findings=tuple(
            FleetFindingStatus(kind="odd-key", subject=f"k{number}", reason="cannot be read")
            for number in range(200)
        ),
    )
    desk.host.failing.add(Source.STATE)
    write_status(msgspec.structs.replace(published(), fleet=fleet), desk.state_dir)
    lines = [" ".join(line.split()) for line in desk.call("status").stdout.splitlines()]
    begin = lines.index("fleet hosts 300, this one is member")
    assert lines[begin + 1 : begin + 4] == [
        "7 without a heartbeat",
        "260 drifts",
        "odd-key k0: cannot be read",
    ]
    assert lines[begin + 8] == "245 more findings: ds01ctl status --json"


def test_since_when_a_container_is_idle(desk: Desk) -> None:
    desk.host.failing.add(Source.STATE)
    now = time.time()
    for idle_s, shown in ((300.0, "running -"), (15_000.0, "running, idle 4 h 10 m -")):
        status = published()
        holder = Holder(
            container=ContainerName("book._.1001"),
            user=UserName("alice"),
            state="running",
            idle_since=Wall(now - idle_s),
        )
        slots = (msgspec.structs.replace(status.slots[0], holders=(holder,), foreign=()),)
        write_status(msgspec.structs.replace(status, slots=slots), desk.state_dir)
        words = [" ".join(line.split()) for line in desk.call("status").stdout.splitlines()]
        assert words[1] == f"1.0 1g.10gb book._.1001 alice {shown} -"
        since = desk.json("status")["slots"][0]["holders"][0]["idle_since"]
        assert abs(datetime.fromisoformat(since).timestamp() - (now - idle_s)) < 2


def test_without_a_daemon_the_books_are_shown_and_it_is_said(desk: Desk) -> None:
    result = desk.call("status")
    assert result.stdout == BOOKS.format(state_dir=desk.state_dir)
    assert result.exit_code == 0
    told = desk.json("status")
    assert told["daemon"] == {"alive": False, "reason": f"no status in {desk.state_dir}"}
    assert [slot["slot"] for slot in told["slots"]] == ["1.0", "1.1", "1.2", "1.3"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"written_at": -7200.0, "next_sweep": None}, "last status 2 h ago"),
        ({"pid": 2**22 + 1}, f"process {2**22 + 1} has ended"),
    ],
)
def test_a_daemon_that_is_silent_or_gone_does_not_count(
    desk: Desk, changes: dict[str, Any], why: str
) -> None:
    if "written_at" in changes:  # so long ago now, not when the tests were collected
        changes = {**changes, "written_at": time.time() + changes["written_at"]}
    write_status(published(**changes), desk.state_dir)
    result = desk.call("status")
    assert f"ds01d is not running ({why}" in result.stdout
    assert "train._.1001" in result.stdout
    assert desk.json("status")["daemon"]["alive"] is False


def test_a_daemon_that_sweeps_by_the_clock_may_be_silent_for_long(desk: Desk) -> None:
    now = time.time()
    write_status(published(written_at=now - 3000, next_sweep=now + 600), desk.state_dir)
    assert desk.json("status")["daemon"]["alive"] is True


def test_a_status_that_makes_no_sense_is_no_word(desk: Desk) -> None:
    (desk.state_dir / "status.json").write_text("{")
    result = desk.call("status")
    assert "ds01d is not running (cannot read its status" in result.stdout
    assert result.exit_code == 0


def test_without_daemon_and_books_it_is_an_error(desk: Desk) -> None:
    desk.host.failing.add(Source.STATE)
    result = desk.call("status")
    assert "cannot read the books: state: state does not answer" in result.stdout
    assert result.exit_code == 1


def test_freezes_are_those_of_now(desk: Desk) -> None:
    write_status(published(), desk.state_dir)
    desk.call("freeze", "--reason", "moving house")
    assert "frozen: everything, by " in desk.call("status").stdout
    assert desk.json("status")["freezes"][0]["reason"] == "moving house"


def test_warnings_about_docker_are_shown_with_their_fix(desk: Desk) -> None:
    cut = warn_stream_cut(60.0, bridged=True)
    write_status(published(warnings=(cut,)), desk.state_dir)
    told = " ".join(desk.call("status").stdout.split())
    assert "the stream of Docker's events is cut every 60 s" in told
    assert "proxy_read_timeout" in told
    assert desk.json("status")["daemon"]["warnings"] == [
        {"kind": "stream-cut", "reason": cut.text, "fix": cut.fix}
    ]


def test_other_engines_and_degradation_stand_out(desk: Desk) -> None:
    write_status(published(engine_trusted=False, degraded=("history: disk full",)), desk.state_dir)
    told = desk.call("status").stdout
    assert "ds01ctl thaw --engine" in told
    assert "history: disk full" in told


FAILING = PassHealth(
    last_success=Wall(1_000.0), failing_since=Wall(2_000.0), failures=3, reason="no lock to be had"
)


def test_that_passes_fail_comes_first(desk: Desk) -> None:
    write_status(published(passes=FAILING), desk.state_dir)
    first, *rest = desk.call("status").stdout.splitlines()
    assert first.startswith("passes fail since 1970-01-01 00:33:20, nothing is repaired: no lock")
    assert any(line.startswith("daemon") and "passes fail, mode repair" in line for line in rest)
    daemon = desk.json("status")["daemon"]
    assert (daemon["alive"], daemon["ready"]) == (True, False)
    assert daemon["passes"] == {
        "failing": True,
        "since": "1970-01-01T00:33:20+00:00",
        "reason": "no lock to be had",
        "failures": 3,
        "last_success": "1970-01-01T00:16:40+00:00",
    }


@pytest.mark.parametrize("source", [Source.STATE, Source.METADATA])
def test_books_that_the_daemon_cannot_read_come_first(desk: Desk, source: Source) -> None:
    desk.host.failing.add(source)
    now = Wall(time.time())
    fine = SourceStatus(ok=True, since=Wall(now - 3600), last_success=now)
    down = SourceStatus(ok=False, since=Wall(now - 60), reason="it is a directory")
    sources = {Source.DOCKER: fine, Source.STATE: fine, Source.METADATA: fine, source: down}
    write_status(published(sources=sources, drifts=()), desk.state_dir)
    result = desk.call("status")
    assert result.exit_code == 1
    assert result.stdout.startswith("cannot read the books, the slots may be stale")
    words = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "drifts none known" in words
    told = desk.json("status")
    assert told["books"] == {"ok": False, "reason": f"{source}: it is a directory"}
    failing = PassHealth(failing_since=now, failures=1, reason="no lock")
    write_status(published(sources=sources, passes=failing), desk.state_dir)
    first, second, *_ = desk.call("status").stdout.splitlines()
    assert first.startswith("passes fail since ")
    assert second.startswith("cannot read the books")


def test_a_repair_that_failed_comes_first_and_is_listed(desk: Desk) -> None:
    failed = PublishedDrift(
        kind=Kind.STALE_ALLOCATION,
        container=ContainerName("a._.1001"),
        slot=SlotId("1.0"),
        action=Action.RELEASE,
        outcome=Outcome.FAILED,
        reason="no room",
    )
    count = DriftCount(kind=failed.kind, outcome=failed.outcome, count=1)
    write_status(published(drifts=(count,), open_drifts=(failed,)), desk.state_dir)
    assert desk.call("status").stdout.startswith("1 repair failed: no room\n")
    (drift,) = desk.json("status")["open_drifts"]
    assert (drift["verdict"], drift["reason"], drift["slot"]) == ("failed", "no room", "1.0")


def test_a_status_that_is_overdue_says_so_first(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    write_status(published(written_at=Wall(now - 90), next_sweep=Wall(now - 30)), desk.state_dir)
    assert "this is 1 m 30 s old, a new status is" in desk.call("status").stdout.splitlines()[0]
    assert "overdue" in desk.json("status")["daemon"]["reason"]


def test_who_is_booked_is_read_from_the_state_and_not_a_sweep_old(desk: Desk) -> None:
    write_status(published(), desk.state_dir)  # it knows rest on 1.0, which is booked on 1.2, and 0
    slots = {slot["slot"]: slot for slot in desk.json("status")["slots"]}
    booked = {name: [h["container"] for h in slot["holders"]] for name, slot in slots.items()}
    assert booked == {
        "1.0": ["train._.1001"], "1.1": ["gone._.1002"], "1.2": ["rest._.1003"], "1.3": [], "0": [],
    }  # fmt: skip
    assert slots["1.0"]["foreign"] == ["web", "pid 7"]
    assert slots["1.0"]["uuid"] == "MIG-1"


def test_a_slot_that_is_used_without_a_booking_is_not_free(desk: Desk) -> None:
    desk.host.failing.add(Source.STATE)
    used = SlotStatus(id=SlotId("1.0"), type=SlotType.MIG, foreign=("web",))
    free = SlotStatus(id=SlotId("1.1"), type=SlotType.MIG)
    write_status(published(slots=(used, free)), desk.state_dir)
    words = [line.split() for line in desk.call("status").stdout.splitlines()]
    assert "in use" in " ".join(words[1])
    assert "free" in words[2]
