"""Wall-clock times on CLOCK_BOOTTIME, each anchored once. Pure."""

from __future__ import annotations

from ds01d.model.checkpoint import AnchoredTime, Checkpoint
from ds01d.model.primitives import Boot, ContainerName, Wall
from ds01d.model.snapshot import Snapshot


def start_keys(name: ContainerName) -> tuple[str, ...]:
    """All keys under which a `Deadlines` puts times that concern `name`."""
    return f"allocated|{name}", f"pending|{name}", f"stopped|{name}"


def to_boot_time(at: Wall, snapshot: Snapshot, not_before: Boot | None = None) -> Boot:
    """Where `at` lies on CLOCK_BOOTTIME, by the snapshot's two clocks; never after it was seen.

    Nor before `not_before`, when it had provably not happened yet: there the wall clock was set
    meanwhile, and all that is left is that it has happened by now.
    """
    at_boot = Boot(snapshot.now.boot - (snapshot.now.wall - at))
    # The wall clock was set in between: all that is certain is that it happened between
    # `not_before` and now. The later of the two is the safe choice.
    if not_before is not None and at_boot < not_before:
        return not_before if at_boot > not_before - _SLACK_S else snapshot.observed_at
    return min(at_boot, snapshot.observed_at)


class Deadlines:
    """Puts wall-clock times on CLOCK_BOOTTIME, once each, and remembers where they lie.

    A later step of the wall clock or a change of time zone therefore moves nothing. Collects what
    it used: that, and nothing else, belongs into the next checkpoint.
    """

    def __init__(self, snapshot: Snapshot, checkpoint: Checkpoint) -> None:
        self._snapshot, self._remembered = snapshot, checkpoint.starts
        self.used: dict[str, AnchoredTime] = {}

    def anchor_time(
        self, key: str, anchor: str, at: Wall, *, not_before: Boot | None = None, before: str = ""
    ) -> Boot:
        """Where `at` lies on CLOCK_BOOTTIME, as first understood for `anchor`. See `start_keys`.

        `before`: the key it had under the container's previous name.
        """
        # The first anchor wins. Computing it again in each pass would move every deadline with the
        # wall clock (invariant 4).
        remembered = self._remembered
        for start in (self.used.get(key), remembered.get(key), remembered.get(before)):
            if start is not None and start.anchor == anchor:
                break
        else:
            start = AnchoredTime(anchor=anchor, at=to_boot_time(at, self._snapshot, not_before))
        self.used[key] = start
        return start.at


_SLACK_S = 1.0  # both clocks are read before anybody is asked
