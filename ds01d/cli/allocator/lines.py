"""What `ds01-allocator` prints, line by line. Scripts parse it: not a byte of it changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ds01d.model.allocation import (
    Allocated,
    MarkedStopped,
    NoMetadata,
    NotAllocated,
    Rejected,
    Released,
)
from ds01d.text import make_printable


def allocate_lines(answer: Allocated | Rejected) -> Iterator[str]:
    """`allocate`."""
    if isinstance(answer, Rejected):
        yield f"✗ Allocation failed: {make_printable(answer.reason)}"
        return
    if answer.already:
        yield f"⚠ Container {answer.container} already has GPU/MIG {answer.slot} allocated"
    else:
        yield f"✓ Allocated GPU/MIG {answer.slot} to {answer.container}"
    yield f"DOCKER_ID={make_printable(answer.docker_id)}"


def release_lines(answer: Released | NotAllocated) -> Iterator[str]:
    """`release`."""
    if isinstance(answer, NotAllocated):
        yield f"✗ No GPU allocated to {answer.container}"
    else:
        yield from (f"✓ Released GPU/MIG {slot} from {answer.container}" for slot in answer.slots)


def mark_stopped_lines(answer: MarkedStopped | NoMetadata) -> Iterator[str]:
    """`mark-stopped`."""
    if isinstance(answer, NoMetadata):
        yield f"✗ No metadata found for {answer.container}"
    else:
        slot = make_printable(str(answer.slot))
        yield f"✓ Marked {answer.container} as stopped (GPU {slot} hold timer started)"


def release_stale_lines(reasons: Mapping[str, str]) -> Iterator[str]:
    """`release-stale`: container → reason."""
    yield ""
    if not reasons:
        yield "✓ No stale allocations found"
        return
    yield f"✓ Released {len(reasons)} stale GPU allocation(s):"
    yield ""
    yield from (f"  {make_printable(name)}: {make_printable(why)}" for name, why in reasons.items())


def sync_lines(slots: Iterable[tuple[str, str]], slot_of: Mapping[str, str]) -> Iterator[str]:
    """`sync`: slots that changed and why; containers that are booked now, and where."""
    changed = list(slots)
    if changed:
        yield ""
        yield f"✓ Brought {len(changed)} slot(s) in line with the GPUs:"
        yield ""
        yield from (f"  {name}: {make_printable(why)}" for name, why in changed)
    yield ""
    if not slot_of:
        yield "✓ All running containers already tracked (or none have GPUs)"
        return
    yield f"✓ Synced {len(slot_of)} container(s) with GPU allocator:"
    yield ""
    yield from (f"  {make_printable(name)} → GPU/MIG {slot}" for name, slot in slot_of.items())


def user_status_lines(user: str, count: int, rows: Iterable[tuple[str, str, int]]) -> Iterator[str]:
    """`user-status`: slot, container, priority."""
    bookings = list(rows)
    yield ""
    names = {name for _, name, _ in bookings}
    yield f"{make_printable(user)}: {count} GPU/MIG instances across {len(names)} containers"
    yield ""
    for slot, name, priority in bookings:
        yield f"  GPU {slot}: {make_printable(name)} (priority {priority})"
