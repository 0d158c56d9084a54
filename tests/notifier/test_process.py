"""The process ds01d-notify: restarted and killed in the middle, each notice is sent once."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ds01d.adapters.notices.spool import NoticeSpool, spool_folder
from ds01d.bootstrap_notify import Warnings
from ds01d.model.notice import Notice, NoticeKind, WrittenNotice
from ds01d.model.primitives import UserName, Wall
from tests.support.books import until
from tests.support.daemon import toml
from tests.support.notices import LOGIN, Server, answering, read_request, serving

OTHER_UID = 65534
# Without rights, as its unit starts it. The interpreter may be root's alone: it is loaded before.
DRIVER = """
import encodings.idna, os, sys
from pathlib import Path
from ds01d.bootstrap_notify import load_config, run_notifier
load_config(Path(sys.argv[1]), os.environ)  # imports the rest
if os.getuid() == 0:
    os.setresuid(OTHER_UID, OTHER_UID, OTHER_UID)
sys.exit(run_notifier(Path(sys.argv[1]), os.environ, "all"))
""".replace("OTHER_UID", str(OTHER_UID))


@dataclass
class Host:
    """Folders of one host, which a user without rights may use."""

    folder: Path

    def configure(self, **notify: object) -> None:
        tables: dict[str, dict[str, object]] = {
            "daemon": {"state_dir": str(self.folder / "ds01d")},
            "notify": {"state_dir": str(self.folder / "notify"), **notify},
        }
        (self.folder / "ds01d.toml").write_text(toml(tables))

    def spool(self, *messages: str) -> None:
        kind = Notice(kind=NoticeKind.SLOT_RELEASED, user=UserName(LOGIN), subject="train._.1001")
        notices = [WrittenNotice(kind, message) for message in messages]
        NoticeSpool(spool_folder(self.folder / "ds01d")).add(kind.user, notices, now())

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(self.folder / "ds01d.toml")],
            stderr=subprocess.PIPE,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            if process.stderr is not None:
                process.stderr.close()

    def counts(self, name: str) -> tuple[int, int, int]:
        try:
            path = self.folder / "notify" / "deliveries" / f"{name}.json"
            record = json.loads(path.read_bytes())
        except FileNotFoundError:
            return 0, 0, 0
        return record["sent"], record["failed"], record["dropped"]


def now() -> Wall:
    return Wall(time.time())


@pytest.fixture
def host() -> Iterator[Host]:
    # pytest's own folders are private.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for below in ("ds01d", "notify"):
            (folder / below).mkdir()
            if os.getuid() == 0:
                os.chown(folder / below, OTHER_UID, -1)
        yield Host(folder)


def messages(server: Server) -> list[str]:
    bodies = [request.partition(b"\r\n\r\n")[2] for request in server.requests]
    return [json.loads(body)["message"] for body in bodies]


def has_taken(process: subprocess.Popen[bytes], number: signal.Signals) -> bool:
    """Whether it has a signal no more to take, and waits: for what the signal has it do."""
    text = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    status = dict(line.split(":\t", 1) for line in text.splitlines())
    is_pending = int(status["ShdPnd"], 16) >> (number - 1) & 1
    return not is_pending and status["State"].startswith("S")


def test_a_restart_in_the_middle_of_a_request_sends_each_once(host: Host) -> None:
    may_answer = threading.Event()

    def slowly(connection: socket.socket, server: Server) -> None:
        server.requests.append(read_request(connection))
        may_answer.wait(20.0)
        connection.sendall(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n")

    with serving(slowly) as server:
        host.configure(webhook=f"http://127.0.0.1:{server.port}/")
        host.spool("one", "two")
        with host.running() as first:
            until(lambda: len(server.requests) == 1)
            first.send_signal(signal.SIGTERM)
            # Or the thread that gets the answer may begin with the next notice before it.
            until(lambda: has_taken(first, signal.SIGTERM))
            may_answer.set()
            assert first.wait(20.0) == 0
        assert host.counts("webhook") == (1, 0, 0)
        with host.running():
            host.spool("three")
            until(lambda: host.counts("webhook") == (3, 0, 0))
    assert messages(server) == ["one", "two", "three"]


def test_one_that_is_killed_in_the_middle_sends_it_again_with_the_same_id(host: Host) -> None:
    def never(connection: socket.socket, server: Server) -> None:
        server.requests.append(read_request(connection))
        threading.Event().wait(20.0)

    with serving(never) as first, serving(answering("204 No Content")) as second:
        host.configure(webhook=f"http://127.0.0.1:{first.port}/")
        host.spool("one")
        with host.running() as process:
            until(lambda: len(first.requests) == 1)
            process.kill()
        host.configure(webhook=f"http://127.0.0.1:{second.port}/")
        with host.running():
            until(lambda: host.counts("webhook") == (1, 0, 0))
    ids = [json.loads(one.requests[0].partition(b"\r\n\r\n")[2])["id"] for one in (first, second)]
    assert ids[0] == ids[1]


def test_a_target_that_hangs_delays_no_other_and_sighup_reads_the_configuration(host: Host) -> None:
    def never(connection: socket.socket, server: Server) -> None:
        server.requests.append(read_request(connection))
        threading.Event().wait(60.0)

    with serving(never) as server:
        host.configure(webhook=f"http://127.0.0.1:{server.port}/", greetings=True)
        host.spool("one")
        with host.running() as process:
            until((host.folder / "notify" / "greetings" / LOGIN).exists)
            host.configure(greetings=True, command="/bin/true")
            process.send_signal(signal.SIGHUP)
            until(lambda: host.counts("command") == (1, 0, 0))
            (host.folder / "ds01d.toml").write_text("[notify]\nterminals = 1\n")
            process.send_signal(signal.SIGHUP)
            host.spool("two")
            # Each target has a thread of its own.
            for name in ("command", "greetings"):
                until(lambda: host.counts(name) == (2, 0, 0))  # noqa: B023 - called at once
            process.terminate()
            assert process.wait(20.0) == 0
            assert process.stderr is not None
            output = process.stderr.read().decode()
    assert "<4>the configuration is refused, the former one stays: " in output
    assert host.counts("greetings") == (2, 0, 0)


def test_without_a_target_it_ends_and_as_root_it_does_not_begin(host: Host) -> None:
    host.configure()
    with host.running() as process:
        assert process.wait(20.0) == 0
    if os.getuid() == 0:
        argv = [
            sys.executable,
            "-m",
            "ds01d.cli.notify",
            "--config",
            str(host.folder / "ds01d.toml"),
        ]
        done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == os.EX_CONFIG
        assert "does not run as root" in done.stderr


def test_warnings_fill_no_journal(capsys: pytest.CaptureFixture[str]) -> None:
    clock = [0.0]
    warn = Warnings(lambda: clock[0])
    for number in range(1000):
        warn(f"no user {number % 500} \x1b[2J")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 101
    assert all(line.startswith("<4>") and line.isprintable() for line in lines)
    assert lines[-1].endswith("others are left out")
    clock[0] = 3601.0
    warn("no user 1")
    assert capsys.readouterr().err == "<4>no user 1\n"
