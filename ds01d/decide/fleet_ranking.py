"""Which hosts are asked for a GPU, and in which order. Pure.

The view that it is made from is a hint, up to a minute old: the service of each host decides. So
this order can cost a refusal more or less, and never give away what somebody else has.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ds01d.errors import Refused
from ds01d.model.fleet import FleetHost, HostName, HostState, HostWish
from ds01d.text import format_count


def select_hosts(hosts: Sequence[HostName], wish: HostWish) -> tuple[HostName, ...]:
    """The hosts of the configuration that may be asked. Raises `Refused` for one that it lacks."""
    # Also of --not-host: a misspelt name there would let the request go where it must not.
    for name in (*wish.only, *wish.without):
        if name not in hosts:
            raise Refused(f'no host "{name}" in the configuration: expected {", ".join(hosts)}')
    left = tuple(
        name for name in hosts if (not wish.only or name in wish.only) and name not in wish.without
    )
    if not left:
        raise Refused("no host is left: --not-host excludes all of them")
    return left


def count_fitting(host: FleetHost, profile: str | None) -> int:
    """How many slots of that profile are known to be free on a host; of any if it is None."""
    return sum(profile is None or slot.kind == profile for slot in host.free)


def rank_hosts(
    hosts: Sequence[FleetHost],
    count: int,
    profile: str | None = None,
    with_image: Collection[HostName] = (),
) -> list[FleetHost]:
    """The hosts that are known to have `count` free slots, in the order to ask them.

    Fewest free first, so that large requests find a host later; of those with equally many, those
    that have the image; then as the configuration lists them. An unknown host is never among them.
    """
    fitting = [
        (count_fitting(host, profile), host.name not in with_image, place, host)
        for place, host in enumerate(hosts)
        if host.state is HostState.OK and count_fitting(host, profile) >= count
    ]
    # The place makes it total: two callers with one view ask in the same order.
    fitting.sort(key=lambda entry: entry[:3])
    return [host for *_, host in fitting]


def find_ties(ranked: Sequence[FleetHost], profile: str | None = None) -> list[HostName]:
    """Those at the top of a ranking between which only the image can decide; none if it is one."""
    if not ranked:
        return []
    fewest = count_fitting(ranked[0], profile)
    ties = [host.name for host in ranked if count_fitting(host, profile) == fewest]
    return ties if len(ties) > 1 else []


def describe_no_room(hosts: Sequence[FleetHost], count: int, profile: str | None = None) -> str:
    """Why no host is asked: what each has, and which are unknown."""
    wanted = f"{format_count(count, 'free slot')}{f' of {profile}' if profile else ''}"
    answered = [
        f"{host.name} {count_fitting(host, profile)}"
        for host in hosts
        if host.state is HostState.OK
    ]
    # Both are named: no GPU free is another message than nobody was reached.
    unknown = [f"{host.name} ({host.reason})" for host in hosts if host.state is not HostState.OK]
    parts = [f"no host is known to have {wanted}"]
    parts += [f"free: {', '.join(answered)}"] if answered else []
    parts += [f"unknown: {', '.join(unknown)}"] if unknown else []
    return "; ".join(parts)
