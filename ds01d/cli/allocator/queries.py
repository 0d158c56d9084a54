"""What `ds01-allocator` reads of the books: for the commands that only look, and for the daemon."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ds01d.adapters.files import permissions
from ds01d.cli.allocator import lines, status_lines
from ds01d.config import Config
from ds01d.decide.bookings import Bookings, count_bookings, find_owners
from ds01d.errors import BooksUnreadable
from ds01d.model.books import AllocatorState, Record
from ds01d.model.devices import Gpu, Inventory
from ds01d.model.primitives import ContainerName, Unknown, UserName, Wall
from ds01d.reporting.published_status import read_published_status

if TYPE_CHECKING:
    from ds01d.reconcile.books_ports import BooksWorld


def show_status(world: BooksWorld, config: Config, *, as_json: bool) -> list[str]:
    """What `status` prints."""
    state = _read_state(world, config)
    # Only whole GPUs have figures, so MIG-only hosts skip the sample, which is slow.
    whole = any(slot.mig_index is None for slot in state.slots.values())
    gpus = _read_gpu_figures(config, world) if whole else {}
    now = Wall(time.time())
    if as_json:
        import json  # noqa: PLC0415

        return [json.dumps(status_lines.status_document(state, gpus, now))]
    return list(status_lines.status_lines(state, gpus, now))


def show_user_status(world: BooksWorld, config: Config, user: UserName) -> list[str]:
    """What `user-status` prints."""
    books = read_books(world, config)
    bookings = [
        (slot.id, name, record.priority or 0)
        for slot in books.state.slots.values()
        for name in dict.fromkeys(slot.containers)
        if isinstance(record := books.records.get(name), Record) and record.user == user
    ]
    count = count_bookings(user, books.state, books.records)
    return list(lines.user_status_lines(user, count, bookings))


def find_containers(user: UserName, books: Bookings) -> frozenset[ContainerName]:
    """Whose records name the user, and who may be theirs because a slot counts them."""
    names = {n for n, r in books.records.items() if isinstance(r, Record) and r.user == user}
    for slot in books.state.slots.values():
        if user in slot.users:
            owners = find_owners(slot.containers, books.records)
            pairs = zip(dict.fromkeys(slot.containers), owners, strict=True)
            # A booking without a record may belong to any user that the slot counts.
            names |= {name for name, owner in pairs if owner is None}
    return frozenset(names)


def read_books(world: BooksWorld, config: Config) -> Bookings:

    state = _read_state(world, config)
    # In ds01d nothing is read again of records that nobody else has changed.
    records = world.metadata.read(frozenset() if world.metadata.is_current() else None)
    if isinstance(records, Unknown):
        raise BooksUnreadable(records.reason)
    return Bookings(state=state, records=records)


def _read_state(world: BooksWorld, config: Config) -> AllocatorState:
    state = world.state.read()
    if isinstance(state, AllocatorState):
        return state

    is_shared = config.books.writers == "group"
    readers = permissions.describe_readers(config.books.state, is_shared=is_shared)
    raise BooksUnreadable("; ".join(part for part in (state.reason, readers) if part))


def _read_gpu_figures(config: Config, world: BooksWorld) -> dict[int, Gpu]:
    """Figures of whole GPUs, by index: as the daemon published them, else from NVML.

    Without either the figures are 0, as they always were.
    """
    if world.gpu is None:
        return {}

    published, daemon_problem = read_published_status(config, Wall(time.time()))
    # The daemon samples anyway; a sample of our own costs seconds without persistence mode.
    if published is not None and not daemon_problem and published.gpus:
        return {
            gpu.index: Gpu(
                uuid=gpu.uuid,
                index=gpu.index,
                memory_used=gpu.memory_used,
                memory_total=gpu.memory_total,
                utilization=gpu.utilization,
            )
            for gpu in published.gpus
        }
    sample = world.gpu.sample(not_before=world.clock.now().boot)
    return {gpu.index: gpu for gpu in sample.gpus} if isinstance(sample, Inventory) else {}
