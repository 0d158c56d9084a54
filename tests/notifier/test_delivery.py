"""Each notice once, at least: over restarts and failures, bounded in number, not at night."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from ds01d.errors import DeliveryFailed, WriteFailed
from ds01d.model.notice import DeliveryRecord, SpooledNotice
from ds01d.notifier.delivery import (
    MAX_ATTEMPTS,
    MAX_PER_HOUR,
    MAX_QUEUED,
    NEW_TARGET_AGE_S,
    Delivery,
)
from ds01d.notify_settings import parse_quiet_hours
from tests.support.notices import AT, notice


class Killed(BaseException):
    """The process ends here."""


@dataclass
class World:
    """A target, a file and clocks that outlive a process."""

    record: DeliveryRecord | None = field(default_factory=DeliveryRecord)
    sent: list[str] = field(default_factory=list)
    tried: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    fails: bool | None = None  # None: it works; True: for good; False: for now
    kill_in: int | None = None
    is_full: bool = False
    now: float = AT
    hours: str = ""

    name = "test"

    def _may_be_killed(self) -> None:
        if self.kill_in is not None:
            self.kill_in -= 1
            if self.kill_in < 0:
                self.kill_in = None
                raise Killed

    def send(self, one: SpooledNotice) -> None:
        self._may_be_killed()
        self.tried.append(one.id)
        if self.fails is not None:
            raise DeliveryFailed("it fails", is_final=self.fails)
        self.sent.append(one.id)
        self._may_be_killed()

    def load(self) -> DeliveryRecord | None:
        return self.record

    def save(self, record: DeliveryRecord) -> None:
        self._may_be_killed()
        if self.is_full:
            raise WriteFailed("no space left")
        self.record = replace(record, attempts=dict(record.attempts))
        self._may_be_killed()

    def start(self) -> Delivery:
        return Delivery(
            self,
            self,
            self.warnings.append,
            parse_quiet_hours(self.hours) if self.hours else None,
            wall=lambda: self.now,
            monotonic=lambda: self.now,
            local_minute=lambda wall: int(wall / 60) % 1440,
        )

    def run(self, delivery: Delivery, spooled: list[SpooledNotice], turns: int = 100) -> None:
        delivery.offer(spooled)
        for _ in range(turns):
            wait_s = delivery.wait_s()
            if wait_s is None:
                return
            self.now += wait_s
            delivery.run_once()


def some(count: int, **changes: object) -> list[SpooledNotice]:
    return [notice(id=f"n{number}", user=f"u{number}", **changes) for number in range(count)]


def test_each_is_sent_once_also_by_the_next_process() -> None:
    world, spooled = World(), some(5)
    for _ in range(3):
        delivery = world.start()
        world.run(delivery, spooled)
        world.run(delivery, spooled)
    assert world.sent == [one.id for one in spooled]
    assert world.record is not None
    assert (world.record.sent, world.record.failed, world.record.dropped) == (5, 0, 0)
    assert world.warnings == []


@settings(max_examples=200)
@given(kills=st.lists(st.integers(0, 9), max_size=8), count=st.integers(1, 4))
def test_however_it_is_killed_none_is_lost_and_few_come_twice(kills: list[int], count: int) -> None:
    world, spooled = World(), some(count)
    for kill_in in [*kills, None]:
        world.kill_in = kill_in
        try:
            world.run(world.start(), spooled)
        except Killed:
            continue
    world.kill_in = None
    world.run(world.start(), spooled)
    assert set(world.sent) == {one.id for one in spooled}
    # One that is killed between sending and recording sends that one again.
    assert len(world.sent) <= count + len(kills)


def test_one_that_kills_the_process_each_time_is_not_tried_without_end() -> None:
    world, spooled = World(), some(1)
    for _ in range(40):
        world.kill_in = 3  # saved before, sent, and not recorded
        try:
            world.run(world.start(), spooled)
        except Killed:
            continue
    assert len(world.sent) == MAX_ATTEMPTS
    assert world.start().wait_s() is None


def test_what_fails_for_now_is_tried_again_ever_later_and_given_up_at_last() -> None:
    world, spooled = World(fails=False), some(1)
    world.run(world.start(), spooled)
    assert len(world.tried) == MAX_ATTEMPTS
    assert 3600 < world.now - AT < 2 * 3600
    assert world.record is not None
    assert (world.record.failed, world.record.is_failing) == (1, True)
    assert world.record.failure == "it fails"
    assert world.warnings[-1] == f"it fails; given up after {MAX_ATTEMPTS} attempts"
    world.fails = None
    world.run(world.start(), some(2))
    assert world.sent == ["n1"]
    assert not world.record.is_failing


def test_what_fails_for_good_keeps_nothing_back() -> None:
    world, spooled = World(fails=True), some(3)
    world.run(world.start(), spooled)
    assert world.tried == ["n0", "n1", "n2"]
    assert world.now == AT


def test_a_target_that_works_again_gets_what_waits() -> None:
    world, spooled = World(fails=False), some(3)
    delivery = world.start()
    world.run(delivery, spooled, turns=4)
    world.fails = None
    world.run(delivery, spooled)
    assert sorted(world.sent) == ["n0", "n1", "n2"]


def test_what_cannot_be_recorded_is_not_sent() -> None:
    world, spooled = World(is_full=True), some(1)
    delivery = world.start()
    world.run(delivery, spooled, turns=5)
    assert world.tried == []
    assert world.warnings[0] == "test: no space left"
    world.is_full = False
    world.run(delivery, spooled)
    assert world.sent == ["n0"]


def test_what_is_too_old_or_past_is_not_sent() -> None:
    world = World()
    past, old = notice(id="past", until=AT + 10), notice(id="old", at=AT - 13 * 3600)
    world.now = AT + 20
    world.run(world.start(), [past, old, notice(id="new", until=AT + 60)])
    assert world.sent == ["new"]
    assert world.record is not None
    assert world.record.dropped == 2


def test_a_new_target_does_not_get_the_whole_spool() -> None:
    world = World(record=None)
    old, new = notice(id="old", at=AT - NEW_TARGET_AGE_S - 1), notice(id="new", at=AT - 1)
    world.run(world.start(), [old, new])
    assert world.sent == ["new"]


def test_one_user_gets_a_bounded_number_in_an_hour_and_others_theirs() -> None:
    world = World()
    flood = [notice(id=f"a{number}", user="alice") for number in range(50)]
    world.run(world.start(), [*flood, notice(id="b", user="bob")], turns=200)
    assert len(world.sent) == MAX_PER_HOUR + 1
    assert "b" in world.sent
    assert world.record is not None
    assert world.record.dropped == 50 - MAX_PER_HOUR
    assert len(set(world.warnings)) == 1


def test_in_quiet_hours_they_wait_and_come_after() -> None:
    night = AT - AT % 86400 + 23 * 3600
    world = World(hours="22:00-07:00", now=night)
    spooled = [notice(id="late", at=night), notice(id="past", at=night, until=night + 300)]
    world.run(world.start(), spooled, turns=1000)
    assert world.sent == ["late"]
    assert 8 * 3600 - 60 <= world.now - night <= 8 * 3600 + 60


def test_a_flood_at_a_target_that_hangs_fills_no_memory() -> None:
    world = World(fails=False)
    delivery = world.start()
    for number in range(3):
        delivery.offer([notice(id=f"{number}-{one}") for one in range(MAX_QUEUED)])
        delivery.run_once()
    assert world.record is not None
    assert world.record.dropped == 2 * MAX_QUEUED
    assert set(world.warnings) >= {f"test: more than {MAX_QUEUED} wait: the oldest are dropped"}


def test_what_left_the_spool_is_forgotten() -> None:
    world = World()
    delivery = world.start()
    for number in range(50):
        world.run(delivery, [notice(id=f"n{number}", at=world.now)])
        world.now += 3600
    assert world.record is not None
    assert world.record.finished == ("n49",)
    assert len(world.sent) == 50
