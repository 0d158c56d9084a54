"""Whether the answer of a host counts, and who is where. Pure.

A host is unknown until it proves otherwise: by an answer in this call, with a status that is recent
by that host's own clock and that its ds01d itself does not doubt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ds01d.decide.short_names import split_name
from ds01d.model.fleet import (
    FleetHost,
    FleetView,
    HostAnswer,
    HostFailure,
    HostName,
    HostState,
    LastWord,
    Occurrence,
)
from ds01d.model.primitives import ContainerName, Wall
from ds01d.text import format_span

AHEAD_S: Final = 60.0
"""So far in the future a status may be: a clock that was set while it was written."""
VIEW_SLACK_S: Final = 15.0
"""How much later than twice its time a view may come: all hosts have 5 s, a busy one a few more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusTimes:
    """When the next status is due: after `interval_s`, and `slack_s` later it is overdue."""

    interval_s: float
    slack_s: float


def judge_host(
    name: HostName,
    answer: HostAnswer | HostFailure,
    before: LastWord,
    times: StatusTimes,
    now: Wall,
) -> FleetHost:
    """The host as it is shown. `now`: by the clock of this host."""
    reason = find_doubt(answer, times)
    status, age_s = before.status, None
    # Even of a status that does not count the newest is the best last known status.
    if isinstance(answer, HostAnswer):
        status, age_s = answer.status, max(0.0, answer.clock - answer.status.published_at)
    if not reason:
        return FleetHost(name=name, state=HostState.OK, status=status, age_s=age_s, answered_at=now)
    return FleetHost(
        name=name,
        state=HostState.UNKNOWN,
        status=status,
        age_s=age_s,
        reason=reason,
        # The clock of this host may have been set back since.
        unknown_since=now if before.unknown_since is None else min(before.unknown_since, now),
        answered_at=before.answered_at,
    )


def find_doubt(answer: HostAnswer | HostFailure, times: StatusTimes) -> str:
    """Why what a host answered does not count; "" if it does."""
    if isinstance(answer, HostFailure):
        return answer.reason or "no answer"
    status = answer.status
    age_s = answer.clock - status.published_at
    if age_s < -AHEAD_S:
        return f"the status of ds01d there is {format_span(-age_s)} in the future"
    due = max(status.next_at or 0.0, status.published_at + times.interval_s)
    if answer.clock > due + times.slack_s:
        return f"ds01d there published its last status {format_span(age_s)} ago"
    return status.doubt


def find_view_end(view: FleetView) -> Wall:
    """When a view no longer counts: two looks were due by then, and the hosts' time to answer."""
    return Wall(view.viewed_at + 2 * view.every_s + VIEW_SLACK_S)


def age_view(view: FleetView, names: Sequence[HostName], now: Wall) -> list[FleetHost]:
    """The hosts `names` as they are by the view of another process. `now`: by this host's clock.

    Where that process has stopped all of them are unknown, since when it looked last.
    """
    hosts = {host.name: host for host in view.hosts}
    reason = _find_view_doubt(view, now)
    elapsed_s = max(0.0, now - view.viewed_at)
    return [_age_host(hosts.get(name), name, view, elapsed_s, reason) for name in names]


def list_unknown(names: Sequence[HostName], reason: str) -> list[FleetHost]:
    """Hosts of which nothing is known, and why."""
    return [
        FleetHost(name=name, state=HostState.UNKNOWN, status=None, reason=reason) for name in names
    ]


def _find_view_doubt(view: FleetView, now: Wall) -> str:
    if view.viewed_at - now > AHEAD_S:
        return f"the hosts were asked {format_span(view.viewed_at - now)} in the future"
    if now > find_view_end(view):
        return f"not asked for {format_span(now - view.viewed_at)}"
    return ""


def _age_host(
    host: FleetHost | None, name: HostName, view: FleetView, elapsed_s: float, doubt: str
) -> FleetHost:
    if host is None:
        (host,) = list_unknown([name], doubt or "not asked yet")
        return replace(host, unknown_since=view.viewed_at)
    age_s = None if host.age_s is None else host.age_s + elapsed_s
    if not doubt or host.state is HostState.UNKNOWN:
        return replace(host, age_s=age_s)
    # Its slots become its last known status: nobody knows whether they are still so.
    return replace(
        host, age_s=age_s, state=HostState.UNKNOWN, reason=doubt, unknown_since=view.viewed_at
    )


def update_last_word(host: FleetHost) -> LastWord:
    """What the next call is to know of a host."""
    return LastWord(
        answered_at=host.answered_at,
        unknown_since=host.unknown_since,
        status=host.status,
    )


def find_occurrences(hosts: Sequence[FleetHost], subject: str) -> Iterator[Occurrence]:
    """Where a user, a container (also by its short name) or the device with a UUID is.

    Also in the last known status of hosts that are unknown, since it may be there still.
    """
    for host in hosts:
        yield from _find_on_host(host, subject)


def _find_on_host(host: FleetHost, subject: str) -> Iterator[Occurrence]:
    for slot in host.status.slots if host.status is not None else ():
        is_device = slot.uuid == subject
        for holder in slot.holders:
            short, _ = split_name(holder.container)
            if is_device or subject in {holder.user, holder.container, short}:
                yield Occurrence(host=host, slot=slot, holder=holder)
        users = {str(holder.container): holder.user for holder in slot.foreign_holders}
        for foreign in slot.foreign:
            short, _ = split_name(ContainerName(foreign))
            if is_device or subject in {foreign, short, users.get(foreign)}:
                yield Occurrence(host=host, slot=slot, holder=None, foreign=foreign)
        if is_device and slot.is_free:
            yield Occurrence(host=host, slot=slot, holder=None)
