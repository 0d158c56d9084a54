"""Signals, readiness and the watchdog: in one process with a made-up clock, and in a real one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import structlog

from ds01d.daemon.notify_socket import Notifier, open_notify_socket
from ds01d.daemon.systemd import KILL_WITHIN_S, STOP_WITHIN_S, ExitReason, Supervisor

HUP, TERM, USR1 = signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1


class Story:
    """A supervisor, the signals it will get (None: the time is up), and all it told and did."""

    def __init__(self, *signals: int | None, usec: str = "20000000") -> None:
        self.now = 100.0
        self.told: list[str] = []
        self.done: list[str] = []
        self.armed: list[float] = []
        self.signals = list(signals)
        self.each_wait: Callable[[], None] = lambda: None
        self.supervisor = Supervisor(
            15,
            environ={"WATCHDOG_USEC": usec},
            send=self.told.append,
            clock=lambda: self.now,
            wait=self.wait,
            arm=self.armed.append,
        )

    def wait(self, timeout_s: float) -> int | None:
        assert timeout_s >= 0
        self.each_wait()
        number = self.signals.pop(0) if self.signals else TERM
        if number is None:
            self.now += timeout_s
        return number

    def run(self) -> ExitReason:
        return self.supervisor.run(
            reload=lambda: self.done.append("reload"),
            stop=lambda: self.done.append("stop"),
            dump=lambda: self.done.append("dump"),
        )


def test_each_signal_has_its_meaning() -> None:
    story = Story(USR1, HUP, signal.SIGINT)
    assert story.run() is ExitReason.FORCED  # by the second of the two stops
    assert story.done == ["dump", "reload", "stop"]


def test_readiness_is_told_again_after_a_reload_but_never_before_the_first_pass() -> None:
    story = Story(HUP)
    story.run()
    assert story.told == ["STOPPING=1\nSTATUS=stopping"]
    story = Story(HUP)
    story.supervisor.notify_ready("all well")
    before = time.monotonic_ns() // 1000
    story.run()
    ready, reloading, again, _ = story.told
    assert (ready, again) == ("READY=1\nSTATUS=all well", "READY=1")
    state, usec = reloading.split("\nMONOTONIC_USEC=")
    assert state == "RELOADING=1"
    assert before <= int(usec) <= time.monotonic_ns() // 1000


def test_the_watchdog_is_fed_at_half_its_time_while_the_worker_progresses() -> None:
    story = Story(None, None, None)
    story.each_wait = story.supervisor.mark_progress
    story.run()
    assert story.told.count("WATCHDOG=1") == 3
    assert story.now == 130


def test_a_silent_worker_starves_the_watchdog() -> None:
    story = Story(None, None, None)
    story.run()
    assert story.told == [
        "WATCHDOG=1",
        "STATUS=no progress of the worker for 20 s",
        "STATUS=no progress of the worker for 30 s",
        "STOPPING=1\nSTATUS=stopping",
    ]


def test_a_pass_that_takes_long_is_in_the_status_until_the_next_one() -> None:
    story = Story(None, None, None, None, usec="30000000")
    story.supervisor.patience_s = 1000
    story.supervisor.notify_status("0 drifts")

    def each_wait() -> None:
        if story.now >= 160:
            story.supervisor.notify_status("0 drifts")

    story.each_wait = each_wait
    story.run()
    assert story.told == [
        "STATUS=0 drifts",
        "WATCHDOG=1",
        "WATCHDOG=1\nSTATUS=pass running for 30 s; before: 0 drifts",
        "WATCHDOG=1\nSTATUS=pass running for 45 s; before: 0 drifts",
        "WATCHDOG=1\nSTATUS=pass running for 60 s; before: 0 drifts",
        "STATUS=0 drifts",
        "STOPPING=1\nSTATUS=stopping",
    ]


def test_signals_do_not_make_the_watchdog_fed_more_often() -> None:
    story = Story(*[USR1] * 50)
    story.run()
    assert "WATCHDOG=1" not in story.told


@pytest.mark.parametrize("usec", ["", "0", "-1", "soon", "1e6"])
def test_without_a_watchdog_nothing_is_fed(usec: str) -> None:
    story = Story(None, None, usec=usec)
    story.run()
    assert story.told == ["STOPPING=1\nSTATUS=stopping"]


def test_the_watchdog_of_another_process_is_not_ours() -> None:
    told: list[str] = []
    clock = iter(range(0, 1000, 100)).__next__
    supervisor = Supervisor(
        1e9,
        environ={"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
        send=told.append,
        clock=lambda: float(clock()),
        wait=lambda _: TERM,
        arm=lambda _: None,
    )
    supervisor.run(reload=lambda: None, stop=lambda: None, dump=lambda: None)
    assert told == ["STOPPING=1\nSTATUS=stopping"]


def test_a_worker_that_does_not_stop_in_time_is_left_behind() -> None:
    story = Story(TERM, HUP, None, usec="")
    assert story.run() is ExitReason.FORCED
    assert story.now == 100 + STOP_WITHIN_S
    assert story.done == ["stop"]


def test_status_is_one_line_told_when_it_changes() -> None:
    story = Story()
    for status in ("a", "a", "b\nMAINPID=1", "b\nMAINPID=1", "a"):
        story.supervisor.notify_status(status)
    assert story.told == ["STATUS=a", r"STATUS=b\nMAINPID=1", "STATUS=a"]


@pytest.mark.parametrize("error", [FileNotFoundError(), ConnectionRefusedError(), ValueError()])
def test_nobody_to_tell_is_no_error(error: Exception) -> None:
    def send(_: str) -> None:
        raise error

    Supervisor(1, environ={}, send=send).notify_ready("x")


SCRIPT = """
import sys, threading
from ds01d.daemon.systemd import Supervisor, block_signals
block_signals()
stubborn = "stubborn" in sys.argv
supervisor = Supervisor(60)
stop = threading.Event()

