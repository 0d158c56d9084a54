"""stdout that cannot be written, stderr that cannot, streams that are closed: real processes.

A full disk, a pipe that nobody reads, `>&-`. Tests run without PYTHONUNBUFFERED: with it a failed
write shows at once, and without it not before Python flushes at its end, with exit code 120.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.allocator import AllocatorSite
from tests.support.daemon import ROOT

NAME = "job._.1001"
COMMANDS = {
    "ds01-allocator": "allocator.main:main",
    "ds01ctl": "ctl.main:main",
    "ds01d": "daemon:main",
    "ds01-dashboard": "dashboard.main:main",
    "reconcile-gpu-state": "reconcile_gpu_state:main",
    "container-create": "containers.main:create",
    "container-list": "containers.main:list_",
    "container-start": "containers.changes:start",
    "container-stop": "containers.changes:stop",
    "container-remove": "containers.changes:remove",
    "container-enter": "containers.enter:enter",
    "container-logs": "containers.enter:logs",
}
ON_EVERY_PYTHON = [
    "ds01-allocator status",
    "ds01-allocator --help",
    "ds01ctl status",
    "ds01ctl --version",
    "ds01d --version",
    "ds01-dashboard --once",
    "reconcile-gpu-state --dry-run",
    "container-list",
]
"""Each way of ours to end a program is among them; the others end by one of these too."""
ANSWERS = [
    *ON_EVERY_PYTHON,
    *(
        pytest.param(command, marks=pytest.mark.python_neutral)
        for command in (
            "ds01-allocator user-count alice",
            "ds01-allocator --version",
            "ds01ctl plan --json",
            "ds01ctl explain --help",
            "ds01ctl container list --json",
            "container-create --help",
            "container-start --version",
            "container-stop --help",
            "container-remove --help",
            "container-enter --help",
            "container-logs --version",
        )
    ),
]
BOOKINGS = [f"ds01-allocator allocate alice {NAME} 9 10", f"ds01ctl allocate alice {NAME}"]
WHYS = {"full": "No space left on device", "closed": "Bad file descriptor", "unread": "Broken pipe"}


@pytest.fixture
def site(tmp_path: Path) -> AllocatorSite:
    return AllocatorSite(tmp_path, "v3-dcce6c2-prod4")


@contextmanager
def unwritable(kind: str) -> Iterator[int]:
    """A descriptor that takes nothing."""
    if kind == "unread":
        reading, descriptor = os.pipe()
        os.close(reading)
    else:
        descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def python(program: str) -> list[str]:
    """A command as its entry point runs it."""
    module, _, function = COMMANDS[program].partition(":")
    return [sys.executable, "-c", f"from ds01d.cli.{module} import {function} as main; main()"]


def call(site: AllocatorSite, command: str, stdout: str, *, shut: str = "") -> tuple[int, str]:
    """Run a command to its end: exit code and stderr. `shut`: what bash closes more."""
    program, *words = command.split()
    closed = f"{'>&-' if stdout == 'closed' else ''} {shut}"
    with unwritable(stdout) as descriptor:
        done = subprocess.run(
            ["bash", "-c", f'exec "$@" {closed}', "bash", *python(program), *words],
            env=site.environment(),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    return done.returncode, done.stderr


@pytest.mark.parametrize("stdout", WHYS)
@pytest.mark.parametrize("command", ANSWERS)
def test_an_answer_that_cannot_be_written_is_an_error_and_no_traceback(
    site: AllocatorSite, command: str, stdout: str
) -> None:
    code, stderr = call(site, command, stdout)
    assert code == 1, stderr
    assert "Traceback" not in stderr
    assert "Exception" not in stderr
    if stdout != "unread":  # whoever left has asked for no more
        assert WHYS[stdout] in stderr


@pytest.mark.parametrize("stdout", WHYS)
@pytest.mark.parametrize("command", BOOKINGS)
def test_a_booking_whose_answer_cannot_be_written_is_taken_back(
    site: AllocatorSite, command: str, stdout: str
) -> None:
    before = site.gpus()
    code, stderr = call(site, command, stdout)
    assert code == 1
    assert site.gpus() == before
    assert site.orphans() == set()
    program = command.partition(" ")[0]
    assert stderr.startswith(f"{program}: cannot write the answer: {WHYS[stdout]}; the booking of")
    assert stderr.endswith(f" for {NAME} is taken back\n")
    assert len(stderr.splitlines()) == 1


@pytest.mark.parametrize("command", BOOKINGS)
def test_a_booking_that_was_there_before_stays(site: AllocatorSite, command: str) -> None:
    site.run("allocate", "alice", NAME, "9", "10")
    before = site.bytes()
    code, _ = call(site, command, "full")
    assert code == 1
    assert site.bytes() == before


@pytest.mark.parametrize(
    ("stdout", "shut"),
    [
        # Each of both once on every Python, all of them on one.
        ("full", "2>&-"),
        ("closed", "2>/dev/full"),
        ("unread", "<&- 2>&-"),
        *(
            pytest.param(stdout, shut, marks=pytest.mark.python_neutral)
            for stdout, shut in (
                ("full", "2>/dev/full"),
                ("full", "<&- 2>&-"),
                ("closed", "2>&-"),
                ("closed", "<&- 2>&-"),
                ("unread", "2>&-"),
                ("unread", "2>/dev/full"),
            )
        ),
    ],
)
def test_where_nobody_can_be_told_either_nothing_else_changes(
    site: AllocatorSite, stdout: str, shut: str
) -> None:
    """No file of ours takes the number of a stream: what is printed would go into the books."""
    before = site.gpus()
    for command in BOOKINGS:
        assert call(site, command, stdout, shut=shut)[0] == 1
    assert site.gpus() == before
    assert call(site, f"ds01-allocator release {NAME}", stdout, shut=shut)[0] == 1


@pytest.mark.parametrize("command", BOOKINGS)
def test_a_warning_that_nobody_reads_costs_no_booking(site: AllocatorSite, command: str) -> None:
    site.allocations.mkdir()  # which is warned of
    program, *words = command.split()
    line = f'exec "$@" 2>/dev/full 0<&- >{site.folder}/answer'
    done = subprocess.run(
        ["bash", "-c", line, "bash", *python(program), *words],
        env=site.environment(),
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert NAME in (site.folder / "answer").read_text(encoding="utf-8")
    assert NAME in site.state.read_text(encoding="utf-8")


def test_who_has_nothing_to_say_needs_no_stdout(site: AllocatorSite) -> None:
    assert call(site, "ds01-allocator release-stale nobody", "full")[0] == 1
    code, stderr = call(site, "ds01-allocator frobnicate", "closed")
    assert code == 1
    assert "unknown command 'frobnicate'" in stderr
