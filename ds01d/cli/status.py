"""`ds01ctl status`: what the daemon published, or, without it, what the books say."""

from __future__ import annotations

import os
import time

import click

from ds01d.cli.environment import Invocation
from ds01d.cli.front import CONSISTENT, ERROR, config_option, json_option
from ds01d.cli.remembered import in_force
from ds01d.cli.screen import show, show_json
from ds01d.cli.status_view import Picture, blocks, document
from ds01d.cli.words import span
from ds01d.config import Config
from ds01d.model.facts import AllocatorState, Record, Unknown, Wall
from ds01d.model.memory import Freeze
from ds01d.ops import status as published
from ds01d.ops.status import Holder, SlotStatus, Status
from ds01d.reconcile.memory import MemoryStore
from ds01d.reconcile.ports import World

SLACK_S = 30.0


@click.command()
@json_option
@config_option
@click.pass_obj
def status(invocation: Invocation, *, as_json: bool) -> int:
    """Show slots and their holders, the sources, and what the daemon says of itself.

    Without a daemon that is alive it says so, and shows what the books say.
    Exit code: 0, or 1 if not even the books can be read.
    """
    config = invocation.config()
    now = Wall(time.time())
    last, silent = look(config, now)
    with invocation.environment.open_world(config) as world:
        freezes = _freezes(world, last)
        if last is not None and not silent:
            picture = Picture(last=last, slots=last.slots, freezes=freezes)
        else:
            slots, unread = _books(world)
            picture = Picture(last=last, silent=silent, slots=slots, unread=unread, freezes=freezes)
    if as_json:
        show_json(document(picture))
    else:
        show(blocks(picture, config, now), now)
    return ERROR if picture.unread else CONSISTENT


def look(config: Config, now: Wall) -> tuple[Status | None, str]:
    """What the daemon published last, and why that does not count any more ("" if it does)."""
    try:
        last = published.read(config.daemon.state_dir)
    except FileNotFoundError:
        return None, f"there is no status in {config.daemon.state_dir}"
    except (OSError, ValueError) as error:
        return None, f"its status cannot be read: {error}"
    waits = config.docker.timeout_s + config.gpu.timeout_s + config.daemon.sweep_jitter_s + SLACK_S
    expected = max(last.next_sweep or 0.0, last.written_at + config.daemon.sweep_interval_s)
    if now > expected + waits:
        return last, f"its status is {span(now - last.written_at)} old"
    if not _runs(last.pid):
        return last, f"its process {last.pid} is gone since {span(now - last.written_at)} or less"
    return last, ""


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # somebody else's process
    return True


def _freezes(world: World, last: Status | None) -> tuple[Freeze, ...]:
    """The freezes as they are now; what the daemon published may be a minute old."""
    memory, trouble = MemoryStore(world.own).load()
    if trouble and last is not None:
        return last.freezes
    return in_force(memory, world.clock.now())


def _books(world: World) -> tuple[tuple[SlotStatus, ...], str]:
    """Slots and holders as the books alone tell them, and why they do not."""
    state, metadata = world.state.read(), world.metadata.read()
    if not isinstance(state, AllocatorState):
        return (), f"state: {state.reason}"
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
