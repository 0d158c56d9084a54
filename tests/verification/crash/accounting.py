"""Every crash point of the accounting: whatever is on the disk then can be opened, and goes on.

    .venv/bin/python -m tests.verification.crash.accounting

As `points` does it: a child makes a change and stands still at each call that changes a file; what
the disk has then is copied, read for a report, opened by a new process' accounting, and compared
with an independent replay of the history. SQLite calls through libc as well. What it maps (`-shm`)
it makes anew.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec

from ds01d.adapters.accounting_database import NAME
from ds01d.adapters.accounting_reader import open_reader
from ds01d.reconcile.reconciler import Reconciler
from tests.support.accounting import Accounted, assert_agrees
from tests.verification.crash.points import MEMORY, ROOT, Found, summary
from tests.verification.crash.stepping import Stepper, environment

DAMAGED = b"no database" * 500
Build = Callable[[Path], tuple[Accounted, Callable[[], object]]]


def _host(folder: Path) -> Accounted:
    host = Accounted(folder)
    host.sweep()
    host.book("train._.1001", 2)
    host.book("tune._.1002", 1)
    host.run("train._.1001")
    host.watch(3)
    host.save()
    return host


def _change(host: Accounted) -> None:
    """A booking that ends, one that begins, and one that goes to another name."""
    host.release("tune._.1002")
    host.book("eval._.1001", 1)
    host.rename("train._.1001", "infer._.1002")
    host.life.host.pass_time(7.0)


def _pass(host: Accounted, *, to_end: bool = False) -> Callable[[], object]:
    """What a new process does with the report of a pass that was made before."""
    host.accounting.close()
    report = Reconciler(host.life.host.world(), host.config).run()

    def act() -> None:
        host.restart()
        host.accounting.record_pass(report)
        host.save()
        if to_end:
            host.accounting.close()

    return act


def made(folder: Path) -> tuple[Accounted, Callable[[], object]]:
    """The file is made, and what the history has is read into it."""
    host = Accounted(folder)
    host.book("train._.1001", 2)
    host.release("train._.1001")
    host.book("tune._.1002", 1)
    return host, _pass(host)


def saved(folder: Path) -> tuple[Accounted, Callable[[], object]]:
    """Changes are added to a file that is there."""
    host = _host(folder)
    _change(host)
    return host, _pass(host)


def closed(folder: Path) -> tuple[Accounted, Callable[[], object]]:
    """The same, and the journal is moved into the file at the end."""
    host = _host(folder)
    _change(host)
    return host, _pass(host, to_end=True)


def clock_set(folder: Path) -> tuple[Accounted, Callable[[], object]]:
    """The times of a boot move, all together."""
    host = _host(folder)
    _change(host)
    host.set_clock(86_400.0)
    return host, _pass(host)


def set_aside(folder: Path) -> tuple[Accounted, Callable[[], object]]:
    """A damaged file is replaced by what the history has."""
    host = _host(folder)
    host.accounting.close()
    (folder / NAME).write_bytes(DAMAGED)
    host.seen.clear()
    report = Reconciler(host.life.host.world(), host.config).run()

    def act() -> None:
        host.restart()
        assert "not a database" in host.accounting.record_pass(report)
        assert not host.accounting.record_pass(report)

    return host, act


SCENES: tuple[Build, ...] = (made, saved, closed, clock_set, set_aside)


def enumerate_scenes() -> Iterator[Found]:
    stepper = Stepper()
    folder = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="ds01d-crash-", dir=folder) as root:
        for build in SCENES:
            yield _enumerate(build, Path(root), stepper)


def _enumerate(build: Build, root: Path, stepper: Stepper) -> Found:
    live = root / build.__name__
    live.mkdir()
    host, act = build(live)
    copies: list[tuple[str, Path]] = []
    calls = 0
    for moment, call in stepper.steps(act):
        calls += moment == "before"
        name = Path(call.path).name
        copies.append(
            (f"{moment} call {calls}, {call.name} {name}", _copy(live, root, len(copies)))
        )
    copies.append(("after the last call", _copy(live, root, len(copies))))
    wrong = [f"{where}: {why}" for where, copy in copies if (why := _judge(host, copy, root))]
    return Found(f"accounting-{build.__name__}", calls, len(copies), wrong)


def _copy(live: Path, root: Path, number: int) -> Path:
    return Path(shutil.copytree(live, root / f"{live.name}-{number}"))


def _judge(host: Accounted, copy: Path, root: Path) -> str:
    """What is wrong with a disk, and once the next process has made a pass; "" if nothing is."""
    restarted = Accounted(copy)
    restarted.life, restarted.seen = host.life, [*host.seen]
    restarted.restart()
    try:
        _read_report(copy, root / "read")
        # What is damaged is set aside by the first, and made anew by the next.
        restarted.accounting.record_pass(Reconciler(host.life.host.world(), host.config).run())
        restarted.sweep()
        restarted.save()
        assert_agrees(restarted.rows(), restarted.replayed())
        restarted.accounting.close()
        with closing(sqlite3.connect(copy / NAME)) as database:
            (result,) = database.execute("PRAGMA integrity_check").fetchone()
        assert result == "ok", result
    except Exception as error:  # noqa: BLE001 - one more thing that is wrong
        return f"{type(error).__name__}: {error}"[:500]
    finally:
        shutil.rmtree(copy)
    return ""


def _read_report(disk: Path, copy: Path) -> None:
    """Who reads meanwhile finds no accounting or a whole one. On a copy: a reader tidies up."""
    shutil.copytree(disk, copy)
    try:
        path = copy / NAME
        if not (path.exists() and path.read_bytes() == DAMAGED):
            with open_reader(copy) as reader:
                assert reader is None or reader.progress.place is None or reader.list_users()
    finally:
        shutil.rmtree(copy)


def run() -> list[Found]:
    """All of them, in a process in which the library is loaded."""
    command = [sys.executable, "-m", "tests.verification.crash.accounting", "--here"]
    env = {**environment(), "PYTHONPATH": str(ROOT)}
    lines = subprocess.run(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    return [msgspec.json.decode(line, type=Found) for line in lines.splitlines()]


def main(words: list[str]) -> int:
    if words == ["--here"]:
        for found in enumerate_scenes():
            sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
        return 0
    all_found = run()
    for one in all_found:
        sys.stdout.write(f"{one.name:30} {one.calls:4} calls {one.points:5} points\n")
        sys.stdout.writelines(f"    {what}\n" for what in one.wrong[:5])
    sys.stdout.write(f"{summary(all_found)}\n")
    return 1 if any(one.wrong for one in all_found) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
