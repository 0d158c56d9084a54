"""Whoever waits sees where they stand: one line of a terminal, and lines in a log."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ds01d.cli.base.waiting import describe_place
from ds01d.service.allocator_client import Waiting
from tests.support.daemon import ROOT
from tests.support.terminal import TerminalSession

SCRIPT = """\
import sys
REASON = "NO_GPU \\x1b]0;x " + "y" * 200
from ds01d.cli.base.waiting import show_waiting
from ds01d.service.allocator_client import Waiting
with show_waiting({repeat}) as show_place:
    show_place(Waiting(position=3, ahead=2, next_hold_end=None, reason=REASON))
    sys.stdin.readline()
    show_place(Waiting(position=1, ahead=0, next_hold_end=None, reason="NO_GPU"))
    sys.stdin.readline()
print("done")
"""


def environment() -> dict[str, str]:
    kept = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    return kept | {"TERM": "xterm-256color"}


@pytest.fixture
def session() -> Iterator[TerminalSession]:
    command = [sys.executable, "-c", SCRIPT.format(repeat=300.0)]
    begun = TerminalSession(command, environment())
    try:
        yield begun
    finally:
        begun.close()


def test_on_a_terminal_one_line_is_kept_up_to_date(session: TerminalSession) -> None:
    session.expect("\r\x1b[K")
    session.expect("waiting for a slot (2 ahead) for ")
    # Seconds go by, and the line is drawn again in its place.
    session.expect("\r\x1b[K")
    session.expect(r"s: NO_GPU \x1b]0;x yyy")
    session.expect("…")  # cut, or it would wrap and could not be cleared
    session.type("\n")
    session.expect("waiting for a slot (next) for ")
    session.type("\n")
    session.expect("\r\x1b[Kdone")  # nothing of it is left
    assert session.end() == 0


def test_ctrl_c_leaves_nothing_of_it(session: TerminalSession) -> None:
    session.expect("waiting for a slot (2 ahead) for ")
    session.type("\x03")
    session.expect("\r\x1b[K", again="\x03")
    session.expect("KeyboardInterrupt")
    assert session.end() != 0


def test_elsewhere_it_is_a_line_for_each_change_and_one_from_time_to_time() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(repeat=0.05)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        cwd=ROOT,
        text=True,
    ) as waits:
        assert waits.stderr is not None
        assert waits.stdin is not None
        first, second = waits.stderr.readline(), waits.stderr.readline()
        assert first.startswith(r"waiting for a slot (2 ahead): NO_GPU \x1b]0;x y")
        assert re.match(r"waiting for a slot \(2 ahead\) for \d+ s: NO_GPU", second)
        out, err = waits.communicate("\n\n", timeout=60)
    assert out == "done\n"
    assert "waiting for a slot (next): NO_GPU\n" in err
    assert "\x1b" not in err


def test_a_closed_stderr_ends_no_wait() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT.format(repeat=300.0)],
            input="\n\n",
            stdout=subprocess.PIPE,
            stderr=full,
            env=environment(),
            cwd=ROOT,
            text=True,
            check=False,  # Python itself fails to flush it at its end
            timeout=60,
        )
    assert done.stdout == "done\n"


def test_the_end_of_the_next_hold_is_named() -> None:
    place = Waiting(position=1, ahead=0, next_hold_end=0.0, reason="NO_GPU\x07")
    text = "waiting for a slot (next) for 1 m 5 s: NO_GPU\\x07; the next hold ends in 0 s"
    assert describe_place(place, 65) == text
