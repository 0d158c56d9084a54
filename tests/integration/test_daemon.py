"""What holds for the daemon as a process: signals, locks, kills, systemd, its own directory."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from simulation.engine import PrivateEngine
from tests.support.books import until
from tests.support.daemon import ROOT, RunningDaemon, Site
from tests.support.scripts import start as start_script

pytestmark = pytest.mark.docker

LABELS = {"aime.mlc": "alice", "aime.mlc.USER": "alice"}
SOON_S = 25.0  # sooner than anything that it is made to wait for, which takes 30 s


def run(engine: PrivateEngine, site: Site, name: str, slot: str) -> None:
    """Book and run a container of alice."""
    site.allocator.allocate(name, "alice", slot)
    engine.run(name, devices=site.uuid(slot), labels=LABELS)


# --- the configuration


@pytest.mark.engine_neutral
def test_a_bad_configuration_is_refused_and_the_old_one_stays(
    site: Site, engine: PrivateEngine
) -> None:
    good = site.config.read_text(encoding="utf-8")

    def missing() -> None:
        site.config.unlink()

    def folder() -> None:
        site.config.mkdir()

    def fifo() -> None:
        site.config.rmdir()
        os.mkfifo(site.config)

    def text(wrong: str) -> Callable[[], None]:
        def write() -> None:
            if site.config.exists() and not site.config.is_file():
                site.config.unlink()
            site.config.write_text(wrong, encoding="utf-8")

        return write

    bad: list[tuple[Callable[[], None], str]] = [
        (text(good + "[polciy]\nsettle = '5s'\n"), "polciy"),
        (text(good.replace('settle = "200ms"', "settle = 5")), "policy.settle"),
        (
            text(good.replace('sweep_interval = "700ms"', 'sweep_interval = "1ms"')),
            "sweep_interval",
        ),
        (text(good + "\x00["), "TOML"),
        (text(good.replace(str(site.state_dir), str(site.limits / "below"))), str(site.limits)),
        (missing, "no such file"),
        (folder, "cannot be read"),
        (fifo, "cannot be read"),
        (text("\udcff".encode("utf-8", "surrogateescape").decode("latin-1")), str(site.config)),
    ]
    with RunningDaemon(site) as daemon:
        run(engine, site, "a._.1001", "1.0")
        daemon.reload()
        for spoil, words in bad:
            spoil()
            since = daemon.mark()
            daemon.reload()
            refused = daemon.wait_for("config.refused", since=since, level="error")
            assert words in refused["reason"]
        engine.remove("a._.1001")
        daemon.booked()

        # A good one is taken over: from now on it only looks.
        text(good)()
        site.configure(daemon={"mode": "observe"})
        since = daemon.mark()
        daemon.reload()
        daemon.wait_for("daemon.reload", since=since)
        until(lambda: site.status()["mode"] == "observe", what="the new mode")
        run(engine, site, "b._.1001", "1.1")
        daemon.reload()
        engine.remove("b._.1001")
        daemon.outlast(1.0)
        daemon.booked(("b._.1001", "1.1"))
        site.configure(daemon={"mode": "repair"})
        daemon.reload()
        daemon.booked()


# --- the end


def stops_in(daemon: RunningDaemon) -> float:
    """Stop it as systemd does: how long that took, in seconds. A good end, and nobody forced it."""
    began = time.monotonic()
    assert daemon.stop(within_s=SOON_S) == 0
    return time.monotonic() - began


@pytest.mark.engine_neutral
def test_sigterm_ends_it_soon_whatever_it_waits_for(site: Site, engine: PrivateEngine) -> None:
    site.configure(docker={"timeout": "30s"}, daemon={"sweep_interval": "30s"})
    site.configure(books={"lock_timeout": "30s"})
    with RunningDaemon(site) as daemon:
        assert stops_in(daemon) < SOON_S

        daemon.start()
        engine.pause()
        daemon.signal(signal.SIGHUP)
        until(lambda: connected(daemon.pid, engine), what="a call that hangs")
        assert stops_in(daemon) < SOON_S
        engine.resume()

        # Somebody holds the lock of the books, and there is something to write.
        daemon.start()
        run(engine, site, "a._.1001", "1.0")
        daemon.sweeps(1, since=reload(daemon))
        with held(site.state.with_name("gpu-state.json.lock")):
            engine.remove("a._.1001")
            until(lambda: stays_busy(site.state_dir / "lock"), what="a pass that waits")
            assert stops_in(daemon) < SOON_S
        assert site.bookings() == {("a._.1001", "1.0")}

        # Somebody else makes a pass, and does not end.
        daemon.start()
        daemon.booked()
        with held(site.state_dir / "lock"):
            reload(daemon)
            assert stops_in(daemon) < SOON_S
        assert not daemon.seen("daemon.stop", reason="forced")


def reload(daemon: RunningDaemon) -> float:
    """SIGHUP, without waiting for the sweep; when it was."""
    at, since = time.time(), daemon.mark()
    daemon.signal(signal.SIGHUP)
    daemon.wait_for("daemon.reload", since=since)
    return at


def stays_busy(path: Path) -> bool:
    """Whether somebody has a lock for longer than any pass of these few containers takes."""
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        if is_free(path):
            return False
        time.sleep(0.01)
    return True


def connected(pid: int, engine: PrivateEngine) -> bool:
    """Whether two connections to the engine are open: the stream, and a call that waits."""
    sockets: set[str] = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            sockets.add(str(entry.readlink()))
    return sum(1 for link in sockets if link.startswith("socket:")) >= 2


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a lock, as somebody else."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o664)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_free(path: Path) -> bool:
    """Whether nobody holds a lock at this moment."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def test_what_was_heard_is_written_before_it_ends(site: Site, engine: PrivateEngine) -> None:
    with RunningDaemon(site) as daemon:
        engine.run("one._.1001", devices=site.uuid("1.0"), labels=LABELS)
        daemon.wait_for("drift.settled", container="one._.1001")
        site.configure(logs={"level": "debug"})
        since = daemon.mark()
        daemon.reload()
        daemon.wait_for("daemon.reload", since=since)
        daemon.sweeps(2)  # the first may still be one of before, whose stream ends after it
        engine.run("two._.1001", devices=site.uuid("1.1"), labels=LABELS)
        daemon.wait_for("drift.settled", container="two._.1001")
        daemon.stop()
        for name in ("one._.1001", "two._.1001"):
            lines = [line for line in site.operation_lines(name) if line[0] == "start"]
            assert len(lines) == 1, name


