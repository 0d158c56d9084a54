"""`ds01ctl report`: what is printed, for people, spreadsheets and scripts; and who may see it."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from ds01d.adapters.accounting_database import NAME
from ds01d.bootstrap_reports import read_usage
from ds01d.cli.base.context import Environment
from ds01d.cli.ctl.main import main as ds01ctl
from ds01d.config import BooksConfig, Config, DaemonConfig
from ds01d.documents.usage_report import find_midnight
from ds01d.model.accounting import ReportQuery, ReportSubject
from ds01d.model.primitives import Wall
from ds01d.service.client import INTERFACE
from ds01d.service.exchange import ServiceRefused
from ds01d.service.operations_client import RemoteOperations
from ds01d.service.report_calls import ReportCalls
from ds01d.service.requests import PendingCall
from ds01d.service.rules import Peer
from ds01d.service.varlink import MethodCall
from tests.adapters.test_accounting_file import BOOTED, begun, ended, store, used
from tests.support.schemas import check_document

OLGA = Peer(uid=1009, login="olga", pid=9, is_operator=True)
ALICE = Peer(uid=1001, login="alice", pid=7, is_operator=False)
LIMITS = """\
default_group: student
groups:
  student: {members: [alice], max_mig_instances: 2}
  research: {members: [bob], max_mig_instances: 4}
