"""Short names of containers: "train" for `train._.1001`, where only one is meant. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final

from ds01d.errors import Refused
from ds01d.model.primitives import ContainerName

SEPARATOR: Final = "._."

# Docker's rule, limited in length so that the name fits into file names and labels.
PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_FULL: Final = re.compile(rf"({PLAIN_NAME.pattern})\._\.([0-9]{{1,10}})")
_MOST_LISTED: Final = 10


def split_name(name: ContainerName) -> tuple[str, int | None]:
    """The short name and the uid in a container name; the uid is None if there is none."""
    match = _FULL.fullmatch(name)
    return (match[1], int(match[2])) if match else (name, None)


def join_name(short: str, uid: int) -> ContainerName:
    """The container name of which `split_name` gives these."""
    return ContainerName(f"{short}{SEPARATOR}{uid}")


def find_by_name(
    text: str, names: Collection[ContainerName], uid: int | None = None
) -> ContainerName | None:
    """The container that `text` names: by its whole name, else by its short one.

    Of several with one short name that of `uid`. Raises `Refused` where that leaves several.
    """
    name = ContainerName(text)
    return name if name in names else find_by_short_name(text, names, uid)


def find_by_short_name(
    text: str, names: Iterable[ContainerName], uid: int | None = None
) -> ContainerName | None:
    """As `find_by_name`, for a text that is no whole name."""
    begin = f"{text}{SEPARATOR}"
    # By the begin first: most of thousands of names need no pattern.
    matches = [name for name in names if name.startswith(begin) and split_name(name)[0] == text]
    # Decision 268: what a user calls by its short name is their own, as in container-*.
    of_caller = [name for name in matches if uid is not None and split_name(name)[1] == uid]
    matches = of_caller or matches
    if len(matches) > 1:
        raise Refused(f'"{text}" is ambiguous: expected {_list_names(matches)}')
    return matches[0] if matches else None


def _list_names(names: list[ContainerName]) -> str:
    shown = sorted(names)[:_MOST_LISTED]
    hidden = len(names) - len(shown)
    return " or ".join(shown) + (f" or {hidden} others" if hidden else "")
