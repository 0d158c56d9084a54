"""`ds01-dashboard`: one look in a pipe, an object, and a live view with keys on a terminal."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ds01d.cli.ctl.log_view import LogRow
from ds01d.cli.ctl.status_document import StatusView
from ds01d.cli.dashboard.main import main as ds01_dashboard
from ds01d.cli.dashboard.view import DashboardState, dashboard_blocks, dashboard_document
from ds01d.cli.output.display import show_blocks, show_json
from ds01d.config import Config
from ds01d.model.books import SlotType
from ds01d.model.checkpoint import Freeze
from ds01d.model.primitives import ContainerName, DeviceUuid, SlotId, Source, UserName, Wall
from ds01d.reporting.status import (
    GpuStatus,
    Holder,
    Pace,
    SlotStatus,
    SourceStatus,
    Status,
    Sweep,
)
from ds01d.reporting.status_file import write_status
from tests.cli.base.test_command import config as config_of
from tests.support.commands import Desk
from tests.support.schemas import check_document
from tests.support.status import published
from tests.support.terminal import TerminalSession, conversation, on_a_terminal

COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|38;|9[0-7])[;m]")
BACKGROUND = re.compile(r"\x1b\[(?:\d+;)*(?:4[0-7]|48(?:;\d+)+|10[0-7])(?:;\d+)*m")
NOW = Wall(1_800_000_000.0)
GIB = 2**30


def holder(name: str, user: str, state: str = "running", left: float | None = None) -> Holder:
    until = None if left is None else Wall(NOW + left)
    return Holder(container=ContainerName(name), user=UserName(user), state=state, until=until)


def mig(name: str, *holders: Holder, drifts: tuple[str, ...] = ()) -> SlotStatus:
    return SlotStatus(
        id=SlotId(name),
        type=SlotType.MIG,
        profile="1g.10gb",
        holders=holders,
        drifts=drifts,
        memory_used=3 * GIB,
        memory_total=10 * GIB,
    )


def scene() -> DashboardState:
    """One look at a host with a bit of everything."""
    fine = SourceStatus(ok=True, since=Wall(NOW - 7200), last_success=NOW)
    broken = SourceStatus(ok=False, since=Wall(NOW - 90), reason="no driver")
    last = Status(
        written_at=NOW,
        pid=77,
        version="1.2.3",
        mode="repair",
        ready=True,
        engine_trusted=True,
        sources={Source.DOCKER: fine, Source.NVML: broken},
        pace=Pace(used=1, limit=2, window_s=600.0),
        last_sweep=Sweep(at=Wall(NOW - 12), duration_s=0.05),
        next_sweep=Wall(NOW + 48),
        gpus=(
            GpuStatus(
                index=0,
                uuid=DeviceUuid("GPU-0"),
                name="NVIDIA A100",
                mig=True,
                memory_used=GIB // 2,
                memory_total=80 * GIB,
                temperature=41,
                utilization=7,
            ),
            GpuStatus(index=1, uuid=DeviceUuid("GPU-1"), health=("GPU is lost",)),
        ),
    )
    slots = (
        mig("0.0", holder("train._.1001", "alice")),
        mig("0.1", holder("rest._.1003", "carol", "exited", 5400), drifts=("wrong-count held",)),
        SlotStatus(id=SlotId("1"), type=SlotType.PHYSICAL, foreign=("web",)),
        mig("0.2", holder("more._.1001", "alice"), holder("train._.1001", "alice")),
    )
    freeze = Freeze(subject="0.2", by="root", reason="work", since=NOW, until=Wall(NOW + 60))
    operations = (
        LogRow.parse("2027-01-15 07:59:00|create_start|alice|train._.1001|0.0|pending|torch|"),
        LogRow.parse("half a line"),
    )
    picture = StatusView(last=last, slots=slots, freezes=(freeze,))
    return DashboardState(status=picture, operations=operations, log_problem="", now=NOW)


# The lines are as wide as the table is, for the one who compares them by eye.
# ruff: noqa: E501
GOLDEN = """\
frozen: 0.2, by root, thaws in 1 m: work

GPUS
GPU  NAME         MIG   MEMORY           TEMPERATURE  UTILISATION  HEALTH
0    NVIDIA A100  on    0.5 of 80.0 GiB  41 °C        7 %          ok
1    unknown      none  unknown          unknown      unknown      GPU is lost

SLOTS
SLOT  TYPE          CONTAINER     USER   STATE    HOLD LEFT  DRIFT             OTHERS  UTILISATION  MEMORY      PROCESSES
0.0   1g.10gb       train._.1001  alice  running  -          -                 -       -            -/10.0 GiB  -
0.1   1g.10gb       rest._.1003   carol  exited   1 h 30 m   wrong-count held  -       -            -/10.0 GiB  -
1     physical_gpu  -             -      in use   -          -                 web     -            -           -
0.2   1g.10gb       more._.1001   alice  running  -          -                 -       -            -/10.0 GiB  -
0.2   1g.10gb       train._.1001  alice  running  -          -                 -       -            -/10.0 GiB  -

USERS
USER   CONTAINERS  NAMES
alice  2           more._.1001, train._.1001
carol  1           rest._.1003

DAEMON
daemon      ready, mode repair, version 1.2.3, pid 77
docker      ok for 2 h
nvml        down for 1 m 30 s: no driver
last sweep  2027-01-15T07:59:48+00:00 (12 s ago)
            took 0.050 s
next sweep  2027-01-15T08:00:48+00:00 (in 48 s)
pace        1 of 2 releases without a destroy event in 10 m
drifts      none known
findings    0

