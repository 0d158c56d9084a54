"""`ds01ctl status`: what the daemon published, or the books alone if it does not run."""

from __future__ import annotations

import platform
import time
from collections.abc import Collection

import click
import msgspec

from ds01d.cli.base import completion
from ds01d.cli.base.command import CONSISTENT, ERROR, config_option, json_option
from ds01d.cli.base.context import Invocation
from ds01d.cli.base.options import watch_options
from ds01d.cli.ctl.status_document import StatusView
from ds01d.cli.ctl.status_filter import StatusFilter
from ds01d.cli.ctl.status_output import Form, StatusOutput
from ds01d.cli.output.watching import watch_view
from ds01d.config import Config
from ds01d.decide.checkpoint_clock import list_freezes_in_force
from ds01d.model.books import AllocatorState, Record
from ds01d.model.primitives import ContainerName, Source, Unknown, Wall
from ds01d.reconcile.checkpoint_store import CheckpointStore
from ds01d.reconcile.docker_books import with_current_books
from ds01d.reconcile.ports import World
from ds01d.reporting.published_status import describe_delay, read_published_status
from ds01d.reporting.status import Holder, SlotStatus, Status


@click.command()
@click.option(
    "--user",
    default="",
    metavar="USER",
    shell_complete=completion.users,
    help="Only slots that this user holds or uses.",
)
@click.option("--free", is_flag=True, help="Only slots that are neither booked nor in use.")
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["wide", "name", "json"]),
    help="wide: with utilization, memory and processes; name: the slots alone, one a line; json.",
)
@watch_options
@json_option
@config_option
@click.pass_obj
def status(
    invocation: Invocation,
    *,
    user: str,
    free: bool,
    form: Form | None,
    watched: bool,
    interval: float,
    as_json: bool,
) -> int:
    """Show slots and their holders, the sources, and the state of the daemon.

    With --user or --free these slots alone. If the daemon is not running, show the bookings in the
    books alone. --watch draws on a terminal; into a pipe it writes whatever has changed.

    Exit code: 0, or 1 if the books cannot be read either; 130 after Ctrl-C.
    """
    if as_json and form not in {None, "json"}:
        raise click.UsageError(f"--json and -o {form} contradict")
    if user and free:
        raise click.UsageError("--user and --free contradict")
    config = invocation.config()
    shown = StatusOutput(
        config=config,
        form="json" if as_json else form or "table",
        only=StatusFilter(user=user, free=free),
    )
    with invocation.environment.open_world(config) as world:
        if watched:
            watch_view(
                lambda now: shown.watch(collect_status(config, world, now), now),
                interval,
                f"ds01ctl status of {platform.node()}",
            )
            return CONSISTENT
        now = Wall(time.time())
        view = collect_status(config, world, now)
    shown.show(view, now)
    return ERROR if view.books_problem else CONSISTENT


def collect_status(config: Config, world: World, now: Wall) -> StatusView:
    """The published status while the daemon runs, else the books alone."""
    published, daemon_problem = read_published_status(config, now)
    checkpoints = CheckpointStore(world.state_dir)
    return build_view(config, world, published, checkpoints, now, daemon_problem=daemon_problem)


def build_view(
    config: Config,
    world: World,
    published: Status | None,
    checkpoints: CheckpointStore,
    now: Wall,
    *,
    daemon_problem: str = "",
) -> StatusView:
    """What is shown. `daemon_problem`: why what was published does not count."""
    checkpoint, problem = checkpoints.load()
    now_frozen = list_freezes_in_force(checkpoint, world.clock.now())
    # The published freezes may be a minute old, which is better than none.
    freezes = published.freezes if problem and published is not None else now_frozen
    undone = tuple(checkpoint.undone.items())
    if published is not None and not daemon_problem:
        slots = published.slots
        if config.books.kind == "files":
            # Bookings change between two sweeps, so take them from the state file itself.
            slots = _with_bookings(slots, world)
        return StatusView(
            last=published,
            slots=slots,
            books_problem=_describe_unread_books(published),
            freezes=freezes,
            undone=undone,
            late_reason=describe_delay(published, config, now),
        )
    slots, unread = _read_slots(with_current_books(world, config))
    return StatusView(
        last=published,
        daemon_problem=daemon_problem,
        slots=slots,
        books_problem=unread,
        freezes=freezes,
        undone=undone,
    )


def _describe_unread_books(published: Status) -> str:
    """Which of the books the daemon could not read, and why; "" if it could."""
    books = ((source, published.sources.get(source)) for source in (Source.STATE, Source.METADATA))
    return "; ".join(
        f"{source}: {source_status.reason}"
        for source, source_status in books
        if source_status and not source_status.ok
    )


def _with_bookings(slots: tuple[SlotStatus, ...], world: World) -> tuple[SlotStatus, ...]:
    """The published slots with the bookings that are in the state right now, where it is read."""
    # What was published of a holder is shown: only of others the records are looked at.
    booked, _ = _read_slots(world, {holder.container for slot in slots for holder in slot.holders})
    if not booked:
        return slots
    published = {slot.id: slot for slot in slots}
    return tuple(
        _with_holders(published[slot.id], slot.holders) if slot.id in published else slot
        for slot in (*booked, *(slot for slot in slots if slot.id not in {b.id for b in booked}))
    )


def _with_holders(slot: SlotStatus, booked: tuple[Holder, ...]) -> SlotStatus:
    """Who is booked; what the daemon knows of them, where it knows them."""
    published = {holder.container: holder for holder in slot.holders}
    holders = tuple(published.get(holder.container, holder) for holder in booked)
    return msgspec.structs.replace(slot, holders=holders)


def _read_slots(
    world: World, published: Collection[ContainerName] = ()
) -> tuple[tuple[SlotStatus, ...], str]:
    """Slots and holders from the books alone, and why they cannot be read.

    The records of those who are `published` need not be up to date.
    """
    state = world.state.read()
    if not isinstance(state, AllocatorState):
        return (), f"state: {state.reason}"
    names = {name for slot in state.slots.values() for name in slot.containers}
    metadata = world.metadata.read(frozenset(names.difference(published)))
    records = {} if isinstance(metadata, Unknown) else metadata
    users = {name: r.user for name, r in records.items() if isinstance(r, Record)}
    slots = tuple(
        SlotStatus(
            id=slot.id,
            type=slot.type,
            uuid=slot.uuid,
            profile=slot.profile,
            holders=tuple(
                Holder(container=name, user=users.get(name), state="unknown")
                for name in dict.fromkeys(slot.containers)
            ),
        )
        for slot in state.slots.values()
    )
    return slots, f"metadata: {metadata.reason}" if isinstance(metadata, Unknown) else ""
