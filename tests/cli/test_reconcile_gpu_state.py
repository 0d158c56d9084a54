"""The old command repairs, is quiet if told so, and takes no option that it does not know."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from ds01d.cli.reconcile_gpu_state import main
from ds01d.model.primitives import Source
from ds01d.reporting.status_file import write_status
from tests.support.commands import Desk
from tests.support.sample_host import GONE
from tests.support.status import published


@pytest.mark.parametrize("words", [[], ["--fix"], ["--fix", "-v"], ["--quiet"]])
def test_without_a_daemon_it_stays_until_absence_is_proven(desk: Desk, words: list[str]) -> None:
    result = desk.call(*words, command=main)
    assert result.exit_code == 0
    assert (GONE, "1.1") not in desk.host.bookings()
    assert sum(desk.pauses) == pytest.approx(120)
    assert "stale-allocation" in result.stdout  # something was done: also --quiet says so


def test_beside_a_daemon_one_pass_is_enough(desk: Desk) -> None:
    write_status(published(), desk.state_dir)
    assert desk.call("--fix", command=main).exit_code == 2
    assert desk.pauses == []


def test_its_patience_has_an_end(desk: Desk) -> None:
    """What the pace holds for ten minutes is left to the next cron job."""
    desk.host.containers.clear()
    result = desk.call(command=main)
    assert result.exit_code == 2
    assert "3 drifts: 1 waiting, 2 done" in result.stdout
    assert sum(desk.pauses) == pytest.approx(120)


def test_quiet_says_nothing_of_consistent_books_and_everything_else(desk: Desk) -> None:
    desk.call(command=main)
    result = desk.call("--quiet", "--fix", command=main)
    assert (result.output, result.exit_code) == ("", 0)
    desk.host.failing.add(Source.DOCKER)
    result = desk.call("--quiet", "--fix", command=main)
    assert "docker does not answer" in result.stdout
    assert result.exit_code == 1


def test_a_dry_run_changes_nothing(desk: Desk) -> None:
    result = desk.call("--dry-run", command=main)
    assert result.stdout == desk.call("plan").stdout
    assert result.exit_code == 2
    assert desk.host.memory is None
    assert json.loads(desk.call("-n", "--json", command=main).stdout)["consistent"] is False


def test_what_contradicts_itself_or_is_unknown_fails(desk: Desk) -> None:
    for words in (["--fix", "--dry-run"], ["--aggressive"], ["all"]):
        result = desk.call(*words, command=main)
        assert result.exit_code == 1
        assert result.stderr.startswith("reconcile-gpu-state: ")


# --- the old script's path ------------------------------------------------------------------------

SHARE = Path(__file__).parents[2] / "share"
CALLS: tuple[list[str], ...] = ([], ["sh"], ["bash"])


def fake_command(folder: Path) -> None:
    """A reconcile-gpu-state that says what it was asked, in a folder `bin`."""
    (folder / "bin").mkdir(parents=True)
    command = folder / "bin" / "reconcile-gpu-state"
    command.write_text('#!/bin/sh\nprintf "%s," "$0" "$@"\nexit 2\n', encoding="utf-8")
    command.chmod(0o755)


def call_script(path: Path, by: list[str], *, search: Path) -> tuple[int, str]:
    done = subprocess.run(
        [*by, str(path), "--fix", "a b"],
        env={"PATH": f"{search}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("by", CALLS)
def test_the_old_path_becomes_the_command_beside_it(tmp_path: Path, by: list[str]) -> None:
    """Installed as prefix/share/ds01d/reconcile-gpu-state.sh, and linked to from the old place."""
    share = tmp_path / "prefix" / "share" / "ds01d"
    share.mkdir(parents=True)
    script = share / "reconcile-gpu-state.sh"
    script.write_bytes((SHARE / script.name).read_bytes())
    script.chmod(0o755)
    fake_command(tmp_path / "prefix")
    old = tmp_path / "reconcile gpu-state.sh"
    old.symlink_to(script)
    code, said = call_script(old, by, search=tmp_path / "none")
    command = said.partition(",")[0]
    assert code == 2
    assert Path(command).samefile(tmp_path / "prefix" / "bin" / "reconcile-gpu-state")
    assert said.endswith(",--fix,a b,")


@pytest.mark.parametrize("by", CALLS)
def test_a_copy_of_it_finds_the_command_on_path(tmp_path: Path, by: list[str]) -> None:
    fake_command(tmp_path / "there")
    copy = tmp_path / "reconcile-gpu-state.sh"
    copy.write_bytes((SHARE / copy.name).read_bytes())
    copy.chmod(0o755)
    found = tmp_path / "there" / "bin"
    code, said = call_script(copy, by, search=found)
    assert (code, said) == (2, f"{found}/reconcile-gpu-state,--fix,a b,")


def test_a_job_that_fails_is_seen(tmp_path: Path) -> None:
    """Nor does it call itself for ever, where it has the name of the command."""
    copy = tmp_path / "reconcile-gpu-state"
    copy.write_bytes((SHARE / "reconcile-gpu-state.sh").read_bytes())
    copy.chmod(0o755)
    if Path("/usr/bin/reconcile-gpu-state").exists() or Path("/opt/ds01d").exists():
        pytest.skip("ds01d is installed here")
    code, said = call_script(copy, ["sh"], search=tmp_path)
    assert code == 1
    assert said == "reconcile-gpu-state.sh: reconcile-gpu-state not found; fix: install ds01d\n"
