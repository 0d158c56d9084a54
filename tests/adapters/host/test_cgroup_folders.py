"""A process in a cgroup whose path is too long for the kernel stops no release, and hides nobody.

The kernel here may give such a path cut instead (from Linux 6.9 on), so its answer is made up.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ds01d.adapters.host import cgroup_folders
from ds01d.adapters.host.processes import Processes
from ds01d.model.primitives import Unknown
from tests.support.made_up_proc import INNER, OUTER, Proc

LONG = "0::/too-long"


class Cgroups:
    """A made-up hierarchy of cgroup v2."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        (root / "cgroup.controllers").touch()

    def add(self, path: str, *, populated: bool) -> None:
        folder = self.root / path
        folder.mkdir(parents=True)
        (folder / "cgroup.events").write_text(f"populated {populated:d}\nfrozen 0\n")


@pytest.fixture
def cgroups(tmp_path: Path) -> Cgroups:
    return Cgroups(tmp_path / "cgroup")


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Proc:
    """One with a process whose cgroup the kernel does not give."""
    real_read = os.read

    def read(descriptor: int, size: int) -> bytes:
        data = real_read(descriptor, size)
        if data.startswith(LONG.encode()):
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        return data

    (tmp_path / "proc").mkdir()
    made = Proc(tmp_path / "proc")
    made.add(50, LONG)
    monkeypatch.setattr(os, "read", read)
    return made


def find_living(proc: Proc, cgroups: Cgroups, *, rootless: bool = False) -> object:
    processes = Processes(proc=proc.root, cgroups=cgroups.root, rootless=rootless)
    return processes.find_living(frozenset({OUTER, INNER}))


def test_folders_show_what_lives(proc: Proc, cgroups: Cgroups) -> None:
    cgroups.add(f"system.slice/docker-{OUTER}.scope", populated=True)
    cgroups.add(f"docker/{INNER}", populated=False)
    assert find_living(proc, cgroups) == {OUTER: 50}
    cgroups.add(f"mine/{INNER}/deeper", populated=True)
    (cgroups.root / "mine" / str(INNER) / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    assert find_living(proc, cgroups) == {OUTER: 50, INNER: 50}


def test_a_users_own_cgroups_name_nobody(proc: Proc, cgroups: Cgroups) -> None:
    cgroups.add(f"user.slice/user@1001.service/docker-{OUTER}.scope", populated=True)
    assert find_living(proc, cgroups) == {}
    assert isinstance(find_living(proc, cgroups, rootless=True), Unknown)


def test_what_its_file_names_lives_as_ever(proc: Proc, cgroups: Cgroups) -> None:
    proc.add(60, f"0::/docker/{OUTER}")
    assert find_living(proc, cgroups) == {OUTER: 60}


def test_what_cannot_be_seen_is_unknown(proc: Proc, cgroups: Cgroups) -> None:
    """As in a cgroup namespace, with cgroup v1, and of a folder that cannot be read."""
    cgroups.add(f"docker/{OUTER}", populated=False)
    (cgroups.root / "docker" / str(OUTER) / "cgroup.events").unlink()
    assert isinstance(find_living(proc, cgroups), Unknown)
    (cgroups.root / "docker" / str(OUTER)).rmdir()
    assert find_living(proc, cgroups) == {}
    (cgroups.root / "cgroup.events").write_text("populated 1\n")
    assert isinstance(find_living(proc, cgroups), Unknown)
    (cgroups.root / "cgroup.events").unlink()
    (cgroups.root / "cgroup.controllers").unlink()
    assert isinstance(find_living(proc, cgroups), Unknown)


def test_too_many_folders_are_unknown(
    proc: Proc, cgroups: Cgroups, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroup_folders, "_MOST_FOLDERS", 3)
    cgroups.add("a/b/c", populated=False)
    assert find_living(proc, cgroups) == {}
    cgroups.add("d", populated=False)
    assert isinstance(find_living(proc, cgroups), Unknown)
