"""Containers whose removal does not end."""

from __future__ import annotations

from collections.abc import Iterator

from ds01d.decide.index import BooksIndex
from ds01d.model.drift import Finding, FindingKind
from ds01d.model.holding import Verdicts


def stuck_removal(index: BooksIndex, verdicts: Verdicts) -> Iterator[Finding]:
    """Docker started to remove it and did not come to an end: it can never be started again.

    Its booking is that of a stopped container, and ends with its hold.
    """
    for name in verdicts:
        container = index.containers.get(name)
        since = index.checkpoint.removing.get(container.id) if container is not None else None
        if container is None or since is None:
            continue
        # A removal of a large container takes minutes; only one that outlasts the grace is stuck.
        if index.snapshot.now.boot - since >= index.policy.absence_grace_s:
            yield Finding(
                kind=FindingKind.STUCK_REMOVAL,
                container=name,
                slot=min(index.find_booked_slots(name), default=None),
                reason=f"it is {container.state} and stays so, and can never be started again:"
                f" docker rm -f {name}",
            )
