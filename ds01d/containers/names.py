"""The owner of a container, and valid names of containers. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ds01d.decide.short_names import (
    PLAIN_NAME,
    SEPARATOR,
    find_by_short_name,
    join_name,
    split_name,
)
from ds01d.errors import Refused
from ds01d.model.containers import Container
from ds01d.model.creation import Caller
from ds01d.model.primitives import ContainerName


def full_name(text: str, caller: Caller) -> ContainerName:
    """The name in Docker: "train" is the caller's, "train._.1001" that of uid 1001.

    Raises `Refused`.
    """
    short, uid = split_name(ContainerName(text))
    if uid is None:
        if SEPARATOR in text or not PLAIN_NAME.fullmatch(text):
            raise Refused(
                f"invalid container name {text[:120]!a}: expected at most 100 letters, digits, '-',"
                " '_' and '.', beginning with a letter or a digit"
            )
        return join_name(text, caller.person.uid)
    if SEPARATOR in short:
        raise Refused(f"invalid container name {text[:120]!a}: it has {SEPARATOR!r} twice")
    if uid != caller.person.uid and not caller.root:
        raise Refused(
            f'container "{text}" belongs to uid {uid}: only that user and root may change it'
        )
    return join_name(short, uid)


def resolve_name(
    text: str,
    caller: Caller,
    find_container: Callable[[str], Container | None],
    list_names: Callable[[], Iterable[ContainerName]],
) -> ContainerName:
    """The container with that short name of the caller, else with that exact name.

    For root also the only one with that short name. Raises `Ds01Error`.
    """
    name = full_name(text, caller)
    if name == text or find_container(name) is not None:
        return name
    # A container of another tool has a name without uid, and can be meant exactly.
    exact = find_container(text)
    if exact is not None:
        return exact.name
    # Decision 268: nobody else may change the container of another user, however it is named.
    only = find_by_short_name(text, list_names()) if caller.root else None
    return name if only is None else only


def owner_of(container: Container) -> str | int | None:
    """The uid in its name, else the user in its labels; None for a foreign container.

    `sudo` leaves "root" in labels, never in the name.
    """
    # decision 71: labels may be wrong after sudo, the uid in the name is not.
    _, uid = split_name(container.name)
    if uid is not None:
        return uid
    labels = container.labels
    for key in ("ds01.user", "aime.mlc.USER", "aime.mlc"):
        if labels.get(key):
            return labels[key]
    return "unknown" if container.labelled else None


def check_owner(container: Container, caller: Caller) -> None:
    """Raise `Refused` unless the caller may change the container."""
    owner = owner_of(container)
    if owner is None:
        raise Refused(f"{container.name} is not a DS01 container: use docker for it")
    if caller.root or owner in {caller.person.uid, caller.person.name}:
        return
    owner_text = f"uid {owner}" if isinstance(owner, int) else owner
    raise Refused(
        f"{container.name} belongs to {owner_text}: only that user and root may change it"
    )
