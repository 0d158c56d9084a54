"""The books' folder as a group shares it: the service's own, with the sticky bit, or without."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.support.scripts import DIES_AT, output

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be others")

SERVICE, MEMBER, GROUP = 65531, 65532, 65530
STATE = {
    "gpus": {
        "1.0": {
            "type": "mig_instance",
            "containers": ["alice._.1001", "bob._.1002"],
            "users": {"alice": 1, "bob": 1},
            "uuid": "MIG-1.0",
        }
    },
    "mig_enabled": True,
}
WRITER = """
import json, os, sys
from dataclasses import replace
from pathlib import Path
from ds01d.adapters.books.state_file import StateFile
os.umask(0o077)
os.chdir(sys.argv[1])
def become(uid):
    os.setgroups([65530]), os.setegid(int(65530)), os.seteuid(uid)
def book():
    return StateFile(Path("gpu-state.json"), Path("../kept"), 5.0)
def release(one, name):
    state = one.read()
    slots = {i: replace(s, containers=tuple(n for n in s.containers if n != name))
             for i, s in state.slots.items()}
    with one.lock():
        return one.write(replace(state, slots=slots), onto=state.digest)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The service's, shared with the group, sticky; and the state is in it, the service's too."""
    books, kept = tmp_path / "books", tmp_path / "kept"
    for path, mode in ((books, 0o3775), (kept, 0o755)):
        path.mkdir()
        os.chown(path, SERVICE, GROUP)
        path.chmod(mode)
    (books / "gpu-state.json").write_text(json.dumps(STATE, indent=2))
    give(books / "gpu-state.json", SERVICE, 0o664)
    return books


def give(path: Path, uid: int, mode: int) -> None:
    os.chown(path, uid, GROUP)
    path.chmod(mode)


def containers(folder: Path) -> list[str]:
    found: dict[str, Any] = json.loads((folder / "gpu-state.json").read_text())
    names: list[str] = found["gpus"]["1.0"]["containers"]
    return names


def run(folder: Path, program: str, uid: int) -> str:
    return output(f"{WRITER}\nbecome({uid})\n{program}", folder).strip()


@pytest.mark.parametrize("mode", [0o644, 0o664, 0o640])
def test_a_state_of_a_member_or_of_root_is_replaced_and_is_the_services_again(
    folder: Path, mode: int
) -> None:
    """Restored by an administrator, or exchanged by a member: link(2) says EPERM for 0644."""
    state = folder / "gpu-state.json"
    for owner in (MEMBER, 0):
        state.write_text(json.dumps(STATE))
        give(state, owner, mode)
        run(folder, 'release(book(), "bob._.1002")', SERVICE)
        assert containers(folder) == ["alice._.1001"]
        assert state.stat().st_uid == SERVICE
        assert state.stat().st_mode & 0o060 == 0o060


def test_a_member_books_where_the_sticky_bit_lets_nobody_replace_the_state(folder: Path) -> None:
    state = folder / "gpu-state.json"
    before = state.stat()
    run(folder, 'release(book(), "bob._.1002")', MEMBER)
    assert containers(folder) == ["alice._.1001"]
    after = state.stat()
    assert (after.st_ino, after.st_uid, after.st_mode) == (
        before.st_ino,
        before.st_uid,
        before.st_mode,
    )
    assert sorted(path.name for path in folder.iterdir()) == [state.name, f"{state.name}.lock"]
    assert stat.S_IMODE((folder / f"{state.name}.lock").stat().st_mode) == 0o660
    run(folder, 'release(book(), "alice._.1001")', SERVICE)
    assert containers(folder) == []


LEGACY = """
state = Path("gpu-state.json")
tried = {}
def attempt(name, what):
    try:
        what()
        tried[name] = "done"
    except OSError as error:
        tried[name] = error.strerror
def in_place():
    text = state.read_text()
    with state.open("w") as file:
        file.write(text)
def by_rename():
    Path("new").write_text(state.read_text())
    os.rename("new", "gpu-state.json")
for name, what in (("in place", in_place), ("rename", by_rename), ("remove", state.unlink),
                   ("away", lambda: state.rename("away")),
                   ("folder", lambda: os.rename("container-metadata", "away"))):
    attempt(name, what)
print(json.dumps(tried))
"""


def test_what_writers_without_ds01d_can_and_cannot_do_there(folder: Path) -> None:
    (folder / "container-metadata").mkdir()
    give(folder / "container-metadata", SERVICE, 0o2775)
    refused = "Operation not permitted"
    assert json.loads(run(folder, LEGACY, MEMBER)) == {
        "in place": "done",
        "rename": refused,
        "remove": refused,
        "away": refused,
        "folder": refused,
    }


KILLED = """
from ds01d.adapters.files import atomic_write
base = Path("gpu-state.json").read_bytes()
n = 0
while True:
    n += 1
    Path("gpu-state.json").write_bytes(base)
    if dies_at(n, lambda: release(book(), "bob._.1002")):
        break
    found = book().read()
    good = found if hasattr(found, "slots") else found.last_good
    assert good is not None, (n, found)
    names = good.slots["1.0"].containers
    assert names in {("alice._.1001", "bob._.1002"), ("alice._.1001",)}, (n, names)
print(n)
"""


def test_killed_while_it_writes_in_place_the_state_is_whole_or_rebuilt(folder: Path) -> None:
    """The copy that a rebuild starts from is written first, by those who may."""
    give(folder, MEMBER, 0o3775)
    give(folder / "gpu-state.json", SERVICE, 0o664)
    os.chown(folder, 0, GROUP)
    os.chown(folder.parent / "kept", MEMBER, GROUP)
    steps = int(run(folder, DIES_AT + KILLED, MEMBER))
    assert steps > 5


FULL = """
import errno
real, failing = os.pwrite, True
def full(descriptor, data, offset):
    global failing
    if failing and b'gpus' in bytes(data):
        real(descriptor, data[:40], offset)
        failing = False
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return real(descriptor, data, offset)
os.pwrite = full
before = Path("gpu-state.json").read_bytes()
try:
    release(book(), "bob._.1002")
except Exception as error:
    print(error)
assert Path("gpu-state.json").read_bytes() == before
"""


def test_on_a_full_disk_what_was_there_is_put_back(folder: Path) -> None:
    assert "make room" in run(folder, FULL, MEMBER)
    assert containers(folder) == ["alice._.1001", "bob._.1002"]
