"""The commands of `ds01-allocator` that book: each takes an allocator and a call.

Scripts call them all the time: nothing is imported here that needs the configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from ds01d.cli.allocator import lines
from ds01d.cli.allocator.call import Call, UsageError, print_warnings, write_lines
from ds01d.cli.base.delivery import release_if_undelivered
from ds01d.model.primitives import ContainerName, UserName

if TYPE_CHECKING:
    from ds01d.service.allocator_client import SlotAllocator


def allocate_slot(allocator: SlotAllocator, call: Call) -> Iterable[str]:
    """Book a slot; writes its own answer, since a booking that nobody hears of does not stay."""
    user, container = UserName(call.arguments[0]), ContainerName(call.arguments[1])
    most, priority = (
        _parse_number(call.arguments[2], "MAX_GPUS"),
        _parse_number(call.arguments[3], "PRIORITY"),
    )
    answer = allocator.allocate(user, container, most, priority)
    print_warnings(answer.warnings)
    # A script without an answer assumes that nothing was booked, so release it.
    with release_if_undelivered(allocator, answer):
        write_lines(lines.allocate_lines(answer))
    return ()


def release_slots(allocator: SlotAllocator, call: Call) -> Iterator[str]:
    """Give back what a container holds."""
    answer = allocator.release(ContainerName(call.arguments[0]))
    print_warnings(answer.warnings)
    return lines.release_lines(answer)


def mark_stopped(allocator: SlotAllocator, call: Call) -> Iterator[str]:
    """Start the hold of a stopped container."""
    answer = allocator.mark_stopped(ContainerName(call.arguments[0]))
    print_warnings(getattr(answer, "warnings", ()))
    return lines.mark_stopped_lines(answer)


def _parse_number(text: str, argument: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{argument}: invalid {text!r:.80}; expected a whole number") from None


HANDLERS: Mapping[str, Callable[[SlotAllocator, Call], Iterable[str]]] = {
    "allocate": allocate_slot,
    "release": release_slots,
    "mark-stopped": mark_stopped,
}
