"""Replacing and appending: all or nothing, whatever fails and whenever the process dies."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ds01d.adapters.files import atomic_write
from ds01d.adapters.files.atomic_write import TEMPORARY, create_file, remove_abandoned, replace_file
from ds01d.adapters.files.write_in_place import append_line
from ds01d.errors import BooksChanged, WriteFailed
from tests.support.scripts import DIES_AT, output

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 64 KiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    before = path.open("rb")
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    with before:
        assert before.read() == b"old"
    assert names(tmp_path) == {"file"}


def test_mode_and_owner_of_the_replaced_file_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 1234, 4321)
    before = path.stat()
    replace_file(path, b"new", mode=0o600)
    after = path.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
    )


def test_a_new_file_takes_after_another_or_after_its_folder(tmp_path: Path) -> None:
    (tmp_path / "like").touch(0o660)
    (tmp_path / "like").chmod(0o660)
    if os.geteuid() == 0:
        os.chown(tmp_path, -1, 4321)
    replace_file(tmp_path / "one", b"", mode=0o604)
    replace_file(tmp_path / "two", b"", like=(tmp_path / "like").stat())
    assert (tmp_path / "one").stat().st_mode & 0o777 == 0o604
    assert (tmp_path / "one").stat().st_gid == tmp_path.stat().st_gid
    assert (tmp_path / "two").stat().st_mode & 0o777 == 0o660


def test_an_access_list_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    # Version 2; the owner, user 1234, the group, the mask and others may read and write, or read.
    entries = [(1, 6, -1), (2, 6, 1234), (4, 4, -1), (16, 6, -1), (32, 4, -1)]
    acl = (2).to_bytes(4, "little") + b"".join(
        tag.to_bytes(2, "little") + perm.to_bytes(2, "little") + (who % 2**32).to_bytes(4, "little")
        for tag, perm, who in entries
    )
    if _takes_acl(path, acl):
        replace_file(path, b"new")
        assert os.getxattr(path, "system.posix_acl_access") == acl
    else:
        replace_file(path, b"new")
    assert path.read_bytes() == b"new"


def _takes_acl(path: Path, acl: bytes) -> bool:
    try:
        os.setxattr(path, "system.posix_acl_access", acl)
    except OSError:
        return False
    return True


def test_creating_never_overwrites(tmp_path: Path) -> None:
    create_file(tmp_path / "file", b"first")
    with pytest.raises(BooksChanged):
        create_file(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"first"
    assert names(tmp_path) == {"file"}


@pytest.mark.parametrize("kind", ["link", "folder", "fifo"])
def test_what_is_no_ordinary_file_is_not_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "there"
    match kind:
        case "link":
            (tmp_path / "target").write_bytes(b"target")
            path.symlink_to(tmp_path / "target")
        case "folder":
            path.mkdir()
        case _:
            os.mkfifo(path)
    before = names(tmp_path)
    with pytest.raises(WriteFailed, match="not a regular file"):
        replace_file(path, b"new")
    assert names(tmp_path) == before
    assert kind != "link" or path.is_symlink()


def test_what_is_raised_before_the_rename_leaves_everything_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def refuse() -> None:
        raise BooksChanged("no")

    with pytest.raises(BooksChanged):
        replace_file(path, b"new", before=refuse)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == {"file"}


def test_a_missing_folder_is_said_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "file"
    said = r"missing/file was not written.*create its directory"
    for write in (replace_file, create_file):
        with pytest.raises(WriteFailed, match=said):
            write(path, b"")
    with pytest.raises(WriteFailed, match=said):
        append_line(path, "")


@needs_root
def test_a_full_disk_leaves_the_old_file_and_no_leftovers(tiny: Path) -> None:
    path = tiny / "file"
    path.write_bytes(b"old")
    with pytest.raises(WriteFailed, match=r"file was not written: No space left.*make room"):
        replace_file(path, b"x" * 100_000)
    assert path.read_bytes() == b"old"
    assert names(tiny) == {"file"}


@needs_root
def test_a_full_disk_fails_the_appending_visibly(tiny: Path) -> None:
    (tiny / "log").write_bytes(b"line\n")
    with pytest.raises(WriteFailed, match="make room"):
        append_line(tiny / "log", "x" * 100_000)


@needs_root
def test_a_read_only_file_system_is_said(tiny: Path) -> None:
    (tiny / "file").write_bytes(b"old")
    subprocess.run(["mount", "-o", "remount,ro", tiny], check=True)
    for write in (replace_file, create_file):
        with pytest.raises(WriteFailed, match=r"[Rr]ead-only"):
            write(tiny / "file", b"new")
    with pytest.raises(WriteFailed, match=r"[Rr]ead-only"):
        append_line(tiny / "file", "line")
    assert (tiny / "file").read_bytes() == b"old"


def test_a_limit_on_file_sizes_and_a_missing_right_are_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    tmp_path.chmod(0o755)
    program = """
