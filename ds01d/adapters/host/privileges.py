"""Root who acts for a user: whose files may say what is done, and where that user's paths lead.

`sudo container-create`, a setuid wrapper, pkexec: the caller chooses arguments and environment, and
root's rights do the work. So a file that names paths for root has to be root's, and a path that the
user can bend is followed with the user's rights.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ds01d.errors import NotPermitted, Refused

if TYPE_CHECKING:
    from ds01d.model.creation import Person

_BEHIND = ("SUDO_UID", "PKEXEC_UID")
_OF_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_MAX_LINKS = 40
_TIMEOUT_S = 10.0


def user_behind_root(environ: Mapping[str, str]) -> int | None:
    """The uid for whom this process has root's rights; None where it has none, or is root's own."""
    if os.geteuid() != 0:
        return None
    # A set-user-ID wrapper: the real uid is the caller's.
    if os.getuid() != 0:
        return os.getuid()
    for key in _BEHIND:
        text = environ.get(key, "")
        # The environment is the caller's to choose; sudo and pkexec overwrite these.
        if text.isascii() and text.isdigit() and len(text) <= 10:
            return int(text) or None
    try:
        return pwd.getpwnam(environ.get("DOAS_USER", "")).pw_uid or None
    except KeyError:
        return None


def require_of_root(file: Path, environ: Mapping[str, str]) -> None:
    """Raise `NotPermitted` if we are root for a user, and not only root can change a file."""
    if user_behind_root(environ) is None:
        return
    place = find_changeable(file)
    if place is not None:
        raise NotPermitted(
            f"{file}: users other than root can change {place}; refused under sudo: name a file of"
            " root's in folders of root's, or leave it out"
        )


def find_changeable(file: Path) -> Path | None:
    """The first place by which somebody else than root can change or exchange a file."""
    # Both the path and where its links lead: either could be exchanged.
    return _find_changeable(file.absolute()) or _find_changeable(Path(os.path.realpath(file)))


def _find_changeable(path: Path) -> Path | None:
    """The first part of a path that somebody else than root can change or replace."""
    for place in (*reversed(path.parents), path):
        try:
            status = place.lstat()
        except OSError:
            return None  # a missing file fails where it is opened
        if stat.S_ISLNK(status.st_mode):
            mine = status.st_uid == 0
        else:
            # In a sticky folder others cannot replace what is root's.
            sticky = stat.S_ISDIR(status.st_mode) and bool(status.st_mode & stat.S_ISVTX)
            mine = status.st_uid == 0 and (sticky or not status.st_mode & _OF_OTHERS)
        if not mine:
            return place
    return None


def resolve_source(path: str, owner: Person, *, write: bool, chosen: bool = False) -> str:
    """The folder to mount for `owner`: where links that a user can bend are followed as that user.

    Docker follows links as root. Raises `Refused` where they lead to what the owner may not read
    (and write, with `write`). A path of the catalogue without links is mounted as it is, regardless
    of its owner; one that was `chosen` on the command line has to be the owner's to use.
    """
    if os.geteuid() != 0 or owner.uid == 0:
        return path
    if not chosen and not _has_foreign_link(path):
        return path
    final = os.path.realpath(path)
    # Docker splits a mount at colons, so a link to such a name could add options.
    if ":" in final or not _has_access(final, owner, write=write):
        may = "write" if write else "read"
        raise Refused(
            f"{path} is not mounted: it leads to {final[:200]!a}, which {owner.name} may not {may}"
        )
    return final


def _has_foreign_link(path: str) -> bool:
    """Whether a link lies on the way to `path` in a folder that is not root's alone."""
    folder, pending, links = Path("/"), [part for part in path.split("/") if part], 0
    while pending:
        current = Path(os.path.normpath(folder / pending.pop(0)))
        try:
            status = current.lstat()
        except OSError:
            return False
        if not stat.S_ISLNK(status.st_mode):
            folder = current
            continue
        links += 1
        if links > _MAX_LINKS or _find_changeable(current) is not None:
            return True
        target = str(current.readlink())
        folder = Path("/") if target.startswith("/") else folder
        pending = [*(step for step in target.split("/") if step), *pending]
    return False


def _has_access(folder: str, owner: Person, *, write: bool) -> bool:
    """Whether a user may enter and read (and write) a folder, by the kernel's own answer."""
    import subprocess  # noqa: PLC0415 - few come this way, and it is slow to load

    # A process with the user's rights: groups, access lists and NFS count as the kernel sees them.
    words = ["test", "-d", folder, "-a", "-x", folder, "-a", "-w" if write else "-r", folder]
    result = subprocess.run(
        words,
        user=owner.uid,
        group=owner.gid,
        extra_groups=os.getgrouplist(owner.name, owner.gid),
        env={"PATH": "/usr/bin:/bin"},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=_TIMEOUT_S,
        check=False,
    )
    return result.returncode == 0
