"""`history` tells what was done, from the files alone."""

from __future__ import annotations

import json

import pytest

from ds01d.model.actor import Actor
from ds01d.model.primitives import Source
from tests.support.commands import Desk
from tests.support.sample_host import GONE, REST
from tests.support.world import Died


def test_nothing_was_done_yet(desk: Desk) -> None:
    result = desk.call("history")
    assert result.stdout == "no changes\n"
    assert result.exit_code == 0
    assert desk.json("history") == {"entries": [], "older": 0}


def test_an_entry_says_what_and_how_it_ended(desk: Desk) -> None:
    desk.call("reconcile", "--wait")
    (entry,) = desk.json("history")["entries"]
    assert entry["outcome"] == "done"
    assert entry["kind"] == "stale-allocation"
    assert entry["before"]["slots"]["1.1"]["containers"] == [GONE]
    assert entry["after"]["slots"]["1.1"]["containers"] == []
    assert entry["at"] == "2027-01-15T08:02:00+00:00"
    header, row = desk.call("history").stdout.splitlines()
    assert " ".join(header.split()) == "AT ID OUTCOME KIND ACTION CONTAINER SLOT BY REASON"
    assert f"done     stale-allocation  release  {GONE}  1.1" in row
    assert "\n    state: booked in 1.1\n" in desk.call("history", "-v").stdout


def test_an_entry_says_who_did_it(desk: Desk) -> None:
    """The process that made the pass: root behind sudo here, ds01d where the daemon did."""
    desk.host.actor = Actor(uid=0, login="root", pid=77, sudo_uid=1001, sudo_login="ada")
    desk.call("reconcile", "--wait")
    (entry,) = desk.json("history")["entries"]
    assert entry["actor"] == {
        "uid": 0,
        "login": "root",
        "pid": 77,
        "sudo_uid": 1001,
        "sudo_login": "ada",
    }
    assert "  root (sudo ada)  " in desk.call("history").stdout
    assert desk.host.operations[-1].actor == desk.host.actor


def test_an_entry_from_before_that_was_noted_is_still_read(desk: Desk) -> None:
    desk.call("reconcile", "--wait")
    assert b'"actor"' not in b"".join(desk.host.history), "as 0.1.0 wrote it"
    (entry,) = desk.json("history")["entries"]
    assert (entry["by"], entry["actor"]) == ("ds01d", None)
    assert "  ds01d  " in desk.call("history").stdout


def test_a_failure_says_why(desk: Desk) -> None:
    desk.call("reconcile")
    desk.host.pass_time(130)
    desk.host.unwritable.add("state")
    desk.call("reconcile")
    (entry,) = desk.json("history")["entries"]
    assert entry["outcome"] == "failed"
    assert "no space left" in entry["failure"]
    assert "no space left" in desk.call("history").stdout


def test_what_was_never_closed_is_open(desk: Desk) -> None:
    desk.call("reconcile")
    desk.host.pass_time(130)
    desk.host.die_at = desk.host.steps + 4  # memory and the history's begin are written
    with pytest.raises(Died):
        desk.call("reconcile")
    desk.host.die_at = None
    assert [one["outcome"] for one in desk.json("history")["entries"]] == ["open"]


def test_it_is_cut_by_name_time_and_number(desk: Desk) -> None:
    desk.call("reconcile", "--wait")
    desk.host.remove(REST, told=True)
    desk.call("reconcile", "--wait")
    assert len(desk.json("history")["entries"]) == 2
    assert [e["container"] for e in desk.json("history", GONE)["entries"]] == [GONE]
    assert [e["slot"] for e in desk.json("history", "1.2")["entries"]] == ["1.2"]
    assert desk.json("history", "other")["entries"] == []
    assert desk.call("history", "other").stdout == 'no changes of "other"\n'
    late = desk.json("history", "--since", "2027-01-15T08:02:03")["entries"]
    assert [e["container"] for e in late] == [REST]
    newest = desk.call("history", "--limit", "1")
    assert REST in newest.stdout
    assert newest.stderr == "1 older change not shown: --limit 0 shows all\n"
    assert len(desk.json("history", "--limit", "0")["entries"]) == 2


def test_lines_cut_short_by_a_crash_are_left_out(desk: Desk) -> None:
    desk.call("reconcile", "--wait")
    desk.host.history.append(b'{"id": "torn')
    desk.host.history.append(json.dumps({"id": "x", "at": "?", "phase": "begin"}).encode())
    assert [e["outcome"] for e in desk.json("history")["entries"]] == ["done", "open"]


def test_no_source_has_to_answer(desk: Desk) -> None:
    desk.call("reconcile", "--wait")
    desk.host.failing |= set(Source)
    assert len(desk.json("history")["entries"]) == 1


def test_a_moment_that_makes_no_sense_is_refused(desk: Desk) -> None:
    result = desk.call("history", "--since", "yesterday")
    assert result.exit_code == 1
    assert 'expected an age such as "2d"' in result.stderr
