"""The dirty set: nothing that was marked is lost, nothing is handed out twice."""

from __future__ import annotations

import threading

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ds01d.daemon.dirty_set import EVERYTHING, LONGEST_DELAY_S, Counters, DirtySet, Names, Work
from ds01d.model.primitives import ContainerName

A, B = ContainerName("a"), ContainerName("b")


class Later:
    """Remembers what was put off, and marks it when told."""

    def __init__(self) -> None:
        self.planned: dict[str, tuple[float, Names]] = {}

    def __call__(self, key: str, delay_s: float, names: Names) -> None:
        self.planned[key] = (delay_s, names)


def work(*names: ContainerName, everything: bool = False) -> Work:
    return Work(everything=everything, names=frozenset(names))


def test_all_that_is_dirty_is_taken_at_once() -> None:
    dirty = DirtySet(Later())
    dirty.mark([A])
    dirty.mark([B, A])
    dirty.mark(EVERYTHING)
    assert dirty.take(0) == work(A, B, everything=True)
    assert dirty.take(0) is None


def test_of_very_many_names_the_longest_dirty_come_first_unless_everything_is() -> None:
    dirty = DirtySet(Later(), most=2)
    c, d = ContainerName("c"), ContainerName("d")
    dirty.mark([c])
    dirty.mark([B])
    dirty.mark([A, c])
    assert dirty.take(0) == work(B, c)
    dirty.mark([B, d])
    assert dirty.take(0) == work(A, B)
    dirty.mark([A, B, c, d])
    dirty.mark(EVERYTHING)
    assert dirty.take(0) == work(A, B, c, d, everything=True)
    assert dirty.take(0) is None


def test_a_name_marked_while_it_is_worked_on_is_worked_on_again() -> None:
    dirty = DirtySet(Later())
    dirty.mark([A])
    taken = dirty.take(0)
    assert taken == work(A)
    dirty.mark([A])
    dirty.mark_done(taken)
    assert dirty.take(0) == work(A)


def test_a_container_may_be_called_like_the_mark_of_everything() -> None:
    dirty = DirtySet(Later())
    dirty.mark([ContainerName("*")])
    assert dirty.take(0) == work(ContainerName("*"))


def test_a_failure_comes_back_with_growing_delay_and_success_forgets_it() -> None:
    later = Later()
    dirty = DirtySet(later, chance=lambda: 1.0)
    delays = []
    for _ in range(12):
        dirty.mark_done(work(A, B), failed=frozenset({A}))
        delays.append(later.planned["retry a"])
    assert [delay for delay, _ in delays[:4]] == [1.0, 2.0, 4.0, 8.0]
    assert delays[-1] == (LONGEST_DELAY_S, frozenset({A}))
    assert set(later.planned) == {"retry a"}
    dirty.mark_done(work(B))
    dirty.mark_done(work(), failed=frozenset({A}))
    assert later.planned["retry a"][0] == LONGEST_DELAY_S
    dirty.mark_done(work(everything=True))
    dirty.mark_done(work(), failed=frozenset({A}))
    assert later.planned["retry a"][0] == 1.0


def test_the_delay_is_spread_below_its_full_length() -> None:
    later = Later()
    DirtySet(later, chance=lambda: 0.0).retry_all()
    assert later.planned == {"retry *": (0.75, EVERYTHING)}


def test_a_pass_that_fails_brings_everything_back() -> None:
    later = Later()
    dirty = DirtySet(later, chance=lambda: 1.0)
    dirty.retry_all()
    dirty.mark_done(work(A))
    dirty.retry_all()
    assert later.planned["retry *"] == (2.0, EVERYTHING)
    dirty.mark_done(work(everything=True))
    dirty.retry_all()
    assert later.planned["retry *"] == (1.0, EVERYTHING)


def test_later_may_mark_at_once() -> None:
    dirty = DirtySet(lambda key, delay_s, names: dirty.mark(names))
    dirty.retry_all()
    assert dirty.take(0) == work(everything=True)


