"""Whose a container is, and what it may be called. Pure."""

from __future__ import annotations

import re

from ds01d.errors import Refused
from ds01d.model.containers import Container
from ds01d.model.creation import Caller
from ds01d.model.primitives import ContainerName

SEPARATOR = "._."

# Docker's own rule, shortened so that files and labels can bear the name too.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_FULL = re.compile(rf"({_NAME.pattern})\._\.([0-9]{{1,10}})")


def split_name(name: ContainerName) -> tuple[str, int | None]:
    """What a container is called by its user, and the user's uid; None where no uid is in it."""
    match = _FULL.fullmatch(name)
    return (match[1], int(match[2])) if match else (name, None)


def full_name(text: str, caller: Caller) -> ContainerName:
    """The name that Docker knows: "train" is the caller's, "train._.1001" is whose uid it says.

    Raises `Refused`.
    """
    short, uid = split_name(ContainerName(text))
    if uid is None:
        if SEPARATOR in text or not _NAME.fullmatch(text):
            raise Refused(
                f"{text[:120]!a} is no name: write letters, digits, '-', '_' and '.', a letter or"
                " a digit first, at most 100 of them"
            )
        return ContainerName(f"{text}{SEPARATOR}{caller.person.uid}")
    if SEPARATOR in short:
        raise Refused(f"{text[:120]!a} is no name: it has {SEPARATOR!r} in it twice")
    if uid != caller.person.uid and not caller.root:
        raise Refused(f"{text} is not yours: it belongs to uid {uid}, and only root may touch it")
    return ContainerName(f"{short}{SEPARATOR}{uid}")


def owner_of(container: Container) -> str | int | None:
    """The user whom its labels name, or the uid in its name, which counts more; None = foreign.

    `sudo` leaves "root" in labels, never in the name.
    """
    _, uid = split_name(container.name)
    if uid is not None:
        return uid
    labels = container.labels
    for key in ("ds01.user", "aime.mlc.USER", "aime.mlc"):
        if labels.get(key):
            return labels[key]
    return "unknown" if container.labelled else None


def check_owner(container: Container, caller: Caller) -> None:
    """Raises `Refused` unless the caller may touch the container."""
    owner = owner_of(container)
    if owner is None:
        raise Refused(f"{container.name} is no DS01 container: use docker for it")
    if caller.root or owner in {caller.person.uid, caller.person.name}:
        return
    owner_text = f"uid {owner}" if isinstance(owner, int) else owner
    raise Refused(f"{container.name} is not yours: it belongs to {owner_text}")
