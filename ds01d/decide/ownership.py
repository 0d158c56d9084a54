"""Whose container a name is: by its booking, by the uid in its name, by its labels.

Pure. What a user can write (a label, a name) never makes a container somebody else's. What is
beyond, and only a guess, is in `owner_guess`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from ds01d.model.books import Record
from ds01d.model.container_labels import list_user_labels
from ds01d.model.ownership import Owner, OwnerSource
from ds01d.model.primitives import ContainerName, UserName

NOBODY = UserName("unknown")  # the user in metadata whose owner is unknown
LONGEST_LOGIN = 256  # LOGIN_NAME_MAX
_DS01_NAME = re.compile(r"^.+\._\.(\d+)$", re.DOTALL)
_NO_LOGIN = re.compile(r"[|/:]")  # directories have logins with blanks and backslashes, none these


@lru_cache(maxsize=8192)
def parse_uid(name: str) -> int | None:
    """The numeric uid that ends a DS01 name (`train._.1001` → 1001), None for any other name."""
    match = _DS01_NAME.match(name)
    return int(match.group(1)) if match and len(match.group(1)) <= 10 else None


def is_login(text: str) -> bool:
    """Whether a label can name a user: any login of any directory, but no line of a log."""
    return len(text) <= LONGEST_LOGIN and _is_word(text)


@lru_cache(maxsize=8192)
def _is_word(text: str) -> bool:
    return text.isprintable() and _NO_LOGIN.search(text) is None


def find_named_user(name: ContainerName, passwd: Mapping[int, str]) -> UserName | None:
    """The user whose uid ends `name`; None where there is no uid, or no user known for it."""
    uid = parse_uid(name)
    login = None if uid is None else passwd.get(uid)
    return None if login is None else UserName(login)


def is_label_refuted(
    name: ContainerName, claimed: str, passwd: Mapping[int, str], logins: Mapping[str, int]
) -> bool:
    """Whether a label claims a user of another uid than the one in the name, or no user."""
    if not is_login(claimed):
        return True
    uid = parse_uid(name)
    if uid is None:
        return _DS01_NAME.match(name) is not None  # a number, but no valid uid
    # Decision 71: a directory service that fails refutes nothing; an invented uid opens no way to
    # another's quota.
    if uid in passwd:
        return claimed != passwd[uid]
    return logins.get(claimed, uid) != uid


def has_user(record: Record) -> bool:
    """Whether a record names a user: `root` may be what sudo left there."""
    return record.user not in (None, "", "root", NOBODY)


def choose_owner(
    name: ContainerName,
    record: Record | None,
    labels: Mapping[str, str],
    passwd: Mapping[int, str],
    logins: Mapping[str, int],
) -> UserName | None:
    """The user of a container: its booking's own record, else the uid in its name, else labels.

    `passwd`: uid → login, `logins`: login → uid, as far as they are known.
    """
    owner = find_owner(name, record, labels, passwd, logins)
    return None if owner is None else owner.user


def find_owner(
    name: ContainerName,
    record: Record | None,
    labels: Mapping[str, str],
    passwd: Mapping[int, str],
    logins: Mapping[str, int],
) -> Owner | None:
    """As `choose_owner`, with its source."""
    recorded_user = None if record is None else record.user
    if record is not None and recorded_user is not None and has_user(record):
        return Owner(user=recorded_user, source=OwnerSource.BOOKING)
    uid = parse_uid(name)
    claims = [
        (OwnerSource.BOOKING, recorded_user),
        (OwnerSource.NAME, find_named_user(name, passwd)),
        *(
            (OwnerSource.LABEL, label)
            for label in list_user_labels(labels)
            if not is_label_refuted(name, label, passwd, logins)
        ),
    ]
    # Decision 1: sudo leaves `root` in labels and metadata, so it is believed only of names
    # that end in 0.
    believed = [claim for claim in claims if claim[1] != "root" or uid in (None, 0)]
    for source, user in (*believed, *claims):
        if user and user != NOBODY:
            # A label that the uid in the name does not refute is more than anybody's word.
            is_guess = source is OwnerSource.LABEL and uid is None
            return Owner(user=UserName(user), source=source, is_guess=is_guess)
    return None
