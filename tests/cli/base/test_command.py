"""What holds for every command: exit codes, one line an error, nothing that a terminal obeys."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from ds01d import __version__
from ds01d.cli.ctl.main import COMMANDS
from ds01d.cli.ctl.main import main as ds01ctl
from ds01d.cli.daemon import main as ds01d
from ds01d.cli.output.blocks import Sentence, Table
from ds01d.cli.output.cells import format_cell
from ds01d.cli.output.rich_renderer import render_blocks
from ds01d.cli.reconcile_gpu_state import main as reconcile_gpu_state
from ds01d.config import Config
from ds01d.errors import ConfigError
from ds01d.model.books import AllocatorState
from ds01d.model.primitives import ContainerName, Wall
from ds01d.text import make_printable
from tests.support.build import record
from tests.support.commands import Desk
from tests.support.terminal import on_a_terminal

EVIL = "\x1b]0;owned\x07\x9b31m\u202e[red]\n|"
PROGRAMS = {"ds01ctl": ds01ctl, "ds01d": ds01d, "reconcile-gpu-state": reconcile_gpu_state}


@pytest.mark.parametrize("name", PROGRAMS)
def test_version_and_help(name: str) -> None:
    result = CliRunner().invoke(PROGRAMS[name], ["--version"])
    assert (result.stdout, result.exit_code) == (f"{name} {__version__}\n", 0)
    assert CliRunner().invoke(PROGRAMS[name], ["-h"]).exit_code == 0


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_wrong_option_is_an_error_and_never_2(name: str) -> None:
    result = CliRunner().invoke(PROGRAMS[name], ["--bogus"])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"{name}: No such option")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [["nonsense"], ["plan", "--bogus"], ["explain"], ["plan", "x"]])
def test_so_is_every_other_misuse(desk: Desk, words: list[str]) -> None:
    result = desk.call(*words)
    assert result.exit_code == 1
    assert result.stderr.startswith("ds01ctl: ")
    assert result.stderr.count("\n") == 1


def test_without_a_command_there_is_help(desk: Desk) -> None:
    result = desk.call()
    assert "Commands:" in result.stderr
    assert result.exit_code == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_and_takes_config(name: str, desk: Desk) -> None:
    result = desk.call(name, "--help")
    assert result.exit_code == 0
    assert "--config FILE" in result.stdout
    if name not in {"catalogue", "container", "fleet", "freeze", "thaw", "web", "withdraw"}:
        assert "--json" in result.stdout


def test_a_refused_configuration_is_a_line_a_problem(tmp_path: Path) -> None:
    file = tmp_path / "ds01d.toml"
    file.write_text('[docker]\ntimeout = "10"\n[dokcer]\n')
    for words in (["--config", str(file), "plan"], ["plan", "--config", str(file)]):
        result = CliRunner().invoke(ds01ctl, words)
        assert result.exit_code == 1
        first, second = result.stderr.splitlines()
        assert first.startswith(f"ds01ctl: {file}, line 2: docker.timeout:")
        assert "did you mean docker?" in second


def test_the_environment_names_the_configuration(tmp_path: Path) -> None:
    result = CliRunner().invoke(ds01ctl, ["plan"], env={"DS01D_CONFIG": str(tmp_path / "none")})
    assert "named by DS01D_CONFIG" in result.stderr
    assert result.exit_code == 1


def test_an_errors_text_cannot_reach_the_terminal_as_a_command(desk: Desk) -> None:
    def refused(_: object) -> Config:
        raise ConfigError(f"bad {EVIL}")

    desk.load_config = refused
    result = desk.call("plan")
    assert result.exit_code == 1
    assert harmless(result.stderr)


@pytest.mark.parametrize("words", [["plan", "-v"], ["status"], ["explain", "1.3"], ["history"]])
def test_untrusted_names_are_escaped_in_pipes(desk: Desk, words: list[str]) -> None:
    haunt(desk)
    if words == ["history"]:
        desk.call("reconcile", "--wait")
    result = desk.call(*words)
    assert "owned" in result.stdout
    assert harmless(result.stdout)
    assert "\\x1b]0;owned\\x07\\x9b31m\\u202e[red]\\n|" in result.stdout


@pytest.mark.parametrize("words", [["plan", "--json"], ["status", "--json"]])
def test_and_in_json(desk: Desk, words: list[str]) -> None:
    haunt(desk)
    result = desk.call(*words)
    assert "owned" in result.stdout
    assert harmless(result.stdout)
    assert result.stdout.isascii()


def test_every_sign_that_does_something_is_escaped() -> None:
    assert make_printable("plain, ä, 容器") == "plain, ä, 容器"
    assert make_printable("\r\x00\x7f\x85\u200b\u2028\udcff") == (
        "\\r\\x00\\x7f\\x85\\u200b\\u2028\\udcff"
    )


LONG = "x" * 100_000


def with_a_long_name(desk: Desk) -> None:
    """Somebody gave a container, or its user, a name of 100,000 characters: in every slot."""
    state = desk.host.state
    assert isinstance(state, AllocatorState)
    slots = {
        name: replace(one, containers=(ContainerName(f"{LONG}{name}"),), users={LONG: 1})
        for name, one in state.slots.items()
    }
    desk.host.state = replace(state, slots=slots)
    for name in slots:  # booked long ago, so that it is a drift and no creation
        desk.host.records[ContainerName(f"{LONG}{name}")] = record(f"{LONG}{name}", name)


@pytest.mark.parametrize(
    "words", [["status"], ["plan"], ["plan", "-v"], ["explain", "1.3"], ["history"]]
)
def test_a_cell_is_cut_in_every_table(desk: Desk, words: list[str]) -> None:
    with_a_long_name(desk)
    if words == ["history"]:
        desk.call("reconcile", "--wait")
    shown = desk.call(*words).stdout
    assert "xxx" in shown
    assert "…" in shown
    assert len(shown) < 60_000
    assert max(map(len, shown.splitlines())) < 5_000


def test_json_has_all_of_it(desk: Desk) -> None:
    with_a_long_name(desk)
    assert LONG in desk.call("status", "--json").stdout


@pytest.mark.parametrize("text", ["x" * 500, "x" * 501, "\x1b" * 400, "容" * 600])
def test_a_cell_is_cut_after_it_is_escaped(text: str) -> None:
    cell = format_cell(text, Wall(0.0))
    assert len(cell) <= 500
    assert cell.endswith("…") is (len(make_printable(text)) > 500)
    for width in (80, 2000):
        table = Table(("name", "why"), [[text, text]], details=[[text * 10]])
        page = io.StringIO()
        console = Console(width=width, file=page)
        for one in render_blocks([table, Sentence(text * 10)], Wall(0.0), width):
            console.print(one)
        drawn = page.getvalue()
        assert sum(sign in "x容" for sign in drawn) <= 2 * 500 + 2 * 2000
        assert "\x1b" not in drawn


def test_a_pipe_gets_no_colour_and_no_wrapping(desk: Desk) -> None:
    result = desk.call("plan", env={"COLUMNS": "20", "FORCE_COLOR": "1", "TERM": "xterm"})
    assert "\x1b" not in result.stdout
    assert "booked, but there is no such container; absence not proven yet" in result.stdout


def test_a_terminal_gets_colour_unless_it_declines(tmp_path: Path) -> None:
    words = ["ds01d.cli.ctl.main", "--config", config(tmp_path), "status"]
    code, coloured = on_a_terminal(words)
    assert code == 0
    assert "\x1b[" in coloured
    _, plain = on_a_terminal(words, {"NO_COLOR": "1"})
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", plain)
    for drawn in (coloured, plain):
        assert "ds01d is not running" in drawn
        assert "owned" in drawn
        assert "\x1b]" not in drawn
        assert "[red]" in drawn  # markup is text


def test_whoever_reads_may_leave_early(tmp_path: Path) -> None:
    """The pipe is closed before anything is written: no word, no traceback."""
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(
        [sys.executable, "-m", "ds01d.cli.ctl.main", "--config", config(tmp_path), "status"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert result.stderr == ""
    assert result.returncode == 1


def test_a_full_disk_is_an_error_and_no_traceback(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        result = subprocess.run(
            [sys.executable, "-m", "ds01d.cli.ctl.main", "--config", config(tmp_path), "status"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert result.stderr == "ds01ctl: [Errno 28] No space left on device\n"
    assert result.returncode == 1


@pytest.mark.parametrize("module", ["ctl.main", "daemon", "reconcile_gpu_state"])
def test_help_and_version_load_nothing_that_is_slow(module: str) -> None:
    code = f"""
