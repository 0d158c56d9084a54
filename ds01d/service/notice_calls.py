"""A user's own notices, and what they want a notice of. Served in the worker's thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from ds01d.documents.notices import (
    OwnNotices,
    describe_notice_request,
    describe_spooled_notice,
)
from ds01d.model.notice import SpooledNotice
from ds01d.model.primitives import UserName
from ds01d.service import rules
from ds01d.service.client import INTERFACE
from ds01d.service.dispatch import Handler
from ds01d.service.notice_requests import NoticeRequests
from ds01d.service.quota_calls import UserParameters
from ds01d.service.requests import PendingCall
from ds01d.service.varlink import parse_parameters

ReadNotices = Callable[[UserName], Sequence[SpooledNotice]]
"""The newest notices to a user, oldest first. Raises `Ds01Error`."""


class NoticeCalls:
    """`requests`: None where no notice is given."""

    def __init__(self, read_notices: ReadNotices, requests: NoticeRequests | None) -> None:
        self._read_notices, self._requests = read_notices, requests
        self.handlers: Final[Mapping[str, Handler]] = {
            f"{INTERFACE}.Notices": self._list_notices,
            f"{INTERFACE}.WithdrawNotices": self._withdraw_requests,
        }

    def _list_notices(self, request: PendingCall) -> object:
        user = _choose_user(request)
        requests = () if self._requests is None else self._requests.list_own(user)
        return msgspec.to_builtins(
            OwnNotices(
                notices=tuple(map(describe_spooled_notice, self._read_notices(user))),
                requests=tuple(map(describe_notice_request, requests)),
            )
        )

    def _withdraw_requests(self, request: PendingCall) -> object:
        user = _choose_user(request)
        withdrawn = () if self._requests is None else self._requests.withdraw(user)
        return {"requests": [*map(msgspec.to_builtins, map(describe_notice_request, withdrawn))]}


def _choose_user(request: PendingCall) -> UserName:
    """The caller, or whom an operator names. Raises `VarlinkError`."""
    return rules.choose_user(request.peer, parse_parameters(request.call, UserParameters).user)
