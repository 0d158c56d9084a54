"""The operations log: a witness that grows, is rotated, and may hold anything."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.adapters.books import operations_log
from ds01d.adapters.books.allocations_log import AllocationsLog
from ds01d.adapters.books.operations_format import (
    escape_field,
    format_line,
    parse_line,
    unescape_field,
)
from ds01d.adapters.books.operations_log import OperationsLog
from ds01d.adapters.books.timestamps import parse_time
from ds01d.errors import WriteFailed
from ds01d.model.actor import Actor
from ds01d.model.books import Attempt, LogLine
from ds01d.model.primitives import Source, Unknown, Wall
from ds01d.reconcile.books_ports import AllocationsPort, OperationsPort
from tests.support.scripts import output


def at(text: str) -> Wall:
    found = parse_time(f"2026-11-23 {text}")
    assert found is not None
    return found


def line(when: str, operation: str, name: str = "c", status: str = "pending") -> str:
    return f"2026-11-23 {when}|{operation}|ada|{name}|1.0|{status}|details\n"


class Log:
    """A private log."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "operations.log"
        self.log = OperationsLog(self.path)

    def add(self, *lines: str) -> None:
        with self.path.open("a") as file:
            file.writelines(lines)

    def read(self) -> dict[str, Attempt]:
        attempts = self.log.read()
        assert not isinstance(attempts, Unknown)
        return {str(name): attempt for name, attempt in attempts.items()}


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


# --- the format -------------------------------------------------------------------------------

any_text = st.text(st.characters())
lines = st.builds(
    LogLine,
    at=st.integers(10**6, 4 * 10**9).map(lambda number: Wall(float(number))),
    operation=any_text,
    user=any_text,
    container=any_text,
    gpu=any_text,
    status=any_text,
    details=any_text,
)


@given(any_text)
def test_any_field_fits_between_separators_on_one_line(field: str) -> None:
    escaped = escape_field(field)
    assert escaped.isprintable()
    assert "|" not in escaped
    assert unescape_field(escaped) == field


@given(lines)
def test_a_line_that_is_written_is_read_again(one: LogLine) -> None:
    text = format_line(one)
    assert text.isprintable()
    again = parse_line(text + "\n")
    assert again is not None
    assert again.at in {one.at, one.at + 3600}  # An hour that comes twice.
    assert (again.operation, again.user, again.container, again.gpu, again.status) == (
        one.operation,
        one.user,
        one.container,
        one.gpu,
        one.status,
    )
    assert again.details == one.details


@given(any_text)
def test_no_text_breaks_the_parser(text: str) -> None:
    assert parse_line(text) is None or text.count("|") >= 5
    assert isinstance(unescape_field(text), str)


def test_a_line_is_written_as_the_wrappers_do() -> None:
    one = LogLine(
        at=at("11:03:04"),
        operation="remove",
        user="ada",
        container="train._.1001",
        gpu="1.0",
        status="success",
        details="a|b\nc",
    )
    assert format_line(one) == (
        "2026-11-23 11:03:04|remove|ada|train._.1001|1.0|success|a\\x7cb\\nc"
    )


def test_lines_of_those_who_do_not_escape_are_understood() -> None:
    bare = parse_line("2026-11-23 11:03:04|create_start|ada|c|N/A|pending")
    assert bare is not None
    assert (bare.container, bare.details) == ("c", "")
    free = parse_line("2026-11-23 11:03:04|create_start|ada|c|N/A|pending|a|b\\q")
    assert free is not None
    assert free.details == "a|b\\q"


@pytest.mark.parametrize(
    "text", ["", "|||||||", "2026-11-23|a|b|c|d|e|f", "2026-11-23 25:00:00|a|b|c|d|e|f", "x" * 999]
)
def test_garbage_is_no_line(text: str) -> None:
    assert parse_line(text) is None


# --- attempts ---------------------------------------------------------------------------------


def test_it_fits_the_port(log: Log) -> None:
    port: OperationsPort = log.log
    assert port.read() == {}


