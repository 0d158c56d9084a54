"""A host is unknown until it proves otherwise, and unknown is neither free nor empty."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.decide.fleet_hosts import (
    AHEAD_S,
    VIEW_SLACK_S,
    StatusTimes,
    age_view,
    find_doubt,
    find_occurrences,
    judge_host,
    update_last_word,
)
from ds01d.model.fleet import (
    FleetHolder,
    FleetSlot,
    FleetView,
    HostAnswer,
    HostFailure,
    HostName,
    HostState,
    HostStatus,
    LastWord,
)
from ds01d.model.primitives import ContainerName, DeviceUuid, SlotId, UserName, Wall

TIMES = StatusTimes(interval_s=60, slack_s=30)
NAME = HostName("gpu01")
NOTHING = LastWord(answered_at=None, unknown_since=None, status=None)
numbers = st.floats(min_value=0, max_value=1e11)
walls = st.floats(min_value=0, max_value=4e9)


def make_status(at: float = 1000.0, next_at: float | None = None, doubt: str = "") -> HostStatus:
    train = FleetHolder(
        container=ContainerName("train._.1001"), user=UserName("alice"), state="running"
    )
    web = FleetHolder(container=ContainerName("web"), user=UserName("carol"), state="running")
    return HostStatus(
        published_at=Wall(at),
        next_at=None if next_at is None else Wall(next_at),
        version="1",
        doubt=doubt,
        slots=(
            FleetSlot(
                id=SlotId("0"), type="physical_gpu", uuid=DeviceUuid("GPU-0"), holders=(train,)
            ),
            FleetSlot(
                id=SlotId("1.0"),
                type="mig_instance",
                uuid=DeviceUuid("MIG-1"),
                profile="1g.10gb",
                foreign=("web", "pid 7"),
                foreign_holders=(web,),
            ),
            FleetSlot(id=SlotId("1.1"), type="mig_instance", uuid=DeviceUuid("MIG-2")),
        ),
    )


@pytest.mark.parametrize(
    ("status", "clock", "reason"),
    [
        (make_status(1000), 1000, ""),
        (make_status(1000), 1090, ""),
        (make_status(1000), 1091, "published its last status 1 m 31 s ago"),
        (make_status(1000, 2000), 2030, ""),
        (make_status(1000, 2000), 2031, "ago"),
        (make_status(1000), 1000 - AHEAD_S, ""),
        (make_status(1000), 1000 - AHEAD_S - 1, "in the future"),
        (make_status(1000, doubt="no Docker"), 1000, "no Docker"),
    ],
)
def test_a_status_counts_while_the_next_one_is_not_overdue(
    status: HostStatus, clock: float, reason: str
) -> None:
    doubt = find_doubt(HostAnswer(status=status, clock=Wall(clock)), TIMES)
    assert reason in doubt
    assert bool(reason) == bool(doubt)


@given(at=numbers, next_at=st.none() | numbers, clock=walls, now=walls, since=st.none() | walls)
def test_whatever_clocks_show_only_a_recent_status_has_free_slots(
    at: float, next_at: float | None, clock: float, now: float, since: float | None
) -> None:
    answer = HostAnswer(status=make_status(at, next_at), clock=Wall(clock))
    before = LastWord(
        answered_at=None, unknown_since=None if since is None else Wall(since), status=None
    )
    host = judge_host(NAME, answer, before, TIMES, Wall(now))
    if host.free:
        assert host.state is HostState.OK
        assert clock >= at - AHEAD_S
        assert clock <= max(next_at or 0, at + TIMES.interval_s) + TIMES.slack_s
        assert host.age_s is not None
        assert 0 <= host.age_s < math.inf
    else:
        assert host.state is HostState.UNKNOWN
        assert host.reason
        assert host.unknown_since is not None
        assert host.unknown_since <= now


@given(answers=st.lists(st.tuples(st.booleans(), st.integers(0, 100)), max_size=12))
def test_unknown_lasts_from_the_first_failure_to_the_next_answer(
    answers: list[tuple[bool, int]],
) -> None:
    before, now = NOTHING, 1000.0
    failed_at: float | None = None
    answered_at: float | None = None
    for answers_now, pause in answers:
        now += pause
        answer = (
            HostAnswer(status=make_status(now), clock=Wall(now))
            if answers_now
            else HostFailure(reason="refused")
        )
        host = judge_host(NAME, answer, before, TIMES, Wall(now))
        before = update_last_word(host)
        if answers_now:
            failed_at, answered_at = None, now
            assert (host.state, host.unknown_since) == (HostState.OK, None)
        else:
            failed_at = now if failed_at is None else failed_at
            assert (host.state, host.unknown_since) == (HostState.UNKNOWN, failed_at)
            assert (host.slots, host.free) == ((), [])
            assert (host.status is None) == (answered_at is None)
        assert host.answered_at == answered_at


def test_a_clock_that_was_set_back_gives_no_failure_in_the_future() -> None:
    before = LastWord(answered_at=None, unknown_since=Wall(5000), status=None)
    host = judge_host(NAME, HostFailure(reason=""), before, TIMES, Wall(1000))
    assert (host.unknown_since, host.reason) == (Wall(1000), "no answer")


@pytest.mark.parametrize(
    ("subject", "places"),
    [
        ("alice", [("0", "train._.1001")]),
        ("train", [("0", "train._.1001")]),
        ("train._.1001", [("0", "train._.1001")]),
        ("GPU-0", [("0", "train._.1001")]),
        ("carol", [("1.0", "web")]),
        ("web", [("1.0", "web")]),
        ("MIG-1", [("1.0", "web"), ("1.0", "pid 7")]),
        ("MIG-2", [("1.1", None)]),
        ("trai", []),
        ("", []),
    ],
)
@pytest.mark.parametrize("is_known", [True, False])
def test_where_somebody_is_also_by_a_last_word(
    subject: str, places: list[tuple[str, str | None]], *, is_known: bool
) -> None:
    answered = HostAnswer(status=make_status(), clock=Wall(1000))
    host = judge_host(NAME, answered, NOTHING, TIMES, Wall(1000))
    if not is_known:
        failure = HostFailure(reason="refused")
        host = judge_host(NAME, failure, update_last_word(host), TIMES, Wall(2000))
    found = find_occurrences([host], subject)
    assert [(place.slot.id, place.container) for place in found] == places


def make_view(at: float = 1000.0, every_s: float = 30.0) -> FleetView:
    known = judge_host(
        NAME, HostAnswer(status=make_status(990), clock=Wall(1000)), NOTHING, TIMES, Wall(at)
    )
    failed = HostFailure(reason="refused")
    dead = judge_host(HostName("gpu02"), failed, update_last_word(known), TIMES, Wall(at - 500))
    return FleetView(viewed_at=Wall(at), every_s=every_s, hosts=(known, dead))


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (1000, ""),
        (1075, ""),
        (1076, "not asked for 1 m 16 s"),
        (1000 - AHEAD_S, ""),
        (1000 - AHEAD_S - 1, "in the future"),
    ],
)
def test_a_view_counts_while_the_next_one_is_not_overdue(now: float, reason: str) -> None:
    view = make_view()
    known, dead, new = age_view(view, [NAME, HostName("gpu02"), HostName("gpu09")], Wall(now))
    assert (known.state is HostState.OK) == (not reason)
    assert reason in known.reason
    assert known.age_s == 10 + max(0, now - 1000)
    assert known.status == view.hosts[0].status
    if reason:
        assert (known.free, known.unknown_since) == ([], Wall(1000))
    # Who was unknown then is so since then, for the reason of then.
    assert (dead.state, dead.reason) == (HostState.UNKNOWN, "refused")
    assert dead.unknown_since == Wall(500)
    assert (new.state, new.status, new.free) == (HostState.UNKNOWN, None, [])
    assert new.reason == (known.reason or "not asked yet")


@given(at=walls, every_s=st.floats(0.1, 3600), now=walls)
def test_no_slot_of_an_old_view_is_free(at: float, every_s: float, now: float) -> None:
    hosts = age_view(make_view(at, every_s), [NAME, HostName("gpu02")], Wall(now))
    assert [host.name for host in hosts] == ["gpu01", "gpu02"]
    for host in hosts:
        if host.free:
            assert at - AHEAD_S <= now <= at + 2 * every_s + VIEW_SLACK_S
        else:
            assert host.state is HostState.UNKNOWN
            assert host.reason
            assert host.unknown_since is not None
