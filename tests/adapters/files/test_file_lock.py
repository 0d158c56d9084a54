"""The lock: bounded waiting, and the name of whoever holds it."""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ds01d.adapters.files.file_lock import Lock
from ds01d.errors import LockTimeout, WriteFailed
from tests.support.scripts import LEASES, output, start

TEXT = "a long text of somebody else's, which stays"

HOLDER = """
import sys
from pathlib import Path
from ds01d.adapters.files.file_lock import Lock
with Lock(Path(sys.argv[1]), 5.0):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_it_is_taken_and_given_back_and_its_file_stays(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock", 0.0)
    for _ in range(2):
        assert not lock.is_held
        with lock:
            assert lock.is_held
    assert (tmp_path / "lock").exists()
    with Lock(tmp_path / "new", 0.0):
        mode = stat.S_IMODE((tmp_path / "new").stat().st_mode)
        assert mode == 0o660, "who may read it may hold it"


def test_it_is_given_back_after_an_error(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock", 0.0)
    with pytest.raises(ValueError, match="mistake"), lock:
        raise ValueError("mistake")
    with lock:
        assert lock.is_held


def test_the_wait_is_bounded_and_names_path_pid_and_command(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with start(HOLDER, path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        began = time.monotonic()
        with pytest.raises(LockTimeout) as refused, Lock(path, 0.1):
            pass
        assert 0.1 <= time.monotonic() - began < 30
        assert str(path) in str(refused.value)
        assert f"pid {holder.pid} of {_me()} (" in str(refused.value)
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
        with pytest.raises(LockTimeout, match=rf"held by pid {holder.pid} of {_me()} \(flock"):
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
    with pytest.raises(WriteFailed, match="missing/lock"):
        Lock(tmp_path / "missing/lock", 0.0).__enter__()


def _link(path: Path) -> None:
    path.symlink_to(path.with_name("target"))


def _full_folder(path: Path) -> None:
    (path / "something").mkdir(parents=True)


def _hard_link(path: Path) -> None:
    path.with_name("victim").write_text(TEXT)
    path.hardlink_to(path.with_name("victim"))


@pytest.mark.parametrize("put", [_link, Path.mkdir, _full_folder, os.mkfifo, _hard_link])
def test_what_can_be_no_lock_is_moved_out_of_the_way(
    tmp_path: Path, put: Callable[[Path], object]
) -> None:
    path = tmp_path / "lock"
    put(path)
    with Lock(path, 5.0):
        assert stat.S_ISREG(path.lstat().st_mode)
        with pytest.raises(LockTimeout):
            Lock(path, 0.0).__enter__()
    assert not (tmp_path / "target").exists()
    victim = tmp_path / "victim"
    assert not victim.exists() or victim.read_text() == TEXT


def test_a_lock_on_which_its_owner_has_a_lease_is_moved_out_of_the_way(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with start(LEASES, path) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "held\n"
        with Lock(path, 5.0), pytest.raises(LockTimeout):
            Lock(path, 0.0).__enter__()
        owner.communicate()


CLOSED = """
import os, sys
from pathlib import Path
from ds01d.adapters.files.file_lock import Lock
path = Path("lock")
folder = Path(sys.argv[1])
folder.chmod(0o770), os.chown(folder, 65533, 65533)
os.chdir(folder)
(path).touch(), path.chmod(int(sys.argv[2], 8)), os.chown(path, 65534, 65534)
os.setgroups([]), os.setegid(65533), os.seteuid(65533)
with Lock(path, 5.0):
    print(path.stat().st_uid, "held")
"""


FORBIDDEN = """
import os, sys
from pathlib import Path
from ds01d.adapters.files.file_lock import Lock
from ds01d.errors import WriteFailed
os.chdir(sys.argv[1]), os.mkdir("own"), os.chmod("own", 0o755), os.chmod(".", 0o755)
path = Path("own/lock")
path.touch(), path.chmod(0o600)
os.setegid(65534), os.seteuid(65534)
try:
    with Lock(path, 1.0):
        print("taken")
