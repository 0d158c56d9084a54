"""Limits that cannot be understood or had to be assumed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ds01d.decide.view import View
from ds01d.model.drift import Finding, FindingKind
from ds01d.model.facts import ContainerName, Unknown
from ds01d.model.holding import Verdict


def unclear_limits(view: View, verdicts: Mapping[ContainerName, Verdict]) -> Iterator[Finding]:
    """What is unclear never ends a hold; who is held by it is told."""
    limits = view.limits
    if isinstance(limits, Unknown):
        return
    if not any(rule.problem for rule in (limits.unknown_user, *limits.holds.values())):
        return
    for name in verdicts:
        if not view.booked(name):
            continue
        user = view.user(name)
        rule = limits.hold(user)
        if rule.problem:
            yield Finding(
                kind=FindingKind.UNCLEAR_LIMITS,
                container=name,
                slot=min(view.booked(name)),
                reason=f"hold of {user or 'an unknown user'}: {rule.problem}",
            )
