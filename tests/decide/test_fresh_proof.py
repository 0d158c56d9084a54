"""A fresh inspect confirms exactly what was decided: all else is a contradiction."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ds01d.decide.fresh_proof import find_contradiction
from ds01d.model.containers import Container, NotFound, State
from ds01d.model.holding import Free, Holds, Proof, Verdict, VerdictReason
from ds01d.model.primitives import Boot, ContainerName, Source, Unknown, Wall
from tests.support.build import container

GONE = NotFound()
FAILED = Unknown(source=Source.DOCKER, reason="timed out")
HOLDS = Holds(slots=frozenset(), user=None, why=VerdictReason.RUNNING, evidence=())
RUNNING, STOPPED = container(), container(state=State.EXITED, finished=Wall(5.0))


def free(proof: Proof) -> Free:
    return Free(
        proof=proof,
        due=Boot(0.0),
        since=Boot(0.0),
        why=VerdictReason.ABSENT,
        evidence=(),
        renamed_to=ContainerName("new") if proof is Proof.RENAMED else None,
    )


CONFIRMED: list[tuple[Verdict, Container | None, Container | NotFound]] = [
    (free(Proof.ABSENT), None, GONE),
    (free(Proof.DESTROYED), None, GONE),
    (free(Proof.RENAMED), None, container("new")),
    (free(Proof.EXPIRED), STOPPED, STOPPED),
    (HOLDS, RUNNING, RUNNING),
    (HOLDS, RUNNING, replace(RUNNING, state=State.PAUSED)),
]
ANSWERS = (GONE, RUNNING, STOPPED, container("new"), replace(RUNNING, state=State.PAUSED))


@pytest.mark.parametrize(("verdict", "before", "answer"), CONFIRMED)
def test_what_is_as_decided_is_confirmed(
    verdict: Verdict, before: Container | None, answer: Container | NotFound
) -> None:
    assert find_contradiction(verdict, before, answer) is None


@pytest.mark.parametrize(("verdict", "before", "_"), CONFIRMED)
def test_an_engine_without_an_answer_confirms_nothing(
    verdict: Verdict, before: Container | None, _: object
) -> None:
    assert find_contradiction(verdict, before, FAILED) == "cannot be verified: timed out"


@pytest.mark.parametrize("proof", [Proof.ABSENT, Proof.DESTROYED])
@pytest.mark.parametrize("answer", [one for one in ANSWERS if one is not GONE], ids=str)
def test_an_absence_is_contradicted_by_any_container(
    proof: Proof, answer: Container | NotFound
) -> None:
    assert find_contradiction(free(proof), None, answer) is not None


@pytest.mark.parametrize(
    "changed",
    [
        replace(STOPPED, state=State.RUNNING),
        replace(STOPPED, finished=Wall(6.0)),
        replace(STOPPED, started=Wall(4.0)),
        replace(STOPPED, name=ContainerName("other")),
        container(state=State.EXITED, finished=Wall(5.0), id="another"),
        GONE,
    ],
    ids=str,
)
def test_a_stopped_container_that_changed_in_any_way_keeps_its_slots(
    changed: Container | NotFound,
) -> None:
    assert find_contradiction(free(Proof.EXPIRED), STOPPED, changed) is not None
