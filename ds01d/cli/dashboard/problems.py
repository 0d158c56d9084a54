"""Open drifts and findings as the live view shows them: each at the container it is about. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ds01d.cli.ctl.status_document import StatusView
from ds01d.cli.output.blocks import Tone
from ds01d.model.drift import Outcome
from ds01d.model.primitives import Wall
from ds01d.reporting.status import Holder, SlotStatus

FINDING = "finding"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A drift or a finding. `standing`: the outcome of the drift, or "finding".

    `rank`: the smaller, the sooner somebody should look. `until`: until when a drift waits.
    """

    kind: str
    standing: str
    container: str
    slot: str
    reason: str
    rank: int
    tone: Tone
    first_seen: Wall | None = None
    until: Wall | None = None

    @property
    def subject(self) -> str:
        """The container and the slot it is about."""
        return " on ".join(part for part in (self.container, self.slot) if part)


_DRIFTS = {
    Outcome.FAILED: (0, Tone.BAD),
    Outcome.DUE: (1, Tone.WARN),
    Outcome.WAITING: (2, Tone.WARN),
    Outcome.DONE: (4, Tone.GOOD),
}


def list_problems(view: StatusView) -> tuple[Problem, ...]:
    """What is open, failed drifts first; nothing is known of it without a daemon."""
    daemon = view.daemon
    if daemon is None:
        return ()
    problems = [
        Problem(
            kind=drift.kind.value,
            standing=drift.outcome.value,
            container=drift.container or "",
            slot=drift.slot or "",
            reason=drift.shown_reason,
            rank=_DRIFTS[drift.outcome][0],
            tone=_DRIFTS[drift.outcome][1],
            first_seen=drift.first_seen,
            until=drift.until,
        )
        for drift in daemon.open_drifts
    ]
    # Findings wait for a person, whatever time it takes; a failed repair comes before them.
    problems += [
        Problem(
            kind=finding.kind.value,
            standing=FINDING,
            container=finding.container or "",
            slot=finding.slot or "",
            reason=finding.reason,
            rank=3,
            tone=Tone.WARN,
        )
        for finding in daemon.findings
    ]
    return tuple(sorted(problems, key=lambda problem: problem.rank))


class ProblemIndex:
    """Finds the problems of a row without looking at all of them."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self._by_container: dict[str, list[Problem]] = {}
        self._by_slot: dict[str, list[Problem]] = {}
        for problem in problems:
            # One that names both is found by both, and given for its container only.
            if problem.container:
                self._by_container.setdefault(problem.container, []).append(problem)
            if problem.slot:
                self._by_slot.setdefault(problem.slot, []).append(problem)

    def find_at(self, slot: SlotStatus, holder: Holder | None) -> Iterator[Problem]:
        """What names the holder, here or nowhere else, and what is about the slot alone."""
        if holder is not None:
            named = self._by_container.get(holder.container, ())
            yield from (problem for problem in named if problem.slot in ("", slot.id))
        holders = {str(other.container) for other in slot.holders}
        # A container that does not hold the slot has no row of its own there.
        named = self._by_slot.get(slot.id, ())
        yield from (problem for problem in named if problem.container not in holders)
