"""The listening socket: the one that systemd hands over, else one of our own."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path
from typing import Final

from ds01d.errors import ConfigError

BACKLOG: Final = 128
_MODE: Final = 0o666  # who may do what is decided by uid, not by who may connect


def listen_at(path: Path, key: str = "service.socket") -> socket.socket:
    """A socket that listens at `path`, in place of one that nobody listens at any more.

    Raises `ConfigError` where that is not possible; `key` is that of the configuration.
    """
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_abandoned(path)
        # With its mode from the start: in a folder of others, `path` may be a link a moment later.
        umask = os.umask(0o777 & ~_MODE)
        try:
            listening.bind(str(path))
        finally:
            os.umask(umask)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise ConfigError(f"{key}: cannot listen at {path}: {error.strerror}") from error
    return listening


def _remove_abandoned(path: Path) -> None:
    """Remove a socket that a process which was killed left behind. Raises `OSError` for others."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except FileNotFoundError:
            return
        except OSError as error:
            # A regular file refuses connections, too.
            if error.errno != errno.ECONNREFUSED or not stat.S_ISSOCK(path.lstat().st_mode):
                raise
            path.unlink()
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
