"""`ds01ctl allocate` and `release`: what `ds01-allocator` does, with exit codes and JSON."""

from __future__ import annotations

import time

import click

from ds01d.cli.base import completion
from ds01d.cli.base.command import CONSISTENT, config_option, json_option, print_error
from ds01d.cli.base.context import Invocation
from ds01d.cli.base.delivery import release_if_undelivered
from ds01d.cli.base.fleet_options import HostOptions, host_options
from ds01d.cli.base.waiting import show_waiting
from ds01d.cli.output.blocks import Sentence, Tone
from ds01d.cli.output.display import show_blocks, show_json
from ds01d.decide.short_names import join_name, split_name
from ds01d.documents.values import DisplayTime, Document, display_time
from ds01d.model.allocation import Allocated, NotAllocated, Rejected, Released
from ds01d.model.primitives import ContainerName, SlotId, UserName, Wall
from ds01d.model.reservation import BOOKING_LABEL, parse_booking_id
from ds01d.text import format_span

REFUSED = 3


@click.command()
@click.argument("user", shell_complete=completion.users)
@click.argument("container", required=False)
@click.option(
    "--max", "max_slots", type=int, help="Most slots the user may hold [default: from limits]."
)
@click.option("--priority", type=int, help="Priority of the container [default: from limits].")
@click.option("--slot", metavar="1.2", shell_complete=completion.slots, help="This slot only.")
@click.option(
    "--count", type=click.IntRange(1, 1024), default=1, help="Number of slots, all or none."
)
@click.option(
    "--profile",
    metavar="1g.10gb",
    shell_complete=completion.profiles,
    help="A slot of this MIG profile only, or physical_gpu.",
)
@click.option("--reason", default="", help="For history and log.")
@click.option("--wait", is_flag=True, help="Wait for a slot; Ctrl-C ends that.")
@click.option("--notify", is_flag=True, help="If refused, send USER a notice when a slot is free.")
@host_options
@json_option
@config_option
@click.pass_obj
def allocate(
    invocation: Invocation,
    *,
    user: str,
    container: str | None,
    max_slots: int | None,
    priority: int | None,
    slot: str | None,
    count: int,
    profile: str | None,
    reason: str,
    wait: bool,
    notify: bool,
    any_host: bool,
    hosts: tuple[str, ...],
    without: tuple[str, ...],
    as_json: bool,
) -> int:
    """Book a slot for CONTAINER of USER; without CONTAINER under a name that is made up.

    A container with the label ds01.booking=ID, or with that name, turns it into its booking.
    On another host it is booked as this command does there, over ssh.

    Exit code: 0 booked (now or before), 3 refused, 1 an error.
    """
    if slot is not None and count > 1:
        raise click.UsageError("--slot and --count exclude each other")
    if wait and notify:
        raise click.UsageError("--wait and --notify exclude each other")
    config = invocation.config()
    chosen = HostOptions(any_host=any_host, hosts=hosts, without=without)
    if chosen.is_given and notify:
        raise click.UsageError("--notify is for this host alone: leave out the options of hosts")
    if chosen.is_given:
        from ds01d.cli.ctl.fleet_allocate import (  # noqa: PLC0415 - rarely used
            RemoteBooking,
            allocate_on_fleet,
        )

        booking = RemoteBooking(
            user=user,
            container=container,
            max_slots=max_slots,
            priority=priority,
            slot=slot,
            count=count,
            profile=profile,
            reason=reason,
            wait=wait,
        )
        fleet = invocation.environment.open_fleet(config)
        return allocate_on_fleet(fleet, booking, chosen, as_json=as_json)
    wanted_slot = None if slot is None else SlotId(slot)
    name = None if container is None else ContainerName(container)
    with invocation.environment.open_allocator(config) as allocator:
        with show_waiting() as show_place:
            answer = allocator.allocate(
                UserName(user),
                name,
                max_slots,
                priority,
                wanted_slot,
                count=count,
                profile=profile,
                reason=reason,
                on_waiting=show_place if wait else None,
                notify=notify,
            )
        holdings = answer.holdings if isinstance(answer, Rejected) else ""
        _print_warnings((*answer.warnings, *([holdings] if holdings else ())))
        # A booking whose answer was not written would hold its slots, and its caller would not
        # know.
        with release_if_undelivered(allocator, answer):
            _show_answer(answer, as_json=as_json)
            if name is None and isinstance(answer, Allocated) and not as_json:
                _show_line(_describe_reservation(answer), good=True)
            if isinstance(answer, Rejected) and answer.notify_until is not None and not as_json:
                _show_line(_describe_notice(user, answer.notify_until), good=True)
    return CONSISTENT if isinstance(answer, Allocated) else REFUSED


