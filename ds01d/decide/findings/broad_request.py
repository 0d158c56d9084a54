"""Requests for more than named devices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ds01d.decide.view import View
from ds01d.model.containers import Ask
from ds01d.model.drift import Finding, FindingKind
from ds01d.model.facts import ContainerName, Unknown
from ds01d.model.holding import Verdict


def broad_request(view: View, verdicts: Mapping[ContainerName, Verdict]) -> Iterator[Finding]:
    """A DS01 container that asked for all GPUs or a number of them: no booking can match that."""
    for name in verdicts:
        container = view.container(name)
        if container is None or not container.state.alive or isinstance(container.request, Unknown):
            continue
        if container.request.ask in (Ask.ALL, Ask.COUNT):
            asked = (
                "all GPUs"
                if container.request.ask is Ask.ALL
                else f"{container.request.count} GPUs"
            )
            booked = ", ".join(sorted(view.booked(name))) or "nothing"
            yield Finding(
                kind=FindingKind.BROAD_REQUEST,
                container=name,
                slot=min(view.booked(name), default=None),
                reason=f"asks for {asked}, booked is {booked}",
            )
