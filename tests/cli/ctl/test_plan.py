"""`plan` shows what a pass would do, in two forms that stay, and touches nothing."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from ds01d.config import DaemonConfig
from ds01d.errors import CheckpointBroken
from ds01d.model.books import Unreadable
from ds01d.model.drift import Action, Kind, Outcome, WaitReason
from ds01d.model.primitives import ContainerName, Digest, SlotId, Source, Wall
from ds01d.reconcile.ports import World
from ds01d.reporting.status import PassHealth, PublishedDrift
from ds01d.reporting.status_file import write_status
from tests.support.commands import Desk
from tests.support.sample_host import GONE, TRAIN
from tests.support.status import published
from tests.support.world import Host

TABLE = """\
KIND              CONTAINER    SLOT  ACTION   VERDICT  UNTIL                               REASON
stale-allocation  gone._.1002  1.1   release  waiting  2027-01-15T08:02:00+00:00 (in 2 m)  \
booked, but there is no such container; absence not proven yet, or hold not over

1 drift: 1 waiting
"""


def test_a_drift_is_a_row_that_says_until_when_and_why(desk: Desk) -> None:
    result = desk.call("plan")
    assert result.stdout == TABLE
    assert result.stderr == ""
    assert result.exit_code == 2


def test_json_is_one_object_with_the_keys_that_stay(desk: Desk) -> None:
    told = desk.json("plan")
    assert told["consistent"] is False
    assert told["sources"] == dict.fromkeys(
        ("docker", "nvml", "state", "metadata", "operations", "limits"), "ok"
    )
    assert told["mode"] == "repair"
    (drift,) = told["drifts"]
    assert drift == {
        "kind": "stale-allocation",
        "container": GONE,
        "slot": "1.1",
        "action": "release",
        "verdict": "waiting",
        "reason": "booked, but there is no such container;"
        " absence not proven yet, or hold not over",
        "gate": "proof",
        "until": "2027-01-15T08:02:00+00:00",
        "taken": [{"container": GONE, "slot": "1.1"}],
        "given": [],
        "evidence": drift["evidence"],
    }
    assert drift["evidence"][0] == "state: booked in 1.1"
    assert told["findings"] == []


def test_consistent_books_end_with_0(desk: Desk) -> None:
    settle(desk)
    result = desk.call("plan")
    assert result.stdout == "the books are consistent\n"
    assert result.exit_code == 0
    assert desk.json("plan")["consistent"] is True


def test_what_is_due_is_drift_too(desk: Desk) -> None:
    desk.call("reconcile")
    desk.host.pass_time(130)
    result = desk.call("plan")
    assert "due" in result.stdout
    assert result.exit_code == 2


@pytest.mark.parametrize("source", [Source.DOCKER, Source.NVML, Source.STATE, Source.METADATA])
def test_a_needed_source_that_does_not_answer_is_an_error(desk: Desk, source: Source) -> None:
    desk.host.failing.add(source)
    result = desk.call("plan")
    assert f"{source} does not answer" in result.stdout
    assert result.exit_code == 1
    assert desk.json("plan")["sources"][source.value] == f"{source} does not answer"
    assert desk.json("plan")["consistent"] is False


def test_a_witness_that_does_not_answer_is_none(desk: Desk) -> None:
    settle(desk)
    desk.host.failing.add(Source.OPERATIONS)
    result = desk.call("plan")
    assert "operations does not answer" in result.stdout
    assert result.exit_code == 0


def test_an_unreadable_state_is_drift(desk: Desk) -> None:
    desk.host.state = Unreadable(reason="line 1: no JSON", digest=Digest("x"))
    assert desk.call("plan").exit_code == 2
    assert desk.json("plan")["drifts"][0]["kind"] == Kind.UNREADABLE_STATE


def test_findings_are_shown_and_do_not_count(desk: Desk) -> None:
    settle(desk)
    assert desk.host.gpu is not None
    process = replace(desk.host.gpu.processes[0], pid=5000, container=None)
    desk.host.gpu = replace(desk.host.gpu, processes=(*desk.host.gpu.processes, process))
    result = desk.call("plan")
    assert "FINDINGS\nKIND           CONTAINER  SLOT  REASON\nrogue-process  -" in result.stdout
    assert result.stdout.endswith("the books are consistent; 1 finding\n")
    assert result.exit_code == 0
    (finding,) = desk.json("plan")["findings"]
    assert finding.keys() == {"kind", "container", "slot", "reason", "slots", "user", "since"}


def test_evidence_is_told_when_asked_for(desk: Desk) -> None:
    assert "docker: no container has this name" not in desk.call("plan").stdout
    assert "\n    docker: no container has this name" in desk.call("plan", "-v").stdout


def test_nothing_is_written(desk: Desk, host: Host) -> None:
    before = copy.deepcopy(vars(host))
    desk.call("plan")
    desk.json("plan")
    desk.call("reconcile", "--dry-run")
    desk.call("explain", TRAIN)
    assert vars(host) == before


def test_observe_mode_says_that_nothing_is_repaired(desk: Desk) -> None:
    desk.config = msgspec.structs.replace(
        desk.config, daemon=DaemonConfig(state_dir=desk.state_dir, mode="observe")
    )
    assert 'daemon.mode = "observe": nothing is repaired' in desk.call("plan").stdout
    assert desk.json("plan")["mode"] == "observe"


def test_one_row_is_one_line_however_long(desk: Desk) -> None:
    name = ContainerName(f"{'x' * 200}._.1002")
    state = desk.host.state
    assert not isinstance(state, Unreadable)
    slots = {i: replace(s, containers=(name,)) if i == "1.1" else s for i, s in state.slots.items()}
    desk.host.state = replace(state, slots=slots)
    rows = [line for line in desk.call("plan").stdout.splitlines() if name in line]
    assert len(rows) == 1


def settle(desk: Desk) -> None:
    """Put the books in order, as time and reconcile do."""
    assert desk.call("reconcile", "--wait").exit_code == 0


# --- what only the daemon knows


@pytest.fixture
def unreadable(desk: Desk, host: Host) -> Desk:
    """Someone who may not read the checkpoint; a daemon has watched the drift for a minute."""
    desk.call("reconcile")
    host.pass_time(60)

    class Private(type(host.world().state_dir)):  # type: ignore[misc]
        def load_checkpoint(self) -> bytes | None:
            raise CheckpointBroken("/x/checkpoint.json: Permission denied")

    @contextmanager
    def opened(_: object) -> Iterator[World]:
        yield replace(host.world(), state_dir=Private(host))

    desk.open_world = opened
    return desk


def daemon(
    desk: Desk, *, passes: PassHealth | None = None, unsaved: str = "", **changes: Any
) -> None:
    """What it published ten seconds ago of the one drift, on the clock of the host in memory."""
    now = desk.host.wall
    one = PublishedDrift(
        kind=Kind.STALE_ALLOCATION,
        container=ContainerName(GONE),
        slot=SlotId("1.1"),
        action=Action.RELEASE,
        outcome=Outcome.WAITING,
        gate=WaitReason.PROOF,
        reason="not absent for long enough",
        first_seen=Wall(now - 60),
        until=Wall(now + 60),
    )
    changed = msgspec.structs.replace(one, **changes)
    last = published(
        written_at=Wall(now - 10),
        next_sweep=Wall(now + 50),
        open_drifts=(changed,),
        passes=passes or PassHealth(),
        unsaved=unsaved,
    )
    write_status(last, desk.state_dir)


def test_who_may_not_read_the_checkpoint_sees_the_waits_of_the_daemon(unreadable: Desk) -> None:
    daemon(unreadable)
    told = unreadable.json("plan")
    (drift,) = told["drifts"]
    assert drift["until"] == "2027-01-15T08:02:00+00:00", "the wait began again"
    assert "not absent for long enough" in drift["reason"]
    assert "showing the waits that ds01d published 10 s ago" in told["troubles"][0]
    verdict = unreadable.json("explain", GONE)["verdict"]
    assert verdict["due"] == "2027-01-15T08:02:00+00:00"
    assert "proven in 60 s" in verdict["words"].replace("1 m", "60 s")
    unreadable.host.pass_time(30)
    assert unreadable.json("plan")["drifts"][0]["until"] == "2027-01-15T08:02:00+00:00"


def test_a_drift_that_only_the_checkpoint_shows_is_not_left_out(unreadable: Desk) -> None:
    daemon(unreadable, kind=Kind.WRONG_SLOT, container=ContainerName(TRAIN), difference="moved")
    drifts = {drift["kind"]: drift for drift in unreadable.json("plan")["drifts"]}
    assert drifts["wrong-slot"]["reason"] == "moved; not absent for long enough"
    assert drifts["stale-allocation"]["until"] is None


def test_and_without_a_daemon_that_it_is_not_known(unreadable: Desk) -> None:
    told = unreadable.json("plan")
    (drift,) = told["drifts"]
    assert (drift["verdict"], drift["until"]) == ("waiting", None)
    assert "known only to ds01d" in drift["reason"]
    assert "since ds01d is not running" in told["troubles"][0]
    verdict = unreadable.json("explain", GONE)["verdict"]
    assert verdict["due"] is None
    assert "known only to ds01d" in verdict["words"]


def test_a_repair_that_failed_is_failed_and_no_wait(desk: Desk) -> None:
    daemon(desk, outcome=Outcome.FAILED, gate=None, reason="no room", until=None)
    result = desk.call("plan")
    assert result.exit_code == 2
    assert "1 drift: 1 failed" in result.stdout
    (drift,) = desk.json("explain", GONE)["drifts"]
    assert (drift["verdict"], "no room" in drift["reason"]) == ("failed", True)


def test_while_no_pass_works_nothing_is_due_or_waits_and_that_is_said_first(desk: Desk) -> None:
    before = desk.json("plan")["drifts"]
    assert [(one["verdict"], one["gate"]) for one in before] == [("waiting", "proof")]
    since = Wall(desk.host.wall - 40)
    daemon(desk, passes=PassHealth(failing_since=since, failures=3, reason="no lock to be had"))
    plan = desk.call("plan")
    assert plan.stdout.startswith("warning: passes fail since ")
    assert "1 drift: 1 failed" in plan.stdout
    told = desk.json("plan")
    assert "nothing is repaired: no lock to be had" in told["troubles"][0]
    (drift,) = told["drifts"]
    assert (drift["verdict"], drift["until"]) == ("failed", None)
    assert "passes fail: no lock to be had" in drift["reason"]
    assert desk.call("explain", GONE).stdout.startswith("warning: passes fail since ")
    assert "no lock to be had" in desk.json("explain", GONE)["troubles"][0]


def test_what_waits_for_a_person_waits_also_while_no_pass_works(desk: Desk) -> None:
    assert desk.call("freeze", GONE).exit_code == 0
    desk.host.pass_time(3600)
    since = Wall(desk.host.wall)
    daemon(desk, passes=PassHealth(failing_since=since, failures=1, reason="no lock"))
    (drift,) = desk.json("plan")["drifts"]
    assert (drift["verdict"], drift["gate"]) == ("waiting", "freeze")


def test_a_drift_that_is_not_in_the_checkpoint_on_disk_is_not_left_out(desk: Desk) -> None:
    daemon(
        desk,
        unsaved="no room for it",
        container=ContainerName(TRAIN),
        outcome=Outcome.FAILED,
        gate=None,
        reason="no room",
        until=None,
    )
    plan = desk.call("plan")
    assert plan.exit_code == 2
    drifts = {drift["container"]: drift for drift in desk.json("plan")["drifts"]}
    assert (drifts[TRAIN]["verdict"], drifts[TRAIN]["reason"]) == ("failed", "no room")
    assert drifts[GONE]["until"] is None, "since when it is seen only the daemon knows"
    assert "the checkpoint is out of date" in plan.stdout
    assert "no room for it" in plan.stdout
