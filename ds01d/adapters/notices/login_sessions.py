"""On which terminals a user is logged in: by utmp, else by logind. Reads, and asks for no right.

Debian 13 has no utmp. There logind knows the sessions, but not the terminal of one that came by
ssh (systemd 26611, 36930), because sshd begins the session before it has a terminal: that one is
the controlling terminal of a child of the session's leader.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

_UTMP: Final = Path("/run/utmp")
_MAX_UTMP_BYTES: Final = 4 << 20
# type, pid, line, id, user: where they are is the same everywhere, the length is not.
_ENTRY: Final = struct.Struct("=h2xi32s4s32s")
_ENTRY_BYTES: Final = 400 if platform.machine() in {"aarch64", "riscv64"} else 384
_USER_PROCESS: Final = 7
PSEUDO_TERMINAL: Final = re.compile(r"pts/[0-9]{1,7}")
_PTS_MAJOR: Final = 136
_DEPTH: Final = 2  # sshd's monitor, its process with the user's rights, the shell
_MAX_CHILDREN: Final = 64


def find_login_terminals(login: str, uid: int, *, utmp: Path = _UTMP) -> frozenset[str]:
    """Names below /dev, only pseudo-terminals: {"pts/3"}. What cannot be read has none."""
    with suppress(FileNotFoundError), utmp.open("rb") as opened:
        return frozenset(parse_utmp(opened.read(_MAX_UTMP_BYTES), login))
    return frozenset(_ask_logind(uid))


def parse_utmp(data: bytes, login: str) -> Iterator[str]:
    """The terminals of a login in the entries of utmp(5)."""
    # The field has 32 bytes, and a longer login is cut.
    wanted = os.fsencode(login)[:32]
    for offset in range(0, len(data) - _ENTRY_BYTES + 1, _ENTRY_BYTES):
        kind, _, line, _, user = _ENTRY.unpack_from(data, offset)
        name = line.split(b"\0")[0].decode("ascii", "replace")
        if (
            kind == _USER_PROCESS
            and user.split(b"\0")[0] == wanted
            and PSEUDO_TERMINAL.fullmatch(name)
        ):
            yield name


@functools.cache
def _load_library() -> ctypes.CDLL | None:
    with suppress(OSError):
        return ctypes.CDLL("libsystemd.so.0")
    return None


def _ask_logind(uid: int) -> Iterator[str]:
    library = _load_library()
    if library is None:
        return
    sessions = ctypes.POINTER(ctypes.c_char_p)()
    count: int = library.sd_uid_get_sessions(ctypes.c_uint32(uid), 0, ctypes.byref(sessions))
    # The strings are never freed: some bytes for a notice, and libc's free is not worth a binding.
    for session in (sessions[number] for number in range(max(0, count))):
        tty = ctypes.c_char_p()
        if library.sd_session_get_tty(session, ctypes.byref(tty)) >= 0 and tty.value:
            name = tty.value.decode("ascii", "replace").removeprefix("/dev/")
            if PSEUDO_TERMINAL.fullmatch(name):
                yield name
            continue
        leader = ctypes.c_int()
        # Since systemd 254, and nothing older is without utmp.
        if hasattr(library, "sd_session_get_leader") and (
            library.sd_session_get_leader(session, ctypes.byref(leader)) >= 0
        ):
            yield from find_leader_terminals(leader.value)


def find_leader_terminals(leader: int) -> frozenset[str]:
    """The terminals whose session a near descendant of this process leads.

    A terminal that a program has made for itself (tmux, expect) is not one: who reads from its
    other end is not a person, and a line that nobody expects there may do harm.
    """
    terminals: set[str] = set()
    generation = [leader]
    for _ in range(_DEPTH):
        generation = [child for pid in generation for child in _list_children(pid)]
        for pid in generation[:_MAX_CHILDREN]:
            with suppress(OSError, ValueError, IndexError):
                # Behind the name, which may have blanks and parentheses: session and terminal.
                fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
                session, device = int(fields[3]), int(fields[4])
                if session == pid and os.major(device) == _PTS_MAJOR:
                    terminals.add(f"pts/{os.minor(device)}")
    return frozenset(terminals)


def _list_children(pid: int) -> list[int]:
    with suppress(OSError, ValueError):
        return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_bytes().split())]
    return []
