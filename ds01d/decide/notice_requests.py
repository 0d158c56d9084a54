"""Which requests for a notice are kept, and which of them can be answered. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from ds01d.model.allocation import Allocated, Rejected
from ds01d.model.notice import Notice, NoticeKind, NoticeRequest
from ds01d.model.primitives import UserName, Wall

LASTS_S: Final = 7 * 24 * 3600.0
"""Who still wants a notice after a week asks again."""
MOST_OF_USER: Final = 5
MOST: Final = 100


def add_request(
    requests: Sequence[NoticeRequest], request: NoticeRequest
) -> tuple[NoticeRequest, ...] | str:
    """The requests with this one, the newest last; why it is not kept, where it cannot be.

    The same request again lasts from now on, and does not count twice.
    """
    others = [other for other in requests if other.wish != request.wish]
    # Bounded both ways: each of them is compared with the slots again and again.
    if sum(other.user == request.user for other in others) >= MOST_OF_USER:
        return f"{request.user} has {MOST_OF_USER} requests for a notice already"
    if len(others) >= MOST:
        return f"{MOST} requests for a notice are waiting already"
    return (*others, request)


def drop_ended(requests: Iterable[NoticeRequest], now: Wall) -> tuple[NoticeRequest, ...]:
    """Those that still last."""
    # Of a clock that was set back by years since, none would ever end.
    return tuple(request for request in requests if now < request.until <= now + 2 * LASTS_S)


def find_answered(
    requests: Iterable[NoticeRequest], answers: Iterable[Allocated | Rejected]
) -> Iterator[tuple[NoticeRequest, Notice]]:
    """The requests that would be booked now, each with its notice; of each user one at a time.

    `answers`: what an allocation would answer each of them.
    """
    users: set[UserName] = set()
    for request, answer in zip(requests, answers, strict=True):
        # The next one of the same user waits for the next look: it may be for the same slot.
        if isinstance(answer, Rejected) or request.user in users:
            continue
        # A slot that others hold as well is not free, whether an allocation would share it or not.
        if any(given.shared_with for given in answer.all_slots):
            continue
        users.add(request.user)
        yield (
            request,
            Notice(
                kind=NoticeKind.GPU_FREE,
                user=request.user,
                slots=frozenset(given.slot for given in answer.all_slots),
                reason=_write_command(request),
            ),
        )


def _write_command(request: NoticeRequest) -> str:
    """The command that books what was asked for."""
    words = ["ds01ctl", "allocate", request.user]
    if request.slot is not None:
        words += ["--slot", request.slot]
    if request.count > 1:
        words += ["--count", str(request.count)]
    if request.profile is not None:
        words += ["--profile", request.profile]
    # It is there to be pasted into a shell, and profiles and logins are what somebody wrote.
    return shlex.join(words)
