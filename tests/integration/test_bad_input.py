"""Bad input, of every kind: it is reported, harms nothing else, loses nothing, and mends.

Each test spoils one thing on a host where one container runs, one is stopped within its hold, and
one is gone; the one that is gone shows whether work goes on.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ds01d.config_values import Seconds
from ds01d.errors import WriteFailed
from ds01d.model.drift import FindingKind, Kind, Outcome, WaitReason
from ds01d.model.primitives import Source
from ds01d.reconcile.report import Report
from simulation.fake_engine import FakeEngine, request
from simulation.proxy import SPOILING, Proxy
from tests.support.daemon import RunningDaemon, Site
from tests.support.simulated_host import SimulatedHost, told

RUNNING, STOPPED, GONE = "run._.1001", "stop._.1002", "gone._.1003"
ALL = {RUNNING: {"1.0"}, STOPPED: {"1.1"}, GONE: {"1.2"}}
LEFT = {RUNNING: {"1.0"}, STOPPED: {"1.1"}}
USER = f"user{STOPPED.rpartition('.')[2]}"
SETTLE_S = 5.0


@pytest.fixture
def host(simulated_host: SimulatedHost) -> SimulatedHost:
    """A host on which all is well, but for one that is gone and not yet long enough."""
    host = simulated_host
    host.configure(gpu={"source": "none"})
    host.book({"1.0": [RUNNING], "1.1": [STOPPED], "1.2": [GONE]})
    state = json.loads(host.state.read_bytes())
    state["their_key"] = {"kept": True}
    state["gpus"]["3.3"] |= {"reserved_for": "alice", "reserved_until": "2030-01-01T00:00:00"}
    host.state.write_text(json.dumps(state, indent=2), encoding="utf-8")
    host.run(RUNNING, host.gpus()["1.0"]["uuid"])
    host.run(STOPPED, host.gpus()["1.1"]["uuid"], state="exited", ago_s=60)
    host.sweeps(0, 6)
    assert host.booked() == ALL
    return host


def said(report: Report, source: Source) -> str:
    return report.sources[source]


def work_goes_on(host: SimulatedHost) -> None:
    """After the mend: what is gone is released, the rest is as it was, nothing is left to do."""
    report = host.sweeps(1, 121, 6, 6)
    assert host.booked() == LEFT, told(report)
    assert report.is_consistent, told(report)
    state = json.loads(host.state.read_bytes())
    assert state["their_key"] == {"kept": True}
    assert state["gpus"]["3.3"]["reserved_for"] == "alice"
    assert {path.stem for path in host.metadata.glob("*.json")} == set(LEFT)


# --- the state: content -------------------------------------------------------------------------

Spoil = Callable[[Path], object]


def text(content: str) -> Spoil:
    return lambda path: path.write_text(content, encoding="utf-8")


def data(content: bytes) -> Spoil:
    return lambda path: path.write_bytes(content)


def changed(**keys: object) -> Spoil:
    """Change keys of the first slot."""

    def spoil(path: Path) -> None:
        state = json.loads(path.read_bytes())
        state["gpus"]["1.0"] |= keys
        path.write_text(json.dumps(state), encoding="utf-8")

    return spoil


def huge(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(70 << 20)


def renamed_slot(path: Path) -> None:
    state = json.loads(path.read_bytes())
    state["gpus"]["../1.0"] = state["gpus"].pop("1.0")
    path.write_text(json.dumps(state), encoding="utf-8")


NO_STATE: Mapping[str, Spoil] = {
    "torn": lambda path: path.write_bytes(path.read_bytes()[:500]),
    "one byte short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "one byte too many": lambda path: path.write_bytes(path.read_bytes() + b"}"),
    "empty": text(""),
    "blanks": text(" \n\n "),
    "no JSON": text("gpus: {}"),
    "garbage": data(bytes(range(256)) * 20),
    "NUL bytes": data(b"\0" * 3000),
    "UTF-16": data('{"gpus": {}}'.encode("utf-16")),
    "a list": text("[]"),
    "null": text("null"),
    "a number": text("17"),
    "nothing in it": text("{}"),
    "slots in a list": text('{"gpus": []}'),
    "a slot in a list": text('{"gpus": {"1.0": []}}'),
    "NaN": text('{"gpus": {"1.0": {"users": {"alice": NaN}}}}'),
    "infinity": text('{"gpus": {"1.0": {"users": {"alice": 1e999}}}}'),
    "deeply nested": text('{"gpus": ' + "[" * 100_000),
    "deeply nested, and whole": text('{"gpus": {}, "x": ' + "[" * 99_999 + "]" * 99_999 + "}"),
    "huge": huge,
    "containers in a text": changed(containers=RUNNING),
    "a container that is a number": changed(containers=[1]),
    "half a character": changed(containers=["\ud800"]),
    "users in a list": changed(users=["alice"]),
    "users counted in texts": changed(users={"alice": "1"}),
    "a UUID that is a number": changed(uuid=1),
    "the wrong type": changed(type="physical_gpu"),
    "no slot id": renamed_slot,
}


@pytest.mark.parametrize("kind", NO_STATE)
def test_a_state_without_sense_is_rebuilt_after_the_settle_time(
    host: SimulatedHost, kind: str
) -> None:
    NO_STATE[kind](host.state)
    broken = host.bytes_of_books()
    report = host.sweep()
    assert said(report, Source.STATE) != "ok"
    assert str(host.state) in said(report, Source.STATE)
    assert "\n" not in said(report, Source.STATE)
    (one,) = report.drifts
    assert (one.drift.kind, one.outcome, one.gate) == (
        Kind.UNREADABLE_STATE,
        Outcome.WAITING,
        WaitReason.SETTLE,
    )
    assert not report.is_consistent
    host.sweep(after_s=SETTLE_S - 1)
    assert host.bytes_of_books() == broken
    report = host.sweep(after_s=2)
    assert [(d.drift.kind, d.outcome) for d in report.drifts] == [
        (Kind.UNREADABLE_STATE, Outcome.DONE)
    ]
    assert host.booked() == ALL, "from the last good copy"
    assert host.bytes_of_books().keys() == broken.keys()
    (kept,) = host.own.glob("gpu-state.broken*")
    assert broken[host.state.name].startswith(kept.read_bytes())
    work_goes_on(host)


def test_a_state_that_keeps_changing_is_not_rebuilt(host: SimulatedHost) -> None:
    for number in range(6):
        host.state.write_text(f"broken in another way, {number}", encoding="utf-8")
        host.sweep(after_s=SETTLE_S - 1)
        assert host.state.read_text(encoding="utf-8").startswith("broken in another way")
    host.sweep(after_s=SETTLE_S + 1)
    assert host.booked() == ALL
    work_goes_on(host)


def test_a_state_that_is_mended_in_time_is_left_alone(host: SimulatedHost) -> None:
    good = host.state.read_bytes()
    host.state.write_bytes(good[:300])
    host.sweeps(0, SETTLE_S - 1)
    host.state.write_bytes(good)
    host.sweep(after_s=2)
    assert host.state.read_bytes() == good
    assert not list(host.own.glob("gpu-state.broken*"))
    work_goes_on(host)


def test_a_missing_state_is_rebuilt_and_a_missing_folder_is_not(host: SimulatedHost) -> None:
    host.state.unlink()
    assert "does not exist" in said(host.sweeps(0, SETTLE_S - 1), Source.STATE)
    assert not host.state.exists()
    host.sweep(after_s=2)
    assert host.booked() == ALL
    aside = host.books.with_name("aside")
    host.books.rename(aside)
    report = host.sweeps(0, *(60.0,) * 5)
    assert "directory that does not exist" in said(report, Source.STATE)
    assert not host.books.exists()
    aside.rename(host.books)
    work_goes_on(host)


def test_a_rebuild_finds_what_the_last_good_copy_does_not_have(host: SimulatedHost) -> None:
    host.run("new._.1004", host.gpus()["2.0"]["uuid"], ago_s=0)
    host.state.write_text("{", encoding="utf-8")
    report = host.sweeps(0, SETTLE_S + 1)
    assert host.booked() == {**ALL, "new._.1004": {"2.0"}}, told(report)
    work = host.sweeps(1, 121, 6, 6)
    assert host.booked() == {**LEFT, "new._.1004": {"2.0"}}, told(work)


@pytest.mark.parametrize("missing", [Source.DOCKER, Source.METADATA])
def test_nothing_is_rebuilt_while_another_source_is_unknown(
    host: SimulatedHost, missing: Source
) -> None:
    host.state.write_text("{", encoding="utf-8")
    if missing is Source.DOCKER:
        host.engine.stop()
    else:
        host.metadata.rename(host.books / "elsewhere")
    report = host.sweeps(0, *(60.0,) * 3)
    assert host.state.read_text(encoding="utf-8") == "{"
    (one,) = report.drifts
    assert (one.gate, one.until) == (WaitReason.BLOCKED, None)
    assert missing.value in one.reason
    if missing is Source.DOCKER:
        host.engine.start()
    else:
        (host.books / "elsewhere").rename(host.metadata)
    host.sweep(after_s=6)
    assert host.booked() == ALL
    work_goes_on(host)


def test_without_a_last_good_copy_and_without_nvml_nothing_is_made_up(host: SimulatedHost) -> None:
    for path in host.own.glob("gpu-state.last-good*"):
        path.unlink()
    host.reopen()
    host.state.write_text("{", encoding="utf-8")
    report = host.sweeps(0, 10, 60)
    assert host.state.read_text(encoding="utf-8") == "{"
    assert "no last good copy" in report.drifts[0].reason


def test_without_a_last_good_copy_nvml_tells_the_slots(host: SimulatedHost) -> None:
    host.configure(gpu={"source": "nvml"})
    for path in host.own.glob("gpu-state.last-good*"):
        path.unlink()
    host.reopen()
    slots = {slot: entry["uuid"] for slot, entry in host.gpus().items()}
    host.state.write_text("{", encoding="utf-8")
    host.sweeps(0, 6)
    assert {slot: entry["uuid"] for slot, entry in host.gpus().items()} == slots
    assert host.booked().items() >= LEFT.items(), "from Docker and the metadata"
    report = host.sweeps(6, 121, 6, 6)
    assert host.booked() == LEFT
    assert report.is_consistent, told(report)


def test_a_key_that_stands_twice_counts_as_for_everybody_and_what_it_hides_is_found_again(
    host: SimulatedHost,
) -> None:
    """JSON's last one counts, for the allocator too: it is a state without slots then."""
    host.configure(gpu={"source": "nvml"})
    host.reopen()
    host.sweep()
    whole = host.state.read_text(encoding="utf-8").rstrip()
    host.state.write_text(whole[:-1] + ', "gpus": {}}', encoding="utf-8")
    host.sweeps(0, 6, 6, 6)
    assert host.booked().items() >= LEFT.items()
    host.sweeps(6, 121, 6, 6)
    assert host.booked() == LEFT