except WriteFailed as refused:
    print(refused)
os.seteuid(0)
print(path.exists())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be others")
def test_who_may_not_take_it_is_not_told_to_remove_it(tmp_path: Path) -> None:
    told = output(FORBIDDEN, tmp_path)
    assert "run as root, or give this user write access" in told
    assert "rm -r" not in told
    assert told.endswith("True\n")


@pytest.mark.parametrize("kind", [fcntl.LOCK_SH, fcntl.LOCK_EX])
def test_whoever_locks_the_folder_keeps_nobody_from_work(tmp_path: Path, kind: int) -> None:
    path = tmp_path / "lock"
    path.mkdir()
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(folder, kind)  # anybody who may read a folder may do that, and for ever
        with Lock(path, 2.0):
            assert stat.S_ISREG(path.stat().st_mode)
            with pytest.raises(LockTimeout), Lock(path, 0.1):
                pass
    finally:
        os.close(folder)
    assert [left.name for left in tmp_path.iterdir()] == ["lock"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be others")
def test_a_lock_file_that_we_may_not_open_keeps_nobody_from_work(tmp_path: Path) -> None:
    """One made by another user with a umask of 077, or on purpose."""
    assert output(CLOSED, tmp_path, "600").split() == ["65533", "held"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be others")
def test_a_lock_file_that_we_may_only_read_is_taken_as_it_is(tmp_path: Path) -> None:
    """One that root made with a umask of 022: scripts may hold it."""
    assert output(CLOSED, tmp_path, "644").split() == ["65534", "held"]


def test_a_lock_that_all_may_read_is_closed_to_those_outside_the_group(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch(mode=0o664)
    path.chmod(0o664)
    with Lock(path, 0.0):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_a_want_of_descriptors_moves_no_lock_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    with Lock(path, 0.0):
        real, inode = os.open, path.stat().st_ino

        def scarce(name: str, flags: int, *rest: int, dir_fd: int | None = None) -> int:
            if name == "lock":
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return real(name, flags, *rest, dir_fd=dir_fd)

        monkeypatch.setattr(os, "open", scarce)
        with pytest.raises(WriteFailed, match="Too many open files"):
            Lock(path, 0.0).__enter__()
        assert path.stat().st_ino == inode


HANDED_ON = """
import os, sys, time
from pathlib import Path
from ds01d.adapters.files.file_lock import Lock
lock = Lock(Path(sys.argv[1]), 5.0)
lock.__enter__()
os.set_inheritable(lock._descriptor, True)
if os.fork() == 0:
    print(os.getpid(), flush=True)
    sys.stdin.read()
"""


def test_a_holder_that_inherited_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with start(HANDED_ON, path) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.wait()
        with pytest.raises(LockTimeout, match=rf"held by pid {child} of {_me()} \("):
            Lock(path, 0.0).__enter__()
        parent.communicate()


IN_A_CONTAINER = """
import os, signal, sys
from pathlib import Path
from ds01d.adapters.files.file_lock import Lock
from ds01d.errors import LockTimeout
path = Path(sys.argv[1])
answer, question = os.pipe()
taker = os.fork()
if taker == 0:
    lock = Lock(path, 5.0)
    lock.__enter__()
    holder = os.fork()
    if holder == 0:
        signal.pause()
    os.write(question, str(holder).encode())
    os._exit(0)
os.waitpid(taker, 0)
holder = int(os.read(answer, 20))
try:
    Lock(path, 0.0).__enter__()
except LockTimeout as error:
    print(f"held by pid {holder} of " in str(error), error)
os.kill(holder, signal.SIGKILL)
"""


@pytest.mark.machine
def test_in_a_pid_namespace_it_is_named_too(tmp_path: Path, machine_host: None) -> None:
    """There /proc/locks has no line for a lock of one that is gone."""
    done = subprocess.run(
        (
            *("unshare", "--pid", "--fork", "--mount-proc"),
            *(sys.executable, "-c", IN_A_CONTAINER, str(tmp_path / "lock")),
        ),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("True "), done.stdout


def _me() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name