# --- killed

_KILLED = """
import os, sys, time
from pathlib import Path
from ds01d.cli import daemon
from ds01d.bootstrap_daemon import run_daemon

config = Path(sys.argv[1])
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_RDWR), 2)
        os._exit(run_daemon(config, {}))
    time.sleep(float(line))
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    print("killed", flush=True)
"""


@pytest.mark.engine_neutral
def test_killed_at_any_moment_the_next_run_finishes(site: Site, engine: PrivateEngine) -> None:
    site.configure(policy={"settle": "20ms", "absence_grace": "40ms", "creation_grace": "0s"})
    chance = random.Random(20)
    stale = [(f"stale{number}._.1002", f"2.{number}") for number in range(4)]
    run(engine, site, "lives._.1001", "1.0")
    engine.run("found._.1001", devices=site.uuid("1.1"), labels=LABELS)
    # Processes forked from one that has imported everything: their start costs nothing.
    with start_script(_KILLED, site.config) as killer:
        assert killer.stdin is not None
        assert killer.stdout is not None
        try:
            for number in range(20):
                there = {name for name, _ in site.bookings()}
                for name, slot in stale:
                    if name not in there:
                        site.allocator.allocate(name, "bob", slot)
                killer.stdin.write(f"{0.03 + number * 0.008 + chance.random() * 0.02}\n")
                killer.stdin.flush()
                assert killer.stdout.readline() == "killed\n"
                assert ("lives._.1001", "1.0") in site.bookings()
        finally:
            killer.stdin.close()
    assert "lives._.1001" not in {name for name, _ in site.taken()}
    with RunningDaemon(site) as daemon:
        daemon.booked(("lives._.1001", "1.0"), ("found._.1001", "1.1"))
        daemon.at_rest(force=True)
    assert {path.stem for path in site.metadata.iterdir()} == {"lives._.1001", "found._.1001"}
    assert not [path for path in site.metadata.iterdir() if path.suffix != ".json"]
    assert site.taken(), "it was killed too early, each time"


# --- several at once


