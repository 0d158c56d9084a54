"""Forcing a sweep: a ds01d is told, nothing else ever is, and why not is said."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ds01d.cli.base.reload_daemon import force_sweep
from ds01d.config import Config, DaemonConfig
from ds01d.model.primitives import Wall
from ds01d.reporting.status_file import write_status
from tests.support.status import published

WAITS = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
print("ready", flush=True)
print(signal.sigwait([signal.SIGHUP]).name, flush=True)
"""


@contextmanager
def running(program: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program that waits for SIGHUP."""
    program.write_text(WAITS)
    command = [sys.executable, *options, str(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def ask(folder: Path) -> str:
    return force_sweep(Config(daemon=DaemonConfig(state_dir=folder)), Wall(time.time()))


@pytest.mark.parametrize("options", [(), ("-I", "-B")])
def test_the_daemon_is_told(tmp_path: Path, options: tuple[str, ...]) -> None:
    with running(tmp_path / "ds01d", *options) as process:
        write_status(published(pid=process.pid), tmp_path)
        assert ask(tmp_path) == f"requested a sweep from ds01d (process {process.pid})"
        assert process.stdout is not None
        assert process.stdout.readline() == "SIGHUP\n"


def test_another_process_under_its_number_is_left_alone(tmp_path: Path) -> None:
    with running(tmp_path / "editor") as process:
        write_status(published(pid=process.pid), tmp_path)
        assert f"process {process.pid} may not be ds01d" in ask(tmp_path)
        assert process.poll() is None
    write_status(published(), tmp_path)  # this very process
    assert f"process {os.getpid()} may not be ds01d" in ask(tmp_path)


def test_without_a_daemon_it_says_so(tmp_path: Path) -> None:
    assert ask(tmp_path).startswith("no sweep: ds01d is not running (no status in ")
    write_status(published(pid=2**22 + 1), tmp_path)
    assert "has ended" in ask(tmp_path)


def test_whoever_may_not_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("signal.pidfd_send_signal", refused)
    with running(tmp_path / "ds01d") as process:
        write_status(published(pid=process.pid), tmp_path)
        told = ask(tmp_path)
    assert f"not permitted to signal ds01d (process {process.pid})" in told
    assert "systemctl reload ds01d" in told
