"""`status --watch` on a real terminal, and into a pipe."""

from __future__ import annotations

import json
import os
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest

from ds01d.model.primitives import ContainerName, SlotId, UserName, Wall
from ds01d.reporting.status import Holder, Status
from ds01d.reporting.status_file import write_status
from tests.support.daemon import ROOT
from tests.support.status import published
from tests.support.terminal import TerminalSession

COMMAND = [sys.executable, "-m", "ds01d.cli.ctl.main", "status", "--watch", "--interval", "0.1s"]
ENTERED, LEFT = "\x1b[?1049h", "\x1b[?1049l"


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """A configuration of its own, whose daemon publishes what the tests write."""
    (tmp_path / "own").mkdir()
    (tmp_path / "ds01d.toml").write_text(
        f'[docker]\nurl = "unix://{tmp_path}/docker.sock"\n[gpu]\nsource = "none"\n'
        f'[books]\nstate = "{tmp_path}/state.json"\nmetadata = "{tmp_path}/metadata"\n'
        f'[daemon]\nstate_dir = "{tmp_path}/own"\n[service]\nsocket = "{tmp_path}/none.sock"\n'
    )
    publish(tmp_path, "first._.1001")
    return tmp_path


def publish(private: Path, name: str, **changes: object) -> Status:
    """Let `name` hold the slot."""
    status = published()
    first, second = status.slots
    holder = Holder(container=ContainerName(name), user=UserName("alice"), state="running")
    slot = msgspec.structs.replace(first, holders=(holder,))
    fields = {"slots": (slot, second)} | changes
    status = msgspec.structs.replace(status, **fields)
    write_status(status, private / "own")
    return status


def environment(private: Path) -> dict[str, str]:
    kept = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    config = str(private / "ds01d.toml")
    return kept | {"TERM": "xterm-256color", "DS01D_CONFIG": config, "TZ": "UTC"}


@pytest.fixture
def session(private: Path) -> Iterator[TerminalSession]:
    begun = TerminalSession(COMMAND, environment(private))
    try:
        yield begun
    finally:
        begun.close()


def pid_of(session: TerminalSession) -> int:
    """Of the command: setsid has become it."""
    return session.process.pid


def test_it_draws_what_changes_and_q_gives_the_screen_back(
    session: TerminalSession, private: Path
) -> None:
    session.expect(ENTERED)
    session.expect("first._.1001")
    publish(private, "sec\x1b]0;bond._.1001")
    session.expect(r"sec\x1b]0;bond._.1001")
    session.type("xyz")  # not a key of it, and not to be seen either
    publish(private, "third._.1001")
    session.expect("third._.1001")
    assert b"xyz" not in session.drawn
    session.type("q")
    session.expect(LEFT)
    assert session.end() == 0


def test_it_is_drawn_for_the_size_of_the_window(session: TerminalSession, private: Path) -> None:
    slots = tuple(
        msgspec.structs.replace(published().slots[1], id=SlotId(f"{number}.0"))
        for number in range(60)
    )
    publish(private, "", slots=slots)
    session.expect("more lines")
    session.resize(90, 120, None)
    session.expect("59.0")
    session.resize(8, 60, None)
    session.expect("more lines")
    # Nothing below the last row of the window was drawn: it would scroll.
    frame = session.drawn.partition(b"\x1b[H")[0]
    assert frame.count(b"\n") < 8
    session.type("\x03")
    session.expect(LEFT)
    assert session.end() == 130


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_gives_the_terminal_back(
    session: TerminalSession, number: signal.Signals, code: int
) -> None:
    session.expect("first._.1001")
    os.kill(pid_of(session), number)
    session.expect(LEFT)
    assert session.end() == code


def test_it_is_suspended_by_a_shell_and_goes_on(private: Path) -> None:
    # With job control: the kernel stops no process whose group has no parent in the session.
    script = f"set -m; {shlex.join(COMMAND)}; echo stopped-$?; fg; echo ended-$?"
    session = TerminalSession(["bash", "--norc", "-c", script], environment(private))
    try:
        session.expect("first._.1001")
        session.type("\x1a")
        session.expect(LEFT)
        session.expect(f"stopped-{128 + signal.SIGTSTP}")
        session.expect(ENTERED)
        publish(private, "later._.1001")
        session.expect("later._.1001")
        session.type("q")
        session.expect("ended-0")
        assert session.end() == 0
    finally:
        session.close()


class Piped:
    """The command with a pipe as its stdout."""

    def __init__(self, private: Path, words: Sequence[str], env: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            cwd=ROOT,
        )
        assert self.process.stdout is not None
        self._output = self.process.stdout.fileno()
        self.text = ""

    def read_until(self, text: str) -> str:
        """Read until this was written; gives all that was read since the last call."""
        deadline = time.monotonic() + 30
        while text not in self.text:
            assert time.monotonic() < deadline, self.text
            if select.select([self._output], [], [], 0.1)[0]:
                self.text += os.read(self._output, 65536).decode()
        before, self.text = self.text, ""
        return before

    def close_reader(self) -> int:
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.process.wait(60)


@pytest.fixture
def piped(private: Path) -> Iterator[list[Piped]]:
    begun: list[Piped] = []
    yield begun
    for one in begun:
        one.process.kill()
        one.process.communicate()


def test_into_a_pipe_it_writes_what_has_changed_without_codes(
    private: Path, piped: list[Piped]
) -> None:
    piped.append(Piped(private, (), environment(private)))
    first = piped[0].read_until("shared-slot")
    assert "\x1b" not in first
    publish(private, "first._.1001", written_at=Wall(time.time()))  # nothing new to people
    publish(private, "second._.1001")
    second = piped[0].read_until("shared-slot")
    assert second.count("SLOT  TYPE") == 1
    assert "second._.1001" in second
    # Though nothing changes: a reader that is gone is noticed at once.
    assert piped[0].close_reader() == 0


def test_json_is_an_object_a_line_for_each_publication(private: Path, piped: list[Piped]) -> None:
    piped.append(Piped(private, ("-o", "json"), environment(private)))
    first = json.loads(piped[0].read_until("\n"))
    assert first["slots"][0]["holders"][0]["container"] == "first._.1001"
    publish(private, "second._.1001")
    second = json.loads(piped[0].read_until("\n"))
    assert second["slots"][0]["holders"][0]["container"] == "second._.1001"
