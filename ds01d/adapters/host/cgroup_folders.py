"""Containers that live by the folders of cgroup v2, where the cgroup file of a process is no help.

Where its path has 4096 bytes or more, many kernels give ENAMETOOLONG (proc_cgroup_show() in
kernel/cgroup/cgroup.c), others cut it. Everybody who has a systemd of their own can put a process
into such a cgroup (user@.service(5), Delegate=), and as long as it runs nobody would know what
lives. Whether a container has processes also stands in its folder.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from ds01d.adapters.files.safe_read import NotRead, read_bytes
from ds01d.adapters.host.cgroup_paths import IDS, without_users_own
from ds01d.model.primitives import ContainerId

ROOT: Final = Path("/sys/fs/cgroup")
_MOST_FOLDERS: Final = 20_000
_MOST_BYTES: Final = 4096


def find_populated(containers: Collection[ContainerId], root: Path = ROOT) -> set[ContainerId]:
    """Those of which a cgroup outside of users' own has processes.

    Raises `OSError` where that cannot be found out, as with cgroup v1.
    """
    # In a cgroup namespace it is some cgroup, which has this file, and others are not seen.
    if not (root / "cgroup.controllers").exists() or (root / "cgroup.events").exists():
        raise OSError(0, f"{root} does not show every cgroup of the host")
    by_text = {container.encode(): container for container in containers}
    populated: set[ContainerId] = set()
    for folder, name in _walk_folders(os.fsencode(root)):
        named = by_text.keys() & set(IDS.findall(name))
        if named and _is_populated(folder):
            populated |= {by_text[text] for text in named}
    return populated


def _walk_folders(root: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The path and the name of each folder; not of those below users' own systemd."""
    waiting, count = [root], 0
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                folders = [
                    (entry.path, entry.name)
                    for entry in entries
                    if entry.is_dir(follow_symlinks=False)
                ]
        except FileNotFoundError:
            continue  # removed meanwhile, so nothing was in it
        count += len(folders)
        if count > _MOST_FOLDERS:
            raise OSError(0, f"more than {_MOST_FOLDERS} cgroups")
        for path, name in folders:
            if without_users_own(b"/" + name):
                yield path, name
                waiting.append(path)


def _is_populated(folder: bytes) -> bool:
    path = Path(os.fsdecode(folder)) / "cgroup.events"
    data = read_bytes(path, _MOST_BYTES)
    if isinstance(data, NotRead):
        if not path.parent.exists():
            return False
        raise OSError(0, data.reason)
    return b"populated 0" not in data.split(b"\n")
