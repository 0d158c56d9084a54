"""`ds01ctl log`: all that was tried, what is asked for of it, and what is still to come."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ds01d.cli.base.context import Environment, host_environment
from ds01d.cli.ctl.main import main as ds01ctl
from tests.support.terminal import on_a_terminal

LINES = """\
2026-11-23 08:00:00|create_start|alice|train._.1001|1.0|pending|pytorch
2026-11-23 08:00:09|create_success|alice|train._.1001|1.0|success|
half a line
2026-11-23 09:00:00|stop|bob|nlp._.1002||success|a\\x7cb\\n\\x1b[31m

2026-11-23 10:00:00|create_failed|bob|nlp._.1002|1.1|failed|no image
"""
PLAIN = """\
TIME                 OPERATION       USER   CONTAINER     GPU  STATUS   DETAILS
2026-11-23 08:00:00  create_start    alice  train._.1001  1.0  pending  pytorch
2026-11-23 08:00:09  create_success  alice  train._.1001  1.0  success  -
-                    unreadable      -      -             -    -        half a line
2026-11-23 09:00:00  stop            bob    nlp._.1002    -    success  a|b\\n\\x1b[31m
2026-11-23 10:00:00  create_failed   bob    nlp._.1002    1.1  failed   no image
"""


class Reader:
    """A person with a log."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "operations.log"
        self.path.write_text(LINES)
        self.config = folder / "ds01d.toml"
        self.config.write_text(f'[logs]\noperations = "{self.path}"\n')
        self.env: Environment = host_environment()

    def call(self, *words: str) -> Result:
        command = ["--config", str(self.config), "log", *words]
        return CliRunner().invoke(ds01ctl, command, obj=self.env)

    def json(self, *words: str) -> Any:
        return json.loads(self.call(*words, "--json").stdout)

    def operations(self, *words: str) -> list[str]:
        return [one.get("operation", "?") for one in self.json(*words)["entries"]]

    def follow(self, *meanwhile: Callable[[], object], words: tuple[str, ...] = ()) -> Result:
        """Follow; at each pause the next thing happens, and in the end Ctrl-C."""
        things = iter(meanwhile)

        def pause(_: float) -> None:
            thing = next(things, None)
            if thing is None:
                raise KeyboardInterrupt
            thing()

        self.env = replace(host_environment(), sleep=pause)
        return self.call("--follow", *words)

    def add(self, number: int) -> None:
        self.write(f"2026-11-23 11:00:00|start|carol|c{number}|2.0|success|\n")

    def write(self, text: str) -> None:
        with self.path.open("a") as file:
            file.write(text)


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    return Reader(tmp_path)


def test_it_is_a_table_that_scripts_can_read(reader: Reader) -> None:
    result = reader.call()
    assert result.stdout == PLAIN
    assert (result.stderr, result.exit_code) == ("", 0)


def test_and_an_object(reader: Reader) -> None:
    told = reader.json()
    assert told["unreadable"] == 1
    assert told["entries"][2] == {"unreadable": "half a line"}
    assert told["entries"][3] == {
        "at": "2026-11-23T09:00:00+00:00",
        "operation": "stop",
        "user": "bob",
        "container": "nlp._.1002",
        "gpu": "",
        "status": "success",
        "details": "a|b\n\x1b[31m",
    }


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--user", "alice"), ["create_start", "create_success"]),
        (("--user", "nobody"), []),
        (("--container", "nlp._.1002"), ["stop", "create_failed"]),
        (("--container", "nlp"), ["stop", "create_failed"]),
        (("--container", "nl"), []),
        (("--since", "2026-11-23T09:00:00"), ["stop", "create_failed"]),
        (("--since", "2026-11-23T08:00:09"), ["create_success", "?", "stop", "create_failed"]),
        (("--user", "bob", "--limit", "1"), ["create_failed"]),
        (("-n", "2"), ["stop", "create_failed"]),
        (("-n", "0", "--user", "alice"), ["create_start", "create_success"]),
    ],
)
def test_what_is_asked_for(reader: Reader, words: tuple[str, ...], expected: list[str]) -> None:
    assert reader.operations(*words) == expected


