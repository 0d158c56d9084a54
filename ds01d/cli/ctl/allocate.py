"""`ds01ctl allocate` and `release`: what `ds01-allocator` does, with exit codes and JSON."""

from __future__ import annotations

import time

import click

from ds01d.cli.base import completion
from ds01d.cli.base.command import CONSISTENT, config_option, json_option, print_error
from ds01d.cli.base.context import Invocation
from ds01d.cli.base.delivery import release_if_undelivered
from ds01d.cli.base.waiting import show_place
from ds01d.cli.output.blocks import Sentence, Tone
from ds01d.cli.output.display import show_blocks, show_json
from ds01d.model.allocation import Allocated, NotAllocated, Rejected, Released
from ds01d.model.primitives import ContainerName, SlotId, UserName, Wall

REFUSED = 3


@click.command()
@click.argument("user", shell_complete=completion.users)
@click.argument("container")
@click.option(
    "--max", "max_slots", type=int, help="Most slots the user may hold [default: from limits]."
)
@click.option("--priority", type=int, help="Priority of the container [default: from limits].")
@click.option("--slot", metavar="1.2", shell_complete=completion.slots, help="This slot only.")
@click.option("--wait", is_flag=True, help="Wait for a slot; Ctrl-C ends that.")
@json_option
@config_option
@click.pass_obj
def allocate(
    invocation: Invocation,
    *,
    user: str,
    container: str,
    max_slots: int | None,
    priority: int | None,
    slot: str | None,
    wait: bool,
    as_json: bool,
) -> int:
    """Book a slot for CONTAINER of USER.

    Exit code: 0 booked (now or before), 3 refused, 1 an error.
    """
    config = invocation.config()
    wanted_slot = None if slot is None else SlotId(slot)
    with invocation.environment.open_allocator(config) as allocator:
        answer = allocator.allocate(
            UserName(user),
            ContainerName(container),
            max_slots,
            priority,
            wanted_slot,
            on_waiting=show_place if wait else None,
        )
        _print_warnings(answer.warnings)
        with release_if_undelivered(allocator, answer):
            _show_answer(answer, as_json=as_json)
    return CONSISTENT if isinstance(answer, Allocated) else REFUSED


def _show_answer(answer: Allocated | Rejected, *, as_json: bool) -> None:
    if as_json:
        show_json(
            {
                "allocated": isinstance(answer, Allocated),
                "already": isinstance(answer, Allocated) and answer.already,
                "container": answer.container,
                "user": answer.user,
                "slot": answer.slot if isinstance(answer, Allocated) else None,
                "docker_id": answer.docker_id if isinstance(answer, Allocated) else None,
                "shared_with": list(answer.shared_with) if isinstance(answer, Allocated) else [],
                "refusal": answer.refusal.value if isinstance(answer, Rejected) else None,
                "reason": answer.reason if isinstance(answer, Rejected) else "",
            }
        )
    else:
        _show_line(_describe_answer(answer), good=isinstance(answer, Allocated))


@click.command()
@click.argument("container", shell_complete=completion.names)
@json_option
@config_option
@click.pass_obj
def release(invocation: Invocation, *, container: str, as_json: bool) -> int:
    """Release every slot that is booked for CONTAINER.

    Exit code: 0 released, 3 no slot was booked, 1 an error.
    """
    with invocation.environment.open_allocator(invocation.config()) as allocator:
        answer = allocator.release(ContainerName(container))
    _print_warnings(answer.warnings)
    if as_json:
        show_json(
            {
                "released": isinstance(answer, Released),
                "container": answer.container,
                "user": answer.user if isinstance(answer, Released) else None,
                "slots": list(answer.slots) if isinstance(answer, Released) else [],
            }
        )
    elif isinstance(answer, NotAllocated):
        _show_line(f"{container} holds no slot", good=False)
    else:
        _show_line(f"{container} gave back {', '.join(answer.slots)}", good=True)
    return CONSISTENT if isinstance(answer, Released) else REFUSED


def _describe_answer(answer: Allocated | Rejected) -> str:
    if isinstance(answer, Rejected):
        return f"{answer.container} gets no slot: {answer.reason}"
    verb = "already holds" if answer.already else "holds"
    shared = f", shared with {', '.join(answer.shared_with)}" if answer.shared_with else ""
    return f"{answer.container} {verb} {answer.slot} ({answer.docker_id}) as {answer.user}{shared}"


def _show_line(text: str, *, good: bool) -> None:
    show_blocks([Sentence(text, Tone.GOOD if good else Tone.BAD)], Wall(time.time()))


def _print_warnings(warnings: tuple[str, ...]) -> None:
    for warning in warnings:
        print_error("ds01ctl", warning)
