"""Whether a file is open for writing anywhere, by the lease that the kernel then refuses."""

from __future__ import annotations

import errno
import fcntl
import signal


def is_open_for_writing(descriptor: int) -> bool | None:
    """A process has the file open for writing; None if the system does not support leases."""
    # The kernel grants a read lease only if nobody has. It is given back at once; should somebody
    # come in between, its signal is one that does nothing by default.
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    return False
