"""Whether a fresh inspect contradicts a verdict, right before the write. Pure."""

from __future__ import annotations

from ds01d.model.containers import Container, NotFound
from ds01d.model.holding import Free, Proof, Verdict
from ds01d.model.primitives import Unknown


def find_contradiction(
    verdict: Verdict, observed: Container | None, answer: Container | NotFound | Unknown
) -> str | None:
    """Why a verdict that takes something does not hold against a fresh inspect; None if it does."""
    match verdict, answer:
        case _, Unknown():
            return f"cannot be verified: {answer.reason}"
        # Invariant 3: 404 for the ID and the name is the only proof of absence.
        case Free(proof=Proof.DESTROYED | Proof.ABSENT | Proof.PROCESS_ENDED), NotFound():
            return None
        case Free(proof=Proof.DESTROYED | Proof.ABSENT | Proof.PROCESS_ENDED), Container():
            return f"the container exists: {answer.id[:12]} as {answer.name}, {answer.state}"
        case Free(proof=Proof.RENAMED), Container() if answer.name == verdict.renamed_to:
            return None
        case Free(proof=Proof.RENAMED), _:
            return f"it is not called {verdict.renamed_to} any more"
        case _, NotFound():
            return "the container is gone meanwhile"
        case _, Container() if observed is None or _has_changed(observed, answer):
            return "it changed meanwhile"
        case _:
            return None


def _has_changed(observed: Container, now: Container) -> bool:
    """Whether what a verdict rests on has changed. Living states may change into each other."""
    # A container that is paused or restarted holds the same slots: only its end or begin counts.
    state = observed.state is now.state or (observed.state.alive and now.state.alive)
    return not state or (
        observed.id,
        observed.name,
        observed.request,
        observed.started,
        observed.finished,
    ) != (now.id, now.name, now.request, now.started, now.finished)
