"""How much one uid may ask, and that it costs nobody else anything."""

from __future__ import annotations

from ds01d.service.admission import (
    MAX_CALLS_PER_MINUTE,
    MAX_CONNECTIONS,
    MAX_CONNECTIONS_PER_UID,
    Admission,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_one_uid_has_a_few_connections() -> None:
    admission = Admission(Clock())
    assert not any(admission.open_connection(1001) for _ in range(MAX_CONNECTIONS_PER_UID))
    assert "uid 1001" in admission.open_connection(1001)
    assert not admission.open_connection(1002)
    admission.close_connection(1001)
    assert not admission.open_connection(1001)


def test_many_uids_leave_room_for_root() -> None:
    admission = Admission(Clock())
    refused = [
        uid for uid in range(1000, 1000 + 2 * MAX_CONNECTIONS) if admission.open_connection(uid)
    ]
    assert len(refused) == MAX_CONNECTIONS
    assert not admission.open_connection(0)


def test_who_has_many_connections_leaves_room_for_those_without_one() -> None:
    admission = Admission(Clock())
    waiting = [admission.open_connection(uid) for uid in range(1000, 1016) for _ in range(4)]
    assert any(waiting)  # the last of them
    assert not any(admission.open_connection(uid) for uid in range(2000, 2012))
    assert "connections are open" in admission.open_connection(1000 + 15)
    assert not admission.open_connection(0)


def test_a_minute_has_so_many_calls() -> None:
    clock = Clock()
    admission = Admission(clock)
    assert not any(admission.count_call(1001) for _ in range(MAX_CALLS_PER_MINUTE))
    clock.now += 40
    assert "try again in 20 s" in admission.count_call(1001)
    assert not admission.count_call(1002)
    assert not any(admission.count_call(0) for _ in range(2 * MAX_CALLS_PER_MINUTE))
    clock.now += 20
    assert not admission.count_call(1001)


def test_a_uid_that_left_is_forgotten() -> None:
    clock = Clock()
    admission = Admission(clock)
    for uid in range(1000, 2000):
        admission.open_connection(uid)
        admission.count_call(uid)
        admission.close_connection(uid)
    clock.now += 61
    admission.count_call(5)
    assert list(admission._calls) == [5]
    assert not admission._open.total()
