"""One list of containers: when it was made, and what its rows prove about cached containers.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from ds01d.adapters.docker.list_status import proves_unchanged
from ds01d.adapters.docker.parsing import ContainerRow
from ds01d.model.containers import Container, State
from ds01d.model.primitives import Boot, Source, Unknown, Wall

_MAX_CLOCK_DRIFT_S = 1.0
_MARGIN_S = 2.0  # the earlier list and the inspects after it are not one instant


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockReading:
    """One instant on both clocks, to notice when the wall clock was set."""

    wall: Wall
    boot: Boot


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """When a list was asked for, and when it was answered.

    `gapless`: the stream of events has been open without a break since the list before it.
    """

    asked: ClockReading
    answered: ClockReading
    gapless: bool

    def seconds_since(self, earlier: ClockReading | None) -> float:
        """The longest time since an earlier list; `inf` without one, or if a clock was set."""
        if earlier is None:
            return inf
        # Rows have ages by the wall clock, so it must not have been set in between.
        by_wall = self.answered.wall - earlier.wall
        by_boot = self.answered.boot - earlier.boot
        if by_boot < 0 or abs(by_wall - by_boot) >= _MAX_CLOCK_DRIFT_S:
            return inf
        return by_boot + _MARGIN_S

    def confirms(self, row: ContainerRow, cached: Container, away_s: float) -> bool:
        """The container cannot have been restarted in the `away_s` seconds before this list.

        `cached` is as its last inspect gave it, and matches the row.
        """
        # Without a gap a restart would have sent events. One that never ran has no times.
        if self.gapless or cached.state is State.CREATED:
            return True
        return proves_unchanged(
            row.status,
            started=cached.started,
            finished=cached.finished,
            asked=(self.asked.wall, self.answered.wall),
            away_s=away_s,
        )


def matches_row(cached: Container, row: ContainerRow) -> bool:
    return row.name == cached.name and row.state is cached.state and row.labels == cached.labels


def uninspected_container(row: ContainerRow) -> Container:
    """The container as its row alone describes it."""
    return Container(
        id=row.id,
        name=row.name,
        state=row.state,
        labels=row.labels,
        request=Unknown(source=Source.DOCKER, reason="not inspected yet"),
        created=row.created,
    )
