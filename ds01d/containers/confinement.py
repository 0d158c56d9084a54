"""How a container of the service is confined to what its owner is. Pure.

Docker resolves a path again at each start, as root, and follows links. So it is only given paths in
which a user can exchange nothing between two looks: every folder on the way is root's, and only
root writes to it. Below the home a user can exchange anything, so the home itself is mounted, and
what the catalogue mounts of it becomes the working directory.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from ds01d.errors import Ds01Error, Refused
from ds01d.model.confinement import Confinement, FolderStatus, Mount
from ds01d.model.creation import Person, Setup

FIRST_USER_UID: Final = 1000
"""Below it are root and the system's users, whose homes are no homes (login.defs, UID_MIN)."""
# The kernel's overflow uid, and -1 in 16 bits: a process with one of them is not known.
_NOBODY: Final = frozenset({65534, 65535})
_MAX_LINKS: Final = 40
_PATH: Final = re.compile(r"/[^\x00-\x1f\x7f:]*")
_TAKEN: Final = ("/proc", "/sys", "/dev")
_OPTIONS: Final = frozenset({"", "rw", "ro"})
_NETWORK: Final = re.compile(r"(?!(?i:host)$)(?:[A-Za-z0-9][A-Za-z0-9_.-]*)?")  # no "container:ID"
_IPC: Final = re.compile("(?:private|none)?")
_SAFE_LOGIN: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]*\$?")

ReadStatus = Callable[[str], FolderStatus]
"""lstat, as the engine sees the path. Raises `Ds01Error`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the host and the engine look like.

    `root_inside`: processes may be root, since the configuration allows it and the engine remaps
    users. Without that root inside is root outside: a process of its user outside hands it a
    descriptor of the host's root directory, and no option of a mount prevents it (decision 208).
    """

    read_status: ReadStatus
    root_inside: bool = False


def confine_container(
    setup: Setup, owner: Person, workdir: str | None, surroundings: Surroundings
) -> Confinement:
    """How a container of `owner` is made. `setup` is the catalogue's, its placeholders unfilled.

    Raises `Ds01Error` for what the rules forbid, and for what cannot be verified.
    """
    require_user(owner)
    require_own_namespaces(setup)
    planned, start_folder = plan_mounts(setup, owner)
    home = next((mount.target for mount in planned if mount.source == owner.home), "")
    mounts = tuple(
        replace(mount, source=check_source(mount.source, owner, surroundings.read_status))
        for mount in planned
    )
    own_user = f"{owner.uid}:{owner.gid}"
    user = (
        setup.user.format_map(_list_placeholders(owner)) if surroundings.root_inside else own_user
    )
    is_owner = user == own_user
    return Confinement(
        user=user,
        groups=tuple(gid for gid in owner.groups if gid != owner.gid) if is_owner else (),
        mounts=mounts,
        workdir=_choose_workdir(workdir, start_folder, home, owner),
        environment={"HOME": home, "USER": owner.name} if home and is_owner else {},
        drops_capabilities=is_owner,
    )


def require_user(owner: Person) -> None:
    """Refuse root and the system's users. Raises `Refused`."""
    if owner.uid < FIRST_USER_UID or owner.uid in _NOBODY:
        raise Refused(f"{owner.name} (uid {owner.uid}) is no user of this service: use docker")


def plan_mounts(setup: Setup, owner: Person) -> tuple[tuple[Mount, ...], str]:
    """The mounts of the catalogue for an owner, and the folder of the home to begin in.

    A folder below the home is no mount of its own. Raises `Refused`.
    """
    home, home_target, start_folder, needs_home = owner.home, "", "", False
    mounts: list[Mount] = []
    for text in setup.mounts:
        host, target, *options = text.split(":")
        source, target = _fill_path(host, owner), _fill_path(target, owner)
        if not set(",".join(options).split(",")) <= _OPTIONS:
            raise Refused(f'the catalogue mounts "{text}": only "ro" is possible here')
        if source == home:
            needs_home, home_target = True, target
        # Decision 192: below the home anything can be exchanged, so the home itself is mounted.
        elif _is_below(source, home):
            needs_home, start_folder = True, start_folder or posixpath.relpath(source, home)
            continue
        mounts.append(Mount(source=source, target=target, read_only="ro" in options))
    if needs_home and not home_target:
        mounts.insert(0, Mount(source=home, target=_fill_path("{home}", owner)))
    targets = [mount.target for mount in mounts]
    for target in targets:
        if target == "/" or any(target == taken or _is_below(target, taken) for taken in _TAKEN):
            raise Refused(f'the catalogue mounts something at "{target}": choose another place')
        # What is mounted into a folder that the owner can write to, goes where its links lead.
        if targets.count(target) > 1 or any(_is_below(target, other) for other in targets):
            raise Refused(f'the catalogue mounts "{target}" into another mount')
    return tuple(mounts), start_folder