def test_lines_of_no_sense_that_are_not_shown_are_counted(reader: Reader) -> None:
    result = reader.call("--user", "alice")
    assert "half a line" not in result.stdout
    assert result.stderr == "ds01ctl log: 1 line not shown (invalid)\n"
    assert reader.json("--user", "alice")["unreadable"] == 1


def test_rotated_files_are_read_too(reader: Reader) -> None:
    rotated = reader.path.with_name("operations.log.1")
    rotated.write_text("2026-11-22 08:00:00|remove|alice|old|1.0|success|\n")
    assert reader.operations()[:2] == ["remove", "create_start"]


def test_without_a_log_nothing_was_logged(reader: Reader) -> None:
    reader.path.unlink()
    assert reader.call().stdout == "no log entries\n"
    assert reader.json() == {"schema": "log/1.0", "entries": [], "unreadable": 0}


def test_a_log_that_cannot_be_read_is_an_error(reader: Reader) -> None:
    reader.path.unlink()
    reader.path.mkdir()
    result = reader.call()
    assert result.exit_code == 1
    assert result.stderr.startswith("ds01ctl: the operations log cannot be read: ")
    assert result.stderr.count("\n") == 1


def test_rubbish_never_ends_it(reader: Reader) -> None:
    rubbish = b"\xff\xfe|||||||\n2026-99-99 00:00:00|a|b|c|d|e|f\n" + bytes(range(256))
    reader.path.write_bytes(rubbish)
    result = reader.call()
    assert result.exit_code == 0
    assert all(sign.isprintable() or sign == "\n" for sign in result.stdout)
    assert reader.json()["unreadable"] == 4


def test_following_survives_rotation_and_truncation_and_ends_with_130(reader: Reader) -> None:
    result = reader.follow(
        lambda: None,
        lambda: reader.add(1),
        lambda: reader.path.rename(reader.path.with_name("operations.log.1")),
        lambda: reader.add(2),
        lambda: reader.path.write_text(""),
        lambda: reader.add(3),
        lambda: reader.write("half"),
        lambda: reader.write(" and half\n"),
    )
    assert result.exit_code == 130
    shown = [line.split() for line in result.stdout.splitlines()]
    assert [words[4] for words in shown[5:8]] == ["c1", "c2", "c3"]
    assert shown[8][1:] == ["unreadable", "-", "-", "-", "-", "half", "and", "half"]


def test_following_prints_an_object_a_line(reader: Reader) -> None:
    words = ("--json", "--container", "c2", "-n", "1")
    result = reader.follow(lambda: reader.add(1), lambda: reader.add(2), words=words)
    (only,) = map(json.loads, result.stdout.splitlines())
    assert only["container"] == "c2"
    assert only["at"] == "2026-11-23T11:00:00+00:00"


def test_following_waits_for_a_log_that_is_still_to_come(reader: Reader) -> None:
    reader.path.unlink()
    result = reader.follow(lambda: None, lambda: reader.add(1))
    assert result.stdout.split()[4] == "c1"
    assert result.exit_code == 130


def test_on_a_terminal_there_is_a_table_in_colour(reader: Reader) -> None:
    words = ["ds01d.cli.ctl.main", "--config", str(reader.config), "log"]
    code, drawn = on_a_terminal(words, {"COLUMNS": "120"})
    assert code == 0
    assert "\x1b[" in drawn
    assert "\\x1b[31m" in drawn
    assert "create_success" in drawn


def test_and_ctrl_c_ends_following(reader: Reader) -> None:
    words = ["ds01d.cli.ctl.main", "--config", str(reader.config), "log", "--follow"]
    code, drawn = on_a_terminal(words, ctrl_c_at="no image")
    assert code == 130
    assert "Traceback" not in drawn
