"""The host's folders as the engine's process sees them, since the engine mounts them.

By /proc/PID/root, whatever ds01d itself may see: its unit hides the homes (ProtectHome=). Needs
CAP_SYS_PTRACE. Nothing is opened or followed, only looked at.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ds01d.errors import Ds01Error
from ds01d.model.confinement import FolderStatus

_OF_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class EngineFiles:
    """`instance`: the engine's process as "pid:start time"; "" if it is not known."""

    def __init__(self, instance: str, proc: Path = Path("/proc")) -> None:
        self._pid, _, self._start = instance.partition(":")
        self._proc = proc

    def read_status(self, path: str) -> FolderStatus:
        """A path without following a link in its last part. Raises `Ds01Error`.

        The caller has looked at the parts before it.
        """
        with self._open_process() as process:
            try:
                root = os.open("root", os.O_PATH, dir_fd=process)
                try:
                    status = os.stat(path.lstrip("/") or ".", dir_fd=root, follow_symlinks=False)
                    link = None
                    if stat.S_ISLNK(status.st_mode):
                        link = os.readlink(path.lstrip("/"), dir_fd=root)
                finally:
                    os.close(root)
            except OSError as error:
                raise Ds01Error(f"{path}: {error.strerror}") from error
        return FolderStatus(
            uid=status.st_uid,
            is_folder=stat.S_ISDIR(status.st_mode),
            others_write=bool(status.st_mode & _OF_OTHERS),
            link=link,
        )

    # Decision 193: what ds01d sees by itself is not what is mounted.
    @contextmanager
    def _open_process(self) -> Iterator[int]:
        """The engine's process in /proc; a pid that is another's by now is refused."""
        if not self._pid:
            raise Ds01Error("cannot look at Docker's file system: its process is not known")
        try:
            process = os.open(self._proc / self._pid, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise Ds01Error(f"cannot look at Docker's file system: {error.strerror}") from error
        try:
            # The descriptor stays this process's; a later one of that pid has another start time.
            if _read_start(process) != self._start:
                raise Ds01Error("cannot look at Docker's file system: it was just restarted")
            yield process
        finally:
            os.close(process)


def _read_start(process: int) -> str:
    try:
        descriptor = os.open("stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
        with os.fdopen(descriptor, encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
