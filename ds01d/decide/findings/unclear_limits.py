"""Limits that cannot be understood or had to be assumed."""

from __future__ import annotations

from collections.abc import Iterator

from ds01d.decide.index import BooksIndex
from ds01d.model.drift import Finding, FindingKind
from ds01d.model.holding import Free, Proof, Verdict, Verdicts
from ds01d.model.limits import Limits
from ds01d.model.primitives import ContainerName, Unknown, UserName


def unclear_limits(index: BooksIndex, verdicts: Verdicts) -> Iterator[Finding]:
    """What is unclear never ends a hold; each key, and who is held by it."""
    limits = index.limits
    if isinstance(limits, Unknown):
        return
    if limits.problem:
        # Decision 220: one finding for the file, not one for each container.
        reason = f"{limits.problem}; the last good limits count, and no hold ends"
        yield Finding(kind=FindingKind.UNCLEAR_LIMITS, container=None, slot=None, reason=reason)
        return
    for why in (*limits.unclear, *limits.passed_over):
        yield Finding(kind=FindingKind.UNCLEAR_LIMITS, container=None, slot=None, reason=why)
    for name, verdict in verdicts.items():
        if index.find_booked_slots(name) and (
            why := _explain_unclear(name, verdict, limits, index)
        ):
            yield Finding(
                kind=FindingKind.UNCLEAR_LIMITS,
                container=name,
                slot=min(index.find_booked_slots(name)),
                reason=why,
            )


def _explain_unclear(
    name: ContainerName, verdict: Verdict, limits: Limits, index: BooksIndex
) -> str:
    """Why the limits do not say how long a container is held; "" where they do.

    A key that is not read is reported once, for the key. The owner of a container only
    matters once it is stopped: before, its metadata may be under way.
    """
    user = index.find_user(name)
    # Decision 107: the retention is over by limits that may still be half written.
    if isinstance(verdict, Free) and verdict.proof is Proof.EXPIRED:
        left = index.limits_settled - index.snapshot.now.boot
        if left > 0:
            return (
                f"{_describe_hold(user)}: over, but the limits changed a moment ago:"
                f" kept for {left:.0f} s more"
            )
    container = index.containers.get(name)
    problem = limits.find_hold(user, None if container is None else container.type).problem
    # Decision 109: a key that is passed over is one finding for the key, not one for each
    # container.
    if not problem or problem.startswith(limits.passed_over):
        return ""
    stopped = container is not None and not container.state.alive
    return f"{_describe_hold(user)}: {problem}" if user is not None or stopped else ""


def _describe_hold(user: UserName | None) -> str:
    return f"hold of {user or 'an unknown user'}"