import sys
from ds01d.cli.{module} import main
for words in (["--help"], ["--version"]):
    try:
        main(words)
    except SystemExit as end:
        assert not end.code
heavy = {{"rich", "docker", "apscheduler", "structlog", "pynvml", "yaml", "ds01d.bootstrap"}}
print(sorted(heavy & sys.modules.keys()), file=sys.stderr)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stderr == "[]\n"


def haunt(desk: Desk) -> None:
    """Book slot 1.3, long ago, for a name that no container can have."""
    state = desk.host.state
    assert isinstance(state, AllocatorState)
    slots = dict(state.slots)
    slot = next(one for one in slots.values() if one.id == "1.3")
    slots[slot.id] = replace(slot, containers=(ContainerName(EVIL),), users={EVIL: 1})
    desk.host.state = replace(state, slots=slots)
    desk.host.records[ContainerName(EVIL)] = record(EVIL, "1.3")


def harmless(text: str) -> bool:
    return all(sign.isprintable() or sign == "\n" for sign in text)


def config(folder: Path) -> str:
    """A host with a state that names the evil one, and nothing else."""
    slot = '{"type": "physical_gpu", "containers": ["\\u001b]0;owned\\u0007[red]"], "users": {}}'
    (folder / "state.json").write_text(f'{{"gpus": {{"0": {slot}}}, "mig_enabled": false}}')
    (folder / "metadata").mkdir(exist_ok=True)
    file = folder / "ds01d.toml"
    file.write_text(
        f'[docker]\nurl = "unix://{folder}/none.sock"\n[gpu]\nsource = "none"\n'
        f'[books]\nstate = "{folder}/state.json"\nmetadata = "{folder}/metadata"\n'
        f'[daemon]\nstate_dir = "{folder}/own"\n'
    )
    return str(file)
