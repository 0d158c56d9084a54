"""Runs one command on hosts in turn until one carried it out; stops as soon as that is in doubt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ds01d.cli.base.command import print_error
from ds01d.cli.base.fleet_options import HostOptions
from ds01d.decide.fleet_outcome import NextStep, judge_result
from ds01d.decide.fleet_ranking import describe_no_room, find_ties, rank_hosts, select_hosts
from ds01d.decide.short_names import split_name
from ds01d.errors import Ds01Error, Refused, RefusedByHosts
from ds01d.model.allocation import Refusal
from ds01d.model.fleet import FleetHost, HostName
from ds01d.model.primitives import ContainerName
from ds01d.text import make_printable

if TYPE_CHECKING:
    from ds01d.cli.base.fleet import Fleet


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRequest:
    """What is asked of the hosts.

    `words`: the command for each, which prints one JSON object, where `done_key` is true once it is
    done. `subject`: what may then exist there, for people, and by which `fleet where` finds it.
    `container`: its name in Docker where that is known, else "". `find_images`: of these hosts
    those that have the image already.
    """

    command: str
    words: Sequence[str]
    done_key: str
    subject: str
    container: ContainerName
    count: int
    profile: str | None = None
    find_images: Callable[[Fleet, Sequence[HostName]], Sequence[HostName]] | None = None


def run_on_fleet(
    fleet: Fleet, options: HostOptions, request: FleetRequest
) -> tuple[HostName, Mapping[str, object]]:
    """The host that carried it out, and what it printed. Raises `Ds01Error`.

    Where it is not certain whether a host did, no other is asked.
    """
    for word in request.words:
        # A login shell may be any, and some end a quoted word at the end of a line.
        if not word.isprintable():
            raise Refused(f"cannot pass {make_printable(word)[:120]!r} to another host")
    names = select_hosts(fleet.hosts, options.wish)
    # One that was named is asked at once: its service decides, and the look at all would be a login
    # more on each host.
    candidates = names if options.only_host is not None else _choose_order(fleet, names, request)
    refusals: list[str] = []
    for name in candidates:
        result = fleet.run_command(name, request.words, lambda line: _show_line(line, request))
        outcome = judge_result(result, request.done_key)
        match outcome.step:
            case NextStep.DONE:
                return name, result.document or {}
            case NextStep.NEXT_HOST:
                refusals.append(f"{name}: {outcome.reason}")
                if len(candidates) > 1:
                    print_error(request.command, f"{name}: {outcome.reason}; not there")
            case NextStep.REFUSED:
                raise RefusedByHosts(f"{name}: {outcome.reason}", refusal=outcome.refusal)
            case NextStep.UNCERTAIN:
                raise Ds01Error(_describe_uncertain(name, outcome.reason, request))
    raise RefusedByHosts("; ".join(refusals), refusal=Refusal.NO_GPU_AVAILABLE.value)


def _choose_order(
    fleet: Fleet, names: Sequence[HostName], request: FleetRequest
) -> Sequence[HostName]:
    """The hosts to ask, the best first. Raises `Refused` where none is known to have room."""
    # All of them, also those that are excluded: the container may be there.
    view = fleet.view()
    _require_new(view, request.container)
    allowed = [host for host in view if host.name in names]
    ranked = rank_hosts(allowed, request.count, request.profile)
    ties = find_ties(ranked, request.profile)
    if ties and request.find_images is not None:
        present = request.find_images(fleet, ties)
        ranked = rank_hosts(allowed, request.count, request.profile, present)
    if not ranked:
        reason = describe_no_room(allowed, request.count, request.profile)
        raise RefusedByHosts(reason, refusal=Refusal.NO_GPU_AVAILABLE.value)
    return [host.name for host in ranked]


def _require_new(view: Sequence[FleetHost], container: ContainerName) -> None:
    """Refuse a name that a host has: after a lost connection it may be this very container."""
    for host in view:
        for slot in host.status.slots if container and host.status is not None else ():
            if any(holder.container == container for holder in slot.holders):
                raise Refused(
                    f'container "{container}" is on {host.name} already: choose another name, or'
                    f" name the host: --host"
                )


def _show_line(line: str, request: FleetRequest) -> None:
    # Without its own name twice: the command there is the same as here.
    print_error(request.command, line.removeprefix(f"{request.command}: "))


def _describe_uncertain(name: HostName, reason: str, request: FleetRequest) -> str:
    short, _ = split_name(request.container)
    look = f"ds01ctl fleet where {short}" if short else "ds01ctl fleet status"
    return (
        f"{name}: the connection was lost in the middle ({reason}): {request.subject} may exist"
        f" there, and is not tried elsewhere; look: {look}, or ssh {name} container-list --all"
    )
