"""POSIX access lists, as the kernel keeps them in an extended attribute of a file.

For one purpose: a file that is replaced by somebody who may not give it away stays with those whose
it was. File systems without access lists are left as they are.
"""

from __future__ import annotations

import os
import stat
import struct
from contextlib import suppress

_NAME = "system.posix_acl_access"
_VERSION = struct.pack("<I", 2)
_ENTRY = struct.Struct("<HHI")  # tag, rights, id; sorted by tag and id
_OWNER, _USER, _OWN_GROUP, _GROUP, _MASK, _OTHERS = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_MASKED = frozenset({_USER, _OWN_GROUP, _GROUP})
_NO_ID = 0xFFFFFFFF

Entries = dict[tuple[int, int], int]
"""(tag, id) → rights, as in a mode: 4 read, 2 write, 1 execute."""


def copy_acl(folder: int, source: str, target: int) -> None:
    """Keep the list that an administrator has set; most files and some systems have none.

    `target` is the descriptor of the new file, `source` a name in `folder`.
    """
    with suppress(OSError):
        data = os.getxattr(_fd_path(folder, source), _NAME, follow_symlinks=False)
        os.setxattr(target, _NAME, data)


def keep_access(descriptor: int, before: os.stat_result) -> None:
    """Give owner and group of `before` what they could do with it, where they are not this one's.

    Root needs no entry. For the file's owner, which is who has just made it.
    """
    current = os.fstat(descriptor)
    owner_lost = before.st_uid not in {0, current.st_uid}
    group_lost = before.st_gid not in {0, current.st_gid}
    # Nothing to give: no list appears on hosts that have none.
    if not owner_lost and not group_lost:
        return
    with suppress(OSError):
        entries = _read_entries(descriptor, current)
        if group_lost:
            rights = before.st_mode >> 3 & entries[_OWN_GROUP, _NO_ID]
            entries[_GROUP, before.st_gid] = rights
        if owner_lost:
            entries[_USER, before.st_uid] = before.st_mode >> 6 & 7
        _write_entries(descriptor, entries)


def _read_entries(descriptor: int, status: os.stat_result) -> Entries:
    """The list, or that of the mode if there is none; without the rights that its mask denies."""
    try:
        data = os.getxattr(descriptor, _NAME)
    except OSError:
        mode = stat.S_IMODE(status.st_mode)
        tags = {_OWNER: mode >> 6, _OWN_GROUP: mode >> 3, _OTHERS: mode}
        return {(tag, _NO_ID): rights & 7 for tag, rights in tags.items()}
    listed = _ENTRY.iter_unpack(data[len(_VERSION) :])
    rights_by_entry = {(tag, ident): rights for tag, rights, ident in listed}
    mask = rights_by_entry.pop((_MASK, _NO_ID), 7)
    return {
        key: rights & mask if key[0] in _MASKED else rights
        for key, rights in rights_by_entry.items()
    }


def _write_entries(descriptor: int, entries: Entries) -> None:
    mask = 0
    for (tag, _), rights in entries.items():
        # Without a mask as wide as the entries the kernel grants none of them.
        mask |= rights if tag in _MASKED else 0
    whole = entries | {(_MASK, _NO_ID): mask}
    packed = (_ENTRY.pack(tag, rights, ident) for (tag, ident), rights in sorted(whole.items()))
    data = _VERSION + b"".join(packed)
    os.setxattr(descriptor, _NAME, data)


def _fd_path(folder: int, name: str) -> str:
    return f"/proc/self/fd/{folder}/{name}"
