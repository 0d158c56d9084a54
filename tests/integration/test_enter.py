"""`container-enter` and `container-logs` on a real engine, on a pseudo-terminal and with pipes."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from simulation.engine import IMAGE, PrivateEngine
from tests.support.books import until
from tests.support.containers import Yard
from tests.support.daemon import ROOT
from tests.support.processes import interrupt
from tests.support.terminal import TerminalSession

pytestmark = pytest.mark.docker

NAME = "a._.1001"
SHELL_READY = "ready\r\n"


@pytest.fixture
def yard(tmp_path: Path, engine: PrivateEngine) -> Yard:
    """A container that writes to both streams and waits."""
    yard = Yard(tmp_path, engine)  # its proxy knows no streams in both directions
    made = yard.call("create", "a", "pytorch-2.5.0", "--gpus", "0")
    assert made.returncode == 0, made.stderr
    return yard


@contextmanager
def entered(yard: Yard, *words: str) -> Iterator[TerminalSession]:
    terminal = TerminalSession(
        yard.command("enter", *words), {**yard.env(), "TERM": "xterm-256color"}
    )
    try:
        yield terminal
    finally:
        terminal.close()


def piped(yard: Yard, *words: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = yard.command("enter", *words)
    return subprocess.run(
        command, input=given, capture_output=True, env=yard.env(), cwd=ROOT, timeout=60, check=False
    )


def test_a_shell_on_a_terminal(yard: Yard) -> None:
    with entered(yard, "a", "sh") as shell:
        # A size is sent again until the command runs, which may be a moment later.
        shell.type("echo $TERM; until stty size | grep 30; do sleep 0.1; done; echo rea''dy\n")
        shell.expect("xterm-256color\r\n")
        shell.expect("30 90\r\n")
        shell.expect(SHELL_READY)
        shell.resize(41, 131, shell.process.pid)
        # Sizes are sent at most every 2 s.
        shell.type("until stty size | grep 131; do sleep 0.1; done\n")
        shell.expect("41 131\r\n")
        # Ctrl-C ends what runs in the container, and nothing here.
        shell.type("sleep 300; echo still''here\n")
        time.sleep(0.5)
        shell.type("\x03")
        shell.type("echo af''ter\n")
        shell.expect("after\r\n")
        shell.type("exit 42\n")
        assert shell.end() == 42


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_restores_the_terminal(yard: Yard, number: signal.Signals) -> None:
    with entered(yard, "a", "sh", "-c", "echo rea''dy; sleep 60") as shell:
        shell.expect(SHELL_READY)
        shell.process.send_signal(number)
        assert shell.end() == 128 + number


def test_the_terminal_is_closed(yard: Yard) -> None:
    with entered(yard, "a", "sh", "-c", "echo rea''dy; sleep 60") as shell:
        shell.expect(SHELL_READY)
        os.close(shell.ours)
        os.close(shell._theirs)
        assert shell.process.wait(60) == 128 + signal.SIGHUP
        shell.ours, shell._theirs = os.pipe()


def test_pipes(yard: Yard) -> None:
    done = piped(yard, "a", "sh", "-c", "cat; echo bad >&2; exit 3", given=b"x" * 300_000)
    assert (done.returncode, len(done.stdout), done.stderr) == (3, 300_000, b"bad\n")
    assert piped(yard, "a", given=b"exit 5\n").returncode == 5  # the shell reads its commands
    assert piped(yard, "a", "env", "-i", "true").returncode == 0  # options are the command's


def test_the_environment(yard: Yard) -> None:
    done = piped(yard, "-e", "LD_PRELOAD=/x y\nz", "a", "sh", "-c", 'printf %s "$LD_PRELOAD"')
    assert done.stdout == b"/x y\nz", done.stderr
    for wrong in ("A", "=x", "A B=x"):
        refused = piped(yard, "-e", wrong, "a", "true")
        assert refused.returncode == 1
        assert b"expected NAME=VALUE" in refused.stderr


@pytest.mark.parametrize(
    ("words", "codes", "text"),
    [
        (("a", "no-such-program"), {126, 127}, b"no-such-program"),
        (("a", "/bin"), {126, 127}, b""),
        pytest.param(
            ("nothing",),
            {1},
            b'no container "nothing._.1001"',
            marks=pytest.mark.engine_neutral,
        ),
        pytest.param(("a", ""), {1}, b"it is empty", marks=pytest.mark.engine_neutral),
        pytest.param(("a", "x" * 40_000), {1}, b"too long", marks=pytest.mark.engine_neutral),
    ],
)
def test_what_cannot_be_run(
    yard: Yard, words: tuple[str, ...], codes: set[int], text: bytes
) -> None:
    done = piped(yard, *words)
    assert done.returncode in codes, done
    assert text in done.stdout + done.stderr


@pytest.mark.engine_neutral
def test_somebody_elses_container_is_refused(yard: Yard) -> None:
    for words in (("enter", NAME, "true"), ("logs", NAME)):
        done = yard.call_as(1002, *words)
        assert done.returncode == 1
        assert "belongs to uid 1001" in done.stderr
    client = yard.engine.client
    for name, labels, reason in (
        ("other", {"ds01.user": "bob"}, "belongs to bob"),
        ("foreign", {}, "is not a DS01 container"),
    ):
        client.create_container(IMAGE, ["sleep", "60"], name=name, labels=labels)
        client.start(name)
        for words in (("enter", name, "true"), ("logs", name)):
            assert reason in yard.call_as(1001, *words).stderr


def test_a_closed_stdout_ends_it(yard: Yard) -> None:
    command = yard.command("enter", "a", "sh", "-c", "while echo y; do :; done")
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=yard.env(), cwd=ROOT
    ) as running:
        assert running.stdout is not None
        assert running.stdout.read(2) == b"y\n"
        running.stdout.close()
        assert running.wait(60) == 1


def test_without_a_stdout_it_fails(yard: Yard) -> None:
    command = shlex.join(yard.command("enter", "a", "echo", "x"))
    done = subprocess.run(
        ["sh", "-c", f"{command} >&-"], env=yard.env(), cwd=ROOT, capture_output=True, check=False
    )
    assert (done.returncode, b"Bad file descriptor" in done.stderr) == (1, True), done.stderr


def test_ctrl_c_ends_a_look_at_the_logs(yard: Yard) -> None:
    assert piped(yard, "a", "sh", "-c", "echo ready > /proc/1/fd/1").returncode == 0
    with subprocess.Popen(
        yard.command("logs", "a", "-f"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=yard.env(), cwd=ROOT,
    ) as running:  # fmt: skip
        assert running.stdout is not None
        assert running.stdout.readline().strip() == b"ready"
        code = interrupt(running)
        _, complaints = running.communicate(timeout=60)
    assert (code, complaints.strip()) == (130, b"")


def count_sessions(yard: Yard) -> int:
    return len(yard.engine.client.inspect_container(NAME)["ExecIDs"] or ())


def test_a_client_that_is_killed_closes_the_commands_input(yard: Yard) -> None:
    command = yard.command("enter", "a", "cat")
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=yard.env(), cwd=ROOT) as running:
        # It runs, and is not only created: Docker keeps a command that is never started.
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(b"ready\n")
        running.stdin.flush()
        assert running.stdout.readline() == b"ready\n"
        assert count_sessions(yard)
        running.kill()
    until(lambda: not count_sessions(yard))


@pytest.mark.parametrize("end", ["stop", "remove"])
def test_the_container_ends_while_it_is_entered(yard: Yard, end: str) -> None:
    made = yard.call("create", "b", "pytorch-2.5.0", "--gpus", "0")
    assert made.returncode == 0, made.stderr
    try:
        with entered(yard, "b", "sh", "-c", "echo rea''dy; sleep 60") as shell:
            shell.expect(SHELL_READY)
            client = yard.engine.client
            if end == "stop":
                client.stop("b._.1001", timeout=0)
            else:
                client.remove_container("b._.1001", force=True)
            code = shell.end()  # Docker may tell it just before it has forgotten the container
            assert code == 137 or b"exit code of the command is unknown" in shell.drawn
    finally:
        if end == "stop":
            refused = yard.call("enter", "b", "true")
            assert (refused.returncode, refused.stderr) == (
                1, "ds01ctl: b._.1001 is not running (exited): container-start b first\n",
            )  # fmt: skip
            yard.engine.client.remove_container("b._.1001", force=True)


def test_logs(yard: Yard) -> None:
    text = yard.catalogue.read_text(encoding="utf-8")
    script = "for n in 1 2 3; do echo $n; done; sleep 1; echo end; exec sleep 60"
    looping = text.replace('"sleep", "600"', f'"sh", "-c", "{script}"')
    yard.catalogue.write_text(looping, encoding="utf-8")
    try:
        assert yard.call("create", "c", "pytorch-2.5.0", "--gpus", "0").returncode == 0
    finally:
        yard.catalogue.write_text(text, encoding="utf-8")

    def read(*words: str) -> bytes:
        command = yard.command("logs", *words)
        return subprocess.run(
            command, capture_output=True, env=yard.env(), cwd=ROOT, timeout=60, check=True
        ).stdout.replace(b"\r\n", b"\n")

    try:
        command = yard.command("logs", "c", "-f")
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, env=yard.env(), cwd=ROOT
        ) as following:
            assert following.stdout is not None
            lines = [following.stdout.readline().strip() for _ in range(4)]
            assert lines == [b"1", b"2", b"3", b"end"]
            yard.engine.client.stop("c._.1001", timeout=0)
            assert following.wait(60) == 0  # it ends with the container
        assert read("c") == b"1\n2\n3\nend\n"
        assert read("c", "--tail", "2") == b"3\nend\n"
        assert read("c", "--since", "1h") == b"1\n2\n3\nend\n"
        assert b"Z end\n" in read("c", "-t", "-n", "1")
        assert yard.call("logs", "c", "--since", "nonsense").returncode == 1
    finally:
        yard.engine.client.remove_container("c._.1001", force=True)
