"""The lock: bounded waiting, and the name of whoever holds it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from pathlib import Path

import pytest

from ds01d.adapters.file_lock import Lock
from ds01d.errors import LockTimeout, WriteFailed
from tests.support.scripts import start

HOLDER = """
import sys
from pathlib import Path
from ds01d.adapters.file_lock import Lock
with Lock(Path(sys.argv[1]), 5.0):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_it_is_taken_and_given_back_and_its_file_stays(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock", 0.0)
    for _ in range(2):
        assert not lock.held
        with lock:
            assert lock.held
    assert (tmp_path / "lock").exists()
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o664


def test_it_is_given_back_after_an_error(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock", 0.0)
    with pytest.raises(ValueError, match="mistake"), lock:
        raise ValueError("mistake")
    with lock:
        assert lock.held


def test_the_wait_is_bounded_and_names_path_pid_and_command(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with start(HOLDER, path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        began = time.monotonic()
        with pytest.raises(LockTimeout) as refused, Lock(path, 0.1):
            pass
        assert 0.1 <= time.monotonic() - began < 2.0
        assert str(path) in str(refused.value)
        assert f"pid {holder.pid} (" in str(refused.value)
        assert "python" in str(refused.value)
        holder.communicate()
    with Lock(path, 5.0):
        pass


def test_the_wait_ends_as_soon_as_the_holder_dies(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with start(HOLDER, path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.kill()
        with Lock(path, 30.0):
            pass


def test_a_script_with_flock_holds_it_too(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    with subprocess.Popen(
        ["flock", path, "sh", "-c", "echo held; read x"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(LockTimeout, match=rf"held by pid {holder.pid} \(flock"):
            Lock(path, 0.0).__enter__()
        holder.communicate()


def test_taking_it_twice_is_a_mistake_of_the_program(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock", 0.0)
    with lock, pytest.raises(RuntimeError, match="already"), lock:
        pass
    with (
        Lock(tmp_path / "lock", 0.0),
        pytest.raises(LockTimeout, match=f"pid {os.getpid()} "),
        lock,
    ):
        pass


def test_a_lock_on_a_file_that_was_deleted_meanwhile_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    real = fcntl.flock
    deleted = False

    def flock(descriptor: int, operation: int) -> None:
        nonlocal deleted
        if not deleted:
            deleted = True
            path.unlink()
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with Lock(path, 5.0):
        assert deleted
        with pytest.raises(LockTimeout):
            Lock(path, 0.0).__enter__()


def test_it_says_what_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "folder").mkdir()
    for name in ("link", "folder", "missing/lock"):
        with pytest.raises(WriteFailed, match=name):
            Lock(tmp_path / name, 0.0).__enter__()
    assert not (tmp_path / "target").exists()
