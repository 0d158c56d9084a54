"""Folders: who can turn a path elsewhere, and that it is not followed then."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ds01d.errors import BooksChanged
from ds01d.folders import Folder, UntrustedFolder, make_folder, open_folder, owner_of
from ds01d.reporting.public_files import publish_file, withdraw_file
from tests.support.scripts import output

MEMBER, OTHER = 65533, 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be others")


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder that a group may write to, as that of the books."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o2775)
    return folder


def opens(path: Path, service: Path | None = None) -> bool:
    descriptor = open_folder(path, service)
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    finally:
        os.close(descriptor)


# --- links


def test_a_link_where_only_we_can_write_is_followed(tmp_path: Path) -> None:
    (tmp_path / "there" / "inside").mkdir(parents=True)
    (tmp_path / "absolute").symlink_to(tmp_path / "there")
    (tmp_path / "relative").symlink_to("there/../absolute")
    assert opens(tmp_path / "absolute" / "inside")
    assert opens(tmp_path / "relative" / "inside")


def test_no_link_in_a_shared_folder_is_followed_whoever_made_it(shared: Path) -> None:
    (shared / "link").symlink_to("/etc")
    for path in (shared / "link", shared / "link" / "docker"):
        with pytest.raises(
            UntrustedFolder, match=r"shared/link is a symbolic link of \w+ to '/etc"
        ):
            open_folder(path)


@needs_root
def test_a_link_of_somebody_else_is_not_followed_anywhere(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    os.chown(tmp_path / "link", MEMBER, MEMBER, follow_symlinks=False)
    with pytest.raises(UntrustedFolder, match=f"a symbolic link of uid {MEMBER}"):
        open_folder(tmp_path / "link")


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    with pytest.raises(OSError, match="Too many levels"):
        open_folder(tmp_path / "one")


def test_what_a_link_is_called_cannot_forge_a_line(shared: Path) -> None:
    (shared / "link").symlink_to("/etc\n0 drifts; all is well\x1b[2J")
    with pytest.raises(UntrustedFolder) as refused:
        open_folder(shared / "link")
    assert str(refused.value).isprintable()


# --- owners


@needs_root
def test_a_folder_of_a_member_in_a_shared_one_is_refused_with_owner_and_fix(shared: Path) -> None:
    (shared / "records").mkdir()
    os.chown(shared / "records", OTHER, OTHER)
    with pytest.raises(UntrustedFolder, match="records belongs to nobody") as refused:
        open_folder(shared / "records")
    assert refused.value.fix.endswith(f"chown root {shared}/records")


@needs_root
def test_the_owner_of_the_services_folder_may_own_it(shared: Path, tmp_path: Path) -> None:
    service = tmp_path / "service"
    for folder in (service, shared / "records"):
        folder.mkdir()
        os.chown(folder, MEMBER, MEMBER)
    assert opens(shared / "records", service)
    with pytest.raises(UntrustedFolder):
        open_folder(shared / "records", tmp_path / "nowhere")


@needs_root
def test_whoever_was_given_a_folder_by_root_may_own_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "home" / "books").mkdir(parents=True)
    for folder in (tmp_path / "home", tmp_path / "home" / "books"):
        os.chown(folder, MEMBER, MEMBER)
    assert opens(tmp_path / "home" / "books")
    (tmp_path / "home").chmod(0o775)
    os.chown(tmp_path / "home" / "books", OTHER, OTHER)
    with pytest.raises(UntrustedFolder, match="belongs to nobody"):
        open_folder(tmp_path / "home" / "books")


@needs_root
def test_in_a_folder_like_tmp_only_our_own_counts(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    (tmp_path / "ours").mkdir()
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", OTHER, OTHER)
    assert opens(tmp_path / "ours")
    with pytest.raises(UntrustedFolder):
        open_folder(tmp_path / "theirs")


def test_what_is_missing_or_no_folder_is_no_matter_of_trust(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileNotFoundError):
        open_folder(tmp_path / "missing" / "inside")
    with pytest.raises(NotADirectoryError):
        open_folder(tmp_path / "file")
    assert opens(Path("/"))


@needs_root
def test_the_way_to_a_folder_need_not_begin_where_we_may_look(tmp_path: Path) -> None:
    """After `sudo` in a closed home, and then as another user."""
    program = """
import os, sys
from pathlib import Path
from ds01d.folders import open_folder
os.mkdir(sys.argv[1]), os.chmod(sys.argv[1], 0o700), os.chdir(sys.argv[1])
os.setegid(65534), os.seteuid(65534)
print(open_folder(Path("/usr/lib")) > 0)
"""
    assert output(program, tmp_path / "closed").strip() == "True"


# --- made, and the same again


def test_folders_are_made_only_where_a_path_is_trusted(shared: Path, tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b", 0o700)
    make_folder(tmp_path / "a" / "b", 0o755)
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    (shared / "link").symlink_to(tmp_path / "a")
    with pytest.raises(UntrustedFolder):
        make_folder(shared / "link" / "new", 0o755)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def test_another_folder_under_the_same_name_is_not_written_to(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "one")
    folder.path.mkdir()
    with folder.to_write(), folder.to_read():
        pass
    folder.path.rename(tmp_path / "away")
    folder.path.mkdir()
    with pytest.raises(BooksChanged, match="another folder"), folder.to_write():
        pass
    with folder.to_read():
        pass
    with folder.to_write():
        pass


def test_whose_a_folder_is_counts_only_where_its_path_does(shared: Path) -> None:
    (shared / "link").symlink_to("/var/lib")
    assert owner_of(shared / "link") is None
    there = owner_of(shared)
    assert there is not None
    assert there.st_ino == shared.stat().st_ino


def test_nothing_is_published_or_withdrawn_behind_a_link(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "ds01d.prom").write_text("of somebody else")
    (shared / "link").symlink_to(tmp_path / "there")
    with pytest.raises(OSError, match="symbolic link"):
        publish_file(shared / "link" / "ds01d.prom", b"metrics")
    with pytest.raises(OSError, match="symbolic link"):
        withdraw_file(shared / "link" / "ds01d.prom")
    assert (tmp_path / "there" / "ds01d.prom").read_text() == "of somebody else"
