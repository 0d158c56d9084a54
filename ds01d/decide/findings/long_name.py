"""Containers whose name is too long for a metadata file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ds01d.decide.index import BooksIndex
from ds01d.decide.usage import SHORT
from ds01d.model.books import LONGEST_RECORDED_NAME
from ds01d.model.drift import Finding, FindingKind
from ds01d.model.holding import Holds, Verdict
from ds01d.model.primitives import ContainerName


def long_name(view: BooksIndex, verdicts: Mapping[ContainerName, Verdict]) -> Iterator[Finding]:
    """Docker takes names of any length, a file does not: such a booking stands without a record."""
    for name, container in view.containers.items():
        if container.is_unnamed:
            yield Finding(
                kind=FindingKind.LONG_NAME,
                container=name,
                slot=min(view.find_booked_slots(name), default=None),
                reason="it has no name, or one that is no use: it is called by its ID, until"
                f" docker rename {name[:SHORT]} NAME",
            )
    for name, verdict in verdicts.items():
        held = verdict.slots if isinstance(verdict, Holds) else view.find_booked_slots(name)
        if len(name) > LONGEST_RECORDED_NAME and view.find_container(name) is not None and held:
            yield Finding(
                kind=FindingKind.LONG_NAME,
                container=name,
                slot=min(held),
                reason=f"its name has {len(name)} characters, a metadata file takes"
                f" {LONGEST_RECORDED_NAME}: booked without one, until it is renamed",
            )