def test_a_pending_start_counts_until_an_outcome_answers_it(log: Log) -> None:
    log.add(line("11:00:00", "create_start"))
    assert log.read() == {"c": Attempt(started=at("11:00:00"))}
    log.add(line("11:00:05", "start", status="success"), line("11:00:06", "stop"))
    assert log.read() == {"c": Attempt(started=at("11:00:00"))}
    log.add(line("11:01:00", "create_success", status="success"))
    assert log.read() == {}
    log.add(line("11:02:00", "create_start"))
    assert log.read() == {"c": Attempt(started=at("11:02:00"))}
    log.add(line("11:03:00", "create_failed", status="failed"))
    assert log.read() == {"c": Attempt(failed=at("11:03:00"))}
    log.add(line("11:04:00", "create_start"))
    assert log.read() == {"c": Attempt(started=at("11:04:00"))}


def test_the_order_of_the_lines_counts_where_the_clock_was_set_back(log: Log) -> None:
    log.add(line("11:00:00", "create_failed"), line("10:00:00", "create_start"))
    assert log.read() == {"c": Attempt(started=at("10:00:00"))}
    log.add(line("09:00:00", "create_failed"))
    assert log.read() == {"c": Attempt(failed=at("09:00:00"))}


def test_garbage_between_the_lines_harms_none(log: Log) -> None:
    log.path.write_bytes(b"\0\xff\n||\n" + line("11:00:00", "create_start").encode() + b"\xff\n")
    assert log.read() == {"c": Attempt(started=at("11:00:00"))}


def test_the_last_line_counts_when_it_is_whole(log: Log) -> None:
    whole = line("11:00:00", "create_start", "train._.1001")
    log.add(whole[:30])
    assert log.read() == {}
    log.add(whole[30:])
    assert log.read() == {"train._.1001": Attempt(started=at("11:00:00"))}