LAST OPERATIONS
TIME                 OPERATION     USER   CONTAINER     GPU  STATUS   DETAILS
2027-01-15 07:59:00  create_start  alice  train._.1001  0.0  pending  torch|
-                    unreadable    -      -             -    -        half a line
"""


def test_one_look_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    show_blocks(dashboard_blocks(scene(), Config()), NOW)
    assert capsys.readouterr().out == GOLDEN


def test_and_as_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    show_json("dashboard", dashboard_document(scene()))
    told = json.loads(capsys.readouterr().out)
    assert check_document(told) == "dashboard"
    assert told["at"] == "2027-01-15T08:00:00+00:00"
    assert told["gpus"][0]["temperature"] == 41
    assert told["gpus"][1]["utilization"] is None
    assert told["slots"][1]["drifts"] == ["wrong-count held"]
    assert told["slots"][1]["memory_used"] == 3 * GIB
    assert told["users"][0] == {"user": "alice", "containers": ["more._.1001", "train._.1001"]}
    assert told["operations"][0]["operation"] == "create_start"
    assert told["daemon"]["alive"] is True


# --- the command ------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [(), ("--once",)])
def test_without_a_terminal_it_is_shown_once(desk: Desk, words: tuple[str, ...]) -> None:
    write_status(published(), desk.state_dir)
    result = desk.call(*words, command=ds01_dashboard)
    assert result.exit_code == 0
    assert "rest._.1003" in result.stdout
    assert "\x1b" not in result.stdout


def test_without_a_daemon_the_books_are_shown_and_it_is_said(desk: Desk) -> None:
    result = desk.call("--once", command=ds01_dashboard)
    assert "ds01d is not running (no status in" in result.stdout
    assert "train._.1001" in result.stdout
    assert "GPUs are shown while ds01d runs" in result.stdout
    told = json.loads(desk.call("--json", command=ds01_dashboard).stdout)
    assert told["gpus"] == []
    assert told["daemon"]["alive"] is False


def test_without_daemon_and_books_it_is_an_error(desk: Desk) -> None:
    desk.host.failing.add(Source.STATE)
    result = desk.call(command=ds01_dashboard)
    assert "cannot read the books" in result.stdout
    assert result.exit_code == 1


def test_the_operations_log_is_part_of_it(tmp_path: Path) -> None:
    log = tmp_path / "operations.log"
    log.write_text("".join(f"2027-01-15 07:59:00|stop|u|c{n}|1.0|success|\n" for n in range(40)))
    told = json.loads(_once(tmp_path, "--json"))
    assert [one["container"] for one in told["operations"]] == [f"c{n}" for n in range(25, 40)]
    assert told["operations_trouble"] == ""
    log.unlink()
    log.mkdir()
    assert "is not a regular file" in _once(tmp_path, "--once")


def _file(folder: Path) -> str:
    file = Path(config_of(folder))
    file.write_text(f'{file.read_text()}[logs]\noperations = "{folder}/operations.log"\n')
    return str(file)


def _once(folder: Path, *words: str) -> str:
    command = [sys.executable, "-m", "ds01d.cli.dashboard.main", "--config", _file(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


# --- on a terminal ----------------------------------------------------------------------------


def environment(**more: str) -> dict[str, str]:
    kept = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    return {**kept, "COLUMNS": "140", "LINES": "50", **more}


def test_on_a_real_terminal_it_comes_and_goes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ds01d.cli.dashboard.main", "--config", _file(tmp_path)]
    code, drawn = conversation(command, [("CONTAINER", "q")], environment())
    assert code == 0
    assert "ds01d is not running" in drawn
    assert "\x1b[?1049h" in drawn
    assert drawn.rindex("\x1b[?1049l") > drawn.rindex("\x1b[?1049h")
    # Its own colours, and its own background: it may be dark or light.
    assert COLOUR.search(drawn)
    assert not BACKGROUND.search(drawn)
    assert "Traceback" not in drawn


def test_a_look_that_finds_nothing_new_draws_the_age_alone(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    write_status(published(sources={}), tmp_path / "own")
    command = [sys.executable, "-m", "ds01d.cli.dashboard.main", "--config", _file(tmp_path)]
    env = environment(TERM="xterm-256color", NO_COLOR="1")
    session = TerminalSession([*command, "--interval", "100ms"], env)
    try:
        session.expect("rest._.1003", 60)
        session.expect("Quit", 60)
        session.expect(" s old", 60)
        assert not COLOUR.search(session.drawn.decode(errors="replace"))
        drawn = b""
        # The status is a second older with each ten looks.
        while drawn.count(b" s old") < 3:
            drawn += os.read(session.ours, 65536)
        assert b"rest._.1003" not in drawn
        assert len(drawn) < 3000
        # Pasted at once: what follows the slash is no key that sorts, sweeps or ends.
        session.type("/sq nobody\r")
        session.expect("filter 'sq nobody'", 60)
        session.type("q")
        assert session.end() == 0
    finally:
        session.close()


def test_without_textual_one_line_names_the_extra(tmp_path: Path) -> None:
    absent = "raise ModuleNotFoundError(\"No module named 'textual'\", name='textual')\n"
    (tmp_path / "textual.py").write_text(absent)
    words = ["ds01d.cli.dashboard.main", "--config", _file(tmp_path)]
    env = environment(PYTHONPATH=str(tmp_path))
    code, drawn = on_a_terminal(words, env)
    assert code == 1
    assert "pip install 'ds01d[dashboard]'" in drawn
    assert drawn.count("\n") == 1
    # A terminal on which nothing can be drawn gets what a pipe gets.
    plain = {**env, "TERM": "dumb"}
    for more, around in ((["--once"], env), (["--json"], env), ([], plain)):
        code, drawn = on_a_terminal([*words, *more], around)
        assert code == 0
        assert "owned" in drawn
