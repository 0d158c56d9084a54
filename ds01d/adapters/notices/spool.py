"""The spool: notices on their way from ds01d to ds01d-notify, one JSON object a line.

ds01d appends, ds01d-notify only reads. It has two files of bounded size, `notices.jsonl` and the
one before it; so it neither grows nor needs an answer, whether anybody reads it or not.
"""

from __future__ import annotations

import grp
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from ds01d.adapters.files.atomic_write import wrap_write_errors
from ds01d.adapters.files.safe_read import NotRead, ReadFailure, read_bytes
from ds01d.adapters.files.write_in_place import append_line
from ds01d.errors import Malformed
from ds01d.folders import open_folder, opened_folder
from ds01d.model.notice import GivenNotice, NoticeKey, NoticeKind, SpooledNotice, WrittenNotice
from ds01d.model.primitives import UserName, Wall

FILE: Final = "notices.jsonl"
FORMER: Final = "notices.jsonl.1"
READERS: Final = "ds01d-notify"
"""The group that reads the spool; without it only the owner does."""
_MAX_FILE_BYTES: Final = 256 * 1024
_MAX_READ_BYTES: Final = 4 * _MAX_FILE_BYTES
_MOST_OF_USER: Final = 20
_MODE: Final = 0o640
_FOLDER_MODE: Final = 0o750


def spool_folder(state_dir: Path) -> Path:
    """Where the spool is, below ds01d's own folder."""
    return state_dir / "notices"


class NoticeSpool:
    """The writer's side. `folder` is made when it is needed; its parent has to exist."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, user: UserName, notices: Sequence[WrittenNotice], at: Wall) -> None:
        """Append them. Raises `WriteFailed`; then none counts as given."""
        lines = [msgspec.json.encode(_describe(user, written, at)).decode() for written in notices]
        path = self._folder / FILE
        with wrap_write_errors(path):
            self._make_folder()
            with opened_folder(self._folder) as folder, suppress(FileNotFoundError):
                if os.stat(FILE, dir_fd=folder).st_size >= _MAX_FILE_BYTES:
                    os.rename(FILE, FORMER, src_dir_fd=folder, dst_dir_fd=folder)
        # Decision 261: not durable. The users of a host that loses power know it by other means.
        append_line(path, "\n".join(lines), mode=_MODE)

    def list_given(self) -> Sequence[GivenNotice]:
        """What was written before a restart, oldest first. Raises `Malformed`."""
        return [*filter(None, map(_identify, read_spool(self._folder)))]

    def _make_folder(self) -> None:
        """Make it, for the group of the readers."""
        try:
            os.close(open_folder(self._folder))
        except FileNotFoundError:
            with opened_folder(self._folder.parent) as parent:
                os.mkdir(self._folder.name, _FOLDER_MODE, dir_fd=parent)
            with opened_folder(self._folder) as folder:
                # Files take their group from the folder: set-group-ID is not permitted to a
                # service with RestrictSUIDSGID=.
                with suppress(KeyError, PermissionError):
                    os.fchown(folder, -1, grp.getgrnam(READERS).gr_gid)
                os.fchmod(folder, _FOLDER_MODE)


class SpoolReader:
    """The reader's side: looks for changes cheaply, and changes nothing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._signature: tuple[int, int, int] | None = None

    def read_if_changed(self) -> Sequence[SpooledNotice] | None:
        """Everything in it, oldest first; None if nothing has changed. Raises `Malformed`."""
        try:
            status = (self._folder / FILE).stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._signature = None
            raise Malformed(f"{self._folder / FILE}: cannot be read: {error.strerror}") from error
        signature = (status.st_ino, status.st_size, status.st_mtime_ns)
        if signature == self._signature:
            return None
        notices = [*read_spool(self._folder)]
        self._signature = signature
        return notices


def read_spool(folder: Path) -> Iterator[SpooledNotice]:
    """Both files, oldest first; lines that are no notice are left out. Raises `Malformed`."""
    # The newer one first: what is renamed in between is read twice then, and never left out.
    newer, older = _read_lines(folder / FILE), _read_lines(folder / FORMER)
    identifiers: set[str] = set()
    for notice in (*older, *newer):
        if notice.id not in identifiers:
            identifiers.add(notice.id)
            yield notice


def read_user_notices(folder: Path, user: str) -> Sequence[SpooledNotice]:
    """The newest notices to one user, oldest first, 20 at most. Raises `Malformed`."""
    try:
        user_key = msgspec.json.encode({"user": user})[1:-1]
    except UnicodeEncodeError:  # a login in another encoding, of whom no line can be
        return []
    # As in `read_spool`, the newer file first. Most lines are of others, and are not parsed.
    newer = _read_lines(folder / FILE, user_key)
    older = _read_lines(folder / FORMER, user_key)
    notices = {notice.id: notice for notice in (*older, *newer) if notice.user == user}
    return [*notices.values()][-_MOST_OF_USER:]


def _read_lines(path: Path, part: bytes = b"") -> list[SpooledNotice]:
    """The notices in a file; of its lines only those with `part`."""
    data = read_bytes(path, _MAX_READ_BYTES)
    if isinstance(data, NotRead):
        if data.obstacle in {ReadFailure.MISSING, ReadFailure.NO_FOLDER}:
            return []
        raise Malformed(data.reason)
    notices = []
    for line in data.splitlines():
        if part not in line:
            continue
        # A writer that was killed leaves a part of a line; a newer version writes more keys.
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            notices.append(msgspec.json.decode(line, type=SpooledNotice))
    return notices


def _describe(user: UserName, written: WrittenNotice, at: Wall) -> SpooledNotice:
    notice = written.notice
    return SpooledNotice(
        id=f"{int(at):x}-{secrets.token_hex(8)}",
        at=at,
        kind=notice.kind.value,
        user=user,
        message=written.message,
        container=notice.subject,
        slots=tuple(sorted(notice.slots)),
        until=notice.until,
        stage=notice.stage,
    )


def _identify(spooled: SpooledNotice) -> GivenNotice | None:
    try:
        kind = NoticeKind(spooled.kind)
    except ValueError:
        return None
    key = NoticeKey(kind, UserName(spooled.user), spooled.container, spooled.stage)
    return GivenNotice(
        key, Wall(spooled.at), None if spooled.until is None else Wall(spooled.until)
    )
