"""Who is in which group, by the lab's files beside resource-limits.yaml. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_LOGIN: Final = re.compile(r"[^\s,:;/'\"\x00-\x1f\x7f\ufffd]{1,256}")


def parse_members(data: bytes) -> tuple[tuple[str, ...], list[str]]:
    """The logins of a `.members` file, one a line, and what is wrong with other lines."""
    logins, problems = [], []
    for number, text in _list_lines(data):
        if _LOGIN.fullmatch(text):
            logins.append(text)
        else:
            problems.append(f"line {number}: invalid login {text!r:.60}; write one login a line")
    return tuple(dict.fromkeys(logins)), problems


def parse_assignments(data: bytes) -> tuple[dict[str, str], list[str]]:
    """The group of each login in `group-overrides.txt` (`login:group`), and the invalid lines."""
    groups: dict[str, str] = {}
    problems = []
    for number, text in _list_lines(data):
        login, separator, group = (part.strip() for part in text.partition(":"))
        if not separator or not group or not _LOGIN.fullmatch(login):
            problems.append(f"line {number}: invalid line {text!r:.60}; write login:group")
        else:
            groups.setdefault(login, group)  # the first one counts, as for the lab's scripts
    return groups, problems


def _list_lines(data: bytes) -> Iterator[tuple[int, str]]:
    """The lines without comments, with their numbers; what is no UTF-8 is in no login."""
    # Some editors begin a file with a byte order mark, which would be part of the first login.
    text = data.decode("utf-8-sig", errors="replace")
    for number, line in enumerate(text.split("\n"), 1):
        if stripped := line.partition("#")[0].strip():
            yield number, stripped