def work():
    if "broken" not in sys.argv:
        supervisor.notify_ready("up")
        stop.wait()
    supervisor.mark_worker_ended()

threading.Thread(target=work, daemon=True).start()
end = supervisor.run(
    reload=lambda: supervisor.notify_status("reloaded"),
    stop=lambda: stubborn or stop.set(),
    dump=lambda: supervisor.notify_status("dumped"),
)
print(end)
"""


class Process:
    """The script above under a socket like systemd's."""

    def __init__(self, address: str, argument: str, **environ: str) -> None:
        self.inbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.inbox.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.inbox.bind(address.replace("@", "\0", 1))
        self.inbox.settimeout(60)
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, argument],
            env={**os.environ, "NOTIFY_SOCKET": address, **environ},
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
        )

    def told(self) -> str:
        return self.inbox.recv(4096).decode()

    def told_next(self) -> str:
        """What it tells next, but for feeding the watchdog."""
        while (told := self.told()) == "WATCHDOG=1":
            pass
        return told

    def ended(self) -> str:
        return self.process.communicate(timeout=60)[0].strip()


@contextmanager
def started(address: str, argument: str = "", **environ: str) -> Iterator[Process]:
    process = Process(address, argument, **environ)
    try:
        yield process
    finally:
        process.inbox.close()
        process.process.kill()
        process.process.communicate()


def test_a_real_process_answers_real_signals(tmp_path: Path) -> None:
    with started(str(tmp_path / "notify"), WATCHDOG_USEC="100000") as process:
        # It is fed from the start on.
        told = [process.told()]
        while sorted({*told}) != ["READY=1\nSTATUS=up", "WATCHDOG=1"]:
            told.append(process.told())
        process.process.send_signal(HUP)
        assert process.told_next().startswith("RELOADING=1\nMONOTONIC_USEC=")
        assert process.told_next() == "STATUS=reloaded"
        assert process.told_next() == "READY=1"
        process.process.send_signal(USR1)
        assert process.told_next() == "STATUS=dumped"
        process.process.send_signal(TERM)
        assert process.ended() == "stopped"


def test_an_abstract_socket_serves_as_well_and_a_second_signal_forces() -> None:
    with started(f"@ds01d-test-{os.getpid()}", "stubborn") as process:
        assert process.told() == "READY=1\nSTATUS=up"
        process.process.send_signal(TERM)
        assert process.told() == "STOPPING=1\nSTATUS=stopping"
        process.process.send_signal(TERM)
        assert process.ended() == "forced"


