"""Notices in a file for each user, which a login shows: the newest of each container, as text."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from ds01d.adapters.files.atomic_write import replace_file, wrap_write_errors
from ds01d.adapters.notices.terminals import find_uid
from ds01d.errors import DeliveryFailed, WriteFailed
from ds01d.folders import make_folder, opened_folder
from ds01d.model.notice import DeliveryTarget, SpooledNotice
from ds01d.text import make_printable

FOLDER: Final = "greetings"
_LASTS_S: Final = 72 * 3600.0
_MAX_LINES: Final = 10
_MAX_NAME: Final = 200  # bytes; a file system has 255, of which the temporary file takes some
_FOLDER_MODE: Final = 0o755


class Greetings:
    """Files in `folder`, which is made. Each is written as a whole, so nothing is in it twice."""

    name: Final = DeliveryTarget.GREETINGS

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._notices: dict[str, SpooledNotice] = {}
        self._texts: dict[str, str] = {}

    def send(self, notice: SpooledNotice) -> None:
        """Put it into the file of its user. Raises `DeliveryFailed`."""
        # Only users of this host log in; and a login is no path then.
        find_uid(notice.user)
        if not _is_file_name(notice.user):
            raise DeliveryFailed("the login is not a file name", is_final=True)
        self._notices[notice.id] = notice
        self._write(notice.user, notice.at)

    def refresh(self, given: Sequence[SpooledNotice], now: float) -> None:
        """Take what was given as all there is, and end what is over. Raises `DeliveryFailed`."""
        # Given is also what was given up, as that of a user whose name is no file name.
        self._notices = {
            notice.id: notice
            for notice in given
            if _is_file_name(notice.user) and not notice.is_outdated(now, _LASTS_S)
        }
        users = {notice.user for notice in self._notices.values()}
        with suppress(OSError), opened_folder(self._folder) as folder:
            # Of an earlier process, too; what it left behind halfway is not ours to know.
            users |= {entry.name for entry in os.scandir(folder) if entry.name[0] != "."}
        failure = None
        for user in sorted(users):
            try:
                self._write(user, now)
            except DeliveryFailed as error:  # noqa: PERF203 - a file that fails keeps back no other
                failure = error
        if failure is not None:
            raise failure

    def _list_current(self, user: str, now: float) -> list[SpooledNotice]:
        of_user = (notice for notice in self._notices.values() if notice.user == user)
        return [notice for notice in of_user if not notice.is_outdated(now, _LASTS_S)]

    def _write(self, user: str, now: float) -> None:
        text = format_greeting(self._list_current(user, now))
        if self._texts.get(user) == text:
            return
        path = self._folder / user
        try:
            with wrap_write_errors(path):
                make_folder(self._folder, _FOLDER_MODE)
                if text:
                    data = text.encode("utf-8", "backslashreplace")
                    replace_file(path, data, mode=0o644, durable=False)
                    self._texts[user] = text
                    return
                self._texts.pop(user, None)
                with opened_folder(self._folder) as folder, suppress(FileNotFoundError):
                    os.unlink(user, dir_fd=folder)
        except WriteFailed as error:
            raise DeliveryFailed(str(error)) from error


def _is_file_name(login: str) -> bool:
    """Whether a file may be called by it: users write labels, which name users, too."""
    # Half a character, which has no bytes, is not printable.
    is_plain = login != "" and login.isprintable() and "/" not in login
    return is_plain and not login.startswith(".") and len(login.encode()) <= _MAX_NAME


def format_greeting(notices: Sequence[SpooledNotice]) -> str:
    """The text: of each container the newest, oldest first; "" without any."""
    ordered = sorted(notices, key=lambda notice: notice.at)
    newest = {(notice.user, notice.container): notice for notice in ordered}
    chosen = sorted(newest.values(), key=lambda notice: notice.at)[-_MAX_LINES:]
    lines = [f"{_format_time(notice.at)}  {make_printable(notice.message)}" for notice in chosen]
    return "".join(f"{line}\n" for line in ["GPU notices:", *lines]) if lines else ""


def _format_time(at: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
    except (ValueError, OverflowError, OSError):  # a damaged spool
        return "unknown time"
