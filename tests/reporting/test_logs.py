"""The log: what reaches the journal, a terminal and a pipe, and that it never fails."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from ds01d.model.drift import Action, Kind
from ds01d.reporting import log_values, logs
from ds01d.reporting.journal_socket import JournalSocket
from ds01d.reporting.message_ids import MESSAGES, Event, Priority
from ds01d.reporting.message_templates import render_message
from tests.support.journald import in_journal

SETTLED: dict[str, Any] = {
    "drift": "stale-allocation",
    "action": "release",
    "verdict": "done",
    "container": "test._.1001",
    "slot": "1.0",
    "reason": "destroyed 6 s ago",
    "user": None,
    "evidence": ("Docker: destroy", "inspect: 404"),
}


@pytest.fixture(autouse=True)
def _unchanged() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:], root.level = before


class Journal:
    """Takes what `sendv` would take."""

    def __init__(self) -> None:
        self.entries: list[dict[str, str]] = []

    def __call__(self, *fields: str) -> None:
        pairs = [field.split("=", 1) for field in fields]
        assert len({name for name, _ in pairs}) == len(pairs)
        self.entries.append(dict(pairs))


def journalled(event: str, level: str = "debug", **keys: object) -> dict[str, str]:
    journal = Journal()
    logs.setup_logging("journal", level, send=journal)
    structlog.get_logger().info(event, **keys)
    (entry,) = journal.entries
    return entry


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_settled_drift_has_its_fields_in_the_journal() -> None:
    assert journalled(Event.DRIFT_SETTLED, **SETTLED) == {
        "MESSAGE": 'stale-allocation: "test._.1001" on slot 1.0 released (destroyed 6 s ago)',
        "PRIORITY": "5",
        "SYSLOG_IDENTIFIER": "ds01d",
        "MESSAGE_ID": MESSAGES[Event.DRIFT_SETTLED, Action.RELEASE].id,
        "DS01_EVENT": "drift.settled",
        "DS01_DRIFT": "stale-allocation",
        "DS01_ACTION": "release",
        "DS01_VERDICT": "done",
        "DS01_CONTAINER": "test._.1001",
        "DS01_SLOT": "1.0",
        "DS_DRIFT": "stale-allocation",
        "DS_CONTAINER": "test._.1001",
        "DS_SLOT": "1.0",
        "DS01_REASON": "destroyed 6 s ago",
        "DS01_EVIDENCE": "Docker: destroy, inspect: 404",
    }


def test_the_message_decides_the_priority() -> None:
    found = {"drift": Kind.STALE_ALLOCATION}
    broken = {"drift": Kind.UNREADABLE_STATE}
    assert journalled(Event.DRIFT_FOUND, **found)["PRIORITY"] == "6"
    assert journalled(Event.DRIFT_FOUND, **broken)["PRIORITY"] == "4"
    assert journalled(Event.DRIFT_FOUND, drift="else")["PRIORITY"] == "6"
    assert "MESSAGE_ID" not in journalled(Event.DRIFT_FOUND, drift="else")
    assert journalled("something.else")["PRIORITY"] == "6"


def test_what_is_an_error() -> None:
    """Whoever is paged by `journalctl -p err` is paged for this and nothing else."""
    errors = {(str(e), str(w)) for (e, w), one in MESSAGES.items() if one.priority is Priority.ERR}
    assert errors == {
        ("config.refused", ""), ("daemon.failed", ""), ("daemon.stalled", ""), ("drift.failed", ""),
        ("engine.changed", ""), ("finding.new", "unhealthy-gpu"), ("history.failed", ""),
        ("pace.reached", ""), ("pass.failed", ""), ("service.failed", ""),
    }  # fmt: skip


def test_an_end_is_told_to_whoever_looks_at_changes() -> None:
    ends = {"source.up", "finding.gone", "engine.trusted", "inventory.steady", "pace.over",
        "freeze.over", "history.works", "pass.works", "pass.quick", "degraded.over",
        "drift.gone"}  # fmt: skip
    priorities = {str(event): one.priority for (event, _), one in MESSAGES.items()}
    assert {priorities[end] for end in ends} == {Priority.NOTICE}


@pytest.mark.parametrize(
    ("event", "keys", "told"),
    [
        (Event.DRIFT_SETTLED, {"drift": "wrong-count", "slot": "1", "action": "recount"},
            "wrong-count: on slot 1 counted again"),
        (Event.DRIFT_FOUND,
            {"drift": "lost-allocation", "container": "c", "gate": "pace", "reason": "it was"},
            'lost-allocation: "c" found (it was); waiting for pace'),
        (Event.SOURCE_UP, {"source": "docker", "seconds": "7500", "times": "3"},
            "docker available again after 2 h 5 m (occurred 3 times)"),
        (Event.SOURCE_UP, {"source": "docker", "seconds": "x"}, "docker available again after ?"),
        (Event.DRIFT_SETTLED, {}, "?: repaired"),
        (Event.SOURCE_DOWN, {"source": "docker", "reason": "refused"},
            "docker unavailable: refused; nothing that depends on it is changed"),
        (Event.DAEMON_STOP, {}, "exiting"),
        (Event.DAEMON_STOP, {"reason": "[a] {b}"}, "exiting: [a] {b}"),
        ("else", {"a": "1"}, "else a=1"),
    ],
)  # fmt: skip
def test_a_sentence_leaves_out_what_is_not_known(
    event: str, keys: dict[str, str], told: str
) -> None:
    assert render_message(event, keys) == told


def test_the_level_is_judged_by_the_priority_of_the_event() -> None:
    stream = io.StringIO()
    logs.setup_logging("json", "warning", stderr=stream)
    log = structlog.get_logger()
    log.info(Event.DRIFT_FAILED)
    log.info(Event.DRIFT_SETTLED)
    log.info("x")
    log.debug("x")
    log.error("x")
    assert [line["event"] for line in lines(stream)] == ["drift.failed", "x"]


def test_a_line_of_json_keeps_types_and_has_a_time_in_utc() -> None:
    stream = io.StringIO()
    logs.setup_logging("json", stderr=stream)
    structlog.get_logger().info("x", n=1, f=0.5, nan=float("nan"), none=None, path=Path("/a"))
    (line,) = lines(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("timestamp"))
    assert line == {
        "level": "info", "event": "x", "message": "x n=1 f=0.5 nan=nan path=/a",
        "n": 1, "f": 0.5, "nan": "nan", "none": None, "path": "/a",
    }  # fmt: skip


def test_keys_that_trap_the_standard_library_are_ordinary_here() -> None:
    stream = io.StringIO()
    logs.setup_logging("json", stderr=stream)
    structlog.get_logger().info("x", name="n", args="a", message="m", level="l", msg="s")
    (line,) = lines(stream)
    assert (line["name"], line["args"], line["msg"]) == ("n", "a", "s")
    assert line["level"] == "info"
    entry = journalled("x", name="n", args="a", event_="e", message="m", priority="0")
    assert entry["DS01_NAME"] == "n"
    assert entry["DS01_PRIORITY"] == "0"
    assert entry["PRIORITY"] == "6"


NASTY = 'a\nMESSAGE=b\r\0\x1b[2J\u2028\u202e\udcff"'


@pytest.mark.parametrize("form", ["journal", "console", "json"])
def test_nothing_from_outside_breaks_a_line(form: Any) -> None:
    journal, stream = Journal(), io.StringIO()
    logs.setup_logging(form, stderr=stream, send=journal)
    structlog.get_logger().info(
        Event.FINDING_NEW, finding=NASTY, container=NASTY, evidence=[NASTY, [NASTY]]
    )
    written = stream.getvalue().removesuffix("\n")
    for text in [written, *(value for entry in journal.entries for value in entry.values())]:
        assert text.isprintable()
        text.encode()


def test_a_huge_value_is_cut_and_says_so() -> None:
    entry = journalled("x", reason="y" * 10**6, many=list(range(1000)))
    assert entry["DS01_REASON"] == "y" * log_values.MAX_TEXT_LENGTH + "… (1000000 characters)"
    assert entry["DS01_MANY"].endswith("99, … (1000 in all)")
    assert all(len(value) < 5000 for value in entry.values())


def test_an_exception_is_one_line() -> None:
    stream = io.StringIO()
    logs.setup_logging("json", stderr=stream)

    def fail() -> None:
        raise OSError("no\nway")

    try:
        fail()
    except OSError as error:
        structlog.get_logger().exception(Event.PASS_FAILED, reason=error)
    (line,) = lines(stream)
    assert line["reason"] == r"no\nway"
    assert line["traceback"].startswith("Traceback (most recent call last):\\n")


def test_what_libraries_say_is_told() -> None:
    stream = io.StringIO()
    logs.setup_logging("json", stderr=stream)
    logging.getLogger("urllib3").warning("pool of %s is %d", "x", 3)
    logging.getLogger("urllib3").info("not this")
    logging.getLogger("urllib3").error("%d", "no number")
    first, second = lines(stream)
    assert first["message"] == "urllib3: pool of x is 3"
    assert (first["event"], first["level"]) == ("library.message", "warning")
    assert second["level"] == "error"


def test_what_a_library_repeats_is_told_once_an_hour() -> None:
    stream, now = io.StringIO(), [0.0]
    logs.setup_logging("json", stderr=stream, clock=lambda: now[0])
    for _ in range(100):
        logging.getLogger("urllib3").warning("pool of %s is full", now[0])
        logging.getLogger("apscheduler").warning("missed")
        now[0] += 100.0
    texts = [line["message"] for line in lines(stream)]
    assert texts == [
        "urllib3: pool of 0.0 is full", "apscheduler: missed",
        "urllib3: pool of 3600.0 is full", "apscheduler: missed",
        "urllib3: pool of 7200.0 is full", "apscheduler: missed",
    ]  # fmt: skip


def test_an_entry_that_cannot_be_written_is_counted_and_told_later() -> None:
    class Full(io.StringIO):
        full = True

        def write(self, text: str) -> int:
            if self.full:
                raise OSError(28, "No space left on device")
            return super().write(text)

    stream = Full()
    log = logs.setup_logging("json", stderr=stream)
    structlog.get_logger().info("a")
    structlog.get_logger().error("b")
    assert log.lost == 2
    stream.full = False
    structlog.get_logger().info("c")
    structlog.get_logger().info("d")
    assert [line["event"] for line in lines(stream)] == ["c", "log.failed", "d"]
    assert lines(stream)[1]["message"] == (
        "2 log entries lost: OSError: [Errno 28] No space left on device"
    )


def test_a_value_that_cannot_be_shown_does_no_harm() -> None:
    class Odd:
        def __str__(self) -> str:
            raise RuntimeError

    assert journalled("x", odd=Odd())["DS01_ODD"] == "<Odd>"


@given(st.text(), st.dictionaries(st.text(min_size=1), st.text() | st.floats() | st.binary()))
def test_any_entry_is_written(event: str, keys: dict[str, Any]) -> None:
    stream = io.StringIO()
    log = logs.setup_logging("json", stderr=stream)
    keys.pop("event", None)
    keys.pop("self", None)
    structlog.get_logger().info(event, **keys)
    assert log.lost == 0
    assert len(lines(stream)) == 1


def test_auto_takes_the_journal_only_if_stderr_is_its_stream(tmp_path: Path) -> None:
    with (tmp_path / "stream").open("w+") as stream:
        opened = os.fstat(stream.fileno())
        for named, count in ((f"{opened.st_dev}:{opened.st_ino}", 1), ("1:2", 0), ("", 0)):
            journal = Journal()
            logs.setup_logging(environ={"JOURNAL_STREAM": named}, stderr=stream, send=journal)
            structlog.get_logger().info("x")
            assert len(journal.entries) == count
    logs.setup_logging(environ={}, stderr=stream)  # closed
    structlog.get_logger().info("x")


@pytest.mark.parametrize("environ", [{}, {"NO_COLOR": "1"}])
def test_auto_takes_the_console_on_a_terminal(environ: dict[str, str]) -> None:
    near, far = pty.openpty()
    with os.fdopen(near, "rb", buffering=0) as reader, os.fdopen(far, "w") as terminal:
        logs.setup_logging(environ=environ, stderr=terminal)
        structlog.get_logger().info(Event.DRIFT_SETTLED, **SETTLED)
        shown = reader.read(4096).decode()
    assert 'stale-allocation: "test._.1001" on slot 1.0 released' in shown
    assert ("\x1b[" in shown) is (not environ)


def test_a_journald_that_reads_nothing_loses_entries_and_stops_nobody(tmp_path: Path) -> None:
    address = str(tmp_path / "journal")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
        journald.bind(address)
        ours = JournalSocket(address)
        log = logs.setup_logging("journal", send=ours.send)
        for number in range(2000):  # more than any queue holds
            structlog.get_logger().info("x", number=number)
        assert log.lost > 0
        kept = 2000 - log.lost
        received = [entry(journald.recv(2**20)) for _ in range(kept)]
        assert [one["DS01_NUMBER"] for one in received] == [str(n) for n in range(kept)]
        structlog.get_logger().info("y")
        after = [entry(journald.recv(2**20)) for _ in range(2)]
        ours.close()
    assert [one["DS01_EVENT"] for one in after] == ["y", "log.failed"]
    assert f"{log.lost} log entries lost" in after[1]["MESSAGE"]
    assert f"journald takes no entry at {address}" in after[1]["MESSAGE"]


def test_a_journald_that_is_started_again_gets_the_next_entry(tmp_path: Path) -> None:
    address = tmp_path / "journal"
    ours = JournalSocket(str(address))
    for words in ("one", "two\nlines"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
            journald.bind(str(address))
            ours.send(f"MESSAGE={words}", "PRIORITY=6")
            size = len(words).to_bytes(8, "little")
            written = b"MESSAGE\n" + size + words.encode() if "\n" in words else b"MESSAGE=one"
            assert journald.recv(4096) == written + b"\nPRIORITY=6\n"
        address.unlink()
        with pytest.raises(FileNotFoundError):
            ours.send("MESSAGE=lost")


def entry(datagram: bytes) -> dict[str, str]:
    return dict(line.split("=", 1) for line in datagram.decode().splitlines())


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_pipe_that_nobody_reads_loses_lines_and_stops_nobody(form: logs.Form) -> None:
    near, far = os.pipe()
    with os.fdopen(near, "rb") as reader, os.fdopen(far, "w", encoding="utf-8") as stream:
        log = logs.setup_logging(form, stderr=stream, environ={"NO_COLOR": "1"})
        for _ in range(100):
            structlog.get_logger().info("x", text="y" * 3000)
        assert log.lost > 0
        os.set_blocking(near, False)
        written = reader.read()
        structlog.get_logger().info("z")
        stream.close()
        last = reader.read().decode().splitlines()
    assert written.count(b"yyy") >= 1
    assert ["log entries lost" in line for line in last[-2:]] == [False, True]
    assert "the reader of the log's stream does not read" in last[-1]


SCRIPT = """
import structlog
from ds01d.reporting import log_values, logs
from ds01d.reporting.journal_socket import JournalSocket
from ds01d.reporting.message_ids import Event
logs.setup_logging()
log = structlog.get_logger()
log.info(Event.DRIFT_SETTLED, drift="expired-hold", action="release", verdict="done",
    container="a\\nb", slot="0", reason="x")
log.info(Event.PACE_REACHED, released=2, reason="y" * 300000)
"""


@pytest.mark.machine
@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("journalctl"), reason="needs root and journald"
)
def test_a_real_journald_takes_it_natively(tmp_path: Path) -> None:
    (tmp_path / "emit.py").write_text(SCRIPT)
    entries, _ = in_journal([sys.executable, str(tmp_path / "emit.py")], tmp_path)
    settled, pace = entries
    expected = {
        "MESSAGE": r'expired-hold: "a\nb" on slot 0 released (x)',
        "PRIORITY": "5",
        "MESSAGE_ID": MESSAGES[Event.DRIFT_SETTLED, Action.RELEASE].id,
        "DS01_EVENT": "drift.settled",
        "DS01_CONTAINER": r"a\nb",
        "DS01_SLOT": "0",
        "DS01_DRIFT": "expired-hold",
        "DS01_VERDICT": "done",
        "_TRANSPORT": "journal",
    }
    assert {key: settled[key] for key in expected} == expected
    assert pace["PRIORITY"] == "3"
    assert pace["MESSAGE_ID"] == MESSAGES[Event.PACE_REACHED, ""].id
