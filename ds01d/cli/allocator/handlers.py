"""The commands of `ds01-allocator`: each takes a call and gives the lines to print.

Each imports what it needs when it runs: a script may call one of them every second.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ds01d.bootstrap_books import BooksOnly, open_allocator, open_books
from ds01d.cli.allocator import passes, status_lines
from ds01d.cli.allocator.call import Call, UsageError, print_warnings, write_lines
from ds01d.cli.base.delivery import release_if_undelivered
from ds01d.config import Config
from ds01d.errors import BooksUnreadable
from ds01d.model.books import AllocatorState, Record
from ds01d.model.devices import Gpu, Inventory
from ds01d.model.primitives import ContainerName, Unknown, UserName, Wall

if TYPE_CHECKING:
    from ds01d.decide.bookings import Bookings

SLACK_S = 30.0


def status_lines_of(config: Config, call: Call) -> Iterable[str]:
    """Slots and holders. Only looks."""
    with open_books(config) as world:
        state = _read_state(world, config)
        # Only whole GPUs have figures, so MIG-only hosts skip the sample, which is slow.
        whole = any(slot.mig_index is None for slot in state.slots.values())
        gpus = _read_gpu_figures(config, world) if whole else {}
        now = Wall(time.time())
        if call.as_json:
            import json  # noqa: PLC0415

            return [json.dumps(status_lines.status_document(state, gpus, now))]
        return list(status_lines.status_lines(state, gpus, now))


def allocate_slot(config: Config, call: Call) -> Iterable[str]:
    """Book a slot; writes its own answer, since a booking that nobody hears of does not stay."""
    from ds01d.cli.allocator import lines  # noqa: PLC0415 - see above

    user, container = UserName(call.arguments[0]), ContainerName(call.arguments[1])
    most, priority = (
        _parse_number(call.arguments[2], "MAX_GPUS"),
        _parse_number(call.arguments[3], "PRIORITY"),
    )
    with open_allocator(config) as allocator:
        answer = allocator.allocate(user, container, most, priority)
        print_warnings(answer.warnings)
        # A script without an answer assumes that nothing was booked, so release it.
        with release_if_undelivered(allocator, answer):
            write_lines(lines.allocate_lines(answer))
    return ()


def release_slots(config: Config, call: Call) -> Iterator[str]:
    """Give back what a container holds."""
    from ds01d.cli.allocator import lines  # noqa: PLC0415 - see above

    with open_allocator(config) as allocator:
        answer = allocator.release(ContainerName(call.arguments[0]))
    print_warnings(answer.warnings)
    return lines.release_lines(answer)


def mark_stopped(config: Config, call: Call) -> Iterator[str]:
    """Start the hold of a stopped container."""
    from ds01d.cli.allocator import lines  # noqa: PLC0415 - see above

    with open_allocator(config) as allocator:
        answer = allocator.mark_stopped(ContainerName(call.arguments[0]))
    print_warnings(getattr(answer, "warnings", ()))
    return lines.mark_stopped_lines(answer)


def user_status(config: Config, call: Call) -> Iterator[str]:
    """What a user holds."""
    from ds01d.cli.allocator import lines  # noqa: PLC0415 - see above
    from ds01d.decide.bookings import count_bookings  # noqa: PLC0415

    user, books = UserName(call.arguments[0]), _read_bookings(config)
    bookings = [
        (slot.id, name, record.priority or 0)
        for slot in books.state.slots.values()
        for name in dict.fromkeys(slot.containers)
        if isinstance(record := books.records.get(name), Record) and record.user == user
    ]
    return lines.user_status_lines(user, count_bookings(user, books.state, books.records), bookings)


def user_count(config: Config, call: Call) -> Iterable[str]:
    """How many slots a user holds."""
    from ds01d.decide.bookings import count_bookings  # noqa: PLC0415 - see above

    books = _read_bookings(config)
    return [str(count_bookings(UserName(call.arguments[0]), books.state, books.records))]


def release_stale(config: Config, call: Call) -> Iterator[str]:
    """Release what is provably stale: a pass of ds01d, with its proofs, of these kinds only.

    Beside a daemon one pass is enough, since that has watched; without one we watch ourselves
    until it is proven.
    """
    from ds01d.cli.allocator import lines  # noqa: PLC0415 - see above
    from ds01d.model.drift import Kind  # noqa: PLC0415

    kinds = frozenset({Kind.STALE_ALLOCATION, Kind.EXPIRED_HOLD, Kind.ORPHANED_METADATA})
    # None means all containers; an empty set would mean that the user has none.
    names = None
    if call.arguments:
        names = _containers_of(UserName(call.arguments[0]), _read_bookings(config))
        if not names:
            return lines.release_stale_lines({})
    # Without a daemon nobody has watched yet: wait until an absence can be proven.
    patience_s = config.policy.absence_grace_s + config.policy.settle_s + SLACK_S
    report = passes.run_passes(config, names, kinds, patience_s)
    done = passes.repaired_slots(report)
    return lines.release_stale_lines({name: why for name, (slots, why) in done.items() if slots})


def sync_slots(config: Config, _: Call) -> Iterator[str]:
    """Bring the slots in line with the GPUs, then book what runs and nobody booked."""
    from ds01d.adapters.files import permissions  # noqa: PLC0415
    from ds01d.cli.allocator import lines  # noqa: PLC0415 - see above
    from ds01d.model.drift import Kind  # noqa: PLC0415
    from ds01d.reconcile.sync_slots import sync_slot_table  # noqa: PLC0415

    permissions.require_access(
        (config.books.state.parent, config.books.metadata),
        (config.books.state,),
        is_shared=config.books.writers == "group",
    )
    with open_books(config) as world:
        drifts, warnings = sync_slot_table(world, config)
    print_warnings(warnings)
    kinds = frozenset({Kind.UNTRACKED_CONTAINER, Kind.LOST_ALLOCATION})
    report = passes.run_passes(config, None, kinds, config.policy.settle_s + SLACK_S)
    synced = {
        name: ",".join(slots) for name, (slots, _) in passes.repaired_slots(report).items() if slots
    }
    return lines.sync_lines(((str(drift.slot), drift.reason) for drift in drifts), synced)


def _containers_of(user: UserName, books: Bookings) -> frozenset[ContainerName]:
    """Whose records name the user, and who may be theirs because a slot counts them."""
    from ds01d.decide.bookings import find_owners  # noqa: PLC0415 - see above

    names = {n for n, r in books.records.items() if isinstance(r, Record) and r.user == user}
    for slot in books.state.slots.values():
        if user in slot.users:
            owners = find_owners(slot.containers, books.records)
            pairs = zip(dict.fromkeys(slot.containers), owners, strict=True)
            # A booking without a record may belong to any user that the slot counts.
            names |= {name for name, owner in pairs if owner is None}
    return frozenset(names)


def _read_state(world: BooksOnly, config: Config) -> AllocatorState:
    state = world.state.read()
    if isinstance(state, AllocatorState):
        return state
    from ds01d.adapters.files import permissions  # noqa: PLC0415

    is_shared = config.books.writers == "group"
    readers = permissions.describe_readers(config.books.state, is_shared=is_shared)
    raise BooksUnreadable("; ".join(part for part in (state.reason, readers) if part))


def _read_bookings(config: Config) -> Bookings:
    from ds01d.decide.bookings import Bookings  # noqa: PLC0415 - see above

    with open_books(config) as world:
        state, records = _read_state(world, config), world.metadata.read()
    if isinstance(records, Unknown):
        raise BooksUnreadable(records.reason)
    return Bookings(state=state, records=records)


def _read_gpu_figures(config: Config, world: BooksOnly) -> dict[int, Gpu]:
    """Figures of whole GPUs, by index: as the daemon published them, else from NVML.

    Without either the figures are 0, as they always were.
    """
    if world.gpu is None:
        return {}
    from ds01d.reporting.published_status import read_published_status  # noqa: PLC0415 - see above

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


def _parse_number(text: str, argument: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{argument}: invalid {text!r:.80}; expected a whole number") from None
