"""Keeps the accounts of bookings: what the history and the passes say becomes changes to store.

Pure: it holds the bookings that have not ended, and gives `AccountingChange`s. The history has the
exact moment of whatever ds01d changed; a pass shows what others did, or nobody entered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ds01d.decide.device_use import find_weight_by_id
from ds01d.decide.entry_bookings import describe_end, list_changes, read_entry_time
from ds01d.decide.open_booking import HOUR_S, OpenBooking
from ds01d.model.accounting import (
    AccountingChange,
    BookingBegun,
    BookingChanged,
    BookingEnded,
    ClockSet,
    OpenAccount,
    Pair,
    SlotUse,
    SlotWeight,
)
from ds01d.model.history import Entry
from ds01d.model.primitives import Boot, ContainerName, Now, UserName, Wall

_STEP_S = 0.5
NOT_ENTERED: Final = "not-entered"
"""The end of a booking of which the history has nothing: another program, or Docker, ended it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedBooking:
    """A booking as a pass saw it.

    `begins`: moments at which it may have begun, the likeliest first.
    """

    user: UserName | None
    weight: SlotWeight
    begins: Sequence[Wall | None]


class Accounts:
    """The open accounts of one store. `find_record_user`: the user in the text of a record."""

    def __init__(
        self, opened: OpenAccount, find_record_user: Callable[[str], UserName | None]
    ) -> None:
        self._find_record_user = find_record_user
        self._offsets = dict(opened.offsets)
        last = opened.progress.observed
        self._clock_seen: dict[str, Boot] = {} if last is None else {last.boot_id: last.boot}
        self.next_id = opened.next_id
        self._open = {
            (begun.container, begun.slot): OpenBooking(
                id=begun.id, container=begun.container, user=begun.user, begun=begun.at
            )
            for begun in opened.bookings
        }
        self._changes: list[AccountingChange] = []
        self._ended_at: dict[Pair, Now] = {}

    @property
    def has_changes(self) -> bool:
        """Something began, ended or changed; divided time alone may wait."""
        return bool(self._changes)

    def take_changes(self) -> Sequence[AccountingChange]:
        """What is to be stored since the last call, in this order."""
        for booking in self._open.values():
            self._changes += booking.take_times()
        changes, self._changes = self._changes, []
        return changes

    # --- the history

    def apply_change(self, entries: Sequence[Entry], reach: Now | None) -> None:
        """Take over entries that were made as one change.

        `reach`: the first moment of the history, where it is read from its beginning: what ends
        without a begin was there before.
        """
        taken: dict[Pair, OpenBooking] = {}
        changes = list_changes(entries)
        for entry, removed, _ in changes:
            at = self._place_entry(entry)
            for pair in sorted(removed):
                if pair not in self._open and reach is not None:
                    self._begin(pair, reach, *self._describe_booking(entry, pair))
                if (booking := self._open.pop(pair, None)) is not None:
                    booking.divide(at)
                    self._ended_at[pair] = at
                    taken[pair] = booking
        # All of them before: two containers may have exchanged their names.
        for entry, removed, given in changes:
            at = self._place_entry(entry)
            for pair in sorted(given - self._open.keys()):  # a pass may have seen it before
                heirs = [p for p in sorted(removed) if p[1] == pair[1] and p in taken]
                self._give(pair, entry, at, taken.pop(heirs[0]) if heirs else None)
            for pair in sorted(removed):
                if (booking := taken.pop(pair, None)) is not None:
                    self._end(booking, at, describe_end(entry))
            self._correct_users(entry)

    def _give(self, pair: Pair, entry: Entry, at: Now, former: OpenBooking | None) -> None:
        """`former`: the booking of a container that had another name, which goes on."""
        if former is None:
            self._begin(pair, at, *self._describe_booking(entry, pair))
            return
        former.container = pair[0]
        self._open[pair] = former
        self._changes.append(BookingChanged(id=former.id, container=pair[0], user=former.user))

    def _correct_users(self, entry: Entry) -> None:
        """A record that was written again may name another owner than was believed."""
        texts = {} if entry.after is None else entry.after.metadata
        for name, text in texts.items():
            user = None if text is None else self._find_record_user(text)
            if user is not None:
                self._set_user(ContainerName(name), user)

    def _set_user(self, name: ContainerName, user: UserName) -> None:
        for (container, _), booking in self._open.items():
            if container == name and booking.user != user:
                booking.user = user
                self._changes.append(BookingChanged(id=booking.id, container=name, user=user))

    def _describe_booking(self, entry: Entry, pair: Pair) -> tuple[UserName | None, SlotWeight]:
        """The user of a booking, and how much of a GPU it is, as far as an entry shows it."""
        name, slot = pair
        user = None
        for side in reversed(entry.sides):
            if user is None and (text := side.metadata.get(name)) is not None:
                user = self._find_record_user(text)
        records = [side.slots.get(slot) for side in entry.sides]
        profile = next((r.profile for r in records if r is not None and r.profile), None)
        return user, find_weight_by_id(slot, profile)

    def _place_entry(self, entry: Entry) -> Now:
        """The moment of an entry, by the clock as it is set now."""
        at = read_entry_time(entry)
        if not entry.boot_id:  # an old entry has only its wall clock
            return at
        self.see_clock(at)
        return self.correct(at)

    # --- the passes

    def observe(
        self,
        uses: Mapping[Pair, SlotUse | None],
        describe_booking: Callable[[Pair], ObservedBooking],
        covers: Callable[[ContainerName], bool],
        now: Now,
        seen_before: Now | None,
        *,
        is_continuous: bool,
    ) -> None:
        """Compare with the bookings that a pass saw, of the containers that it covers.

        `uses`: these bookings, and what their holders do.
        `seen_before`: when the books were seen last; `is_continuous`: this process has watched them
        since then.
        """
        for pair in uses:
            if pair not in self._open and not self._is_newer(pair, now):
                observed = describe_booking(pair)
                begun = self._choose_begin(observed, now, seen_before)
                self._begin(pair, begun, observed.user, observed.weight)
        ended_at = now if is_continuous or seen_before is None else self.correct(seen_before)
        for pair, booking in [*self._open.items()]:
            if not covers(pair[0]):
                continue
            if pair in uses:
                use = uses[pair]
                if booking.user is None and (user := describe_booking(pair).user) is not None:
                    self._set_user(pair[0], user)
                booking.read_use(use, now)
            elif not _is_after(booking.begun, now):
                del self._open[pair]
                booking.divide(ended_at)
                self._end(booking, ended_at, NOT_ENTERED)
        self._ended_at.clear()

    def lose_sight(self, now: Now) -> None:
        """The books are not known: what is done from here on is not, either."""
        for booking in self._open.values():
            booking.divide(now)
            booking.use = None

    def see_clock(self, now: Now) -> None:
        """Follow the wall clock: where it was set, the times of this boot move along."""
        offset = now.wall - now.boot
        before = self._offsets.get(now.boot_id)
        # What was entered before the clock was set last is read after it.
        is_old = now.boot < self._clock_seen.get(now.boot_id, Boot(0.0))
        if before is not None and (is_old or abs(offset - before) < _STEP_S):
            return
        self._clock_seen[now.boot_id] = now.boot
        self._offsets[now.boot_id] = offset
        step_s = 0.0 if before is None else offset - before
        self._changes.append(ClockSet(boot_id=now.boot_id, offset=offset, step_s=step_s))

    def _is_newer(self, pair: Pair, now: Now) -> bool:
        """The booking was ended after the pass had read the books."""
        ended = self._ended_at.get(pair)
        return ended is not None and _is_after(ended, now)

    def _choose_begin(self, observed: ObservedBooking, now: Now, seen_before: Now | None) -> Now:
        """When a booking that nobody entered began: between the last look and this one."""
        # What a record or a label claims counts only where no pass has shown otherwise: somebody
        # could make their hours longer or shorter.
        first = -HOUR_S if seen_before is None else self.correct(seen_before).wall
        for wall in observed.begins:
            if wall is not None and first < wall < now.wall:
                boot = now.boot - (now.wall - wall)
                # Before this boot there is no CLOCK_BOOTTIME to hold on to.
                return Now(wall=wall, boot=Boot(boot), boot_id=now.boot_id if boot > 0 else "")
        return now

    def correct(self, at: Now) -> Now:
        """A moment by the clock as it is set now."""
        offset = self._offsets.get(at.boot_id)
        wall = at.wall if offset is None else Wall(offset + at.boot)
        return Now(wall=wall, boot=at.boot, boot_id=at.boot_id)

    # --- single bookings

    def _begin(self, pair: Pair, at: Now, user: UserName | None, weight: SlotWeight) -> None:
        name, slot = pair
        booking = OpenBooking(id=self.next_id, container=name, user=user, begun=at, is_new=True)
        self.next_id += 1
        self._open[pair] = booking
        self._changes.append(
            BookingBegun(id=booking.id, container=name, user=user, slot=slot, weight=weight, at=at)
        )

    def _end(self, booking: OpenBooking, at: Now, reason: str) -> None:
        self._changes += booking.take_times()
        self._changes.append(BookingEnded(id=booking.id, at=at, reason=reason))


def _is_after(moment: Now, other: Now) -> bool:
    return moment.boot_id == other.boot_id and moment.boot > other.boot
