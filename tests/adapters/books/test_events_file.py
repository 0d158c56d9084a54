"""events.jsonl: what a lab's reports read, beside the operations log, whatever happens to it."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ds01d.adapters.books import events_file
from ds01d.adapters.books.events_file import MAX_LINE_BYTES, EventsFile, format_event
from ds01d.adapters.books.operations_log import OperationsLog
from ds01d.model.actor import Actor
from ds01d.model.books import LogLine
from ds01d.model.primitives import Wall

LINE = LogLine(
    at=Wall(1_784_000_000.25),
    operation="allocate",
    user="ada",
    container="train",
    gpu="1.0",
    status="success",
    details="ALLOCATED",
    actor=Actor(uid=1001, login="ada", pid=77),
)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text().splitlines()]


def test_a_line_has_the_schema_of_the_lab(tmp_path: Path) -> None:
    log, events = tmp_path / "operations.log", tmp_path / "events.jsonl"
    OperationsLog(log, EventsFile(events)).append(LINE)
    assert events.read_text() == (
        '{"timestamp":"2026-07-14T03:33:20.250000Z","event_type":"gpu.allocated",'
        '"schema_version":"1","user":"ada","source":"ds01d","details":{"container":"train",'
        '"gpu":"1.0","reason":"ALLOCATED","by":"by ada (uid 1001, pid 77)"}}\n'
    )
    assert log.read_text().count("\n") == 1  # and the log is what it was


@pytest.mark.parametrize(
    ("operation", "status", "kind"),
    [
        ("allocate", "success", "gpu.allocated"),
        ("allocate", "refused", "gpu.rejected"),
        ("book", "done", "gpu.allocated"),
        ("release", "success", "gpu.released"),
        ("release", "done", "gpu.released"),
        ("release", "failed", None),
        ("create_start", "pending", "container.create_start"),
        ("create_failed", "failed", "container.create_failed"),
        ("create_success", "success", "container.create_success"),
        ("start", "success", "container.start"),
        ("stop", "success", "container.stop"),
        ("remove", "success", "container.remove"),
        ("remove", "failed", None),
        ("recount", "done", None),
    ],
)
def test_what_was_not_done_is_no_event(operation: str, status: str, kind: str | None) -> None:
    event = format_event(replace(LINE, operation=operation, status=status))
    assert (None if event is None else json.loads(event)["event_type"]) == kind


@example("x" * 5000, "train", "ada")
@example("\u2028" * 700, "train", "ada")
@example("", "train", "\U0001f600" * 600)
@given(st.text(max_size=9000), st.text(max_size=400), st.text(max_size=600))
def test_every_line_is_one_and_short(details: str, container: str, user: str) -> None:
    event = format_event(replace(LINE, details=details, container=container, user=user))
    assert event is not None
    assert len(event) < MAX_LINE_BYTES
    assert re.fullmatch(rb"[ -~]*", event)
    told = json.loads(event)
    if "truncated" in told["details"]:
        assert told["details"].keys() == {"truncated", "original_size"}
        assert told["details"]["original_size"] >= MAX_LINE_BYTES
    elif details:
        assert told["details"]["reason"] == details or details == "N/A"


def test_rotation_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    file = EventsFile(path)
    file.send([(LINE, "")])
    path.rename(tmp_path / "events.jsonl.1")  # by rename
    file.send([(LINE, "")])
    assert len(read(path)) == len(read(tmp_path / "events.jsonl.1")) == 1
    os.truncate(path, 0)  # by copy and truncate
    file.send([(LINE, "")])
    assert b"\0" not in path.read_bytes()
    assert len(read(path)) == 1
    with path.open("a") as other:  # a writer who was killed in the middle of its line
        other.write('{"timestamp":"2026')
    file.send([(LINE, "")])
    assert json.loads(path.read_text().splitlines()[-1])["event_type"] == "gpu.allocated"


def test_many_lines_are_few_writes_and_none_is_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def append(path: Path, line: str) -> None:
        sizes.append(len(line) + 1)
        with path.open("a") as opened:
            opened.write(f"{line}\n")

    monkeypatch.setattr(events_file, "append_line", append)
    path = tmp_path / "events.jsonl"
    EventsFile(path).send([(LINE, "")] * 1000)
    assert len(read(path)) == 1000
    assert max(sizes) <= 4096
    assert len(sizes) < 100


@pytest.mark.parametrize("what", ["link", "fifo", "folder", "hard link", "no folder"])
def test_a_target_that_cannot_be_written_is_a_problem_and_stops_nothing(
    tmp_path: Path, what: str
) -> None:
    folder, victim = tmp_path / "log", tmp_path / "victim"
    victim.write_text("somebody else's\n")
    path = folder / "events.jsonl"
    if what != "no folder":
        folder.mkdir()
    match what:
        case "link":
            path.symlink_to(victim)
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "hard link":
            os.link(victim, path)
        case _:
            pass
    file = EventsFile(path)
    log = OperationsLog(tmp_path / "operations.log", file)
    log.append(LINE)
    is_empty, (problem,) = log.flush()
    assert not is_empty
    assert str(path) in problem
    assert victim.read_text() == "somebody else's\n"
    # What waited comes in order once that is over.
    if what == "no folder":
        folder.mkdir()
    elif what == "folder":
        path.rmdir()
    else:
        path.unlink()
    log.append(replace(LINE, operation="release"))
    assert [event["event_type"] for event in read(path)] == ["gpu.allocated", "gpu.released"]
    assert log.flush() == (True, ())


def test_what_waits_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_file, "_MAX_WAITING", 3)
    path = tmp_path / "log" / "events.jsonl"
    file = EventsFile(path)
    file.send([(replace(LINE, container=f"c{number}"), "") for number in range(5)])
    assert f"2 events missing in {path}" in file.take_problem()
    path.parent.mkdir()
    assert file.flush()
    assert [event["details"]["container"] for event in read(path)] == ["c2", "c3", "c4"]
