"""What `gpu_allocator_v2.py` prints, line by line. Its callers parse it: not a byte changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ds01d.model.allocation import Allocated
from ds01d.text import make_printable


def allocate_lines(answer: Allocated) -> Iterator[str]:
    """`allocate`."""
    if answer.already:
        yield f"⚠ Container {answer.container} already has GPU/MIG {answer.slot} allocated"
    else:
        yield f"✓ Allocated GPU/MIG {answer.slot} to {answer.container}"
    yield f"DOCKER_ID={_name_device(answer)}"


def allocate_multi_lines(answer: Allocated) -> Iterator[str]:
    """`allocate-multi`."""
    # Of a container that exists its first slot, as ever; of a reservation all that is reserved.
    slots = (answer,) if answer.already and answer.until is None else answer.all_slots
    names = ",".join(given.slot for given in slots)
    if answer.already:
        yield f"⚠ Container {answer.container} already has GPU(s) {names} allocated"
    else:
        yield f"✓ Allocated {len(slots)} GPU slot(s) to {answer.container}"
    yield f"GPU_SLOTS={names}"
    yield f"DOCKER_IDS={','.join(map(_name_device, slots))}"
    yield f"SLOT_COUNT={len(slots)}"
    yield f"GPU_EQUIV={float(len(slots)):g}"


def allocate_external_lines(answer: Allocated) -> Iterator[str]:
    """`allocate-external`."""
    yield f"DOCKER_ID={_name_device(answer)}"
    yield "STATUS=SUCCESS"


def _name_device(given: Allocated) -> str:
    """What a device request names; an index means another GPU after a renumbering."""
    return make_printable(given.device or given.docker_id)


def status_lines(slots: list[Mapping[str, Any]]) -> Iterator[str]:
    """`status`: the slots of the status document."""
    taken = [slot for slot in slots if slot["holders"]]
    share = 100 * len(taken) / len(slots) if slots else 0.0
    yield ""
    yield f"GPU Status: {len(taken)}/{len(slots)} allocated ({share:.1f}% utilization)"
    yield ""
    for slot in sorted(taken, key=lambda slot: str(slot["id"])):
        names = ", ".join(make_printable(holder["container"]) for holder in slot["holders"])
        yield f"GPU/MIG {slot['id']}:"
        yield f"  UUID: {make_printable(slot.get('uuid') or '')}"
        yield f"  Containers: {names}"
        yield ""
