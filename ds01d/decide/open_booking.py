"""A booking that has not ended, and its time divided among what its holder did. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from ds01d.config import READING_S
from ds01d.model.accounting import SlotUse, TimeDivided
from ds01d.model.primitives import Boot, ContainerName, Now, UserName

HOUR_S: Final = 3600.0


@dataclass(slots=True)
class OpenBooking:
    """A booking that has not ended. `is_new`: no pass has seen it yet.

    `divided_to`: up to here its time is in `seconds`, stored, or not known.
    """

    id: int
    container: ContainerName
    user: UserName | None
    begun: Now
    is_new: bool = False
    use: SlotUse | None = None
    divided_to: Boot | None = None
    seconds: dict[int, dict[SlotUse, float]] = field(default_factory=dict)

    def read_use(self, use: SlotUse | None, now: Now) -> None:
        """A pass read what its holder does now."""
        if self.is_new:  # since it began, nothing else was read
            self.is_new, self.use = False, use
            self.divided_to = _same_boot(self.begun, now)
        self.divide(now)
        self.use = use

    def divide(self, now: Now) -> None:
        """Give the time since the last reading to what was read then."""
        begin, self.divided_to = self.divided_to, now.boot
        if self.use is None or begin is None or not 0.0 < now.boot - begin <= READING_S:
            return
        wall = now.wall - (now.boot - begin)
        # A reading holds for minutes, so it reaches into two hours at most.
        boundary = (now.wall // HOUR_S) * HOUR_S
        for start, end in ((wall, min(boundary, now.wall)), (max(boundary, wall), now.wall)):
            if end > start:
                hour = self.seconds.setdefault(int(start // HOUR_S), {})
                hour[self.use] = hour.get(self.use, 0.0) + end - start

    def take_times(self) -> Sequence[TimeDivided]:
        """The time that was divided since the last call."""
        times = [
            TimeDivided(id=self.id, hour=hour, seconds=seconds)
            for hour, seconds in self.seconds.items()
        ]
        self.seconds = {}
        return times


def _same_boot(begun: Now, now: Now) -> Boot | None:
    """When it began, if that was in this boot."""
    return begun.boot if begun.boot_id == now.boot_id else None
