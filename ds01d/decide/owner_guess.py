"""The probable owner of a container that neither a booking nor its name gives. Pure.

The creator of a container can write a label, a cgroup and a folder, and the owners file is made of
them. So a guess is shown, marked as one, and that is all: it gives no right and counts for nobody's
quota (decision 225). A label is none where the container runs in the slice of the user it names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from ds01d.decide.ownership import find_owner, is_login
from ds01d.model.books import Record
from ds01d.model.containers import Container
from ds01d.model.limits import Limits
from ds01d.model.ownership import Owner, OwnerSource
from ds01d.model.primitives import ContainerName, UserName
from ds01d.model.sanitized_logins import sanitize_login
from ds01d.model.snapshot import Snapshot

# A group has no hyphen: else "ds01-students-anna-maria.slice" would be that of a user maria too.
_SLICE = re.compile(r"ds01-[^-/]+-([^/]+)\.slice")


def identify_owner(
    name: ContainerName, record: Record | None, container: Container | None, snapshot: Snapshot
) -> Owner | None:
    """The user of a container, and whether that is a guess; None: there is no source for it."""
    # Decision 134: its name may have ended in any uid, so nothing else names its user.
    is_unnamed = container is None or container.is_unnamed
    labels = {} if container is None or is_unnamed else container.labels
    # A record without a digest is derived from what is looked at here.
    stored = record if record is not None and record.digest else None
    owner = find_owner(name, stored, labels, snapshot.passwd, snapshot.logins)
    return refine_owner(owner, container, snapshot)


def refine_owner(
    owner: Owner | None, container: Container | None, snapshot: Snapshot
) -> Owner | None:
    """As `identify_owner`, of what booking, name and labels give."""
    if container is None or container.is_unnamed or not (owner is None or owner.is_guess):
        return owner
    if owner is not None:
        # The server's wrapper puts a container there by the caller's uid.
        in_slice = parse_slice_user(container.cgroup_parent) in sanitize_login(owner.user)
        return replace(owner, is_guess=not in_slice)
    return next(_list_guesses(container, snapshot), None)


def describe_guess(owner: Owner | None) -> str:
    """The end of a sentence about a container: ", perhaps of alice (by its label)"; "" for none."""
    if owner is None or not owner.is_guess:
        return ""
    return f", perhaps of {owner.user} (by its {_SOURCES[owner.source]})"


_SOURCES = {
    OwnerSource.LABEL: "label",
    OwnerSource.OWNERS_FILE: "line in the owners file",
    OwnerSource.SLICE: "cgroup",
    OwnerSource.FOLDER: "folder",
}


def parse_slice_user(cgroup_parent: str) -> str | None:
    """The user's part of `ds01-GROUP-USER.slice`, as the login was made fit for it; else None."""
    match = _SLICE.fullmatch(cgroup_parent.rpartition("/")[2])
    return match[1] if match else None


def list_guessed_logins(containers: Iterable[Container]) -> set[str]:
    """What may be a login in their folders and their slices: to be looked up."""
    # Each pass asks for all containers, of which few differ in this.
    places = {(c.homes, c.cgroup_parent) for c in containers if c.homes or c.cgroup_parent}
    names = {name for homes, parent in places for name in (*homes, parse_slice_user(parent))}
    return {name for name in names if name is not None and is_login(name)}


def _list_guesses(container: Container, snapshot: Snapshot) -> Iterator[Owner]:
    # The file comes first: its writers looked at labels, names and mounts when it was created.
    hints = (
        (OwnerSource.OWNERS_FILE, snapshot.owners.get(container.id)),
        (OwnerSource.SLICE, _find_slice_login(container, snapshot)),
        (OwnerSource.FOLDER, _find_home_login(container, snapshot.logins)),
    )
    for source, user in hints:
        if user is not None and is_login(user):
            yield Owner(user=UserName(user), source=source, is_guess=True)


def _find_slice_login(container: Container, snapshot: Snapshot) -> str | None:
    """The one login that fits the slice; several logins may be written alike in a slice."""
    written = parse_slice_user(container.cgroup_parent)
    if written is None:
        return None
    limits, users = snapshot.limits, {*snapshot.passwd.values(), *snapshot.logins}
    listed = {*limits.holds, *limits.ranks} if isinstance(limits, Limits) else set()
    # A list of members may have what a slice is called instead of the login.
    fitting = [n for n in users | (listed - {written}) if written in sanitize_login(n)]
    return fitting[0] if len(fitting) == 1 else None


def _find_home_login(container: Container, logins: Mapping[str, int]) -> str | None:
    """The user of the one home folder; of a folder that is no user's, nobody."""
    # Several are shared data, and say nothing of who made the container.
    if len(container.homes) != 1:
        return None
    return container.homes[0] if container.homes[0] in logins else None
