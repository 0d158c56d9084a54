"""The same data on terminals of three widths: it fits, with headings, and no short value is cut."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import pytest
from click.testing import CliRunner
from rich.cells import cell_len

from ds01d.cli.containers.main import list_
from ds01d.cli.ctl.main import main as ds01ctl
from ds01d.model.containers import State
from ds01d.model.creation import Caller, Person
from ds01d.reporting.status_file import write_status
from tests.support.commands import Desk
from tests.support.sample_host import REST, container
from tests.support.status import published

Draw = Callable[[int], str]

ROOT: Final = Caller(person=Person(uid=0, name="root"), root=True)
LONG: Final = "imagenet-resnet50-ablation._.1004"
SHORT: Final = 24  # a value that no terminal has to fold
DRIFTS: Final = ("KIND", "CONTAINER", "SLOT")
# The words of each command, and headings that it has at any width.
SCREENS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "status": ("status", ("SLOT", "TYPE", "CONTAINER", "USER", "STATE", "DAEMON", "FINDINGS")),
    "plan": ("plan", DRIFTS),
    "plan in detail": ("plan --verbose", DRIFTS),
    "explain": (f"explain {REST}", ("VERDICT", "DRIFTS", "KIND", "BOOKS", "METADATA", "SOURCES")),
    "explain a slot": ("explain 1.0", ("SLOT", "HOLDERS", "PROCESSES", "PID", "COMMAND")),
    "doctor": ("doctor", ("STATUS", "CHECK")),
    "history": ("history", ("AT", "ID", "OUTCOME", "KIND")),
    "container-list": ("--all", ("NAME", "USER", "STATE")),
}


@pytest.fixture(params=SCREENS)
def screen(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def draw(desk: Desk, screen: str, monkeypatch: pytest.MonkeyPatch) -> Draw:
    """What the screen's command draws on a terminal of a width, without colours."""
    desk.call("reconcile", "--wait")
    desk.host.run(container(LONG, 7, "dora", State.RUNNING, "MIG-1-3"))
    desk.host.remove(REST)
    write_status(published(), desk.state_dir)
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _: True)
    environment = replace(desk.environment(), find_caller=lambda: ROOT)
    command = list_ if screen == "container-list" else ds01ctl

    def call(width: int) -> str:
        env = {"COLUMNS": str(width), "TERM": "xterm", "NO_COLOR": "1"}
        result = CliRunner().invoke(command, SCREENS[screen][0].split(), obj=environment, env=env)
        return re.sub(r"\x1b\[[0-9;]*m", "", result.stdout)

    return call


@pytest.mark.parametrize("width", [60, 80, 160])
def test_a_screen_fits_its_terminal(draw: Draw, screen: str, width: int) -> None:
    drawn = draw(width)
    assert max(map(cell_len, drawn.splitlines())) <= width
    assert {*SCREENS[screen][1]} <= {*values(drawn)}
    # Where nothing is folded each value is whole. So it is here, but for a heading, which may
    # stand beside its value instead, and for seconds, which pass.
    wide = {value for value in values(draw(1000)) if len(value) <= SHORT and not value.isupper()}
    broken = {value for value in wide if value not in drawn and not re.search(r"\d s\b", value)}
    assert not broken
    # A row that is folded begins a line with a value of its middle.
    starts = {values(line.strip())[0] for line in draw(1000).splitlines()}
    rows = [values(line) for line in drawn.splitlines() if line[:1].strip()]
    assert {row[0] for row in rows if len(row) > 1 and row[1]} <= starts


def values(drawn: str) -> list[str]:
    """Cells, facts, headings and lines, as spaces separate them."""
    return re.split(r"\s{2,}|\n", drawn)
