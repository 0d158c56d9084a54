"""What follows from how a command ended on another host: done, the next host, or stop. Pure.

Going on is only right where it is certain that nothing was created or booked. Everything else
stops, since a second container or booking elsewhere would take a GPU from somebody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ds01d.model.allocation import Refusal
from ds01d.model.fleet import RemoteEnd, RemoteResult
from ds01d.model.primitives import Word

_NO_ROOM: Final = frozenset({Refusal.NO_GPU_AVAILABLE.value})


class NextStep(Word):
    """What to do after a host was asked."""

    DONE = "done"
    NEXT_HOST = "next-host"
    REFUSED = "refused"
    UNCERTAIN = "uncertain"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteOutcome:
    """`reason`: why it is not done, as the other host has it; "" if it is.

    `refusal`: the word of its allocator, where that refused.
    """

    step: NextStep
    reason: str = ""
    refusal: str | None = None


def judge_result(result: RemoteResult, done_key: str) -> RemoteOutcome:
    """What follows from a result. `done_key`: what is true in its document if it was done."""
    if result.end is RemoteEnd.NOT_STARTED:
        return RemoteOutcome(step=NextStep.NEXT_HOST, reason=f"cannot be asked: {result.reason}")
    if result.end is RemoteEnd.UNCERTAIN:
        return RemoteOutcome(step=NextStep.UNCERTAIN, reason=result.reason)
    document = result.document
    if document is None:
        reason = result.reason or f"exit status {result.status}"
        return RemoteOutcome(step=NextStep.REFUSED, reason=reason)
    # `is True` below: a document of another form may have anything there.
    done = document.get(done_key)
    if done is True:
        return RemoteOutcome(step=NextStep.DONE)
    given = document.get("reason")
    reason = (given if isinstance(given, str) else "") or result.reason or "no reason given"
    # Only an answer that says so in both places: anything else is not understood.
    if done is not False:
        return RemoteOutcome(step=NextStep.UNCERTAIN, reason="its answer is not understood")
    word = document.get("refusal")
    refusal = word if isinstance(word, str) else None
    step = NextStep.NEXT_HOST if refusal in _NO_ROOM else NextStep.REFUSED
    return RemoteOutcome(step=step, reason=reason, refusal=refusal)
