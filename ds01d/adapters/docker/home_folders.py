"""Whose home folders a container mounts, or was made from: hints at whose it is. Pure.

Anybody who makes a container can write what is read here.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping

from ds01d.adapters.docker.gpu_claims import MountPoint

# The folder on the host from which Dev Containers and Compose made a container.
_FOLDER_LABELS = ("devcontainer.local_folder", "com.docker.compose.project.working_dir")
_HOME = re.compile(r"/home/([^/]{1,256})(?:/.*)?", re.DOTALL)
_MOST = 4  # several are no hint at all


def find_homes(mounts: Iterable[MountPoint], labels: Mapping[str, str]) -> tuple[str, ...]:
    """The names of the folders in /home, each once; at most four."""
    # Normalised, or "/home/bob/../alice" would be bob's.
    paths = (path for path in _list_folders(mounts, labels) if path)
    matches = (_HOME.fullmatch(posixpath.normpath(path)) for path in paths)
    return tuple(dict.fromkeys(match[1] for match in matches if match))[:_MOST]


def _list_folders(mounts: Iterable[MountPoint], labels: Mapping[str, str]) -> Iterator[str | None]:
    yield from (labels.get(key) for key in _FOLDER_LABELS)
    yield from (mount.source for mount in mounts if mount.type == "bind")
