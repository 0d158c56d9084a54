"""Containers whose removal does not end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ds01d.decide.index import BooksIndex
from ds01d.model.drift import Finding, FindingKind
from ds01d.model.holding import Verdict
from ds01d.model.primitives import ContainerName


def stuck_removal(view: BooksIndex, verdicts: Mapping[ContainerName, Verdict]) -> Iterator[Finding]:
    """Docker started to remove it and did not come to an end: it can never be started again.

    Its booking is that of a stopped container, and ends with its hold.
    """
    for name in verdicts:
        container = view.find_container(name)
        since = view.checkpoint.removing.get(container.id) if container is not None else None
        if container is None or since is None:
            continue
        if view.snapshot.now.boot - since >= view.policy.absence_grace_s:
            yield Finding(
                kind=FindingKind.STUCK_REMOVAL,
                container=name,
                slot=min(view.find_booked_slots(name), default=None),
                reason=f"it is {container.state} and stays so, and can never be started again:"
                f" docker rm -f {name}",
            )
