"""From when on the limits may end a hold: once their file stays as it is. Pure.

Half a file that somebody writes in place may be valid, and names fewer users than the whole. What
lost users, a quarter of its size, or only its end, has to stay so for as long as other GPUs do: a
file that was cut short looks like that too, and admins take away rarely enough to wait.
"""

from __future__ import annotations

from dataclasses import replace

from ds01d.config import Policy
from ds01d.model.books import Limits
from ds01d.model.checkpoint import LimitsSeen
from ds01d.model.primitives import Boot, Unknown
from ds01d.model.snapshot import Snapshot


def note_limits(seen: Snapshot, known: LimitsSeen | None, policy: Policy) -> LimitsSeen | None:
    """What is remembered of the limits after `seen`; a source that failed changes nothing."""
    if isinstance(seen.limits, Unknown):
        return known
    longest = max(policy.settle_s, policy.freeze_s)
    if known is not None and known.version == seen.limits.version:
        ahead = known.settled > seen.sighted + longest
        return replace(known, settled=Boot(seen.sighted + longest)) if ahead else known
    before = named_before = 0
    if known is not None:
        before, named_before = known.size, known.named
        if seen.now.boot < known.settled:  # itself a part, perhaps: the whole is the larger one
            before, named_before = max(before, known.before), max(named_before, known.named_before)
    clear = is_clear(seen.limits)
    named = len(seen.limits.holds)
    is_cut = named < named_before or seen.limits.size < 0.75 * before or seen.limits.is_part
    return LimitsSeen(
        version=seen.limits.version,
        size=seen.limits.size if clear else 0,
        named=named if clear else 0,
        before=before,
        named_before=named_before,
        settled=Boot(seen.sighted + (longest if is_cut else policy.settle_s)),
    )


def is_clear(limits: Limits) -> bool:
    """Whether every rule was understood; what was not ends no hold, so nothing is lost with it."""
    rules = [*limits.holds.values(), limits.unnamed]
    return not any(rule is not None and rule.problem for rule in rules)