def test_only_what_was_added_is_parsed(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    log.add(*(line("11:00:00", "create_start", f"c{n}") for n in range(100)))
    log.read()
    parsed: list[str] = []

    def counting(text: str) -> LogLine | None:
        parsed.append(text)
        return parse_line(text)

    monkeypatch.setattr(operations_log, "parse_line", counting)
    assert len(log.read()) == 100
    assert parsed == [""]
    log.add(line("11:00:01", "create_start", "new"))
    assert len(log.read()) == 101
    assert len(parsed) == 3


# --- the file ---------------------------------------------------------------------------------


def test_a_missing_log_is_an_empty_one(tmp_path: Path) -> None:
    assert OperationsLog(tmp_path / "missing").read() == {}
    assert OperationsLog(tmp_path / "missing" / "log").read() == {}


@pytest.mark.parametrize("what", ["log", "folder"])
def test_what_a_log_said_holds_while_it_is_away(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = Log(folder)
    log.path.with_name("operations.log.1").write_text(line("10:00:00", "create_success", "one"))
    log.add(line("11:00:00", "create_start", "one"))
    assert set(log.read()) == {"one"}
    there = {"log": log.path, "folder": folder}[what]
    away = there.rename(tmp_path / "away")
    assert set(log.read()) == {"one"}
    away.rename(there)
    log.add(line("11:01:00", "create_start", "two"))
    assert set(log.read()) == {"one", "two"}


@pytest.mark.parametrize("kind", ["folder", "fifo", "link"])
def test_what_is_no_ordinary_file_is_unknown(log: Log, kind: str) -> None:
    match kind:
        case "folder":
            log.path.mkdir()
        case "fifo":
            os.mkfifo(log.path)
        case _:
            log.path.symlink_to("/proc/version")
    attempts = log.log.read()
    assert isinstance(attempts, Unknown)
    assert attempts.source is Source.OPERATIONS
    assert str(log.path) in attempts.reason


def test_a_log_that_may_not_be_read_is_unknown(log: Log) -> None:
    log.add("line\n")
    log.path.chmod(0)
    program = """
import os, sys
from pathlib import Path
from ds01d.adapters.books.operations_log import OperationsLog
if os.geteuid() == 0:
    os.seteuid(65534)
print(type(OperationsLog(Path(sys.argv[1])).read()).__name__)
"""
    assert output(program, log.path).strip() == "Unknown"


@pytest.mark.parametrize("known", [True, False])
def test_a_start_right_before_the_rotation_is_not_lost(log: Log, *, known: bool) -> None:
    log.add(line("11:00:00", "create_start", "before"), line("11:00:00", "create_start", "done"))
    if known:
        log.read()
    log.path.rename(f"{log.path}.1")
    assert set(log.read()) == {"before", "done"}
    log.add(line("11:01:00", "create_success", "done"), line("11:01:00", "create_start", "after"))
    assert set(log.read()) == {"before", "after"}


def test_a_truncated_log_is_read_from_its_start(log: Log) -> None:
    log.add(line("11:00:00", "create_start", "one"), line("11:00:00", "create_start", "two"))
    log.read()
    log.path.write_text(line("11:01:00", "create_start", "three"))
    assert set(log.read()) == {"three"}


def test_another_content_of_the_same_length_is_noticed(log: Log) -> None:
    log.add(line("11:00:00", "create_start", "one"))
    log.read()
    log.path.write_text(line("11:00:01", "create_start", "two"))
    log.add(line("11:00:02", "create_start", "three"))
    assert set(log.read()) == {"two", "three"}


def test_only_the_newest_names_are_remembered(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations_log, "_MAX_NAMES", 3)
    log.add(*(line("11:00:00", "create_start", f"c{n}") for n in (1, 2, 3, 1, 4)))
    assert set(log.read()) == {"c3", "c1", "c4"}


def test_of_an_endless_log_the_end_is_read(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations_log, "_MAX_BYTES", 200)
    log.add(*(line("11:00:00", "create_start", f"c{n:03}") for n in range(100)))
    assert set(log.read()) == {"c097", "c098", "c099"}
    log.add(line("11:00:00", "create_start", "new"))
    assert "new" in log.read()


def test_what_is_appended_is_read(log: Log) -> None:
    one = parse_line(line("11:00:00", "create_start", "odd|name\\"))
    assert one is not None
    log.log.append(one)
    assert log.path.read_text() == format_line(one) + "\n"
    with pytest.raises(WriteFailed):
        OperationsLog(log.path / "no").append(one)


class Followed:
    """What a listener is given."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def begin(self) -> None:
        self.heard.append("begin")

    def learn(self, line: LogLine) -> None:
        self.heard.append(f"{line.operation} {line.container}")


def test_who_follows_it_is_given_each_line_in_the_order_of_the_file(log: Log) -> None:
    followed = Followed()
    log.add(line("10:59:00", "start"), "no line\n")
    log.read()
    log.log.follow(followed)
    log.add(line("11:00:00", "remove"), line("11:00:02", "stop", "d")[:20])
    log.read()
    assert followed.heard == ["begin", "start c", "remove c"]
    log.add(line("11:00:02", "stop", "d")[20:])
    log.read()
    log.read()
    assert followed.heard[3:] == ["stop d"]
    log.path.rename(f"{log.path}.1")
    log.add(line("11:00:03", "start", "e"))
    log.read()
    assert followed.heard[4:] == ["begin", "start c", "remove c", "stop d", "start e"]


def test_a_line_behind_a_hole_of_nuls_counts(log: Log) -> None:
    """copytruncate, and a writer that goes on at its old offset."""
    with log.path.open("wb") as file:
        file.seek(1 << 30)
        file.write(line("11:00:00", "create_start").encode())
    assert log.read() == {"c": Attempt(started=at("11:00:00"))}


def test_a_line_says_at_its_end_who_did_it(log: Log) -> None:
    root = Actor(uid=0, login="root", pid=7, sudo_uid=1001, sudo_login="ada")
    one = parse_line(line("11:00:00", "release"))
    assert one is not None
    log.log.append(replace(one, actor=root))
    assert log.path.read_text().endswith(
        "|details; by root (uid 0, pid 7), sudo by ada (uid 1001)\n"
    )


# --- the allocations log ----------------------------------------------------------------------


def test_an_allocation_is_written_as_the_allocator_does(tmp_path: Path) -> None:
    path = tmp_path / "gpu-allocations.log"
    port: AllocationsPort = AllocationsLog(path)
    for gpu, name in (("1.0", "train._.1001"), ("", "a|b\n")):
        port.append(
            at=Wall(at("11:03:04") + 0.5),
            event="RELEASED",
            user="ada",
            container=name,
            gpu=gpu,
            priority=10,
            reason="gone",
        )
    assert path.read_text().splitlines() == [
        "2026-11-23T11:03:04.500000|RELEASED|ada|train._.1001|1.0|priority=10|gone",
        "2026-11-23T11:03:04.500000|RELEASED|ada|a\\x7cb\\n|N/A|priority=10|gone",
    ]