def test_a_worker_that_dies_ends_the_daemon_also_without_a_socket(tmp_path: Path) -> None:
    environ = {"NOTIFY_SOCKET": str(tmp_path / "missing")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "broken"],
        env={**os.environ, **environ},
        cwd=Path(__file__).parents[2],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr) == ("broken", "")


# --- a socket that nobody reads


def test_variables_that_found_no_room_are_kept_at_their_newest_value() -> None:
    room, sent = [False], list[str]()

    def send(message: str) -> None:
        if not room[0]:
            raise BlockingIOError
        sent.append(message)

    def blocked() -> bool:
        return notifier.is_blocked

    notifier = Notifier(send)
    notifier.notify("READY=1", "STATUS=a")
    notifier.notify("STATUS=b")
    notifier.notify("WATCHDOG=1")
    assert blocked()
    room[0] = True
    notifier.retry()
    assert sent == ["READY=1\nSTATUS=b\nWATCHDOG=1"]
    assert not blocked()
    room[0] = False
    notifier.notify("RELOADING=1", "MONOTONIC_USEC=7")
    notifier.notify("READY=1")  # a reload that was never announced must not begin after its end
    room[0] = True
    notifier.retry()
    assert sent[1:] == ["READY=1"]
    room[0] = False
    notifier.notify("STATUS=c", "READY=1")
    notifier.notify("STOPPING=1", "STATUS=stopping")
    room[0] = True
    notifier.retry()
    assert sent[2:] == ["STOPPING=1\nSTATUS=stopping"]


def test_a_full_socket_is_logged_once_and_ready_comes_when_it_is_read(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox:
        inbox.bind(address)
        signals = iter([None, TERM, TERM])
        supervisor = Supervisor(
            1,
            environ={"NOTIFY_SOCKET": address},
            wait=lambda _: next(signals),
            arm=lambda _: None,
        )
        with structlog.testing.capture_logs() as logged:
            for number in range(2000):  # more than any queue holds
                supervisor.notify_status(f"status {number}")
            supervisor.notify_ready("all well")
        assert [entry["event"] for entry in logged] == ["degraded.begin"]
        assert "systemd does not read it" in logged[0]["reason"]
        inbox.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                inbox.recv(4096)
        with structlog.testing.capture_logs() as logged:
            supervisor.run(reload=lambda: None, stop=lambda: None, dump=lambda: None)
        assert inbox.recv(4096).decode().split("\n") == ["READY=1", "STATUS=all well"]
    assert [entry["event"] for entry in logged] == ["degraded.over"]


def test_an_odd_address_is_nobody_to_notify() -> None:
    for address in ("", "vsock:2:1", "relative"):
        open_notify_socket({"NOTIFY_SOCKET": address})("READY=1")


def test_the_kernel_ends_a_process_that_does_not_stop() -> None:
    story = Story(TERM, None, usec="")
    story.run()
    assert story.armed == [KILL_WITHIN_S]
    assert STOP_WITHIN_S < KILL_WITHIN_S < 5


HUNG = """
import sys, ctypes, threading
from ds01d.daemon.systemd import Supervisor, block_signals
block_signals()
supervisor = Supervisor(60)
supervisor.notify_ready("up")
supervisor.run(
    reload=lambda: None,
    dump=lambda: None,
    stop=lambda: ctypes.PyDLL(None).pause(),  # lets no other thread run, and waits
)
"""


def test_sigterm_ends_a_process_whose_interpreter_stands_still(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox:
        inbox.bind(address)
        inbox.settimeout(60)
        process = subprocess.Popen(
            [sys.executable, "-c", HUNG],
            env={**os.environ, "NOTIFY_SOCKET": address},
            cwd=Path(__file__).parents[2],
        )
        try:
            assert inbox.recv(4096).startswith(b"READY=1")
            process.send_signal(TERM)
            assert process.wait(timeout=60) == -signal.SIGALRM
        finally:
            process.kill()
            process.wait()