import os, resource, sys
from pathlib import Path
from ds01d.adapters.files.atomic_write import replace_file
from ds01d.errors import WriteFailed
path = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
try:
    replace_file(path, b"x" * 100)
except WriteFailed as error:
    print(error)
print(sorted(os.listdir(path.parent)), path.read_bytes())
os.chmod(path.parent, 0o555)
if os.geteuid() == 0:
    os.seteuid(65534)
try:
    replace_file(path, b"x")
except WriteFailed as error:
    print(error)
"""
    first, left, second = output(program, tmp_path / "file").splitlines()
    tmp_path.chmod(0o755)
    assert "File too large; make room" in first
    assert left == "['file'] b'old'"
    assert "Permission denied" in second


def test_killed_at_any_step_the_file_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    program = (
        DIES_AT
        + """
import sys
from pathlib import Path
from ds01d.adapters.files.atomic_write import replace_file
number = 0
done = False
while not done:
    number += 1
    folder = Path(sys.argv[1]) / str(number)
    folder.mkdir()
    (folder / "file").write_bytes(b"old")
    done = dies_at(number, lambda: replace_file(folder / "file", b"new"))
"""
    )
    output(program, tmp_path)
    contents = [
        (tmp_path / str(number) / "file").read_bytes()
        for number in range(1, 1 + len(names(tmp_path)))
    ]
    renamed = contents.index(b"new")
    assert renamed >= 4
    assert set(contents[:renamed]) == {b"old"}
    assert set(contents[renamed:]) == {b"new"}


def test_leftovers_of_killed_writers_are_swept_and_nothing_else(tmp_path: Path) -> None:
    for name in (f"{TEMPORARY}old", f"{TEMPORARY}young", ".hidden", "file"):
        (tmp_path / name).touch()
    for name in (f"{TEMPORARY}old", ".hidden", "file"):
        os.utime(tmp_path / name, (1e9, 1e9))
    with atomic_write.opened_folder(tmp_path) as folder:
        remove_abandoned(folder)
    assert names(tmp_path) == {f"{TEMPORARY}young", ".hidden", "file"}


def test_a_line_is_appended_with_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        written.append(data)
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    append_line(tmp_path / "log", "one")
    append_line(tmp_path / "log", "zwei ½ \udcff", durable=True)
    assert written == [b"one\n", "zwei ½ \\udcff\n".encode()]
    assert (tmp_path / "log").read_bytes() == b"".join(written)


def test_a_line_that_somebody_left_open_is_ended_first(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"half a li")
    append_line(tmp_path / "log", "mine")
    assert (tmp_path / "log").read_bytes() == b"half a li\nmine\n"


def test_nothing_is_appended_through_a_link_or_to_a_fifo(tmp_path: Path) -> None:
    (tmp_path / "target").touch()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(WriteFailed, match="symbolic link"):
        append_line(tmp_path / "link", "line")
    with pytest.raises(WriteFailed, match="not a regular file"):
        append_line(tmp_path / "fifo", "line")
    assert (tmp_path / "target").read_bytes() == b""
