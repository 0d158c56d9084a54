"""What containers have a right to, by engine and notes: a booking, a record, for how long."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.verification.campaign.faults import Faults
from tests.verification.campaign.foreign import Notes
from tests.verification.campaign.ground import CREATION_S, HOLD_S, Ground
from tests.verification.campaign.plan import HASTY, user_of
from tests.verification.campaign.reality import Look, Reality, Sight

SLACK_S = 0.3
UNSEEN_S = 0.5  # a line in the log may be this old before somebody has to have read it
STEADY_S = 8.0
BLIND_S = 10.0  # for as long, at most, nothing may be seen of Docker in a storm

AWARE_S = 3.0
"""So long a process has to be there before ds01d must have seen it, however slow NVML was."""


@dataclass(frozen=True)
class Rights:
    """Answers for the past, where looks at the engine before and after agree."""

    ground: Ground
    reality: Reality
    notes: Notes
    faults: Faults

    def steady(self, uuid: str, begin: float, end: float) -> bool:
        """Whether a device was there all the time, and long before."""
        return self.reality.steady(uuid, begin - STEADY_S, end)

    def now_called(self, name: str, begin: float, end: float) -> Sight | None:
        """The container that had this name, as it is after."""
        looks = self.reality.before(begin), self.reality.after(end)
        if looks[0] is None or looks[1] is None:
            return None
        was = looks[0].named(name)
        return None if was is None else looks[1].by_id.get(was.id)

    def right(self, name: str, begin: float, end: float, uuid: str | None) -> str | None:
        """Why `name` had a right to a device (to its record, for None) all that time, or None."""
        first, last = self.reality.before(begin), self.reality.after(end)
        if first is None or last is None:
            return None
        if uuid is not None and not self.steady(uuid, begin, end):
            return None  # its holder keeps the slot, whatever device is there now
        was = first.named(name)
        if was is None:
            return self._outlives(name, begin, end, uuid, first, last) or self._being_created(
                name, begin, end, first, last
            )
        is_ = last.by_id.get(was.id)
        if is_ is None:
            return None
        if uuid is not None and is_.devices is not None and uuid not in is_.devices:
            told = self._uses(was.id, begin, end, uuid)  # it has another device
            lives = was.alive and is_.alive
            return told or (self._former_uses(was, begin, end, uuid, first) if lives else None)
        if uuid is not None and is_.by_index and is_.devices is None:
            # The layout changed while it started: what its indices meant, nobody can know.
            return self._uses(was.id, begin, end, uuid)
        if was.alive and (is_.alive or is_.finished is None):
            return f"it was {was.state} before and {is_.state} after"
        # Looks may be seconds apart on a busy machine: it may have stopped, and its hold be over.
        lived_since = is_.alive or (is_.started or 0.0) > end
        held = self.held(name, was if lived_since and not was.alive else is_, end)
        return held or self._uses(was.id, begin, end, uuid)

    def _uses(self, container: str, begin: float, end: float, uuid: str | None) -> str | None:
        """Why a container has a right to a device: a process of it uses that, as NVML shows."""
        if self.faults.lists_were_empty(begin - AWARE_S, end):
            return None  # nobody can tell that from a process that has ended
        for stray in self.ground.strays.living(container, begin - AWARE_S, end):
            if stray.uuid == uuid:
                return f"its process {stray.process.pid} in {stray.folder.name} uses it"
        return None

    def _former_uses(
        self, now: Sight, begin: float, end: float, uuid: str, first: Look
    ) -> str | None:
        """Why a name may not lose a device: one that had it before is gone, and uses it still.

        Only if that had the name for so long that ds01d must know it.
        """
        seen: dict[str, list[float]] = {}
        for look in self.reality.since(first.begun - 6 * CREATION_S):
            if look.begun <= first.begun and (sight := look.named(now.name)) is not None:
                seen.setdefault(sight.id, []).append(look.begun)
        last = self.reality.after(end)
        for container, times in seen.items():
            listed = container in first.by_id or (last is not None and container in last.by_id)
            forgotten = any(times[0] <= at <= end for at in self.faults.memory_lost)
            if listed or forgotten or times[-1] - times[0] < BLIND_S:
                continue
            if (told := self._uses(container, begin, end, uuid)) is not None:
                return told
        return None

    def _outlives(
        self, name: str, begin: float, end: float, uuid: str | None, first: Look, last: Look
    ) -> str | None:
        """Why what had this name may not lose a device: its process lives on without it."""
        newest = self._last_sight(name, first)
        if newest is None:
            return None
        since, sight = newest
        later = (look.by_id.get(sight.id) for look in (*self.reality.since(since), last))
        if any(one is not None and one.name != name for one in later):
            return None  # it had another name then, and its booking follows
        if last.named(name) is not None:
            return None  # another container came just then: see `_former_uses`
        return self._uses(sight.id, begin, end, uuid)

    def held(self, name: str, stopped: Sight, end: float) -> str | None:
        if user_of(name) not in HASTY:
            return f"it is {stopped.state} and held for ever"
        never = stopped.started is None and (stopped.state == "created" or stopped.finished is None)
        since = stopped.created if never else stopped.finished
        hold = max(HOLD_S, CREATION_S) if never else HOLD_S
        if since is None:
            return None
        start = max([since, *self._begun(name, end)])
        over = start + hold
        if end < over - SLACK_S and not self._forgetful(start, end):
            return f"it is {stopped.state} and held for {over - end:.1f} s more"
        return None

    def _being_created(
        self, name: str, begin: float, end: float, first: Look, last: Look
    ) -> str | None:
        if last.named(name) is not None:
            return None  # it came just then
        booked = max(self._begun(name, begin), default=0.0)
        if self.notes.released(name, booked, end):
            return None  # also what was booked last
        newest_sight = self._last_sight(name, first)
        if newest_sight is not None:
            at, sight = newest_sight
            if sight.id in last.by_id:
                return None  # it has another name now, and its booking follows
            if sight.labelled and (sight.created or at) >= booked - 0.1:
                return None
        if any(booked <= at <= end for at in self.notes.claimed.get(name, ())):
            return None  # a container of another name claims it, and has the right to its slots
        if any(booked <= at <= begin for at in self.notes.finished.get(name, ())):
            return None  # its creation came to its end, and what came of it was short-lived
        if any(one.who == "new" for one in self.notes.meeting(begin - 0.05, end, name)):
            return None  # it is being booked just now, which may wait for the lock
        over = booked + CREATION_S
        if end < over - SLACK_S:
            return f"it was being created for {over - end:.1f} s more"
        return None

    def _begun(self, name: str, until: float) -> Iterator[float]:
        """When creations began of which one who acts at this moment can know.

        No lock guards the log: a line that comes right before the act is seen by nobody, nor is one
        whose log went away with it.
        """
        yield from (at for at in self.notes.booked.get(name, ()) if at <= until)
        for at in self.notes.announced.get(name, ()):
            if self.faults.longest_with_logs(at, until) >= UNSEEN_S:
                yield at

    def _last_sight(self, name: str, until: Look) -> tuple[float, Sight] | None:
        for look in reversed(self.reality.since(until.begun - 3 * CREATION_S)):
            if look.begun <= until.begun and (sight := look.named(name)) is not None:
                return look.begun, sight
        return None

    def _forgetful(self, since: float, until: float) -> bool:
        """ds01d lost its memory, and its wall clock misleads it: it cannot know.

        Also if that was before, for Docker may not have answered in between.
        """
        lost = any(since - BLIND_S <= at <= until for at in self.faults.memory_lost)
        return lost and bool(self.ground.shim.clock_s or self.faults.zones)
