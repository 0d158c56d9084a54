"""Requests for a notice: bounded, each once, and answered only by slots that are free."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.decide.notice_requests import (
    LASTS_S,
    MOST,
    MOST_OF_USER,
    add_request,
    drop_ended,
    find_answered,
)
from ds01d.model.allocation import Allocated, Refusal, Rejected
from ds01d.model.notice import NoticeRequest
from ds01d.model.primitives import ContainerName, SlotId, UserName, Wall

NOW = Wall(1_000_000.0)
USERS = st.sampled_from([f"user{number}" for number in range(MOST)])
WISHES = st.builds(
    NoticeRequest,
    user=USERS.map(UserName),
    slot=st.none() | st.sampled_from(["0", "1.0"]).map(SlotId),
    count=st.integers(1, 4),
    profile=st.none() | st.just("1g.10gb"),
    since=st.just(NOW),
    until=st.just(Wall(NOW + LASTS_S)),
)


def wish(user: str = "alice", **fields: object) -> NoticeRequest:
    made = NoticeRequest(user=UserName(user), since=NOW, until=Wall(NOW + LASTS_S))
    return replace(made, **fields)  # type: ignore[arg-type]


def granted(*slots: str, shared: tuple[str, ...] = ()) -> Allocated:
    first, *more = (
        Allocated(
            container=ContainerName("x"),
            user=UserName("alice"),
            slot=SlotId(slot),
            docker_id=slot,
            shared_with=tuple(map(ContainerName, shared)),
        )
        for slot in slots
    )
    return replace(first, more=tuple(more))


REFUSED = Rejected(
    container=ContainerName("x"), user=UserName("alice"), refusal=Refusal.NO_GPU_AVAILABLE
)


@given(st.lists(WISHES, max_size=3 * MOST))
def test_whatever_is_asked_for_stays_bounded_and_single(wishes: list[NoticeRequest]) -> None:
    requests: tuple[NoticeRequest, ...] = ()
    for one in wishes:
        added = add_request(requests, one)
        if isinstance(added, str):
            # Who is refused loses nothing of what is there already.
            assert one.wish not in {request.wish for request in requests}
            continue
        assert added[-1] == one
        requests = added
    assert len(requests) <= MOST
    assert max(Counter(r.user for r in requests).values(), default=0) <= MOST_OF_USER
    assert len({request.wish for request in requests}) == len(requests)


def test_the_sixth_request_of_a_user_and_one_too_many_of_all_are_refused() -> None:
    own = tuple(wish(count=number) for number in range(1, MOST_OF_USER + 1))
    assert add_request(own, wish(count=99)) == "alice has 5 requests for a notice already"
    again = add_request(own, wish(count=1, until=Wall(NOW + LASTS_S + 5)))
    assert isinstance(again, tuple)
    assert [request.count for request in again] == [2, 3, 4, 5, 1]
    full = tuple(wish(f"user{number}") for number in range(MOST))
    assert add_request(full, wish()) == "100 requests for a notice are waiting already"


def test_a_request_ends_by_itself_also_where_the_clock_was_set_back_by_years() -> None:
    lasting = wish()
    assert drop_ended([lasting], Wall(NOW - 60.0)) == (lasting,)
    assert drop_ended([lasting], Wall(NOW + LASTS_S - 1.0)) == (lasting,)
    assert drop_ended([lasting], Wall(NOW + LASTS_S)) == ()
    assert drop_ended([lasting], Wall(0.0)) == ()


def test_of_each_user_one_request_is_answered_at_a_time() -> None:
    requests = [wish(), wish(profile="1g.10gb"), wish("bob"), wish("carol")]
    answers: list[Allocated | Rejected] = [granted("1.0"), granted("1.0"), REFUSED, granted("1.0")]
    answered = [*find_answered(requests, answers)]
    assert [request for request, _ in answered] == [requests[0], requests[3]]
    assert [(str(notice.user), {*map(str, notice.slots)}) for _, notice in answered] == [
        ("alice", {"1.0"}),
        ("carol", {"1.0"}),
    ]


@pytest.mark.parametrize("answer", [REFUSED, granted("1.0", shared=("other",))])
def test_a_slot_that_others_hold_is_not_free(answer: Allocated | Rejected) -> None:
    assert [*find_answered([wish()], [answer])] == []


def test_the_notice_has_the_command_that_books_it() -> None:
    asked = wish("a b; rm", count=2, profile="$(x)")
    ((_, notice),) = find_answered([asked], [granted("1.0", "1.1")])
    assert notice.slots == {"1.0", "1.1"}
    assert shlex.split(notice.reason) == [
        *("ds01ctl", "allocate", "a b; rm", "--count", "2", "--profile", "$(x)")
    ]
    ((_, notice),) = find_answered([wish(slot=SlotId("1.0"))], [granted("1.0")])
    assert notice.reason == "ds01ctl allocate alice --slot 1.0"