def test_counters() -> None:
    now = [10.0]
    dirty = DirtySet(Later(), clock=lambda: now[0])
    dirty.mark([A, B])
    dirty.mark([A])
    assert dirty.counters() == Counters(depth=2, adds=2, retries=0, running_s=0.0)
    taken = dirty.take(0)
    now[0] = 13.0
    assert dirty.counters() == Counters(depth=0, adds=2, retries=0, running_s=3.0)
    assert taken
    dirty.mark_done(taken, failed=frozenset({A}))
    assert dirty.counters() == Counters(depth=0, adds=2, retries=1, running_s=0.0)


def test_a_mark_wakes_the_worker_and_close_sends_it_home() -> None:
    dirty = DirtySet(Later())
    taken: list[Work | None] = []
    waiting = threading.Semaphore(0)

    def worker() -> None:
        while taken[-1:] != [None]:
            taken.append(dirty.take(30))
            waiting.release()

    thread = threading.Thread(target=worker)
    thread.start()
    dirty.mark([A])
    assert waiting.acquire(timeout=60)
    dirty.close()
    thread.join(60)
    assert not thread.is_alive()
    assert taken == [work(A), None]
    dirty.mark([B])
    assert dirty.take(0) is None


def test_marks_of_many_threads_all_arrive() -> None:
    dirty = DirtySet(Later())
    names = [[ContainerName(f"{who}-{number}") for number in range(200)] for who in range(4)]

    def marker(mine: list[ContainerName]) -> None:
        for name in mine:
            dirty.mark([name])

    threads = [threading.Thread(target=marker, args=(mine,)) for mine in names]
    for thread in threads:
        thread.start()
    seen: set[ContainerName] = set()
    while len(seen) < 800 and (taken := dirty.take(10)):
        assert not seen & taken.names
        seen |= taken.names
        dirty.mark_done(taken)
    for thread in threads:
        thread.join()
    assert len(seen) == 800


class Story(RuleBasedStateMachine):
    """Whatever happens in whatever order: who was marked, or owes a retry, is taken in the end."""

    def __init__(self) -> None:
        super().__init__()
        self.later = Later()
        self.dirty = DirtySet(self.later)
        self.owed: set[ContainerName] = set()
        self.swept = True
        self.hand: Work | None = None

    names = st.frozensets(st.sampled_from([ContainerName(name) for name in "abcd"]))

    @rule(names=names)
    def mark(self, names: frozenset[ContainerName]) -> None:
        self.dirty.mark(names)
        self.owed |= names

    @rule()
    def mark_everything(self) -> None:
        self.dirty.mark(EVERYTHING)
        self.swept = False

    @precondition(lambda self: self.hand is None)
    @rule()
    def take(self) -> None:
        self.hand = self.dirty.take(0)
        if self.hand is None:
            assert not self.owed
            assert self.swept
        else:
            assert self.hand.names == self.owed
            assert self.hand.everything is not self.swept
        self.owed, self.swept = set(), True

    @precondition(lambda self: self.hand is not None)
    @rule(failed=names)
    def done(self, failed: frozenset[ContainerName]) -> None:
        assert self.hand
        self.dirty.mark_done(self.hand, failed=failed)
        self.hand = None
        assert {f"retry {name}" for name in failed} <= set(self.later.planned)

    @precondition(lambda self: self.hand is not None)
    @rule()
    def fail(self) -> None:
        self.dirty.retry_all()
        self.hand = None
        assert "retry *" in self.later.planned

    @precondition(lambda self: self.later.planned)
    @rule()
    def time_passes(self) -> None:
        for delay_s, names in self.later.planned.values():
            assert 0 < delay_s <= LONGEST_DELAY_S
            self.dirty.mark(names)
            if isinstance(names, frozenset):
                self.owed |= names
            else:
                self.swept = False
        self.later.planned.clear()

    @invariant()
    def depth_is_what_is_owed(self) -> None:
        assert self.dirty.counters().depth == len(self.owed) + (not self.swept)


TestStory = Story.TestCase
