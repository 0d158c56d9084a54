"""How a container of the service is confined: what its catalogue says, and what its owner is."""

from __future__ import annotations

import pytest

from ds01d.containers.confinement import Surroundings, confine
from ds01d.model.confinement import FolderStatus
from ds01d.model.creation import Person, Setup

AMY = Person(uid=2001, name="amy", gid=2001, home="/home/amy", groups=(2001, 2100))


def read_status(path: str) -> FolderStatus:
    uid = 2001 if path == "/home/amy" else 0
    return FolderStatus(uid=uid, is_folder=True, others_write=False)


@pytest.mark.parametrize("user", ["", "root", "0:0"])
def test_nobody_is_root_inside_where_that_is_root_outside(user: str) -> None:
    """Decision 208: not even where every file system is mounted with nosuid,nodev."""
    setup = Setup(mounts=("{home}/work:/workspace",), user=user)
    confinement = confine(setup, AMY, None, Surroundings(read_status=read_status))
    assert (confinement.user, confinement.drops_capabilities) == ("2001:2001", True)
    remapped = Surroundings(read_status=read_status, root_inside=True)
    assert confine(setup, AMY, None, remapped).user == user
