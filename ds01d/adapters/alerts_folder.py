"""`alerts/USER.json`: notices of one user, a JSON list that the lab's login shows and others write.

The folder may be writable by every user: it is opened by descriptor, no link is followed, what is
read is bounded, and a file is replaced whole. Elements of others are kept byte for byte, and a file
that is not such a list is left as it is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

import msgspec

from ds01d.adapters.files.atomic_write import replace_file, wrap_write_errors
from ds01d.adapters.files.safe_read import NotRead, ReadFailure, Signature, read_bytes
from ds01d.errors import BooksChanged, Refused, WriteFailed
from ds01d.folders import opened_folder
from ds01d.model.notice import Alert, GivenNotice, WrittenNotice
from ds01d.model.primitives import UserName, Wall

_MAX_BYTES: Final = 1 << 20
_MAX_ELEMENTS: Final = 1000
_MAX_NAME_BYTES: Final = 255
_ATTEMPTS: Final = 3
_NOT_ADDED: Final = "no notice was added: "


class AlertsFolder:
    """The folder. It has to exist: whose it is, and who reads it, is the lab's."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def list_given(self) -> Sequence[GivenNotice]:
        """None: what a file has already is compared when it is added."""
        return ()

    def add(self, user: UserName, notices: Sequence[WrittenNotice], at: Wall) -> None:
        """Add what the user's file does not have yet. Raises `WriteFailed`."""
        alerts = [Alert(notice.kind.value, message) for notice, message in notices]
        name = f"{user}.json"
        if not _is_file_name(name):
            raise WriteFailed(f"no notice for {user!a:.80}: the login is not a file name")
        path = self._path / name
        with wrap_write_errors(path), opened_folder(self._path) as folder:
            # Somebody else may write it meanwhile, and their elements are to be kept, too.
            if not any(_add_to_file(path, folder, alerts, at) for _ in range(_ATTEMPTS)):
                raise WriteFailed(f"{path} was not written: others write it all the time")

    def read(self, user: str) -> list[tuple[Alert, str | None]]:
        """A user's notices, oldest first, each with when it was added as its writer has it.

        What has another form is left out. Raises `Refused` for an unreadable file.
        """
        name = f"{user}.json"
        if not _is_file_name(name):
            return []
        try:
            with opened_folder(self._path) as folder:
                elements = _read_elements(self._path / name, folder)
        except (WriteFailed, OSError) as error:
            raise Refused(str(error).removeprefix(_NOT_ADDED)) from error
        parsed = (_parse_element(element) for element in elements)
        return [
            (Alert(part.type, part.message), _parse_moment(part))
            for part in parsed
            if part is not None
        ]


def _parse_moment(element: _Element) -> str | None:
    return element.created_at if isinstance(element.created_at, str) else None


def _is_file_name(name: str) -> bool:
    return (
        name.isprintable()
        and "/" not in name
        and not name.startswith(".")
        and len(os.fsencode(name)) <= _MAX_NAME_BYTES
    )


def _add_to_file(path: Path, folder: int, alerts: Sequence[Alert], at: Wall) -> bool:
    """Add them; False if somebody else changed the file at the same time."""
    signature = _read_signature(path, folder)
    elements = _read_elements(path, folder)
    # Decision 239: each notice once; when it was added makes no other one of it.
    present = {_parse_alert(element) for element in elements}
    new = [alert for alert in dict.fromkeys(alerts) if alert not in present]
    if not new:
        return True
    if len(elements) + len(new) > _MAX_ELEMENTS:
        raise WriteFailed(f"{path} was not written: it has {len(elements)} notices already")
    moment = f"{datetime.fromtimestamp(at, tz=timezone.utc):%Y-%m-%dT%H:%M:%SZ}"
    added = (
        msgspec.json.encode({**alert._asdict(), "created_at": moment, "updated_at": moment})
        for alert in new
    )
    data = b"[\n  " + b",\n  ".join((*map(bytes, elements), *added)) + b"\n]\n"

    def require_unchanged() -> None:
        if _read_signature(path, folder) != signature:
            raise BooksChanged(f"{path} has changed since it was read")

    try:
        replace_file(path, data, folder=folder, before=require_unchanged)
    except BooksChanged:
        return False
    return True


def _read_elements(path: Path, folder: int) -> list[msgspec.Raw]:
    """The elements as they stand in the file. Raises `WriteFailed` for what is no such list."""
    data = read_bytes(path, _MAX_BYTES, folder=folder)
    if isinstance(data, NotRead):
        if data.obstacle is ReadFailure.MISSING:
            return []
        raise WriteFailed(f"{_NOT_ADDED}{data.reason}")
    if not data.strip():  # made by a writer who was interrupted, or emptied by hand
        return []
    try:
        # Raw: what others wrote is not spelt again.
        elements = msgspec.json.decode(data, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WriteFailed(
            f"{_NOT_ADDED}{path} is not a JSON list ({error}); move it away"
        ) from error
    # A user who may write there can put half a million into a file, and each is looked at.
    if len(elements) > _MAX_ELEMENTS:
        raise WriteFailed(f"{_NOT_ADDED}{path} has {len(elements)} of them; move it away")
    return elements


def _parse_alert(element: msgspec.Raw) -> Alert | None:
    """Type and message of an element; None for one that has another form."""
    parsed = _parse_element(element)
    return None if parsed is None else Alert(parsed.type, parsed.message)


def _parse_element(element: msgspec.Raw) -> _Element | None:
    try:
        return msgspec.json.decode(element, type=_Element)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


class _Element(msgspec.Struct, frozen=True):
    type: str
    message: str
    created_at: object = None  # others write into it what they want


def _read_signature(path: Path, folder: int) -> Signature | None:
    try:
        return Signature.of(os.stat(path.name, dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        return None
