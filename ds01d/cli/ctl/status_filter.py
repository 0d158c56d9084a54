"""Which slots `ds01ctl status` is asked for: those of one user, or those that are free. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec

from ds01d.cli.ctl.status_document import StatusView
from ds01d.reporting.status import Holder, SlotStatus
from ds01d.text import format_count


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusFilter:
    """`user` "": of everybody. `free`: nobody is booked there, and nothing uses it."""

    user: str = ""
    free: bool = False

    @property
    def is_set(self) -> bool:
        return bool(self.user) or self.free

    def apply(self, view: StatusView) -> StatusView:
        """The view with these slots alone, and with the holders that are meant."""
        return replace(view, slots=tuple(self._choose_slots(view.slots))) if self.is_set else view

    def describe_count(self, shown: int, slots: int) -> str:
        """How many slots are `shown`, of all that there are."""
        if self.free:
            return f"{format_count(shown, 'slot')} of {slots} free"
        if self.user:
            return f"{format_count(shown, 'slot')} of {slots} held or used by {self.user}"
        return f"{format_count(shown, 'slot')} of {slots} booked"

    def _choose_slots(self, slots: Sequence[SlotStatus]) -> Iterator[SlotStatus]:
        for slot in slots:
            if self.free:
                if is_free(slot):
                    yield slot
                continue
            holders = self._choose_holders(slot.holders)
            # A user of a slot without a booking is asked about as well.
            if holders or self._choose_holders(slot.foreign_holders):
                yield msgspec.structs.replace(slot, holders=holders)

    def _choose_holders(self, holders: Sequence[Holder]) -> tuple[Holder, ...]:
        return tuple(holder for holder in holders if holder.user == self.user)


def is_free(slot: SlotStatus) -> bool:
    """Nobody is booked there, and nobody uses its device as far as ds01d knows."""
    return not slot.holders and not slot.foreign
