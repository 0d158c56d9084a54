"""A folder exchanged for a link: nothing behind it is read, written, changed or deleted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ds01d.adapters.books.metadata_dir import MetadataDirectory
from ds01d.adapters.books.state_file import StateFile
from ds01d.adapters.files import atomic_write
from ds01d.adapters.files.backups import find_copy, keep_copy
from ds01d.adapters.files.safe_read import NotRead, ReadFailure, digest_of, open_file
from ds01d.adapters.files.write_in_place import append_line
from ds01d.adapters.state_dir import StateDirectory
from ds01d.errors import BooksChanged, WriteFailed
from ds01d.model.primitives import ContainerName, Unknown

NAME = ContainerName("train._.1001")
RECORD = b'{"container": "train._.1001", "user": "alice", "gpu_id": "1.1"}'


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder that a group may write to, as that of the books."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o2775)
    return folder


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder of root's, with a file whose name fits for everything that ds01d keeps."""
    folder = tmp_path / "victim"
    folder.mkdir()
    for name in (f"{NAME}.json", "gpu-state.json", "history.jsonl", "checkpoint.json", "a.log"):
        (folder / name).write_bytes(RECORD)
    return folder


@pytest.fixture
def behind(shared: Path, victim: Path) -> Path:
    """A link to it, made by somebody who may write to a shared folder."""
    (shared / "link").symlink_to(victim)
    return shared / "link"


def content(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path): (path.read_bytes(), path.stat().st_ino, path.stat().st_mode) for path in files
    }


def test_metadata_behind_a_link(behind: Path, victim: Path, tmp_path: Path) -> None:
    before, book = content(victim), MetadataDirectory(behind, tmp_path)
    answer = book.read()
    assert isinstance(answer, Unknown)
    assert "is a symbolic link" in answer.reason
    assert "remove it" in answer.reason
    assert book.read_text(NAME) is None
    with pytest.raises(WriteFailed, match=r"link is a symbolic link of .*; it is not followed"):
        book.remove(NAME, onto=digest_of(RECORD))
    with pytest.raises(WriteFailed, match="symbolic link"):
        book.restore_text(NAME, "the attacker's bytes", onto=digest_of(RECORD))
    with pytest.raises(WriteFailed, match="symbolic link"):
        book.restore_text(ContainerName("daemon"), "the attacker's bytes", onto=None)
    book.remove_leftovers()
    assert content(victim) == before


def test_metadata_whose_folder_is_exchanged_after_it_was_read(
    shared: Path, victim: Path, tmp_path: Path
) -> None:
    folder = shared / "records"
    folder.mkdir()
    (folder / f"{NAME}.json").write_bytes(RECORD)
    before, book = content(victim), MetadataDirectory(folder, tmp_path)
    assert book.read()
    folder.rename(shared / "away")
    folder.symlink_to(victim)
    with pytest.raises(WriteFailed, match="symbolic link"):
        book.remove(NAME, onto=digest_of(RECORD))
    folder.unlink()
    victim.rename(folder)  # a folder that root owns and we may write to, with the very same bytes
    with pytest.raises(BooksChanged, match="another folder"):
        book.remove(NAME, onto=digest_of(RECORD))
    folder.rename(victim)
    assert content(victim) == before


def test_the_state_behind_a_link(behind: Path, victim: Path, tmp_path: Path) -> None:
    (victim / "gpu-state.json").write_bytes(b'{"gpus": {}, "mig_enabled": false}')
    before = content(victim)
    book = StateFile(behind / "gpu-state.json", tmp_path / "kept", 0.1)
    answer = book.read()
    assert isinstance(answer, Unknown), "it is not missing: that would be rebuilt"
    assert "symbolic link" in answer.reason
    with pytest.raises(WriteFailed, match="symbolic link"), book.lock():
        pass
    assert content(victim) == before


def test_our_own_folder_behind_a_link(behind: Path, victim: Path) -> None:
    before, own = content(victim), StateDirectory(behind, 0.1)
    with pytest.raises(WriteFailed, match="symbolic link"):
        own.make()
    with pytest.raises(Exception, match="symbolic link"):
        own.append_history([b"{}"])
    with pytest.raises(WriteFailed, match="symbolic link"):
        own.save_checkpoint(b"{}")
    assert list(own.read_history()) == []
    assert own.load("checkpoint.json") == b""
    own.remove_leftovers()
    assert content(victim) == before


def test_logs_and_copies_behind_a_link(behind: Path, victim: Path) -> None:
    before = content(victim)
    with pytest.raises(WriteFailed, match="symbolic link"):
        append_line(behind / "a.log", "a line")
    with pytest.raises(WriteFailed, match="symbolic link"):
        atomic_write.replace_file(behind / "a.log", b"other bytes")
    with pytest.raises(WriteFailed, match="symbolic link"):
        atomic_write.create_file(behind / "new.log", b"other bytes")
    with pytest.raises(WriteFailed, match="symbolic link"):
        keep_copy(behind, "a", b"bytes")
    assert find_copy(behind, "a", digest_of(RECORD)) is None
    unread = open_file(behind / "a.log")
    assert isinstance(unread, NotRead)
    assert unread.obstacle is ReadFailure.FAILED
    assert content(victim) == before


def test_a_hard_link_is_not_added_to(shared: Path, victim: Path) -> None:
    """With fs.protected_hardlinks = 0 anybody can give a log the content of any file."""
    (shared / "a.log").hardlink_to(victim / "a.log")
    with pytest.raises(WriteFailed, match="is a hard link, of a file of"):
        append_line(shared / "a.log", "a line")
    assert (victim / "a.log").read_bytes() == RECORD


def test_a_name_that_is_exchanged_while_it_is_written_takes_no_rights_along(
    shared: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write to the folder may rename what is in it, a temporary file too."""
    target, secret = shared / "a.log", victim / "a.log"
    target.write_bytes(b"old")
    target.chmod(0o666)
    secret.chmod(0o600)
    real = os.fchmod

    def exchanged(descriptor: int, mode: int) -> None:
        real(descriptor, mode)
        temporary = next(shared.glob(f"{atomic_write.TEMPORARY}*"))
        temporary.unlink()
        temporary.hardlink_to(secret)

    monkeypatch.setattr(os, "fchmod", exchanged)
    atomic_write.replace_file(target, b"new")
    assert secret.read_bytes() == RECORD
    assert secret.stat().st_mode & 0o777 == 0o600


def test_a_file_takes_after_another_in_its_rights_but_never_acts_for_its_owner(
    tmp_path: Path,
) -> None:
    old, sibling = tmp_path / "gpu-state.json", tmp_path / "record.json"
    for path in (old, sibling):
        path.write_text("{}")
        path.chmod(0o6775)
    atomic_write.replace_file(old, b'{"new": 1}')
    atomic_write.create_file(tmp_path / "new.json", b"{}", like=sibling.stat())
    modes = [(tmp_path / name).stat().st_mode & 0o7777 for name in (old.name, "new.json")]
    assert modes == [0o775, 0o775]
