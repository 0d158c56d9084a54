"""Terminals: real ones, of the user alone, never against `mesg n`, and never waited for."""

from __future__ import annotations

import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ds01d.adapters.notices.login_sessions import (
    _ENTRY_BYTES,
    find_leader_terminals,
    find_login_terminals,
    parse_utmp,
)
from ds01d.adapters.notices.terminals import Terminals, format_for_terminal
from ds01d.errors import DeliveryFailed
from tests.support.notices import HOSTILE, notice


@contextmanager
def terminal(mode: int = 0o620) -> Iterator[tuple[int, str]]:
    """A pseudo-terminal of this user: its other end, and its name below /dev."""
    master, slave = pty.openpty()
    path = os.ttyname(slave)
    try:
        tty.setraw(slave)
        os.fchmod(slave, mode)
        os.set_blocking(master, False)
        yield master, path.removeprefix("/dev/")
    finally:
        os.close(slave)
        os.close(master)


def read_all(master: int) -> bytes:
    try:
        return os.read(master, 65536)
    except BlockingIOError:
        return b""


def to(*names: str) -> Terminals:
    return Terminals("gpu01", lambda _login, _uid: names)


def test_each_terminal_of_the_user_gets_the_text_in_lines_of_its_own() -> None:
    with terminal() as (first, one), terminal() as (second, two):
        to(one, two).send(notice())
        for master in (first, second):
            text = read_all(master).decode()
            assert text.startswith("\r\n\r\nGPU notice from gpu01 at ")
            assert text.endswith(f": {notice().message}\r\n\r\n")


def test_one_that_refuses_messages_gets_none() -> None:
    # The tests may run as the owner or as root, whom no mode keeps out: the bit alone decides.
    with terminal(0o600) as (master, name):
        to(name).send(notice())
        assert read_all(master) == b""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a terminal away")
def test_one_that_somebody_else_has_by_now_gets_none() -> None:
    with terminal() as (master, name):
        os.chown(f"/dev/{name}", 65534, -1)
        to(name).send(notice())
        assert read_all(master) == b""


@pytest.mark.parametrize("name", ["pts/9999999", "null", "../proc/version", "pts/../null", "tty1"])
def test_what_is_no_pseudo_terminal_is_left_alone(name: str) -> None:
    to(name).send(notice())


def test_who_is_not_logged_in_is_no_failure_and_who_is_no_user_is_one() -> None:
    to().send(notice())
    for login in (*HOSTILE, "no-such-user"):
        with pytest.raises(DeliveryFailed, match="no user") as caught:
            to().send(notice(user=login))
        assert caught.value.is_final
        assert str(caught.value).isprintable()


def test_a_stopped_terminal_is_not_waited_for() -> None:
    with terminal() as (master, name):
        descriptor = os.open(f"/dev/{name}", os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            # As Ctrl-S does.
            termios.tcflow(descriptor, termios.TCOOFF)
        finally:
            os.close(descriptor)
        began = time.monotonic()
        with pytest.raises(DeliveryFailed, match="the terminal is stopped") as caught:
            to(name).send(notice())
        assert caught.value.is_final
        assert time.monotonic() - began < 10.0
        assert read_all(master).strip(b"x") == b""


@pytest.mark.parametrize("text", [*HOSTILE, "ü é 漢字", "\u009b31m", "\x90q\x9c"])
def test_a_terminal_gets_ascii_and_nothing_that_it_obeys(text: str) -> None:
    data = format_for_terminal(notice(message=text), "gpu01")
    assert data.startswith(b"\r\n\r\n")
    assert data.endswith(b"\r\n\r\n")
    assert all(32 <= byte < 127 for byte in data[4:-4])


def utmp_entry(kind: int, line: bytes, login: bytes) -> bytes:
    return struct.pack("=h2xi32s4s32s", kind, 4711, line, b"ts/1", login).ljust(_ENTRY_BYTES, b"\0")


def test_utmp_names_the_terminals_of_a_login(tmp_path: Path) -> None:
    long = "averyveryverylonglogin@campus.example"
    data = b"".join(
        [
            utmp_entry(7, b"pts/3", b"alice"),
            utmp_entry(8, b"pts/4", b"alice"),  # logged out
            utmp_entry(7, b"pts/5", b"bob"),
            utmp_entry(7, b"tty1", b"alice"),
            utmp_entry(7, b"../../etc/passwd", b"alice"),
            utmp_entry(7, b"pts/6", b"alicea"),
            utmp_entry(7, b"pts/7\0old", b"alice\0ld"),
            utmp_entry(7, b"pts/8", long.encode()[:32]),
            utmp_entry(7, b"pts/9", b"alice")[:100],
        ]
    )
    file = tmp_path / "utmp"
    file.write_bytes(data)
    assert find_login_terminals("alice", 1001, utmp=file) == {"pts/3", "pts/7"}
    assert set(parse_utmp(data, long)) == {"pts/8"}
    assert find_login_terminals("nobody-there", 4_000_000_000, utmp=tmp_path / "no") == set()


SHELL = """
import os, pty, time
if pty.fork()[0]:
    print(os.ttyname(0), flush=True)
time.sleep(60)
"""
BELOW_SSHD = """
import os, pty, sys, time
pid, descriptor = pty.fork()
if not pid:
    os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])
print(os.read(descriptor, 99).decode().strip(), flush=True)
time.sleep(60)
"""


def test_the_terminal_of_a_session_by_ssh_is_that_of_its_shell_and_no_other() -> None:
    """As sshd has it: a leader, a process below it, and the shell with its terminal.

    A program below the shell has a terminal of its own, as tmux or expect make one.
    """
    reader, writer = os.pipe()
    leader = os.fork()
    if not leader:
        os.setsid()
        os.dup2(writer, 1)
        subprocess.run([sys.executable, "-c", BELOW_SSHD, SHELL], check=False)
        os._exit(0)
    os.close(writer)
    try:
        name = os.read(reader, 99).decode().strip()
        assert find_leader_terminals(leader) == {name.removeprefix("/dev/")}
    finally:
        os.close(reader)
        for pid in [*descendants(leader), leader]:
            os.kill(pid, signal.SIGKILL)
        os.waitpid(leader, 0)
    assert find_leader_terminals(leader) == set()


def descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [below for child in map(int, children) for below in [*descendants(child), child]]
