"""`explain` tells all that is known of one name, or where it was looked for in vain."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from ds01d.adapters.books.limits import LimitsFile
from ds01d.model.books import BadRecord
from ds01d.model.containers import State
from ds01d.model.limits import Exemption, Limits
from ds01d.model.primitives import LOCAL_SOURCES, ContainerName, Digest, Source, UserName
from tests.support.build import ALWAYS_UNLIMITED
from tests.support.commands import Desk
from tests.support.daemon import DATA
from tests.support.sample_host import GONE, REST, TRAIN, container


def test_a_container_that_lives(desk: Desk) -> None:
    told = desk.json("explain", TRAIN)
    assert told["verdict"] == {
        "says": "holds",
        "words": "holds 1.0 as alice: it is running with these devices",
        "slots": ["1.0"],
        "why": "running",
        "until": None,
        "due": None,
        "evidence": ["docker: running, asks for MIG-1-0"],
    }
    assert told["books"]["booked_in"] == ["1.0"]
    assert told["metadata"]["user"] == "alice"
    assert told["docker"]["state"] == "running"
    assert told["docker"]["asks_for"] == "MIG-1-0"
    assert told["docker"]["labels"] == ["aime.mlc=alice", "aime.mlc.USER=alice"]
    assert told["processes"][0]["pid"] == 4711
    assert told["processes"][0]["of"] == TRAIN
    assert told["memory"]["container_id"] == f"{1:064x}"
    assert told["drifts"] == []


def test_a_container_in_its_hold_says_until_when(desk: Desk) -> None:
    told = desk.json("explain", REST)
    assert told["verdict"]["why"] == "hold-after-stop"
    assert told["verdict"]["until"] == "2027-01-15T08:14:00+00:00"
    assert told["limits"]["hold_after_stop"] == "15 m"
    assert "UNTIL" not in desk.call("explain", REST).stdout  # no drift, so no table of them
    assert "until     2027-01-15T08:14:00+00:00 (in 14 m)" in desk.call("explain", REST).stdout


def test_limits_in_gpu_equivalents_are_shown_with_what_the_labs_scripts_do(desk: Desk) -> None:
    limits = LimitsFile(DATA / "lab" / "config" / "runtime" / "resource-limits.yaml").read()
    assert isinstance(limits, Limits)
    exempt = Exemption(user=UserName("carol"), key="max_runtime_h")
    desk.host.limits = replace(limits, exemptions=(exempt,))
    assert desk.json("explain", REST)["limits"] == {
        "user": "carol",
        "hold_after_stop": "15 m",
        "from": "defaults.gpu_hold_after_stop_h",
        "problem": "",
        "priority": 10,
        "reported_when_idle_for": "never",
        "max_gpu_equivalents": "2",
        "aggregate_gpu_limit": "2",
        "max_slots_per_container": "2",
        "whole_gpus": True,
        "group": "student",
        "scripts_stop_it_idle_for": "15 m",
        "scripts_stop_it_after": "1 d",
        "scripts_remove_it_stopped_for": "30 m",
        "exempt_from": ["max_runtime_h"],
    }


def test_a_hold_is_said_to_last_only_while_it_does(desk: Desk) -> None:
    told = desk.json("explain", REST)["verdict"]
    assert told["words"] == "holds 1.2 as carol: it is stopped, and its hold lasts"
    desk.host.pass_time(15 * 60)
    desk.call("reconcile", "--wait")
    assert desk.host.bookings() == {(TRAIN, "1.0")}
    told = desk.json("explain", REST)["verdict"]
    assert told["words"] == "holds nothing as carol: it is stopped, and nothing is booked for it"


def test_a_hold_without_end_is_said_to_have_none(desk: Desk) -> None:
    desk.host.limits = ALWAYS_UNLIMITED
    words = desk.json("explain", REST)["verdict"]["words"]
    assert words == "holds 1.2 as carol: it is stopped, and its hold does not end"


def test_a_container_that_is_gone_shows_its_drift_and_the_gate(desk: Desk) -> None:
    desk.call("reconcile")
    desk.host.pass_time(8)
    lines = desk.call("explain", GONE).stdout.splitlines()
    assert lines[0] == f"container {GONE}"
    assert lines[3] == "free: no container has this name; proven in 1 m 52 s"
    assert "absence not proven yet, or hold not over" in "\n".join(lines)
    assert "absent since         2027-01-15T08:00:00+00:00 (8 s ago)" in lines


def test_what_was_done_to_it_is_told(desk: Desk) -> None:
    desk.call("reconcile", "--wait")
    told = desk.json("explain", "1.1")
    assert [deed["kind"] for deed in told["history"]] == ["stale-allocation"]
    assert "HISTORY" in desk.call("explain", "1.1").stdout


def test_a_slot_tells_its_holders_and_processes(desk: Desk) -> None:
    told = desk.json("explain", "1.0")
    assert told["type"] == "slot"
    assert told["slot"]["device"] == "MIG-1-0"
    assert told["holders"] == [
        {
            "container": TRAIN,
            "user": "alice",
            "verdict": "holds 1.0 as alice: it is running with these devices",
        }
    ]
    assert told["processes"][0]["command"] == "python"


def test_a_slot_tells_who_uses_it_without_being_booked_there(desk: Desk) -> None:
    assert desk.json("explain", "1.3")["slot"]["used_by"] == []
    desk.host.run(replace(container("web", 9, "x", State.RUNNING, "MIG-1-3"), labels={}))
    assert desk.json("explain", "1.3")["slot"]["used_by"] == ["web"]
    lines = desk.call("explain", "1.3").stdout.splitlines()
    assert ["used", "by", "web"] in [line.split() for line in lines]


def test_freezes_on_it_and_on_everything_are_told(desk: Desk) -> None:
    desk.call("freeze", "--reason", "moving house")
    desk.call("freeze", "1.1")
    subjects = [one["subject"] for one in desk.json("explain", GONE)["freezes"]]
    assert subjects == [None, "1.1"]
    assert "moving house" in desk.call("explain", TRAIN).stdout


def test_a_foreign_container_is_known_too(desk: Desk) -> None:
    stranger = replace(container("web", 9, "x", State.RUNNING, "MIG-1-3"), labels={})
    desk.host.run(stranger)
    told = desk.json("explain", "web")
    assert told["verdict"]["says"] is None
    assert told["verdict"]["words"].startswith("foreign")


def test_an_id_or_its_beginning_is_enough(desk: Desk) -> None:
    assert desk.json("explain", f"{3:064x}")["subject"] == REST


@pytest.mark.parametrize("source", LOCAL_SOURCES)
def test_a_source_that_does_not_answer_is_unknown_and_not_empty(desk: Desk, source: Source) -> None:
    desk.host.failing.add(source)
    told = desk.json("explain", TRAIN if source is not Source.METADATA else GONE)
    assert told["sources"][source.value] == f"{source} does not answer"
    part = {
        Source.DOCKER: "docker",
        Source.NVML: "processes",
        Source.STATE: "books",
        Source.METADATA: "metadata",
        Source.OPERATIONS: "operations",
        Source.LIMITS: "limits",
    }[source]
    assert told[part] == {"unknown": f"{source} does not answer"}


def test_a_broken_record_says_why(desk: Desk) -> None:
    desk.host.records[ContainerName(TRAIN)] = BadRecord(
        container=ContainerName(TRAIN), reason="no JSON", digest=Digest("b"), replaceable=True
    )
    assert desk.json("explain", TRAIN)["metadata"]["unreadable"] == "no JSON"


def test_an_unknown_name_is_told_where_it_was_looked_for(desk: Desk) -> None:
    result = desk.call("explain", "trian")
    assert result.stderr == ('ds01ctl: no slot or container "trian"; did you mean train._.1001?\n')
    assert result.exit_code == 1
    desk.host.failing.add(Source.DOCKER)
    told = desk.call("explain", "nobody").stderr
    assert "of Docker" not in told
    assert "not read: docker (docker does not answer)" in told


def test_what_others_claim_of_a_container_is_shown_as_claims(desk: Desk, tmp_path: Path) -> None:
    """Whoever may write to events.jsonl may write anything: it is shown, and decides nothing."""
    path = tmp_path / "events.jsonl"
    before = desk.json("explain", TRAIN)
    desk.config = msgspec.structs.replace(
        desk.config, logs=msgspec.structs.replace(desk.config.logs, events=str(path))
    )
    assert desk.json("explain", TRAIN) == {**before, "claims": []}
    lines = [
        {"event_type": "container.remove", "source": "ds01d", "details": {"container": TRAIN}},
        {"event_type": "container.remove", "details": {"container": "another"}},
        {"event_type": "container.create_failed", "details": {"name": TRAIN, "x": "\x1b[2J\n"}},
        {"event_type": "maintenance.idle_kill", "user": "root", "details": {"container": TRAIN}},
    ]
    text = "".join(
        json.dumps({"timestamp": "2026-07-22T08:20:00Z", **line}) + "\n" for line in lines
    )
    odd = f'{{"timestamp":"","event_type":"?","details":{{"container":"{TRAIN}"}}}}\n'.encode()
    path.write_bytes(
        f"{text}no JSON of {TRAIN}\n".encode()
        + odd.replace(b"?", b"\xff")
        + b"\xff\0"
        + b"[" * 4000
        + b"\n"
    )
    told = desk.json("explain", TRAIN)
    kinds = [claim["type"] for claim in told.pop("claims")]
    assert kinds == ["container.create_failed", "maintenance.idle_kill"]
    assert told == before
    shown = desk.call("explain", TRAIN).stdout
    assert "maintenance.idle_kill" in shown
    assert "\x1b" not in shown
    path.unlink()
    path.mkdir()
    assert "not a regular file" in desk.json("explain", TRAIN)["claims"]["unknown"]
