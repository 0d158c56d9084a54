"""From when on the limits may end a hold: once their file stays as it is. Pure.

Half a file that somebody writes in place may be valid, and names fewer users than the whole. What
lost users, a quarter of its size, or only its end, has to stay so for as long as other GPUs do: a
file that was cut short looks like that too, and admins take away rarely enough to wait.
"""

from __future__ import annotations

from dataclasses import replace

from ds01d.config import Policy
from ds01d.model.checkpoint import LimitsSeen
from ds01d.model.limits import Limits
from ds01d.model.primitives import Boot, Unknown
from ds01d.model.snapshot import Snapshot


def note_limits(
    snapshot: Snapshot, previous: LimitsSeen | None, policy: Policy
) -> LimitsSeen | None:
    """What is remembered of the limits after `snapshot`; a source that failed changes nothing."""
    # The last good ones of files that cannot be read now are no new version of these.
    if isinstance(snapshot.limits, Unknown) or snapshot.limits.problem:
        return previous
    longest_wait = max(policy.settle_s, policy.freeze_s)
    if previous is not None and previous.version == snapshot.limits.version:
        is_ahead = previous.settled > snapshot.observed_at + longest_wait
        return (
            replace(previous, settled=Boot(snapshot.observed_at + longest_wait))
            if is_ahead
            else previous
        )
    before = named_before = 0
    if previous is not None:
        before, named_before = previous.size, previous.named
        # Not settled yet, so itself a part, perhaps: the whole is the larger one.
        if snapshot.now.boot < previous.settled:
            before, named_before = (
                max(before, previous.before),
                max(named_before, previous.named_before),
            )
    is_clear_now = is_clear(snapshot.limits)
    named = len(snapshot.limits.holds)
    # Decision 107: fewer users, a quarter less text or a missing end look like a file cut short,
    # which must stay so for the longer freeze.
    is_cut = named < named_before or snapshot.limits.size < 0.75 * before or snapshot.limits.is_part
    return LimitsSeen(
        version=snapshot.limits.version,
        size=snapshot.limits.size if is_clear_now else 0,
        named=named if is_clear_now else 0,
        before=before,
        named_before=named_before,
        settled=Boot(snapshot.observed_at + (longest_wait if is_cut else policy.settle_s)),
    )


def is_clear(limits: Limits) -> bool:
    """Whether every rule was understood; what was not ends no hold, so nothing is lost with it."""
    rules = [*limits.holds.values(), limits.unnamed]
    return not any(rule is not None and rule.problem for rule in rules)