def check_source(path: str, owner: Person, read_status: ReadStatus) -> str:
    """The path without links, if nobody but root can change where it leads. Raises `Ds01Error`."""
    # Decision 192: what a user can exchange between this look and the mount is never mounted.
    folder, pending, links = "/", [part for part in path.split("/") if part], 0
    status = _read_part(path, "/", read_status)
    while pending:
        _require_root_only(path, folder, status)
        current = posixpath.join(folder, pending.pop(0))
        status = _read_part(path, current, read_status)
        if status.link is None:
            folder = current
            continue
        # Only root's: where the link of anybody else leads may be changed a moment later.
        links += 1
        if not pending or links > _MAX_LINKS or status.uid != 0:
            raise Refused(f"{path} is not mounted: {current} is a symlink")
        target = posixpath.normpath(posixpath.join(folder, status.link))
        folder, status = "/", _read_part(path, "/", read_status)
        pending = [*(part for part in target.split("/") if part), *pending]
    if not status.is_folder:
        raise Refused(f"{path} is not mounted: it is not a folder")
    # A home comes from the user database, where / or /var may stand; the rest is root's word.
    allowed = {owner.uid} if path == owner.home else {owner.uid, 0}
    if status.uid not in allowed or folder == "/":
        raise Refused(f"{path} is not mounted: it belongs to uid {status.uid}, not {owner.name}")
    return folder


def _require_root_only(path: str, folder: str, status: FolderStatus) -> None:
    if status.uid != 0 or status.others_write or not status.is_folder:
        raise Refused(
            f"{path} is not mounted: users other than root can change {folder};"
            " fix: let it and all above it belong to root, without group or other write"
        )


def _read_part(path: str, part: str, read_status: ReadStatus) -> FolderStatus:
    try:
        return read_status(part)
    except Ds01Error as error:
        raise Ds01Error(f"{path} is not mounted: {error}") from error


def _fill_path(text: str, owner: Person) -> str:
    """A path of the catalogue with the owner's name, IDs and home. Raises `Refused`."""
    # A login may come from a directory that others maintain, and be one like ../x.
    if "{user}" in text and not _SAFE_LOGIN.fullmatch(owner.name):
        raise Refused(f"the login {owner.name[:80]!a} cannot be a part of a path")
    filled = text.format_map(_list_placeholders(owner))
    path = filled.rstrip("/") if filled != "/" else filled
    if not _PATH.fullmatch(path) or posixpath.normpath(path) != path or path.startswith("//"):
        raise Refused(f"invalid path {filled[:200]!a}: expected an absolute one without ..")
    return path


def _list_placeholders(owner: Person) -> Mapping[str, object]:
    return {"user": owner.name, "uid": owner.uid, "gid": owner.gid, "home": owner.home}


def require_own_namespaces(setup: Setup) -> None:
    """Refuse a catalogue that asks for namespaces of the host. Raises `Refused`."""
    for key, mode, allowed in (("network", setup.network, _NETWORK), ("ipc", setup.ipc, _IPC)):
        if not allowed.fullmatch(mode):
            raise Refused(
                f'the catalogue has {key} = "{mode}", which no container of the service may have;'
                " fix: remove it from [container]"
            )


def _choose_workdir(wanted: str | None, start_folder: str, home: str, owner: Person) -> str:
    """The working directory in the container. `start_folder` is below the home."""
    if wanted is None:
        return posixpath.join(home, start_folder) if home else ""
    if not home:
        raise Refused("no working directory can be chosen: the catalogue does not mount the home")
    path = posixpath.join(owner.home, wanted)
    if not _PATH.fullmatch(path) or posixpath.normpath(path).rstrip("/") != path.rstrip("/"):
        raise Refused(f"invalid working directory {wanted[:200]!a}")
    if path.rstrip("/") != owner.home and not _is_below(path, owner.home):
        raise Refused(f"{wanted[:200]!a} is not in the home of {owner.name}")
    return posixpath.normpath(posixpath.join(home, posixpath.relpath(path, owner.home)))


def _is_below(path: str, folder: str) -> bool:
    return path != folder and path.startswith(folder.rstrip("/") + "/")