@pytest.mark.engine_neutral
def test_several_reconcilers_at_once_do_each_thing_once(site: Site, engine: PrivateEngine) -> None:
    for number in range(3):
        engine.run(f"found{number}._.1001", devices=site.uuid(f"1.{number}"), labels=LABELS)
    site.configure(policy={"settle": "5m", "absence_grace": "5m"})
    with RunningDaemon(site) as daemon:
        # Before they are due: it writes without the lock, which may cost a repair a second attempt.
        for number in range(4):
            site.allocator.allocate(f"stale{number}._.1002", "bob", f"2.{number}")
        site.configure(policy={"creation_grace": "0s", "settle": "0s", "absence_grace": "0s"})
        daemon.reload()
        commands = [
            subprocess.Popen(
                [sys.executable, "-m", "ds01d.cli.ctl.main", "reconcile", "--wait", "--json"],
                env=site.environment(),
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(3)
        ]
        for command in commands:
            told, complaint = command.communicate(timeout=60)
            assert command.returncode == 0, f"{told}{complaint}"
            assert json.loads(told)["consistent"]
        daemon.booked(*((f"found{number}._.1001", f"1.{number}") for number in range(3)))
        daemon.at_rest(force=True)
    history = site.history()
    assert len(site.taken()) == len(set(site.taken())) == 4
    assert {entry["outcome"] for entry in history} == {"done"}
    assert sorted(e["container"] for e in history if e["action"] == "book") == [
        f"found{number}._.1001" for number in range(3)
    ]


# --- its own directory


@pytest.mark.engine_neutral
def test_a_lost_or_broken_memory_takes_nothing_from_a_daemon_that_runs(
    site: Site, engine: PrivateEngine
) -> None:
    memory = site.state_dir / "checkpoint.json"
    run(engine, site, "a._.1001", "1.0")
    with RunningDaemon(site) as daemon:
        daemon.reload()
        for spoil in (
            memory.unlink,
            lambda: memory.write_bytes(b'{"version": 1, "memory": {"abs'),
            lambda: memory.write_bytes(b"\x00" * 4096),
            lambda: memory.write_bytes(b'{"version": 99, "memory": {}}'),
        ):
            spoil()
            daemon.reload()
            assert json.loads(memory.read_bytes())["version"] == 1
        daemon.booked(("a._.1001", "1.0"))
        assert site.taken() == []
        engine.remove("a._.1001")
        daemon.booked()
        daemon.at_rest(force=True)
        assert daemon.seen("degraded.begin")
        assert not daemon.seen("checkpoint.lost")
    memory.write_bytes(b'{"version": 99, "memory": {}}')
    with RunningDaemon(site) as daemon:
        assert daemon.seen("checkpoint.lost")
        daemon.at_rest(force=True)


@pytest.mark.engine_neutral
def test_a_state_directory_that_is_removed_is_made_again(site: Site, engine: PrivateEngine) -> None:
    def remove() -> None:
        aside = site.state_dir.rename(site.state_dir.with_name("aside"))
        shutil.rmtree(aside, ignore_errors=True)  # a pass may be about to write into it

    with RunningDaemon(site) as daemon:

        def spoil_lock() -> None:
            # Or it makes it again before the folder is there.
            with stopped_between_writes(daemon):
                (site.state_dir / "lock").unlink()
                (site.state_dir / "lock").mkdir()

        for number, spoil in enumerate((remove, spoil_lock)):
            name = f"a{number}._.1001"
            run(engine, site, name, "1.0")
            daemon.reload()
            spoil()
            engine.remove(name)
            daemon.booked()
            assert stat.S_IMODE(site.state_dir.stat().st_mode) == 0o755
        # The status comes after the books; and that passes work again is shown by a sweep.
        until(lambda: not site.status()["passes"]["failing_since"], what="a status of a sweep")


@pytest.mark.engine_neutral
def test_while_another_pass_holds_the_lock_every_picture_says_so(
    site: Site, engine: PrivateEngine
) -> None:
    command = "from ds01d import bootstrap; import sys; bootstrap.PASS_LOCK_TIMEOUT_S = 0.3; "
    command += "from ds01d.cli.daemon import main; main()"
    with RunningDaemon(site, command=(sys.executable, "-c", command, "--config")) as daemon:
        run(engine, site, "a._.1001", "1.0")
        daemon.reload()
        since = daemon.mark()
        with (site.state_dir / "lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            engine.remove("a._.1001")
            daemon.wait_for("pass.failed", since=since, level="error")
            failing = until(
                lambda: p if (p := site.status()["passes"])["failing_since"] else None,
                what="a status that says so",
            )
            assert "was not free within 0.3 s: held by pid" in failing["reason"]
            assert site.ctl("status").stdout.startswith("passes fail since ")
            told = json.loads(site.ctl("status", "--json").stdout)["daemon"]
            assert (told["alive"], told["ready"]) == (True, False)
        daemon.wait_for("pass.works", since=since)
        daemon.booked()
        until(lambda: not site.status()["passes"]["failing_since"], what="a status without it")


@contextmanager
def small_file_system(path: Path) -> Iterator[None]:
    path.mkdir(parents=True, exist_ok=True)
    subprocess.run(("mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(path)), check=True)
    try:
        yield
    finally:
        subprocess.run(("umount", "--lazy", str(path)), check=True)


@pytest.mark.engine_neutral
def test_without_a_history_nothing_is_done_and_it_says_so(
    site: Site, engine: PrivateEngine
) -> None:
    # SQLite keeps its file open, and what is open for writing cannot be made read-only.
    site.configure(accounting={"keep_days": 0})
    for number in range(3):
        run(engine, site, f"a{number}._.1001", f"1.{number}")
    with small_file_system(site.state_dir), RunningDaemon(site) as daemon:
        daemon.reload()
        everyone = {(f"a{number}._.1001", f"1.{number}") for number in range(3)}

        fill(daemon, site.state_dir / "full")
        since = daemon.mark()
        engine.remove("a0._.1001")
        daemon.wait_for("history.failed", since=since, level="error")
        assert site.bookings() == everyone
        (site.state_dir / "full").unlink()
        daemon.booked(*everyone - {("a0._.1001", "1.0")})
        daemon.wait_for("history.works", since=since)

        remount(site.state_dir, "ro")
        since = daemon.mark()
        engine.remove("a1._.1001")
        daemon.wait_for("pass.failed", since=since, level="error")
        assert site.bookings() == everyone - {("a0._.1001", "1.0")}
        remount(site.state_dir, "rw")
        daemon.wait_for("pass.works", since=since)
        daemon.booked(("a2._.1001", "1.2"))
        daemon.at_rest(force=True)


def fill(daemon: RunningDaemon, path: Path) -> None:
    """Take all the room there is, while ds01d replaces no file: the old one would be room again."""
    with (
        stopped_between_writes(daemon),
        path.open("wb", buffering=0) as file,
        suppress(OSError),
    ):
        while True:
            file.write(b"x" * 512)


@contextmanager
def stopped_between_writes(daemon: RunningDaemon) -> Iterator[None]:
    """Stop it at a moment at which it replaces no file."""
    until(lambda: stops_between_writes(daemon), what="a moment in which it writes nothing")
    try:
        yield
    finally:
        daemon.signal(signal.SIGCONT)


def stops_between_writes(daemon: RunningDaemon) -> bool:
    """Stop it; it goes on if it has begun to replace a file."""
    daemon.signal(signal.SIGSTOP)
    os.waitid(os.P_PID, daemon.pid, os.WSTOPPED)  # its threads may run on for a moment
    if not any(path.name.startswith(".") for path in daemon.site.state_dir.iterdir()):
        return True
    daemon.signal(signal.SIGCONT)
    return False


def remount(path: Path, how: str) -> None:
    """While a file is open for writing there it is busy; ours never are for long."""
    command = ("mount", "-o", f"remount,{how}", str(path))
    until(lambda: subprocess.run(command, check=False).returncode == 0, what=command)


# --- the books of others


@pytest.mark.engine_neutral
def test_a_booking_by_others_is_published_without_a_sweep(site: Site) -> None:
    site.configure(daemon={"sweep_interval": "1h"}, policy={"creation_grace": "1h"})
    with RunningDaemon(site):
        swept = site.status()["last_sweep"]["at"]
        site.allocator.allocate("a._.1001", "alice", "1.0")

        def holders() -> list[str]:
            (slot,) = (slot for slot in site.status()["slots"] if slot["id"] == "1.0")
            return [holder["container"] for holder in slot["holders"]]

        told = json.loads(site.ctl("status", "--json").stdout)["slots"]
        (slot,) = (slot for slot in told if slot["slot"] == "1.0")
        assert [holder["container"] for holder in slot["holders"]] == ["a._.1001"]
        until(lambda: holders() == ["a._.1001"], what=holders)
        site.allocator.release("a._.1001")  # with its metadata: a lost booking would be restored
        until(lambda: holders() == [], what=holders)
        assert site.status()["last_sweep"]["at"] == swept


# --- observing


@pytest.mark.engine_neutral
def test_observing_it_writes_nothing_but_its_own_files(site: Site, engine: PrivateEngine) -> None:
    site.configure(daemon={"mode": "observe"}, policy={"creation_grace": "0s"})
    site.allocator.allocate("stale._.1001", "alice", "1.0")
    engine.run("found._.1001", devices=site.uuid("1.1"), labels=LABELS)
    site.allocator.allocate("count._.1001", "alice", "1.2")
    engine.run("count._.1001", devices=site.uuid("1.2"), labels=LABELS)
    site.write_state(lambda state: state["gpus"]["1.2"].update(users={"alice": 7}))
    (site.metadata / "orphan._.1001.json").write_text("{broken", encoding="utf-8")
    before = tree(site.state.parent, site.operations.parent)
    with RunningDaemon(site) as daemon:
        daemon.outlast(1.0)
        engine.remove("found._.1001")
        daemon.outlast(1.0)
        kinds = {drift["kind"] for drift in site.status()["drifts"]}
        assert {"stale-allocation", "wrong-count", "orphaned-metadata"} <= kinds
        assert daemon.seen("drift.found", drift="untracked-container")
        assert not daemon.seen("drift.settled")
    assert tree(site.state.parent, site.operations.parent) == before
    assert not (site.state_dir / "history.jsonl").exists()


def tree(*folders: Path) -> Mapping[str, str]:
    """Everything below, with what is in it."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for folder in folders
        for path in sorted(folder.rglob("*"))
    }


# --- systemd


@pytest.mark.engine_neutral
def test_systemd_is_told_what_goes_on(site: Site, engine: PrivateEngine) -> None:
    path = site.folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.settimeout(60)

        def next_with(key: str) -> dict[str, str]:
            while True:
                lines = listener.recv(4096).decode().splitlines()
                message = dict(line.split("=", 1) for line in lines)
                if key in message:
                    return message

        engine.pause()
        env = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "600000"}
        with RunningDaemon(site, env=env, ready=False) as daemon:
            ready = next_with("READY")
            assert "docker down" in ready["STATUS"]
            engine.resume()
            until(lambda: "docker ok" in next_with("STATUS")["STATUS"], what="docker ok")
            assert next_with("WATCHDOG") == {"WATCHDOG": "1"}

            began = time.monotonic_ns() // 1000
            daemon.signal(signal.SIGHUP)
            reloading = next_with("RELOADING")
            assert reloading["RELOADING"] == "1"
            assert began <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
            assert next_with("READY") == {"READY": "1"}

            since = daemon.mark()
            daemon.signal(signal.SIGUSR1)
            daemon.wait_for("status.dump", since=since, subject="source docker", text="ok")
            daemon.wait_for("status.dump", since=since, subject="slot 1.0", text="free")

            daemon.stop()
            assert next_with("STOPPING")["STOPPING"] == "1"


@pytest.mark.engine_neutral
def test_a_systemd_that_reads_nothing_stops_neither_repairs_nor_the_end(
    site: Site, engine: PrivateEngine
) -> None:
    path = site.folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other, suppress(BlockingIOError):
            other.setblocking(False)
            while True:
                other.sendto(b"X=1", str(path))
        with RunningDaemon(site, env={"NOTIFY_SOCKET": str(path)}) as daemon:
            blocked = daemon.wait_for("degraded.begin", level="warning")
            assert "systemd does not read it" in str(blocked["reason"])
            run(engine, site, "a._.1001", "1.0")
            daemon.reload()
            engine.remove("a._.1001")
            daemon.booked()


@pytest.mark.engine_neutral
def test_it_is_ready_only_after_a_whole_pass(site: Site, engine: PrivateEngine) -> None:
    site.allocator.allocate("a._.1001", "alice", "1.0")
    engine.run("a._.1001", devices=site.uuid("1.0"), labels=LABELS)
    with RunningDaemon(site) as daemon:
        ready: dict[str, Any] = daemon.wait_for("daemon.ready")
        assert "1 slot of 12 held" in ready["status"]
        assert "docker ok" in ready["status"]
