"""A file that is replaced by somebody who may not give it away stays with those whose it was."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ds01d.adapters.files.atomic_write import replace_file

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    # The child calls nothing that a thread could hold: it replaces a file and ends.
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

SERVICE, ALICE, BOB, EVE = 61001, 61002, 61003, 61004
GPU = 61010


def acts_as(uid: int, groups: list[int], act: Callable[[], object]) -> bool:
    """Whether `act` succeeds for a user, in a process of its own."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups(groups)
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            act()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


def may_write(path: Path, uid: int, *groups: int) -> bool:
    return acts_as(uid, list(groups), lambda: path.open("r+b").close())


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder where everybody may replace everything; pytest's own ones are closed to others."""
    with tempfile.TemporaryDirectory(prefix="ds01d-test-") as name:
        folder = Path(name)
        folder.chmod(0o777)
        yield folder


def a_file(folder: Path, owner: int, group: int, mode: int) -> Path:
    path = folder / "file"
    path.write_bytes(b"old")
    os.chown(path, owner, group)
    path.chmod(mode)
    return path


def replaced_by_the_service(path: Path) -> None:
    assert acts_as(SERVICE, [], lambda: replace_file(path, b"new"))
    assert path.read_bytes() == b"new"
    assert path.stat().st_uid == SERVICE


def test_its_owner_and_its_group_can_write_it_as_before(shared: Path) -> None:
    path = a_file(shared, ALICE, GPU, 0o664)
    for _ in range(2):  # the second time the list is there already
        replaced_by_the_service(path)
        assert may_write(path, ALICE)
        assert may_write(path, BOB, GPU)
        assert not may_write(path, EVE)


def test_a_group_that_could_only_read_gets_no_more(shared: Path) -> None:
    shared.chmod(0o707)
    path = a_file(shared, ALICE, GPU, 0o640)
    replaced_by_the_service(path)
    assert may_write(path, ALICE)
    assert not may_write(path, BOB, GPU)
    assert acts_as(BOB, [GPU], path.read_bytes)
    assert not acts_as(EVE, [], path.read_bytes)


def test_what_a_mask_held_back_stays_held_back(shared: Path) -> None:
    path = a_file(shared, ALICE, GPU, 0o600)
    entries = ((1, 6, -1), (2, 6, EVE), (4, 0, -1), (16, 4, -1), (32, 0, -1))  # EVE: rw, mask: r
    packed = b"".join(struct.pack("<HHI", tag, rights, who % 2**32) for tag, rights, who in entries)
    try:
        os.setxattr(path, "system.posix_acl_access", struct.pack("<I", 2) + packed)
    except OSError:
        return  # this file system has no access lists
    shared.chmod(0o707)
    replaced_by_the_service(path)
    assert may_write(path, ALICE)
    assert not may_write(path, EVE)
    assert acts_as(EVE, [], path.read_bytes)


def test_the_files_of_root_and_those_that_can_be_given_back_get_no_list(shared: Path) -> None:
    path = a_file(shared, 0, 0, 0o644)
    replaced_by_the_service(path)
    replace_file(path, b"by root")
    assert path.stat().st_uid == SERVICE
    assert not any("acl" in name for name in os.listxattr(path))
