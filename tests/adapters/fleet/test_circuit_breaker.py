"""Whoever calls does not wait for a server that did not answer a moment ago."""

from __future__ import annotations

from ds01d.adapters.fleet.circuit_breaker import CircuitBreaker


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_after_each_failure_one_call_tries_again_ever_later() -> None:
    clock = Clock()
    breaker = CircuitBreaker(clock)
    assert not breaker.is_open
    pauses = []
    for _ in range(6):
        assert breaker.allows_call()
        breaker.record_failure("refused")
        began = clock.now
        while not breaker.allows_call():
            clock.now += 0.5
        pauses.append(clock.now - began)
        assert not breaker.allows_call()  # the others wait for the one that tries
        clock.now += 100
    assert pauses == [2, 4, 8, 10, 10, 10]
    assert (breaker.is_open, breaker.reason) == (True, "refused")
    breaker.record_success()
    assert (breaker.is_open, breaker.reason) == (False, "")
    assert all(breaker.allows_call() for _ in range(3))
    breaker.record_failure("again")
    clock.now += 1.9
    assert not breaker.allows_call()


def test_whoever_never_reports_back_blocks_nobody_for_ever() -> None:
    clock = Clock()
    breaker = CircuitBreaker(clock)
    breaker.record_failure("refused")
    clock.now += 2
    assert breaker.allows_call()
    assert not breaker.allows_call()
    clock.now += 2
    assert breaker.allows_call()
