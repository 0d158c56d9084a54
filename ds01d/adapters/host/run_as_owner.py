"""Root acting as somebody else: as the owner of ds01d's own folder, whose files it is to change.

What root writes for a service in a folder that others may write to is written with the service's
rights, so that no trick with a name in it can reach root's files. Only CAP_SYS_PTRACE is kept,
which the service has too: without it processes are hidden by hidepid= on /proc, and a hidden
process looks dead (capabilities(7), credentials(7)).
"""

from __future__ import annotations

import os
import pwd
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ds01d.adapters.host.callers import current_actor
from ds01d.errors import NotPermitted
from ds01d.folders import owner_of

if TYPE_CHECKING:
    import ctypes

_PR_SET_KEEPCAPS: Final = 8
_CAP_SYS_PTRACE: Final = 1 << 19
_VERSION_3: Final = 0x20080522  # linux/capability.h


def act_as_owner(folder: Path) -> None:
    """If we are root, become the owner of `folder`, with all groups of that user, for good.

    Nothing changes for others, nor where root owns it or there is none yet. Raises `NotPermitted`
    where root may not become that user (in a user namespace that does not know it).
    """
    current_actor()  # decision 123: cached now, since the uid changes below
    status = owner_of(folder) if os.geteuid() == 0 else None
    if status is None or status.st_uid == 0:
        return
    uid, gid = status.st_uid, status.st_gid
    groups = [gid]
    with suppress(KeyError):
        entry = pwd.getpwuid(uid)
        gid = entry.pw_gid
        groups = os.getgrouplist(entry.pw_name, gid)
    import ctypes  # noqa: PLC0415 - slow, and most callers come no further than here

    try:
        libc = ctypes.CDLL(None, use_errno=True)
        # Before the uid changes: the kernel drops all capabilities with root's.
        libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
        # Groups first, uid last: afterwards there is no right left to change them.
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        _keep_only_ptrace(libc)
    except OSError as error:
        raise NotPermitted(
            f"{folder} belongs to uid {uid}, which root cannot become here: {error.strerror}"
        ) from error


def _keep_only_ptrace(libc: ctypes.CDLL) -> None:
    """Of the capabilities that were kept, all but one go; where that fails all of them do."""
    import ctypes  # noqa: PLC0415 - see above

    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets) == 0:
        ptrace = sets[1] & _CAP_SYS_PTRACE  # of those permitted
        remaining = (ctypes.c_uint32 * 6)(ptrace, ptrace, 0, 0, 0, 0)
        if libc.capset(header, remaining) == 0:
            return
    if libc.capset(header, (ctypes.c_uint32 * 6)()) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
