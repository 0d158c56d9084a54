"""Keys of the fleet's store, all below `/ds01/v1/`: made here, taken apart here. Pure.

Names are percent-encoded, so that none has a slash. Who may write to the store may have made
any key.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from ds01d.errors import Malformed
from ds01d.model.fleet_books import FleetEntry, NodeId
from ds01d.model.primitives import ContainerName, UserName

ROOT: Final = b"/ds01/v1/"
USERS: Final = ROOT + b"users/"
NAMES: Final = ROOT + b"names/"
MAX_PART: Final = 1024  # characters of a name in a key; etcd takes keys of 1.5 MB
_PLAIN: Final = re.compile(rb"[A-Za-z0-9_.~/-]*")  # nothing in it is ever encoded


def user_prefix(user: UserName) -> bytes:
    """Of the fence and the entries of a user."""
    return USERS + _escape_name(user) + b"/"


def fence_key(user: UserName) -> bytes:
    """Changed by every reservation of a user: who counted before it has to count again."""
    return user_prefix(user) + b"fence"


def held_key(entry: FleetEntry) -> bytes:
    """Of one booking; the next one of the same container has another."""
    node, booking = _escape_name(entry.node), _escape_name(entry.booking)
    return user_prefix(entry.user) + b"held/" + node + b"/" + booking


def name_key(container: ContainerName) -> bytes:
    """Taken by one booking at most, of whichever host."""
    return NAMES + _escape_name(container)


def identity_key(node: NodeId) -> bytes:
    """What every change of a host compares (decision 305)."""
    return ROOT + b"nodes/" + _escape_name(node) + b"/identity"


def alive_key(node: NodeId) -> bytes:
    """Ends with the lease of the host, and shows no more than that."""
    return ROOT + b"nodes/" + _escape_name(node) + b"/alive"


def summary_key(node: NodeId) -> bytes:
    return ROOT + b"summary/" + _escape_name(node)


def forgotten_key(node: NodeId) -> bytes:
    """An admin had this host forgotten, and it has not rejoined since."""
    return ROOT + b"forgotten/" + _escape_name(node)


def split_key(key: bytes) -> tuple[str, ...]:
    """The parts of a key below the root. Raises Malformed for what this module cannot have written.

    A second spelling of a name would be a key that a look at that name does not find.
    """
    if not key.startswith(ROOT):
        raise Malformed(f"key {show_key(key)} is not below {ROOT.decode()}")
    rest = key[len(ROOT) :]
    # Nearly every key, and a whole read has 100,000 of them: nothing in these needs decoding.
    if len(rest) <= MAX_PART and _PLAIN.fullmatch(rest):
        return tuple(rest.decode("ascii").split("/"))
    parts = rest.split(b"/")
    try:
        # Decision 340: no half of a surrogate pair either, which no reply and no status can hold.
        names = tuple(unquote_to_bytes(part).decode() for part in parts)
    except UnicodeDecodeError as error:
        raise Malformed(f"key {show_key(key)} is not UTF-8") from error
    if list(map(_escape_name, names)) != parts:
        raise Malformed(f"key {show_key(key)} has another spelling than ds01d's")
    # Names of hosts and users are shown in the status and in refusals, each time again.
    if any(len(name) > MAX_PART for name in names):
        raise Malformed(f"key {show_key(key)} has a name of more than {MAX_PART} characters")
    return names


def show_key(key: bytes) -> str:
    """A key for a message: one line, however long and whatever is in it."""
    text = key.decode("ascii", "backslashreplace")
    return text if len(text) <= 200 else f"{text[:200]}…"


def _escape_name(name: str) -> bytes:
    # Damaged books may have half a surrogate pair in a name, which needs a key all the same.
    return quote_from_bytes(name.encode("utf-8", "surrogatepass"), safe="").encode("ascii")