"""
HOUR = 3600.0


@dataclass
class Remote(RemoteOperations):
    """A client whose calls are served in this process."""

    config: Config
    peer: Peer

    def stream(
        self,
        method: str,
        parameters: Mapping[str, object],
        *,
        more: bool = True,
        repeats: int = 0,
    ) -> Iterator[dict[str, Any]]:
        sent: list[bytes] = []
        given = {key: value for key, value in parameters.items() if value is not None}
        raw = msgspec.Raw(json.dumps(given).encode())
        call = MethodCall(method=f"{INTERFACE}.{method}", parameters=raw)
        calls = ReportCalls(self.config, read_usage)
        calls.submit(PendingCall(self.peer, call, lambda message, _: sent.append(message)))
        calls.join()
        reply = json.loads(sent[0].rstrip(b"\0"))
        if "error" in reply:
            raise ServiceRefused(reply["error"], reply["parameters"])
        yield reply["parameters"]


@dataclass
class Reader:
    """Somebody who asks for reports: root directly, others of the daemon."""

    folder: Path
    peer: Peer | None = None

    def __post_init__(self) -> None:
        limits = self.folder / "limits.yaml"
        limits.write_text(LIMITS, encoding="utf-8")
        self.config = Config(
            daemon=DaemonConfig(state_dir=self.folder), books=BooksConfig(limits=limits)
        )

    def call(self, *words: str) -> Result:
        remote = None if self.peer is None else Remote(self.config, self.peer)
        environment = replace(
            _environment(self.config), find_operations=lambda _: remote, read_usage=read_usage
        )
        words = ("--since", "2027-01-15T00:00", "--until", "2027-01-16T12:00", *words)
        return CliRunner().invoke(ds01ctl, ["report", *words], obj=environment)

    def json(self, *words: str) -> Any:
        document = json.loads(self.call(*words, "--json").stdout)
        assert check_document(document) == "report"
        del document["schema"]
        return document


def _environment(config: Config) -> Environment:
    def refuse(*_: object) -> Any:
        raise AssertionError("a report needs none of this")

    return Environment(
        load_config=lambda _: config,
        open_world=refuse,
        read_history=refuse,
        make_state_dir=refuse,
        engine_version=refuse,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store(
        tmp_path,
        begun(1, 0.0, user="alice", slot="1.0"),
        used(1, 0.0, used=1.5 * HOUR, retained=HOUR),
        ended(1, 7 * HOUR),
        begun(2, HOUR, user="bob", slot="0", gpus=1.0, name="=cmd|x"),
        used(2, HOUR, used=HOUR, idle=HOUR),
        ended(2, 3 * HOUR),
        begun(3, HOUR, user=None, slot="1.1", gpus=None),
        seen=10 * HOUR,
    ).close()
    return tmp_path


@pytest.fixture(params=[None, OLGA], ids=["root", "operator"])
def reader(folder: Path, request: pytest.FixtureRequest) -> Reader:
    return Reader(folder, request.param)


def test_people_see_a_line_for_each_user_and_the_sum(reader: Reader) -> None:
    result = reader.call()
    assert result.exit_code == 0, result.output
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[0] == "USER BOOKINGS SLOT HOURS GPU HOURS USED IDLE RETAINED UNKNOWN"
    assert lines[1] == ("alice 1 7.00 2.00 0.43 (21%) 0.00 (0%) 0.29 (14%) 1.29 (64%)")
    assert lines[2] == "bob 1 2.00 2.00 1.00 (50%) 1.00 (50%) 0.00 (0%) 0.00 (0%)"
    assert lines[3] == "- 1 9.00 0.00 0.00 0.00 0.00 0.00"
    assert lines[4].startswith("total 3 18.00 4.00 1.43 (36%)")
    assert any("9.00 slot hours of MIG devices of unknown size" in line for line in lines)
    assert any(line.startswith("as of ") for line in lines)


def test_what_is_not_complete_says_since_when(reader: Reader) -> None:
    assert "complete since" not in reader.call().stdout
    with closing(sqlite3.connect(reader.folder / NAME)) as database, database:
        database.execute("UPDATE progress SET complete_since = ?", (BOOTED + 60.0,))
        database.execute("UPDATE progress SET sampled_since = ?", (BOOTED + HOUR,))
    text = reader.call().stdout
    assert "complete since 2027-01-15T08:01:00+00:00; earlier bookings may be missing" in text
    assert "use is known since 2027-01-15T09:00:00+00:00; earlier time is unknown" in text


def test_scripts_get_the_same_numbers_whole(reader: Reader) -> None:
    document = reader.json()
    assert set(document) == {
        "since", "until", "as_of", "complete_since", "sampled_since", "by", "lines", "total",
        "bookings", "older_than",
    }  # fmt: skip
    alice = document["lines"][0]
    assert alice["subject"] == "alice"
    assert alice["times"]["slot_hours"] == {
        "booked": 7.0, "used": 1.5, "idle": 0.0, "retained": 1.0, "unknown": 4.5,
    }  # fmt: skip
    assert alice["times"]["gpu_hours"]["booked"] == 2.0
    assert document["total"]["unweighed_slot_hours"] == 9.0
    assert reader.json("--format", "csv") == document, "--json is stronger"


@pytest.mark.parametrize(
    ("words", "subjects"),
    [
        (("--by", "slot"), ["0", "1.0", "1.1"]),
        (("--by", "group"), ["research", "student", None]),
        (("--user", "bob"), ["bob"]),
        (("--user", "nobody"), []),
        (("--group", "student"), ["alice"]),
        (("--group", "none"), []),
        (("--slot", "1.0"), ["alice"]),
        (("--by", "slot", "--group", "research"), ["0"]),
    ],
)
def test_it_is_summed_and_narrowed(
    reader: Reader, words: tuple[str, ...], subjects: list[str | None]
) -> None:
    assert [line["subject"] for line in reader.json(*words)["lines"]] == subjects


def test_days_add_up_and_are_those_of_the_calendar(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        document = reader.json("--by", "day")
        days = {line["subject"]: line["times"] for line in document["lines"]}
        # 17:00 in Tokyo is when it began; three of the four bookings' hours lie before midnight.
        assert [*days] == ["2027-01-15", "2027-01-16"]
        whole = reader.json()["total"]
        assert document["total"] == whole
        for unit in ("slot_hours", "gpu_hours"):
            for part, hours in whole[unit].items():
                assert sum(day[unit][part] for day in days.values()) == pytest.approx(
                    hours, abs=0.001
                )
        assert reader.call("--by", "day").stdout.startswith("DAY ")
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_day_on_which_clocks_are_set_has_23_hours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(tmp_path, begun(1, 0.0, slot="0", gpus=1.0), seen=1e7).close()
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        query = ReportQuery(
            since=Wall(datetime(2027, 3, 27).astimezone().timestamp()),
            until=Wall(datetime(2027, 3, 30).astimezone().timestamp()),
            by=ReportSubject.DAY,
        )
        usage = read_usage(Reader(tmp_path).config, query)
    finally:
        monkeypatch.undo()
        time.tzset()
    booked = {line.subject: line.times.slot_hours.booked for line in usage.lines}
    assert booked == {"2027-03-27": 24.0, "2027-03-28": 23.0, "2027-03-29": 24.0}
    assert usage.total is not None
    assert usage.total.bookings == 1


@pytest.mark.parametrize(
    ("today", "first"), [("2027-03-30", "2027-03-24"), ("2027-11-02", "2027-10-27")]
)
def test_a_week_in_which_clocks_are_set_begins_at_a_midnight(
    monkeypatch: pytest.MonkeyPatch, today: str, first: str
) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        moment = datetime.fromisoformat(f"{today}T15:00").timestamp()
        begin = find_midnight(Wall(moment), -6).timestamp()
        shown = datetime.fromtimestamp(begin).astimezone().replace(tzinfo=None)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert shown.isoformat() == f"{first}T00:00:00"


def test_bookings_are_shown_one_by_one(reader: Reader) -> None:
    bookings = reader.json("--by", "booking")["bookings"]
    assert [one["id"] for one in bookings] == [3, 2, 1]
    assert bookings[2] | {"times": None} == {
        "id": 1,
        "container": "train._.1001",
        "user": "alice",
        "slot": "1.0",
        "profile": "2g.10gb",
        "gpus": 0.2857,
        "begin": "2027-01-15T08:00:00+00:00",
        "end": "2027-01-15T15:00:00+00:00",
        "reason": "released",
        "times": None,
    }
    table = reader.call("--by", "booking", "--limit", "2").stdout
    assert "the newest 2 bookings: --limit 0 shows all" in table
    assert len(reader.json("--by", "booking", "--limit", "2")["bookings"]) == 2
    assert "CONTAINER" in table


def test_a_spreadsheet_computes_nothing_that_a_user_named_so(reader: Reader) -> None:
    rows = [*csv.DictReader(io.StringIO(reader.call("--by", "booking", "--format", "csv").stdout))]
    assert [row["container"] for row in rows] == ["train._.1001", "'=cmd|x", "train._.1001"]
    assert rows[2]["gpu_hours_booked"] == "2.0"
    sums = [*csv.DictReader(io.StringIO(reader.call("--format", "csv").stdout))]
    assert [row["user"] for row in sums] == ["alice", "bob", ""]
    assert sums[0]["slot_hours_retained"] == "1.0"


def test_many_bookings_come_in_several_replies(tmp_path: Path) -> None:
    changes = [begun(number, float(number)) for number in range(1, 2502)]
    store(tmp_path, *changes, seen=HOUR).close()
    reader = Reader(tmp_path, OLGA)
    ids = [one["id"] for one in reader.json("--by", "booking")["bookings"]]
    assert ids == [*range(2501, 0, -1)]
    some = reader.json("--by", "booking", "--limit", "1500")
    assert [one["id"] for one in some["bookings"]] == ids[:1500]
    assert some["older_than"] == ids[1499]


def test_who_is_no_operator_sees_their_own_alone(folder: Path) -> None:
    alice = Reader(folder, ALICE)
    assert [line["subject"] for line in alice.json()["lines"]] == ["alice"]
    assert [line["subject"] for line in alice.json("--by", "slot")["lines"]] == ["1.0"]
    assert {one["user"] for one in alice.json("--by", "booking")["bookings"]} == {"alice"}
    assert alice.json("--user", "alice")["total"]["bookings"] == 1
    for words in (("--user", "bob"), ("--group", "student"), ("--by", "group")):
        result = alice.call(*words)
        assert result.exit_code == 1
        assert "permission denied: needs root or group ds01-operators" in result.stderr


def test_what_cannot_be_had_says_why(folder: Path, tmp_path: Path) -> None:
    reader = Reader(folder)
    backwards = reader.call("--until", "2026-01-01")
    assert "--until has to be later than --since" in backwards.stderr
    (folder / "limits.yaml").write_text("groups: [", encoding="utf-8")
    assert reader.call("--by", "group").exit_code == 1
    assert reader.call().exit_code == 0, "the others need no group"
    for file in folder.glob(f"{NAME}*"):
        file.unlink()
    missing = reader.call()
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert "there is no accounting yet" in missing.stderr
    (tmp_path / NAME).write_bytes(b"damaged" * 1000)
    assert "cannot read the accounting" in reader.call().stderr


def test_a_period_without_bookings_says_so(reader: Reader) -> None:
    result = reader.call("--since", "2027-01-15T00:00", "--until", "2027-01-15T01:00")
    assert ": no bookings" in result.stdout
