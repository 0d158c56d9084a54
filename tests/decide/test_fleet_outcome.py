"""Another host is asked only where it is certain that nothing was created."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.decide.fleet_outcome import NextStep, judge_result
from ds01d.model.allocation import Refusal
from ds01d.model.fleet import RemoteEnd, RemoteResult

values = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.sampled_from(list(Refusal))
)
documents = st.none() | st.dictionaries(
    st.sampled_from(["created", "allocated", "refusal", "reason", "x"]), values
)


@given(end=st.sampled_from(RemoteEnd), status=st.integers(0, 255), document=documents)
def test_the_next_host_is_asked_only_if_nothing_can_exist_on_this_one(
    end: RemoteEnd, status: int, document: dict[str, object] | None
) -> None:
    result = RemoteResult(end=end, status=status, document=document, reason="r")
    outcome = judge_result(result, "created")
    if outcome.step is NextStep.NEXT_HOST and end is not RemoteEnd.NOT_STARTED:
        assert end is RemoteEnd.FINISHED
        assert document is not None
        assert document["created"] is False
        assert document["refusal"] == "NO_GPU_AVAILABLE"
    if end is RemoteEnd.UNCERTAIN:
        assert outcome.step is NextStep.UNCERTAIN
    if outcome.step is NextStep.DONE:
        assert document is not None
        assert document["created"] is True
    else:
        assert outcome.reason


@pytest.mark.parametrize(
    ("document", "step"),
    [
        ({"created": True}, NextStep.DONE),
        ({"created": False, "refusal": "NO_GPU_AVAILABLE"}, NextStep.NEXT_HOST),
        ({"created": False, "refusal": "USER_AT_LIMIT"}, NextStep.REFUSED),
        ({"created": False, "refusal": None, "reason": "no image"}, NextStep.REFUSED),
        ({"created": 1}, NextStep.UNCERTAIN),
        ({}, NextStep.UNCERTAIN),
        (None, NextStep.REFUSED),
    ],
)
def test_what_an_answer_means(document: dict[str, object] | None, step: NextStep) -> None:
    result = RemoteResult(end=RemoteEnd.FINISHED, status=1, document=document)
    assert judge_result(result, "created").step is step
