"""Releases a booking whose answer cannot be written, since the caller believes that it failed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ds01d.errors import Ds01Error

if TYPE_CHECKING:
    from ds01d.model.allocation import Allocated, Rejected
    from ds01d.service.allocator_client import SlotAllocator


@contextmanager
def release_if_undelivered(
    allocator: SlotAllocator, answer: Allocated | Rejected
) -> Iterator[None]:
    """Write the answer inside. If that fails, raise `Ds01Error` with the state of the booking."""
    from ds01d.model.allocation import Rejected  # noqa: PLC0415 - the allocator has loaded it

    try:
        yield
    # Ctrl-C between booking and answer leaves the caller without the answer, too.
    except (OSError, KeyboardInterrupt) as error:
        # Nothing was booked by this call, so there is nothing to release.
        if isinstance(answer, Rejected) or answer.already:
            raise
        outcome = _take_back(allocator, answer)
        if isinstance(error, KeyboardInterrupt):
            raise
        raise Ds01Error(f"cannot write the answer: {error.strerror}; {outcome}") from error


def _take_back(allocator: SlotAllocator, answer: Allocated) -> str:
    booking = f"the booking of {answer.slot} for {answer.container}"
    # Decision 373: who asked for that name meanwhile got the same booking, for a container.
    if answer.id is None:
        return f"{booking} stays: its ID is unknown"
    try:
        allocator.release(answer.container, answer.id, if_gone=True)
    except Ds01Error as error:
        return f"{booking} stays: {error}"
    return f"{booking} is taken back"
