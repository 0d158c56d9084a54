"""The commands of `ds01-allocator`: each takes a call and gives the lines to print.

Each imports what it needs when it runs: a script may call one of them every second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from ds01d.bootstrap_books import open_books
from ds01d.cli.allocator import passes
from ds01d.cli.allocator.call import Call, print_warnings
from ds01d.config import Config
from ds01d.model.primitives import UserName

if TYPE_CHECKING:
    from ds01d.decide.bookings import Bookings

SLACK_S = 30.0


def status_lines_of(config: Config, call: Call) -> Iterable[str]:
    """Slots and holders. Only looks."""
    from ds01d.cli.allocator import queries  # noqa: PLC0415 - see above

    with open_books(config) as world:
        return queries.show_status(world, config, as_json=call.as_json)


def user_status(config: Config, call: Call) -> Iterable[str]:
    """What a user holds."""
    from ds01d.cli.allocator import queries  # noqa: PLC0415 - see above

    with open_books(config) as world:
        return queries.show_user_status(world, config, UserName(call.arguments[0]))


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
        from ds01d.cli.allocator import queries  # noqa: PLC0415 - see above

        names = queries.find_containers(UserName(call.arguments[0]), _read_bookings(config))
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


def _read_bookings(config: Config) -> Bookings:
    from ds01d.cli.allocator import queries  # noqa: PLC0415 - see above

    with open_books(config) as world:
        return queries.read_books(world, config)


HANDLERS: Mapping[str, Callable[[Config, Call], Iterable[str]]] = {
    "status": status_lines_of,
    "release-stale": release_stale,
    "user-status": user_status,
    "user-count": user_count,
    "sync": sync_slots,
}
