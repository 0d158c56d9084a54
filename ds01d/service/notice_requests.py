"""Who wants a notice when there is room for what was refused: kept in a file, over restarts.

For the worker's thread alone. Nothing is booked by it, and nobody loses a place in the queue.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from ds01d.decide.notice_requests import LASTS_S, MOST, add_request, drop_ended
from ds01d.errors import WriteFailed
from ds01d.model.notice import NoticeRequest, SlotWish
from ds01d.model.primitives import UserName, Wall

FILE: Final = "notice-requests.json"
MOST_SLOTS: Final = 1024
"""What a call may ask for."""


class FileStore(Protocol):
    """ds01d's own directory."""

    def load(self, name: str) -> bytes:
        """A file, b"" without one."""

    def save(self, name: str, data: bytes, *, durable: bool = False) -> None:
        """Replace a file. Raises `WriteFailed`."""


class NoticeRequests:
    """The requests of all users, in the order in which they were made."""

    def __init__(self, files: FileStore, read_wall: Callable[[], float] = time.time) -> None:
        self._files, self._read_wall = files, read_wall
        self._requests: tuple[NoticeRequest, ...] | None = None
        self._failure = ""

    def take_failure(self) -> str:
        """What could not be read or written since the last call; ""."""
        failure, self._failure = self._failure, ""
        return failure

    def list_current(self) -> Sequence[NoticeRequest]:
        """Those that still last."""
        if self._requests is None:
            self._requests = self._load()
        # What has ended goes from the file with the next change of it.
        self._requests = drop_ended(self._requests, Wall(self._read_wall()))
        return self._requests

    def list_own(self, user: UserName) -> Sequence[NoticeRequest]:
        return [request for request in self.list_current() if request.user == user]

    def add_refused(self, wish: SlotWish, *, can_end: bool) -> tuple[Wall | None, tuple[str, ...]]:
        """Keep a request for what was refused: until when; else None, and why none is kept.

        `can_end`: the refusal ends when others give something back.
        """
        if not can_end:
            return None, ("no notice will come: this refusal does not end by itself",)
        now = Wall(self._read_wall())
        until = Wall(now + LASTS_S)
        request = NoticeRequest(
            user=wish.user,
            slot=wish.slot,
            count=wish.count,
            profile=wish.profile,
            since=now,
            until=until,
        )
        requests = add_request(self.list_current(), request)
        if isinstance(requests, str):
            return None, (f"no notice will come: {requests}",)
        try:
            self._save(requests)
        except WriteFailed as error:
            return None, (f"no notice will come: {error}",)
        return until, ()

    def withdraw(self, user: UserName) -> Sequence[NoticeRequest]:
        """Drop those of a user; gives them. Raises `WriteFailed`: then they are still there."""
        withdrawn = self.list_own(user)
        if withdrawn:
            self._save(tuple(r for r in self.list_current() if r.user != user))
        return withdrawn

    def remove_fulfilled(self, wish: SlotWish) -> None:
        """Drop the request for what its user has just been given. Never raises."""
        self.remove([request for request in self.list_current() if request.wish == wish])

    def remove(self, ended: Sequence[NoticeRequest]) -> None:
        """Drop these. Never raises."""
        if not ended:
            return
        left = tuple(request for request in self.list_current() if request not in ended)
        try:
            self._save(left)
        except WriteFailed as error:
            # Gone for this ds01d: a file that cannot be written must not repeat a notice each time.
            self._requests, self._failure = left, str(error)

    def _load(self) -> tuple[NoticeRequest, ...]:
        data = self._files.load(FILE)
        if not data:
            return ()
        try:
            requests = msgspec.json.decode(data, type=tuple[NoticeRequest, ...])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._failure = f"{FILE} is damaged, and its requests are dropped: {error}"
            return ()
        # The file is ds01d's own, and still may have been edited: what a call could not have asked
        # for is not computed with.
        valid = [request for request in requests if 1 <= request.count <= MOST_SLOTS]
        return tuple(valid[:MOST])

    def _save(self, requests: tuple[NoticeRequest, ...]) -> None:
        try:
            data = msgspec.json.encode(requests)
        except UnicodeEncodeError as error:  # a login in another encoding than UTF-8
            raise WriteFailed(f"{FILE} was not written: {error}") from error
        self._files.save(FILE, data, durable=True)
        self._requests = requests