# --- the state: what is no file -----------------------------------------------------------------


def instead(make: Callable[[Path], object]) -> Spoil:
    """Put something else in the place of a file, which stays beside it."""

    def spoil(path: Path) -> None:
        path.rename(path.with_name("the-file"))
        make(path)

    return spoil


def link_to_the_file(path: Path) -> None:
    path.symlink_to(path.with_name("the-file"))


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(path))


NO_FILE: Mapping[str, Spoil] = {
    "a directory": instead(Path.mkdir),
    "a FIFO": instead(os.mkfifo),
    "a socket": instead(a_socket),
    "a link to the file": instead(link_to_the_file),
    "a link to nothing": instead(lambda path: path.symlink_to("nowhere")),
    "a link to itself": instead(lambda path: path.symlink_to(path)),
    "a link to a device": instead(lambda path: path.symlink_to("/dev/zero")),
}


def mend(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink()
    path.with_name("the-file").rename(path)


@pytest.mark.parametrize("kind", NO_FILE)
def test_a_state_that_is_no_ordinary_file_is_unknown_and_never_replaced(
    host: SimulatedHost, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(host.books)
    NO_FILE[kind](Path(host.state.name))
    before = os.lstat(host.state)
    metadata = {path.name: path.read_bytes() for path in host.metadata.iterdir()}
    for after in (0.0, 6.0, 121.0, 121.0):
        report = host.sweep(after_s=after)
        assert str(host.state) in said(report, Source.STATE)
        assert not report.needed_sources_ok
        assert report.drifts == ()
    after_all = os.lstat(host.state)
    assert (after_all.st_ino, after_all.st_mode) == (before.st_ino, before.st_mode)
    assert {path.name: path.read_bytes() for path in host.metadata.iterdir()} == metadata
    mend(host.state)
    work_goes_on(host)


# --- metadata -----------------------------------------------------------------------------------

NO_RECORD: Mapping[str, Spoil] = {
    "torn": lambda path: path.write_bytes(path.read_bytes()[:30]),
    "empty": text(""),
    "no JSON": text("user: alice"),
    "garbage": data(bytes(range(256))),
    "a list": text("[]"),
    "null": text("null"),
    "another container": text('{"container": "stop._.1002", "user": "mallory", "gpu_id": "1.1"}'),
    "a user that is a list": text('{"user": ["alice"]}'),
    "a priority that is a text": text('{"priority": "high"}'),
    "NaN": text('{"priority": NaN}'),
    "a time that is a number": text('{"allocated_at": 17}'),
    "half a character": text('{"user": "\\ud800"}'),
    "deeply nested": text("[" * 100_000),
}


@pytest.mark.parametrize("kind", NO_RECORD)
def test_a_broken_record_harms_no_other_and_is_written_anew(host: SimulatedHost, kind: str) -> None:
    record = host.metadata / f"{RUNNING}.json"
    NO_RECORD[kind](record)
    broken = record.read_bytes()
    report = host.sweep()
    assert said(report, Source.METADATA) == "ok"
    one = told(report)[f"unreadable-metadata {RUNNING}"]
    assert one.outcome is Outcome.WAITING
    assert str(record) in one.drift.reason
    assert record.read_bytes() == broken
    host.sweep(after_s=6)
    mended = json.loads(record.read_bytes())
    assert (mended["container"], mended["gpu_id"]) == (RUNNING, "1.0")
    assert mended["user"] == "user1001"
    (kept,) = (host.own / "metadata-broken").iterdir()
    assert kept.read_bytes() == broken
    work_goes_on(host)


def test_a_broken_record_of_one_that_is_gone_does_not_keep_its_slot(host: SimulatedHost) -> None:
    (host.metadata / f"{GONE}.json").write_text("{", encoding="utf-8")
    # Nobody knows when it was allocated, so that it may just be being created.
    host.sweeps(6, *(200.0,) * 6, 6)
    assert host.booked() == LEFT
    assert {path.stem for path in host.metadata.glob("*.json")} == set(LEFT)


@pytest.mark.parametrize("kind", NO_FILE)
def test_a_record_that_is_no_ordinary_file_is_reported_and_left_alone(
    host: SimulatedHost, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(host.metadata)
    record = host.metadata / f"{RUNNING}.json"
    NO_FILE[kind](Path(record.name))
    before = os.lstat(record)
    report = host.sweeps(0, 6, 121, 6)
    one = told(report)[f"unreadable-metadata {RUNNING}"]
    assert (one.outcome, one.gate) == (Outcome.WAITING, WaitReason.BLOCKED)
    assert str(record) in one.drift.reason
    assert host.booked() == LEFT, "the others are served"
    after = os.lstat(record)
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert not report.is_consistent
    mend(record)
    work_goes_on(host)


ODD_NAMES = (
    "..",
    "...",
    "../../etc/passwd._.1001",
    "/etc/shadow._.1001",
    "a/b._.1001",
    "line\nbreak._.1001",
    "esc\x1b[2Jape._.1001",
    "nul\0byte._.1001",
    "pipe|RELEASED|x._.1001",
    "x" * 300 + "._.1001",
    "-rf._.1001",
    "",
    "ü._.1001",
    "%s%n._.1001",
    "tab\t._.1001",
    "\u202eright-to-left._.1001",
)


def test_odd_names_in_the_state_leave_no_folder_and_break_no_line(host: SimulatedHost) -> None:
    """Nobody can have such a container, so in the end they are released, one line each."""
    state = json.loads(host.state.read_bytes())
    state["gpus"]["2.0"]["containers"] = list(ODD_NAMES)
    state["gpus"]["2.0"]["users"] = {"eve\nl": len(ODD_NAMES)}
    host.state.write_text(json.dumps(state), encoding="utf-8")
    host.configure(policy={"pace_count": 100})
    host.reopen()
    outside = tree(host.root.parent, but=host.own)
    report = host.sweeps(1, 6)
    assert host.booked().items() >= ALL.items(), told(report)
    assert {name for name, slots in host.booked().items() if slots == {"2.0"}} == set(ODD_NAMES)
    host.sweeps(*(200.0,) * 6, 121, 6)
    assert host.booked() == LEFT
    added = tree(host.root.parent, but=host.own).keys() - outside.keys()
    written = {path for path in added if path.parent == host.metadata}
    assert all(path.is_relative_to(host.books) or path.parent == host.logs for path in added)
    assert {path.stem for path in written} <= set(ODD_NAMES)
    for log in host.logs.iterdir():
        lines = log.read_text(encoding="utf-8").split("\n")
        assert len([one for one in lines if "RELEASED" in one or "release" in one]) >= len(
            ODD_NAMES
        )
        assert all(line.isprintable() for line in lines)
        assert all(line.count("|") == 6 for line in lines if line)


def tree(folder: Path, *, but: Path) -> dict[Path, int]:
    found = (path for path in folder.rglob("*") if not path.is_relative_to(but))
    return {path: path.lstat().st_mtime_ns for path in found if not path.is_socket()}


@pytest.mark.parametrize(
    "name",
    [
        *("...json", "..json", "....json", "line\nbreak._.1001.json", "esc\x1b[2Jape._.1001.json"),
        *("-rf._.1001.json", " ._.1001.json", "ü._.1001.json", "x" * 250 + ".json", ".json"),
        os.fsdecode(b"\xff\xfe._.1001.json"),
    ],
)
def test_files_with_odd_names_among_the_records_are_reported_and_left_alone(
    host: SimulatedHost, name: str
) -> None:
    odd = host.metadata / name
    odd.write_text('{"container": "run._.1001", "gpu_id": "1.1"}', encoding="utf-8")
    report = host.sweeps(0, 6, 121, 6)
    assert host.booked() == LEFT
    if not name.startswith((".", "x")):
        (one,) = report.drifts
        assert (one.drift.kind, one.outcome) == (Kind.UNREADABLE_METADATA, Outcome.WAITING)
        assert one.drift.reason.isprintable()
    if not name.startswith("x"):
        assert odd.exists()
        odd.unlink()
    work_goes_on(host)


def test_a_metadata_folder_that_is_missing_or_a_file_is_unknown(host: SimulatedHost) -> None:
    aside = host.books / "aside"
    host.metadata.rename(aside)
    before = host.state.read_bytes()
    for path in (host.books / "unrelated", host.metadata):
        path.touch()
        report = host.sweeps(0, 6, 121, 6)
        assert str(host.metadata) in said(report, Source.METADATA)
        assert not report.needed_sources_ok
        assert host.state.read_bytes() == before
    host.metadata.unlink()
    aside.rename(host.metadata)
    work_goes_on(host)


def test_a_link_to_a_metadata_folder_elsewhere_is_the_administrators_will(
    host: SimulatedHost,
) -> None:
    host.metadata.rename(host.books / "elsewhere")
    host.metadata.symlink_to("elsewhere")
    work_goes_on(host)


# --- logs ---------------------------------------------------------------------------------------

NO_LOG: Mapping[str, Spoil] = {
    "a missing folder": lambda path: path.parent.rmdir(),
    "a directory": Path.mkdir,
    "a FIFO": os.mkfifo,
    "a link": lambda path: path.symlink_to(path.parent / "elsewhere"),
    "a device": lambda path: path.symlink_to("/dev/full"),
}


@pytest.mark.parametrize("kind", NO_LOG)
@pytest.mark.parametrize("log", ["operations", "allocations"])
def test_a_log_that_cannot_be_written_stops_no_repair_and_is_reported(
    host: SimulatedHost, log: str, kind: str
) -> None:
    path = host.logs / "broken" / f"{log}.log"
    path.parent.mkdir()
    NO_LOG[kind](path)
    host.configure(logs={log: path})
    host.reopen()
    # While nobody can say whether it is just being created, that wait counts, too.
    reports = [host.sweep(after_s=after) for after in (1, 121, *(200,) * 6, 121, 6)]
    assert host.booked() == LEFT
    assert str(path) in "; ".join(trouble for report in reports for trouble in report.warnings)
    assert not (path.parent / "elsewhere").exists()


def test_an_operations_log_full_of_nonsense_is_read_for_what_it_says(host: SimulatedHost) -> None:
    path = host.logs / "operations.log"
    path.write_bytes(
        b"\xff\xfe\0garbage\n"
        + b"|" * 10_000
        + b"\n2026-13-45 99:99:99|create_start|u|gone._.1003|0|pending|x\n"
        + b"x" * 3_000_000
        + b"\n"
    )
    work_goes_on(host)


# --- limits -------------------------------------------------------------------------------------

WEEK = (
    "defaults: {gpu_hold_after_stop: 15m}\n"
    "default_group: student\n"
    "groups:\n"
    "  student:\n"
    "    priority: 1\n"
    "  research:\n"
    "    gpu_hold_after_stop: 7d\n"
    f"    members: [{USER}]\n"
)
HALF = WEEK.partition("  research:")[0]


@pytest.mark.parametrize("apart_s", [1, 6, 30])
def test_half_a_file_at_two_passes_ends_no_hold(host: SimulatedHost, apart_s: float) -> None:
    """A writer that is slow, in place, and whose half is valid: it names nobody of research."""
    host.limits.write_text(WEEK, encoding="utf-8")
    host.sweeps(6, 3600, 60, 60, 60)
    assert host.booked()[STOPPED] == {"1.1"}
    host.limits.write_text(HALF, encoding="utf-8")
    report = host.sweeps(1, apart_s, apart_s)
    assert host.booked()[STOPPED] == {"1.1"}, told(report)
    assert [
        one.reason.partition(":")[0] for one in report.findings if one.container == STOPPED
    ] == [f"hold of {USER}"]
    host.limits.write_text(WEEK, encoding="utf-8")
    report = host.sweeps(1, 6, 130, 130)
    assert host.booked()[STOPPED] == {"1.1"}, told(report)
    assert not report.findings


OVERRIDDEN = (
    "# " + "who may do what, and for how long; " * 8 + "\n"
    "defaults: {gpu_hold_after_stop: 15m}\n"
    "groups:\n"
    "  student:\n"
    f"    members: [{USER}, alice, bob]\n"
    "user_overrides:\n"
    f"  {USER}:\n"
    "    gpu_hold_after_stop: 7d\n"
)


@pytest.mark.parametrize("lost", ["    gpu_hold_after_stop: 7d\n", f"  {USER}:"])
def test_a_file_without_its_end_ends_no_hold(host: SimulatedHost, lost: str) -> None:
    """It is as good as whole and names the same users; what one of them has is lost."""
    host.limits.write_text(OVERRIDDEN, encoding="utf-8")
    host.sweeps(6, 3600, 60, 60, 60)
    assert host.booked()[STOPPED] == {"1.1"}
    host.limits.write_text(OVERRIDDEN.rpartition(lost)[0], encoding="utf-8")
    report = host.sweeps(1, 6, 30)
    assert host.booked()[STOPPED] == {"1.1"}, told(report)
    host.limits.write_text(OVERRIDDEN, encoding="utf-8")
    report = host.sweeps(1, 6, 130)
    assert host.booked()[STOPPED] == {"1.1"}, told(report)
    shorter = OVERRIDDEN.replace("7d", "1s")
    host.limits.write_text(shorter, encoding="utf-8")
    host.sweeps(1, 6)
    assert STOPPED not in host.booked(), "an edit counts after the settle time"


def test_a_file_that_stays_shorter_counts_in_the_end(host: SimulatedHost) -> None:
    host.limits.write_text(WEEK, encoding="utf-8")
    host.sweeps(6, 3600, 60, 60, 60)
    host.limits.write_text(HALF, encoding="utf-8")
    host.sweeps(1, 119)
    assert host.booked()[STOPPED] == {"1.1"}
    host.sweeps(2, 6)
    assert STOPPED not in host.booked()


MEMBERS_BESIDE = (
    "defaults: {gpu_hold_after_stop_h: 0.25}\n"
    "default_group: student\n"
    "groups: {student: {max_gpu_equivalents: 1.0}, research: {gpu_hold_after_stop_h: 168}}\n"
)
MEMBERS = f"# members of research\nalice\nbob\n{USER}\n"


def replace_by_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/proc/version")


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


LOST: dict[str, Spoil] = {
    "gone": lambda path: path.unlink(),
    "emptied": lambda path: path.write_text(""),
    "cut": lambda path: path.write_text(MEMBERS.partition(USER)[0]),
    "another": lambda path: path.write_text("# members of research\nalice, bob\n"),
    "a link": replace_by_link,
    "a folder": replace_by_folder,
    "moved away": lambda path: path.parent.rename(path.parent.with_name("g")),
}
EDITED = {"emptied", "cut", "another"}


@pytest.mark.parametrize("kind", LOST)
def test_a_list_of_members_that_is_lost_moves_nobody_to_a_shorter_hold(
    host: SimulatedHost, kind: str
) -> None:
    """Not at once where somebody may have meant it, and never where nobody can have."""
    host.limits.write_text(MEMBERS_BESIDE, encoding="utf-8")
    members = host.limits.parent / "groups" / "research.members"
    members.parent.mkdir()
    members.write_text(MEMBERS, encoding="utf-8")
    host.sweeps(6, 3600, 60, 60, 60)
    assert host.booked()[STOPPED] == {"1.1"}
    LOST[kind](members)
    report = host.sweeps(1, 6, 60)
    assert host.booked()[STOPPED] == {"1.1"}, told(report)
    unclear = {one.reason for one in report.findings if one.kind is FindingKind.UNCLEAR_LIMITS}
    assert unclear
    host.sweeps(200, 6)
    assert (STOPPED in host.booked()) == (kind not in EDITED)


def yaml(content: str) -> Spoil:
    return lambda path: path.write_text(content, encoding="utf-8")


def hold(value: str) -> Spoil:
    return yaml(
        f"defaults: {{gpu_hold_after_stop: {value}}}\ndefault_group: all\ngroups: {{all: {{}}}}\n"
    )


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{after}: &{after} [{','.join([f'*{before}'] * 9)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)
"""Written out it has half a billion elements."""
CHAIN = "x0: &x0 [x]\n" + "".join(f"x{n}: &x{n} [*x{n - 1}]\n" for n in range(1, 901))

NO_LIMIT: Mapping[str, Spoil] = {
    "missing": Path.unlink,
    "empty": yaml(""),
    "a directory": instead(Path.mkdir),
    "a FIFO": instead(os.mkfifo),
    "a link": instead(link_to_the_file),
    "garbage": data(bytes(range(256))),
    "no YAML": yaml("defaults: {gpu_hold_after_stop: 1s\n"),
    "tabs": yaml("defaults:\n\tgpu_hold_after_stop: 1s\n"),
    "a list": yaml("- defaults\n"),
    "a text": yaml("gpu_hold_after_stop\n"),
    "code": yaml("defaults: !!python/object/apply:os.system ['true']\n"),
    "a bomb": yaml(BOMB + "defaults: {gpu_hold_after_stop: *i}\n"),
    "bombs": yaml(BOMB + "defaults: *i\ndefault_group: *i\ngroups: {g: {members: [*i]}}\n"),
    "a long chain": yaml(CHAIN + "defaults: {gpu_hold_after_stop: *x900}\n"),
    "a long number": yaml(f"defaults: {{gpu_hold_after_stop: 0x{'f' * 6000}}}\n"),
    "a longer number": yaml(f"defaults: {{gpu_hold_after_stop: {'7' * 6000}}}\n"),
    "huge": huge,
    "defaults in a list": yaml("defaults: [1s]\ndefault_group: all\ngroups: {all: {}}\n"),
    "groups in a list": yaml("defaults: {gpu_hold_after_stop: 1s}\ngroups: [all]\n"),
    "members in a text": yaml(
        "defaults: {gpu_hold_after_stop: 1s}\ndefault_group: g\ngroups: {g: {members: user1002}}\n"
    ),
    "no such default group": yaml(
        "defaults: {gpu_hold_after_stop: 1s}\ndefault_group: h\ngroups: {g: {}}\n"
    ),
    "a user in two groups": yaml(
        "defaults: {gpu_hold_after_stop: 1s}\ndefault_group: g\n"
        "groups: {g: {members: [user1002]}, h: {members: [user1002]}}\n"
    ),
    "the key twice": yaml(
        "defaults:\n  gpu_hold_after_stop: 1s\n  gpu_hold_after_stop: 2s\n"
        "default_group: all\ngroups: {all: {}}\n"
    ),
    "overrides in a list": yaml(
        "defaults: {gpu_hold_after_stop: 1s}\ndefault_group: g\ngroups: {g: {}}\n"
        "user_overrides: [user1002]\n"
    ),
    **{
        f"hold {value}": hold(value)
        for value in (
            *("0", "36", "1.5", "true", "[1h]", "{h: 1}", "1x", "1h2h", "-1h", "1 year", "h"),
            *("'1e3h'", "'١h'", "1h30", ".inf", ".nan", "2026-01-01", "'0x10h'"),
        )
    },
}


@pytest.mark.parametrize("kind", NO_LIMIT)
def test_limits_that_make_no_sense_end_no_hold(host: SimulatedHost, kind: str) -> None:
    NO_LIMIT[kind](host.limits)
    host.engine.containers.change(STOPPED, finished=host.clock.unset() - 100 * 86_400)
    record = host.metadata / f"{STOPPED}.json"
    record.unlink()
    host.record(STOPPED, "1.1", ago_s=101 * 86_400)
    report = host.sweeps(1, 121, 6, 200, 200)
    assert host.booked() == LEFT
    finding = {one.container for one in report.findings if one.kind is FindingKind.UNCLEAR_LIMITS}
    assert STOPPED in finding or said(report, Source.LIMITS) != "ok"
    told_of = said(report, Source.LIMITS) + str(report.findings)
    assert str(host.limits) in told_of
    for path in (host.limits, host.limits.with_name("the-file")):
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
    hold("15m")(host.limits)
    host.sweeps(6, 6)
    assert host.booked() == {RUNNING: {"1.0"}}


# --- Docker -------------------------------------------------------------------------------------

SPOILED = {mode.name.lower(): mode for mode in sorted(SPOILING, key=str)}


@pytest.mark.parametrize("mode", SPOILED)
@pytest.mark.parametrize("call", ["GET /containers/json", "GET /info"])
def test_an_answer_of_docker_that_is_none_changes_nothing(
    host: SimulatedHost, proxy: Proxy, mode: str, call: str
) -> None:
    behind(host, proxy)
    before = host.bytes_of_books()
    proxy.fault(call, SPOILED[mode])
    for after in (0.0, 6.0, 121.0, 121.0):
        report = host.sweep(after_s=after)
        assert proxy.url in said(report, Source.DOCKER)
        assert not report.needed_sources_ok
    assert host.bytes_of_books() == before
    proxy.clear()
    behind(host, proxy, 30.0)  # on a busy machine a good answer takes its time
    work_goes_on(host)


@pytest.mark.parametrize("mode", SPOILED)
def test_an_inspect_that_fails_leaves_that_container_undecided(
    host: SimulatedHost, proxy: Proxy, mode: str
) -> None:
    behind(host, proxy)
    before = host.bytes_of_books()
    proxy.fault("GET /containers/.+/json", SPOILED[mode])
    host.sweeps(0, 6, 121, 6)
    assert host.bytes_of_books() == before, "no release without a proof by inspect"
    proxy.clear()
    behind(host, proxy, 30.0)  # on a busy machine a good answer takes its time
    work_goes_on(host)


def behind(host: SimulatedHost, proxy: Proxy, deadline_s: float = 0.3) -> None:
    """Let ds01d reach the engine through the proxy; with a short deadline while that fails."""
    host.configure(docker={"url": proxy.url, "timeout_s": Seconds(deadline_s)})
    host.reopen()


@contextmanager
def dripping(path: Path) -> Iterator[None]:
    """An engine that answers a byte at a time, without an end."""
    ended = threading.Event()

    def drip(connection: socket.socket) -> None:
        head = (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999999\r\n\r\n["
        )
        with connection, suppress(OSError):
            for byte in head:
                connection.send(bytes([byte]))
            while not ended.wait(0.02):
                connection.send(b" ")

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                threading.Thread(target=drip, args=(connection,), daemon=True).start()

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            server.shutdown(socket.SHUT_RDWR)
            thread.join(60)


def test_an_engine_that_drips_is_left_at_the_deadline(
    host: SimulatedHost, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("drip") / "docker.sock"
    before = host.bytes_of_books()
    host.configure(docker={"url": f"unix://{path}", "timeout_s": Seconds(0.3)})
    host.reopen()
    with dripping(path):
        for after in (0.0, 6.0, 121.0):
            report = host.sweep(after_s=after)
            assert said(report, Source.DOCKER) != "ok"
    assert host.bytes_of_books() == before
    host.configure(docker={"url": host.engine.url})
    host.reopen()
    work_goes_on(host)


@pytest.mark.parametrize("kind", ["missing", "refused", "a file", "a directory"])
def test_a_socket_where_no_engine_listens_is_unknown(
    host: SimulatedHost, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("none") / "docker.sock"
    before = host.bytes_of_books()
    if kind == "refused":
        a_socket(path)
    elif kind == "a file":
        path.touch()
    elif kind == "a directory":
        path.mkdir()
    host.configure(docker={"url": f"unix://{path}", "timeout_s": Seconds(0.3)})
    host.reopen()
    for after in (0.0, 6.0, 121.0, 121.0):
        assert str(path) in said(host.sweep(after_s=after), Source.DOCKER)
    assert host.bytes_of_books() == before
    host.configure(docker={"url": host.engine.url})
    host.reopen()
    work_goes_on(host)


@pytest.mark.parametrize("how", ["another root", "another inode", "no root", "another id"])
def test_another_engine_proves_nothing_of_the_one_before(host: SimulatedHost, how: str) -> None:
    """Its data root may just not be mounted: then it answers honest 404s."""
    root, ident = host.engine.data_root, host.engine.ident
    data_root = host.root.with_name("docker")
    data_root.mkdir()
    host.engine.data_root = str(data_root)
    for path in host.own.glob("checkpoint*"):
        path.unlink()
    host.reopen()
    host.sweeps(0, 6)
    for name in (RUNNING, STOPPED):
        host.engine.containers.remove(name)
    if how == "another root":
        host.engine.data_root = root
    elif how == "another id":
        host.engine.ident = "SOME:BODY:ELSE"
    else:
        data_root.rename(data_root.with_name("unmounted"))
        if how == "another inode":
            data_root.mkdir()
    report = host.sweeps(0, 121, 121, 121)
    assert host.booked() == ALL
    assert {one.gate for one in report.drifts if one.drift.taken} == {WaitReason.ENGINE}
    assert "ds01ctl thaw --engine" in told(report)[f"stale-allocation {GONE}"].reason
    host.engine.data_root, host.engine.ident = str(data_root), ident
    if data_root.with_name("unmounted").exists():
        with suppress(FileNotFoundError):
            data_root.rmdir()
        data_root.with_name("unmounted").rename(data_root)
    report = host.sweeps(6, 121, 6)
    assert WaitReason.ENGINE not in {one.gate for one in report.drifts}


# --- times --------------------------------------------------------------------------------------

YEAR_S = 365 * 86_400.0


@pytest.mark.parametrize("step_s", [86_400.0, -86_400.0, YEAR_S, -YEAR_S, 7200.0])
def test_a_step_of_the_wall_clock_ends_no_hold_and_prolongs_none(
    host: SimulatedHost, step_s: float
) -> None:
    hold("15m")(host.limits)
    host.sweep(after_s=6)
    host.clock.stepped_s = step_s
    host.sweeps(10, 121, 6, 200)
    assert host.booked() == LEFT
    host.sweeps(200, 200, 200, 6)  # 15 minutes after its stop, by a clock that nobody sets
    assert host.booked() == {RUNNING: {"1.0"}}


def test_a_time_in_the_future_is_capped(host: SimulatedHost) -> None:
    """A booking of next year: its creation lasts from the first sight on, no longer."""
    host.record(GONE, "1.2", ago_s=-YEAR_S)
    host.sweeps(6, 200, 200, 200, 200)
    assert host.booked() == ALL
    host.sweeps(200, 121, 6)
    assert host.booked() == LEFT


# --- no room, no right ----------------------------------------------------------------------------


@contextmanager
def small_disk(path: Path) -> Iterator[Path]:
    """Move a folder onto a file system of its own with little room."""
    if os.geteuid() != 0:
        pytest.skip("a file system of its own needs root")
    aside = path.with_name(f"{path.name}-aside")
    path.rename(aside)
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "small", str(path)], check=True)
    try:
        shutil.copytree(aside, path, dirs_exist_ok=True)
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(path: Path) -> None:
    with (path / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"x" * 512):
            pass


@contextmanager
def unwritable(path: Path, how: str) -> Iterator[None]:
    """Let nothing be written there: no room, or read-only."""
    if how == "full":
        fill(path)
        yield
        (path / "filler").unlink()
    else:
        subprocess.run(["mount", "-o", "remount,ro", str(path)], check=True)
        yield
        subprocess.run(["mount", "-o", "remount,rw", str(path)], check=True)


ADVICE = {"full": "make room", "read-only": "mount it writable"}


@pytest.mark.parametrize("how", ADVICE)
def test_books_that_cannot_be_written_stay_whole(host: SimulatedHost, how: str) -> None:
    with small_disk(host.books):
        host.reopen()
        host.sweep()
        before = host.bytes_of_books()
        with unwritable(host.books, how):
            report = host.sweeps(1, 121, 6)
            failed = told(report)[f"stale-allocation {GONE}"]
            assert failed.outcome is Outcome.FAILED
            assert ADVICE[how] in failed.reason
            assert host.bytes_of_books() == before
            host.state.exists()
        work_goes_on(host)
        assert not [path for path in host.books.iterdir() if "ds01d-tmp" in path.name]


@pytest.mark.parametrize("how", ADVICE)
def test_without_a_history_nothing_is_done(host: SimulatedHost, how: str) -> None:
    host.run("new._.1004", host.gpus()["2.0"]["uuid"], ago_s=0)
    (host.own / "history.jsonl").write_bytes(b"x" * 4095 + b"\n")  # a page, to the last byte
    with small_disk(host.own):
        host.reopen()
        host.sweep()
        before = host.bytes_of_books()
        with unwritable(host.own, how):
            if how == "full":
                reports = [host.sweep(after_s=after) for after in (1, 121, 6)]
                assert {one.outcome for one in reports[-1].drifts} == {Outcome.FAILED}
                drifts = [one.reason for report in reports for one in report.drifts]
                assert ADVICE[how] in " ".join(drifts)
                assert ADVICE[how] in " ".join(reports[-1].warnings), "the memory"
            else:  # not even the lock that all passes share
                with pytest.raises(WriteFailed, match=ADVICE[how]):
                    host.sweep(after_s=121)
            assert host.bytes_of_books() == before
        host.sweeps(1, 121, 6, 6)
        assert host.booked() == {**LEFT, "new._.1004": {"2.0"}}


@pytest.mark.parametrize("how", ADVICE)
def test_logs_without_room_stop_no_repair(host: SimulatedHost, how: str) -> None:
    with small_disk(host.logs), unwritable(host.logs, how):
        reports = [host.sweep(after_s=after) for after in (1, 121, 6)]
        assert host.booked() == LEFT
        troubles = " ".join(trouble for one in reports for trouble in one.warnings)
        assert ADVICE[how] in troubles or how == "full"


# --- as processes -------------------------------------------------------------------------------

# Root may read everything unless it gives that up.
WITHOUT_RIGHTS = (
    *("setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps"),
    "-dac_override,-dac_read_search",
)


def as_anybody(command: list[str]) -> list[str]:
    return [*WITHOUT_RIGHTS, *command] if os.geteuid() == 0 else command


@pytest.fixture
def site(tmp_path: Path, fake_engine: FakeEngine) -> Site:
    """Books with one that runs and one that is gone, for processes."""
    site = Site(tmp_path, fake_engine.url)
    labels = {"aime.mlc": "alice", "ds01.managed": "true"}
    devices = [request(site.uuid("1.0"))]
    site.allocator.allocate(RUNNING, "alice", "1.0")
    fake_engine.containers.add(RUNNING, labels=labels, requests=devices)
    return site


@pytest.mark.parametrize("what", ["state", "record", "metadata", "limits", "operations"])
def test_what_may_not_be_read_is_unknown_or_reported(site: Site, what: str) -> None:
    path = {
        "state": site.state,
        "record": site.metadata / f"{RUNNING}.json",
        "metadata": site.metadata,
        "limits": site.limits,
        "operations": site.operations,
    }[what]
    site.operations.touch()
    path.chmod(0)
    command = as_anybody([sys.executable, "-m", "ds01d.cli.ctl.main", "plan", "--json"])
    done = subprocess.run(
        command, env=site.environment(), capture_output=True, text=True, timeout=60, check=False
    )
    path.chmod(0o755)
    plan = json.loads(done.stdout)
    if what == "record":
        (drift,) = (one for one in plan["drifts"] if one["kind"] == "unreadable-metadata")
        assert drift["verdict"] == "waiting"
        assert "ermission denied" in drift["reason"] + str(drift["evidence"])
        assert done.returncode == 2
    else:
        assert "ermission denied" in plan["sources"][what], plan["sources"]
        assert not plan["consistent"] or what in {"limits", "operations"}
        assert done.returncode == (1 if what in {"state", "metadata"} else 0)
    assert site.bookings() == {(RUNNING, "1.0")}


BAD_CONFIG = {
    "unknown key": ("[daemon]\nswep_interval = '60s'\n", ("ds01d.toml, line 2", "sweep_interval")),
    "unknown table": ("[docket]\n", ("ds01d.toml, line 1", "docker")),
    "wrong unit": ("[policy]\nsettle = '5 parsecs'\n", ("ds01d.toml, line 2", "policy.settle")),
    "bare number": ("[policy]\nsettle = 5\n", ("policy.settle", "10s")),
    "impossible": (
        "[daemon]\nsweep_interval = '5s'\n",
        ("daemon.sweep_interval", "docker.timeout"),
    ),
    "bad cron": ("[daemon]\nsweep_cron = 'often'\n", ("daemon.sweep_cron", "*/2 * * * *")),
    "no TOML": ("[daemon\n", ("ds01d.toml", "line 1")),
    "no text": ("\ufeff[daemon]\nmode = '\udcff'\n", ("ds01d.toml",)),
}


@pytest.mark.parametrize("kind", BAD_CONFIG)
def test_ds01d_does_not_start_with_a_configuration_that_cannot_be(
    tmp_path: Path, kind: str
) -> None:
    content, words = BAD_CONFIG[kind]
    file = tmp_path / "ds01d.toml"
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    done = subprocess.run(
        [sys.executable, "-m", "ds01d.cli.daemon", "--config", str(file), "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    for word in words:
        assert word in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_the_daemon_lives_through_all_of_it(site: Site, fake_engine: FakeEngine) -> None:
    """One daemon, one trouble after the other: each is told when it begins and when it ends."""
    site.allocator.allocate(GONE, "alice", "1.2")
    held = {(RUNNING, "1.0"), (GONE, "1.2")}
    site.configure(policy={"absence_grace": "60s", "creation_grace": "60s"})
    with RunningDaemon(site) as daemon:
        good = site.state.read_bytes()

        def trouble(source: str, spoil: Callable[[], object], repair: Callable[[], object]) -> None:
            mark = daemon.mark()
            spoil()
            down = daemon.wait_for("source.down", since=mark, source=source)
            assert down["reason"]
            assert "\n" not in down["reason"]
            repair()
            daemon.wait_for("source.up", since=mark, source=source)
            assert site.bookings() == held

        # Torn and left so: rebuilt after the settle time, which is the mend.
        trouble("state", lambda: site.state.write_bytes(good[:200]), lambda: None)
        for kind in ("a directory", "a FIFO", "a link to the file"):
            trouble("state", lambda k=kind: NO_FILE[k](site.state), lambda: mend(site.state))  # type: ignore[misc]
        trouble(
            "metadata",
            lambda: site.metadata.rename(site.metadata.with_name("aside")),
            lambda: site.metadata.with_name("aside").rename(site.metadata),
        )
        trouble("limits", lambda: NO_FILE["a FIFO"](site.limits), lambda: mend(site.limits))
        trouble("docker", fake_engine.stop, fake_engine.start)

        config = site.config.read_text(encoding="utf-8")
        site.config.write_text(f"{config}\n[nonsense]\nx = 1\n", encoding="utf-8")
        mark = daemon.mark()
        daemon.reload()
        refused = daemon.wait_for("config.refused", since=mark)
        assert "nonsense" in refused["reason"]
        assert refused["level"] == "error"
        assert site.bookings() == held, "the old one is kept"
        site.config.write_text(config, encoding="utf-8")
        site.configure(policy={"absence_grace": "1s", "creation_grace": "1s"})
        daemon.reload()
        daemon.booked((RUNNING, "1.0"))
        assert daemon.noise == []


def test_a_daemon_that_may_not_write_its_books_says_so_and_goes_on(
    site: Site, fake_engine: FakeEngine
) -> None:
    fake_engine.containers.add(
        "new._.1004", labels={"aime.mlc": "alice"}, requests=[request(site.uuid("2.0"))]
    )
    folder = site.state.parent
    folder.chmod(0o555)
    command = (*as_anybody([sys.executable, "-c"]), _DAEMON)
    try:
        with RunningDaemon(site, command=command) as daemon:
            failed = daemon.wait_for("drift.failed", container="new._.1004")
            assert "write access" in failed["reason"]
            assert site.bookings() == {(RUNNING, "1.0")}
            folder.chmod(0o755)
            daemon.booked((RUNNING, "1.0"), ("new._.1004", "2.0"))
    finally:
        folder.chmod(0o755)


_DAEMON = """
import sys
from pathlib import Path
from ds01d.bootstrap_daemon import run_daemon
sys.exit(run_daemon(Path(sys.argv[1]), {}))
"""