def _show_answer(answer: Allocated | Rejected, *, as_json: bool) -> None:
    if as_json:
        show_json("allocate", _build_document(answer))
    else:
        _show_line(_describe_answer(answer), good=isinstance(answer, Allocated))


def _build_document(answer: Allocated | Rejected) -> dict[str, Document]:
    document: dict[str, Document] = {
        "allocated": False,
        "already": False,
        "container": answer.container or None,
        "user": answer.user,
        "slot": None,
        "docker_id": None,
        "shared_with": [],
        "slots": [],
        "id": None,
        "until": None,
        # Filled in for another host alone; the keys are the same either way.
        "host": None,
        "refusal": answer.refusal.value if isinstance(answer, Rejected) else None,
        "reason": answer.reason if isinstance(answer, Rejected) else "",
        "notify_until": None,
    }
    if isinstance(answer, Rejected):
        return document | {"notify_until": display_time(answer.notify_until)}
    return document | {
        "allocated": True,
        "already": answer.already,
        "slot": answer.slot,
        "docker_id": answer.docker_id,
        "shared_with": list(answer.shared_with),
        "slots": [{"slot": given.slot, "docker_id": given.docker_id} for given in answer.all_slots],
        "id": answer.id,
        "until": None if answer.until is None else DisplayTime(answer.until),
    }


@click.command()
@click.argument("container", shell_complete=completion.names)
@json_option
@config_option
@click.pass_obj
def release(invocation: Invocation, *, container: str, as_json: bool) -> int:
    """Release every slot that is booked for CONTAINER, or under the ID of a booking.

    "train" is also one's own train._.UID.

    Exit code: 0 released, 3 no slot was booked, 1 an error.
    """
    with invocation.environment.open_allocator(invocation.config()) as allocator:
        booking = parse_booking_id(container)
        name = ContainerName(container) if booking is None else None
        answer = allocator.release(name, booking)
        # Decision 268: a change resolves one's own short name, and nobody else's.
        if name is not None and isinstance(answer, NotAllocated) and split_name(name)[1] is None:
            own_name = join_name(name, invocation.environment.find_caller().person.uid)
            own_answer = allocator.release(own_name)
            answer = own_answer if isinstance(own_answer, Released) else answer
    _print_warnings(answer.warnings)
    if as_json:
        show_json(
            "release",
            {
                "released": isinstance(answer, Released),
                "container": answer.container,
                "user": answer.user if isinstance(answer, Released) else None,
                "slots": list(answer.slots) if isinstance(answer, Released) else [],
            },
        )
    elif isinstance(answer, NotAllocated):
        _show_line(f"{container} holds no slot", good=False)
    else:
        _show_line(f"{answer.container} gave back {', '.join(answer.slots)}", good=True)
    return CONSISTENT if isinstance(answer, Released) else REFUSED


def _describe_answer(answer: Allocated | Rejected) -> str:
    if isinstance(answer, Rejected):
        return f"{answer.container or answer.user} gets no slot: {answer.reason}"
    verb = "already holds" if answer.already else "holds"
    slots = ", ".join(f"{given.slot} ({given.docker_id})" for given in answer.all_slots)
    others = dict.fromkeys(name for given in answer.all_slots for name in given.shared_with)
    shared = f", shared with {', '.join(others)}" if others else ""
    return f"{answer.container} {verb} {slots} as {answer.user}{shared}"


def _describe_reservation(given: Allocated) -> str:
    left = format_span((given.until or 0.0) - time.time())
    return (
        f"reservation {given.id} ends in {left}, unless a container has the name or the label"
        f" {BOOKING_LABEL}={given.id}"
    )


def _describe_notice(user: str, until: Wall) -> str:
    left = format_span(until - time.time())
    return (
        f"{user} gets a notice once there is room, within {left}; nothing is reserved"
        " (ds01ctl withdraw ends it)"
    )


def _show_line(text: str, *, good: bool) -> None:
    show_blocks([Sentence(text, Tone.GOOD if good else Tone.BAD)], Wall(time.time()))


def _print_warnings(warnings: tuple[str, ...]) -> None:
    for warning in warnings:
        print_error("ds01ctl", warning)
