"""Who may do what: the table of rules, and that no caller gets past it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.model.accounting import ReportQuery, ReportSubject
from ds01d.model.books import Record
from ds01d.model.containers import NO_REQUEST, GpuRequestKind, NotFound, Request, State
from ds01d.model.limits import HoldRule, Limits
from ds01d.model.primitives import ContainerName, SlotId, Source, Unknown, UserName, Wall
from ds01d.service import rules
from ds01d.service.report_calls import restrict_query
from ds01d.service.rules import Peer
from ds01d.service.varlink import VarlinkError
from tests.support.build import container

ALICE = Peer(uid=1001, login="alice", pid=7, is_operator=False)
OPERATOR = replace(ALICE, login="olga", uid=1009, is_operator=True)


def record(name: str, user: str | None) -> Record:
    return Record(
        container=ContainerName(name), user=None if user is None else UserName(user), gpu_id=None
    )


def error_of(refused: pytest.ExceptionInfo[VarlinkError]) -> tuple[str, dict[str, object]]:
    return refused.value.error.rpartition(".")[2], refused.value.parameters


def test_a_user_is_oneself() -> None:
    assert rules.choose_user(ALICE, None) == "alice"
    assert rules.choose_user(ALICE, "alice") == "alice"
    assert rules.choose_user(OPERATOR, "bob") == "bob"
    with pytest.raises(VarlinkError) as refused:
        rules.choose_user(ALICE, "bob")
    assert error_of(refused) == ("NotPermitted", {"needs": "root or group ds01-operators"})


def test_what_the_page_shows_is_for_operators_and_its_own_user() -> None:
    page = replace(ALICE, login="ds01d-web", uid=999)
    for reader in (page, OPERATOR):
        rules.require_page_reader(reader)
    with pytest.raises(VarlinkError) as refused:
        rules.require_page_reader(ALICE)
    assert error_of(refused)[0] == "NotPermitted"
    days = ReportQuery(since=Wall(0.0), until=Wall(1.0), by=ReportSubject.DAY)
    assert restrict_query(days, page) == days
    assert restrict_query(days, ALICE).user == "alice"
    # Whatever names somebody is not for the page.
    assert restrict_query(replace(days, by=ReportSubject.USER), page).user == "ds01d-web"
    assert restrict_query(replace(days, slot=SlotId("0")), page).user == "ds01d-web"
    for other in ({"user": UserName("bob")}, {"group": "student"}):
        with pytest.raises(VarlinkError):
            restrict_query(replace(days, **other), page)
    with pytest.raises(VarlinkError):
        rules.require_operator(page)


@pytest.mark.parametrize(
    ("name", "booked", "label", "owner"),
    [
        ("job", "bob", None, "bob"),
        ("job._.1002", None, None, "uid 1002"),
        ("job._.1002", None, "alice", "uid 1002"),
        ("job._.1002", None, "carol", "uid 1002"),
        ("job", None, "bob", "bob"),
        ("job._.1001", "bob", "alice", "bob"),
        ("job._.1002", "root", "alice", "root"),
    ],
)
def test_what_is_somebody_elses_is_refused(
    name: str, booked: str | None, label: str | None, owner: str
) -> None:
    found = None if booked is None else record(name, booked)
    there = None if label is None else container(name, labels={"ds01.user": label})
    with pytest.raises(VarlinkError) as refused:
        rules.require_own(ALICE, ContainerName(name), found, there, is_booked=found is not None)
    assert error_of(refused) == ("NotYours", {"owner": owner})
    rules.require_own(OPERATOR, ContainerName(name), found, there, is_booked=True)


@pytest.mark.parametrize(
    ("name", "booked", "label"),
    [
        ("job", None, None),
        ("job", "alice", None),
        ("job._.1001", None, None),
        ("job._.1001", None, "bob"),
        ("job._.1002", "alice", None),
        ("job", None, "alice"),
    ],
)
def test_what_is_ones_own_or_nobodys_is_not(
    name: str, booked: str | None, label: str | None
) -> None:
    found = None if booked is None else record(name, booked)
    there = None if label is None else container(name, labels={"ds01.user": label})
    rules.require_own(ALICE, ContainerName(name), found, there, is_booked=found is not None)


@pytest.mark.parametrize("user", [None, "unknown"])
def test_a_booking_of_an_unknown_user_is_an_operators(user: str | None) -> None:
    name = ContainerName("job")
    for booked in (record(name, user), None):
        with pytest.raises(VarlinkError) as refused:
            rules.require_own(ALICE, name, booked, None, is_booked=True)
        assert error_of(refused) == ("NotYours", {"owner": "unknown"})
        rules.require_own(OPERATOR, name, booked, None, is_booked=True)


@pytest.mark.parametrize(
    ("state", "request_", "is_refused"),
    [
        (State.RUNNING, Request(ask=GpuRequestKind.COUNT, count=1), True),
        (State.PAUSED, Request(ask=GpuRequestKind.ALL), True),
        (State.RUNNING, Unknown(source=Source.DOCKER, reason="not inspected"), True),
        (State.RUNNING, NO_REQUEST, False),
        (State.EXITED, Request(ask=GpuRequestKind.ALL), False),
    ],
)
def test_who_runs_with_a_gpu_keeps_its_booking(
    state: State, request_: Request | Unknown, is_refused: bool
) -> None:
    """Or one would release, book another, and keep both until ds01d books the first again."""
    running = replace(container("job", state=state), request=request_)
    rules.require_no_use(OPERATOR, running.name, running)
    if not is_refused:
        rules.require_no_use(ALICE, running.name, running)
        return
    with pytest.raises(VarlinkError) as refused:
        rules.require_no_use(ALICE, running.name, running)
    assert error_of(refused)[1]["code"] == "NOT_POSSIBLE"


def test_while_nobody_knows_what_runs_nothing_is_released() -> None:
    failed = Unknown(source=Source.DOCKER, reason="cannot reach Docker")
    rules.require_no_use(ALICE, ContainerName("job"), NotFound())
    rules.require_no_use(OPERATOR, ContainerName("job"), failed)
    with pytest.raises(VarlinkError) as refused:
        rules.require_no_use(ALICE, ContainerName("job"), failed)
    reason = "cannot see whether job runs: cannot reach Docker"
    assert error_of(refused) == ("Unavailable", {"reason": reason})


LIMITS = Limits(
    holds={},
    unknown_user=HoldRule(seconds=None, source="defaults"),
    quotas={UserName("alice"): 2},
    priorities={UserName("alice"): 10},
)


@given(st.none() | st.integers(-5, 100), st.none() | st.integers(-5, 100))
def test_a_user_only_lowers_the_limits(most: int | None, priority: int | None) -> None:
    low_most, low_priority = rules.lower_limits(ALICE, UserName("alice"), most, priority, LIMITS)
    assert low_most is None or low_most <= 2
    assert low_priority is None or low_priority <= 10
    assert rules.lower_limits(OPERATOR, UserName("alice"), most, priority, LIMITS) == (
        most,
        priority,
    )


def test_limits_that_cannot_be_read_refuse() -> None:
    broken = Unknown(source=Source.LIMITS, reason="limits.yaml: no such file")
    with pytest.raises(VarlinkError) as refused:
        rules.lower_limits(ALICE, UserName("alice"), 50, 99, broken)
    assert error_of(refused)[1]["code"] == "LIMITS_UNREADABLE"
