"""Books that only ds01d writes: nobody else can write to what is left, and nothing is lost."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from pathlib import Path

import pytest

from ds01d.adapters.books.exclusive_access import ExclusiveAccess, take_over
from ds01d.adapters.books.state_file import StateFile
from ds01d.bootstrap_daemon import take_over_books
from ds01d.config import BooksConfig, Config, DaemonConfig, LogsConfig

LOCK = "gpu-state.json.lock"
NAMES = ("gpu-state.json",)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to other users")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def others_may_write(path: Path) -> bool:
    status = path.stat()
    foreign = status.st_gid != os.getegid() or status.st_uid != os.geteuid()
    lists = [name for name in os.listxattr(path) if name.startswith("system.posix_acl")]
    return bool(status.st_mode & 0o002 or (status.st_mode & 0o020 and foreign) or lists)


@pytest.fixture
def books(tmp_path: Path) -> Path:
    folder = tmp_path / "lib"
    folder.mkdir()
    folder.chmod(0o2775)
    for name, mode in {"gpu-state.json": 0o664, LOCK: 0o666, "notes.txt": 0o666}.items():
        (folder / name).write_text(name, encoding="utf-8")
        (folder / name).chmod(mode)
    return folder


def test_folder_and_files_are_ours(books: Path) -> None:
    before = (books / "gpu-state.json").stat()
    assert take_over({books: NAMES}, frozenset({LOCK})) == []
    assert mode_of(books) == 0o755
    state = books / "gpu-state.json"
    assert (mode_of(state), state.read_text(encoding="utf-8")) == (0o644, "gpu-state.json")
    assert state.stat().st_mtime_ns == before.st_mtime_ns
    assert mode_of(books / LOCK) == 0o660
    assert mode_of(books / "notes.txt") == 0o666  # not ours to change


def test_what_is_ours_already_stays(books: Path) -> None:
    take_over({books: NAMES}, frozenset({LOCK}))
    before = [(path.stat().st_ino, path.stat().st_ctime_ns) for path in sorted(books.iterdir())]
    assert take_over({books: NAMES}, frozenset({LOCK})) == []
    after = [(path.stat().st_ino, path.stat().st_ctime_ns) for path in sorted(books.iterdir())]
    assert after == before


@needs_root
def test_a_file_of_somebody_elses_is_replaced(books: Path) -> None:
    state = books / "gpu-state.json"
    os.chown(state, 1001, 1001)
    with state.open("r+", encoding="utf-8") as held_open:
        take_over({books: NAMES}, frozenset({LOCK}))
        held_open.write("forged")
        held_open.flush()
        assert state.read_text(encoding="utf-8") == "gpu-state.json"
    assert state.stat().st_uid == 0


@needs_root
def test_a_folder_of_somebody_elses_stays_and_is_named(books: Path) -> None:
    os.chown(books, 1001, 1001)
    os.chmod(books, 0o755)  # noqa: PTH101, S103
    (problem,) = take_over({books: NAMES}, frozenset({LOCK}))
    assert str(books) in problem
    assert "fix: chown root" in problem
    assert mode_of(books / "gpu-state.json") == 0o664


def test_links_pipes_and_folders_are_left_alone(books: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("root's", encoding="utf-8")
    target.chmod(0o666)
    (books / "gpu-state.json.link").symlink_to(target)
    os.mkfifo(books / "gpu-state.json.pipe")
    (books / "gpu-state.json.d").mkdir()
    assert take_over({books: NAMES}, frozenset({LOCK})) == []
    assert (books / "gpu-state.json.link").is_symlink()
    assert mode_of(target) == 0o666


def test_a_second_name_of_a_file_leads_nowhere(books: Path, tmp_path: Path) -> None:
    os.link(books / "gpu-state.json", tmp_path / "kept")
    take_over({books: NAMES}, frozenset({LOCK}))
    (tmp_path / "kept").write_text("forged", encoding="utf-8")
    assert (books / "gpu-state.json").read_text(encoding="utf-8") == "gpu-state.json"


def test_access_lists_are_removed(books: Path) -> None:
    user = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, rights, who)
        for tag, rights, who in (
            (0x01, 6, 0xFFFFFFFF),
            (0x02, 6, 1001),
            (0x04, 4, 0xFFFFFFFF),
            (0x10, 6, 0xFFFFFFFF),
            (0x20, 4, 0xFFFFFFFF),
        )
    )
    try:
        os.setxattr(books / "gpu-state.json", "system.posix_acl_access", user)
        os.setxattr(books, "system.posix_acl_default", user)
    except OSError as error:
        pytest.skip(f"the file system has no access lists: {error.strerror}")
    take_over({books: NAMES}, frozenset({LOCK}))
    assert not others_may_write(books)
    assert not others_may_write(books / "gpu-state.json")


def test_a_folder_that_is_not_there_is_no_problem(tmp_path: Path) -> None:
    assert take_over({tmp_path / "none": [""]}, frozenset()) == []


def test_a_file_that_claims_to_be_huge_is_not_copied(books: Path) -> None:
    with (books / "gpu-state.json").open("r+b") as state:
        state.truncate(1 << 40)
    problems = take_over({books: NAMES}, frozenset({LOCK}))
    assert [problem.partition("own: ")[2] for problem in problems] == ["File too large"]
    assert mode_of(books / LOCK) == 0o660
    assert sorted(path.name for path in books.iterdir()) == ["gpu-state.json", LOCK, "notes.txt"]


def test_a_full_disk_leaves_no_copy(books: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ds01d.adapters.books.exclusive_access.shutil.copyfileobj", fail)
    assert "No space left" in take_over({books: NAMES}, frozenset({LOCK}))[0]
    assert sorted(path.name for path in books.iterdir()) == ["gpu-state.json", LOCK, "notes.txt"]


def test_it_waits_for_a_writer_who_holds_the_lock(tmp_path: Path, books: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    config = Config(
        books=BooksConfig(
            state=books / "gpu-state.json", metadata=tmp_path / "metadata", writers="service"
        ),
        logs=LogsConfig(operations=tmp_path / "log" / "a", allocations=tmp_path / "log" / "b"),
        daemon=DaemonConfig(state_dir=own, mode="repair"),
    )
    state = StateFile(config.books.state, own, 0.2)
    take_over({books: [LOCK]}, frozenset({LOCK}))
    with StateFile(config.books.state, own, 5.0).lock():
        (problem,) = take_over_books(config, state)
    assert "not the service's own yet" in problem
    assert mode_of(config.books.state) == 0o664
    assert take_over_books(config, state) == []
    assert mode_of(config.books.state) == 0o644


def test_who_holds_the_lock_of_before_holds_nothing(tmp_path: Path, books: Path) -> None:
    lock = books / LOCK
    with lock.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        take_over({books: [LOCK]}, frozenset({LOCK}))
        with StateFile(books / "gpu-state.json", tmp_path, 1.0).lock():
            pass


def test_what_a_script_gives_away_again_is_taken_back(books: Path) -> None:
    """And said in the same words each time, so that it is logged once."""
    calls: list[int] = []

    def take() -> list[str]:
        calls.append(1)
        return take_over({books: NAMES}, frozenset({LOCK}))

    access = ExclusiveAccess(take, (books, books / "no such folder"))
    assert access() == []
    assert mode_of(books) == 0o755
    assert access() == []
    reports = set()
    for _ in range(3):
        books.chmod(0o775)
        reports.add(tuple(access()))
        assert mode_of(books) == 0o755
        assert access() == []
    assert reports == {(f"{books}: a script let others write there; taken back",)}
    assert len(calls) == 4


@needs_root
def test_a_folder_that_a_script_gave_to_another_user_is_named_and_not_tried_again(
    books: Path,
) -> None:
    calls: list[int] = []

    def take() -> list[str]:
        calls.append(1)
        return take_over({books: NAMES}, frozenset({LOCK}))

    access = ExclusiveAccess(take, (books,))
    access()
    os.chown(books, 4242, 4242)
    (problem,) = access()
    assert f"{books} belongs to uid 4242" in problem
    assert access() == []
    assert len(calls) == 2
