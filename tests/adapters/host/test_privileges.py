"""Root for a user: whose files are followed, and where links lead. Real users, real links."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ds01d.adapters.host.callers import identify_caller
from ds01d.adapters.host.privileges import require_of_root, resolve_source, user_behind_root
from ds01d.errors import NotPermitted, Refused
from ds01d.model.creation import Person

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="becomes other users: needs root")

ALICE = Person(uid=54601, name="54601", gid=54601)
BOB = 54602
SUDO = {"SUDO_UID": str(ALICE.uid)}


@pytest.fixture
def home() -> Iterator[Path]:
    """A home of alice's in a folder that everybody can reach."""
    root = Path(tempfile.mkdtemp(prefix="ds01-homes-"))
    root.chmod(0o755)
    home = root / "alice"
    make(home, ALICE.uid)
    yield home
    shutil.rmtree(root)


def make(folder: Path, uid: int, mode: int = 0o755) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    os.chown(folder, uid, uid)
    folder.chmod(mode)
    return folder


def link(place: Path, target: object, uid: int = ALICE.uid) -> Path:
    place.symlink_to(str(target))
    os.lchown(place, uid, uid)
    return place


# --- files that say what root does ---------------------------------------------------------------


def test_whom_root_acts_for() -> None:
    assert user_behind_root({}) is None
    assert user_behind_root({"SUDO_UID": "0"}) is None
    assert user_behind_root({"SUDO_UID": "nonsense"}) is None
    for key in ("SUDO_UID", "PKEXEC_UID"):
        assert user_behind_root({key: "1001"}) == 1001
        assert identify_caller({key: "1001"}).person.uid == 1001
    assert user_behind_root({"DOAS_USER": "nobody"}) == 65534


def test_a_file_of_the_users_own_is_refused(home: Path) -> None:
    file = home / "ds01d.toml"
    file.write_text("")
    os.chown(file, ALICE.uid, ALICE.gid)
    require_of_root(file, {})  # root's own affair
    with pytest.raises(NotPermitted, match=f"users other than root can change {home}"):
        require_of_root(file, SUDO)


def test_so_is_one_of_roots_that_the_user_can_replace_or_that_a_link_leads_to(home: Path) -> None:
    planted = home / "root.toml"
    planted.write_text("")
    with pytest.raises(NotPermitted):
        require_of_root(planted, SUDO)
    behind = link(home.parent / "link.toml", planted, 0)
    with pytest.raises(NotPermitted):
        require_of_root(behind, SUDO)
    for mode in (0o664, 0o646):
        file = home.parent / f"{mode:o}.toml"
        file.write_text("")
        file.chmod(mode)
        with pytest.raises(NotPermitted, match=str(file)):
            require_of_root(file, SUDO)


def test_one_of_roots_in_folders_of_roots_is_followed(home: Path) -> None:
    file = home.parent / "ds01d.toml"  # below /tmp, where anybody may make files, and only that
    file.write_text("")
    file.chmod(0o644)
    require_of_root(file, SUDO)
    require_of_root(link(home.parent / "link.toml", file, 0), SUDO)
    require_of_root(home.parent / "none.toml", SUDO)


# --- folders that root mounts --------------------------------------------------------------------


def test_a_folder_is_mounted_as_it_is_whoever_owns_it(home: Path) -> None:
    for uid in (ALICE.uid, 0):
        workspace = make(home / "workspace", uid, 0o700)
        assert resolve_source(str(workspace), ALICE, write=True) == str(workspace)
    missing = str(home / "not yet" / "there")
    assert resolve_source(missing, ALICE, write=True) == missing


def test_a_link_to_what_is_roots_is_refused(home: Path) -> None:
    secret = make(home.parent / "root", 0, 0o700)
    readable = make(home.parent / "etc", 0)
    bobs = make(home.parent / "bob", BOB, 0o700)
    for number, target in enumerate((secret, readable, bobs, "/", "/root", "../root", "gone")):
        place = link(home / f"workspace{number}", target)
        with pytest.raises(Refused, match="which 54601 may not write"):
            resolve_source(str(place), ALICE, write=True)


def test_a_link_in_the_middle_or_through_another_is_one_too(home: Path) -> None:
    make(home.parent / "root" / "inside", 0, 0o755)
    link(home / "middle", home.parent / "root")
    link(home / "chain", "middle/inside")
    for path in ("middle/inside", "chain", "middle/../root/inside"):
        with pytest.raises(Refused):
            resolve_source(str(home / path), ALICE, write=True)
    circle = link(home / "circle", "circle")
    with pytest.raises(Refused):
        resolve_source(str(circle), ALICE, write=True)


def test_roots_own_link_that_the_user_put_there_is_no_link_of_roots(home: Path) -> None:
    """Who owns the folder can move anything into it."""
    secret = make(home.parent / "root", 0, 0o700)
    place = link(home / "workspace", secret, 0)
    with pytest.raises(Refused):
        resolve_source(str(place), ALICE, write=True)


def test_a_link_to_what_the_owner_may_write_is_mounted_where_it_leads(home: Path) -> None:
    scratch = make(home.parent / "scratch", ALICE.uid, 0o700)
    place = link(home / "workspace", scratch)
    assert resolve_source(str(place), ALICE, write=True) == str(scratch)
    readable = make(home.parent / "data", 0)
    place = link(home / "data", readable)
    assert resolve_source(str(place), ALICE, write=False) == str(readable)


def test_a_link_of_roots_in_a_folder_of_roots_is_the_hosts_layout(home: Path) -> None:
    homes = link(home.parent / "home", home.parent, 0)
    make(home / "workspace", ALICE.uid)
    path = str(homes / "alice" / "workspace")
    assert resolve_source(path, ALICE, write=True) == path


def test_a_target_that_would_be_taken_for_options_is_refused(home: Path) -> None:
    odd = make(home / "x:", ALICE.uid)
    place = link(home / "workspace", odd)
    with pytest.raises(Refused):
        resolve_source(str(place), ALICE, write=True)


def test_what_root_does_for_root_is_left_alone(home: Path) -> None:
    place = link(home / "workspace", "/root")
    assert resolve_source(str(place), Person(uid=0, name="root"), write=True) == str(place)
