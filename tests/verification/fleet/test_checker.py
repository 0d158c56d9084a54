"""The checker finds what is wrong in made-up histories, and nothing in good ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.scripts import output
from tests.verification.fleet.checker import KINDS, check_history
from tests.verification.fleet.keys import PREFIX
from tests.verification.fleet.records import (
    Attempt,
    Change,
    Forgotten,
    History,
    Look,
    Restored,
    Wrong,
    read_history,
)

A, B = "n-a", "n-b"
HOSTS = {A: "gpu01", B: "gpu02"}


class Story:
    """A history, told change by change: each call is one revision, a second after the one before.

    `alice` may have two slots. `gpu02` books nothing while the store is away.
    """

    def __init__(self) -> None:
        self.history = History(quotas={"alice": 2}, strict=frozenset({"gpu02"}))
        self.revision, self.epoch = 0, 0
        self._versions: dict[str, int] = {}
        for node, host in HOSTS.items():
            self.change({f"nodes/{node}/identity": {"v": 1, "host": host}})

    @property
    def now(self) -> float:
        return float(100 * self.epoch + self.revision)

    def change(self, changes: dict[str, dict[str, Any] | None], *, skip: int = 0) -> None:
        self.revision += 1
        for name, value in changes.items():
            key = PREFIX + name
            version = 0 if value is None else self._versions.get(key, 0) + 1 + skip
            self._versions[key] = version
            self.history.add(
                Change(
                    epoch=self.epoch,
                    revision=self.revision,
                    key=key,
                    value=value,
                    version=version,
                    seen=self.now,
                )
            )

    def put(
        self,
        node: str,
        booking: str,
        *,
        phase: str = "reserved",
        name: str | None = None,
        fence: bool = True,
        named: bool = True,
        count: int = 1,
        sevenths: int = 7,
    ) -> None:
        name = name or booking
        value = {"v": 1, "phase": phase, "container": name, "count": count, "sevenths": sevenths}
        changes: dict[str, dict[str, Any] | None] = {f"users/alice/held/{node}/{booking}": value}
        if fence:
            changes["users/alice/fence"] = {"v": 1}
        if named:
            changes[f"names/{name}"] = {"v": 1, "node": node, "booking": booking}
        self.change(changes)

    def confirm(self, node: str, booking: str, *, name: str | None = None) -> None:
        self.put(node, booking, phase="held", name=name, fence=False, named=False)

    def withdraw(self, node: str, booking: str, *, name: str = "", named: bool = True) -> None:
        changes: dict[str, dict[str, Any] | None] = {f"users/alice/held/{node}/{booking}": None}
        if named:
            changes[f"names/{name or booking}"] = None
        self.change(changes)

    def attempt(
        self,
        node: str,
        booking: str,
        *,
        granted: bool = True,
        released: float | None = None,
        place: str = "0",
    ) -> None:
        """Asked for a moment ago, and answered now."""
        self.history.add(
            Attempt(
                host=HOSTS[node],
                user="alice",
                container=booking,
                count=1,
                asked=self.now - 0.5,
                answered=self.now,
                outcome="granted" if granted else "",
                booking=booking,
                slots=1,
                places=(place,),
                released=released,
            )
        )

    def booked(self, node: str, booking: str, *, released: float | None = None) -> None:
        """As it should be."""
        self.put(node, booking)
        self.attempt(node, booking, released=released)
        self.confirm(node, booking)

    def restore(self, revision: int) -> None:
        self.epoch += 1
        self.revision = revision
        self.history.add(Restored(epoch=self.epoch, revision=revision, at=self.now))
        self._versions = {}
        for change in self.history.changes:
            if change.revision <= revision:
                self._versions[change.key] = change.version

    def kinds(self) -> list[str]:
        return [one.kind for one in check_history(self.history)]


@pytest.fixture
def story() -> Story:
    return Story()


def test_a_good_history(story: Story) -> None:
    story.booked(A, "r-1")
    story.booked(B, "r-2", released=story.now + 0.5)
    story.withdraw(B, "r-2")
    story.booked(B, "r-3")
    assert story.kinds() == []


def test_more_than_the_quota_by_reservation(story: Story) -> None:
    for booking in ("r-1", "r-2"):
        story.booked(A, booking)
    story.put(B, "r-3")
    assert story.kinds() == ["over quota"]


def test_several_slots_count_as_many(story: Story) -> None:
    story.booked(A, "r-1")
    story.put(B, "r-2", count=2)
    assert story.kinds() == ["over quota"]


@pytest.mark.parametrize("is_left", [False, True])
def test_a_slot_that_is_shared_counts_once(story: Story, is_left: bool) -> None:
    story.history.is_shared = True
    story.put(A, "r-1")
    story.attempt(A, "r-1", released=story.now + 2.5 if is_left else None)
    story.put(A, "r-2", sevenths=0)
    story.attempt(A, "r-2")
    if is_left:
        story.withdraw(A, "r-1")
    # The store counts nothing for the second one, and the user has that slot all the same.
    story.put(B, "r-3")
    story.attempt(B, "r-3")
    assert story.kinds() == []
    story.put(B, "r-4")
    assert story.kinds() == ["over quota"]


def test_what_a_host_reports_may_be_above_the_quota(story: Story) -> None:
    for booking in ("r-1", "r-2", "r-3"):
        story.put(A, booking, phase="held")
    assert story.kinds() == []


def test_what_a_host_has_released_does_not_count_against_itself(story: Story) -> None:
    story.booked(A, "r-1", released=story.now + 1.2)
    story.booked(A, "r-2")
    story.put(A, "r-3")
    assert story.kinds() == []
    story.put(B, "r-4")  # for all others it counts until it is withdrawn
    assert story.kinds() == ["over quota"]


def test_two_calls_at_once_on_one_host_count_for_each_other(story: Story) -> None:
    for booking in ("r-1", "r-2", "r-3"):
        story.put(A, booking)
    story.attempt(A, "r-1")
    story.attempt(A, "r-2")
    assert story.kinds() == ["over quota"]


def test_a_reservation_that_came_to_nothing_does_not_count_against_its_host(story: Story) -> None:
    story.put(A, "r-1")
    story.attempt(A, "r-1", granted=False)
    story.booked(A, "r-2")
    story.put(A, "r-3")
    assert story.kinds() == []


def test_an_entry_without_a_fence(story: Story) -> None:
    story.put(A, "r-1", fence=False)
    assert story.kinds() == ["no fence"]


def test_a_reservation_without_its_name(story: Story) -> None:
    story.put(A, "r-1", named=False)
    assert story.kinds() == ["no name"]


def test_a_late_confirmation_that_compares_nothing(story: Story) -> None:
    story.booked(A, "r-1", released=story.now + 1.2)
    story.withdraw(A, "r-1")
    story.confirm(A, "r-1")
    assert story.kinds() == ["entry came back"]


def test_an_entry_that_is_reported_again_did_not_come_back(story: Story) -> None:
    story.booked(A, "r-1", released=story.now + 1.2)
    story.withdraw(A, "r-1")
    story.put(A, "r-1", phase="held")
    assert story.kinds() == []


def test_the_entry_of_a_living_booking_is_deleted(story: Story) -> None:
    story.booked(A, "r-1")
    story.withdraw(A, "r-1")
    assert story.kinds() == ["living entry deleted"]


def test_an_admin_may_delete_it(story: Story) -> None:
    story.booked(A, "r-1")
    story.history.add(Forgotten(host="gpu01", at=story.now))
    story.withdraw(A, "r-1")
    story.booked(B, "r-2")
    story.booked(B, "r-3")
    assert story.kinds() == []


def test_a_deleted_entry_goes_on_counting(story: Story) -> None:
    story.booked(A, "r-1")
    story.withdraw(A, "r-1")
    story.booked(B, "r-2")
    story.booked(B, "r-3")
    assert story.kinds() == ["living entry deleted", "over quota"]


def test_one_name_reserved_twice(story: Story) -> None:
    story.booked(A, "r-1")
    story.put(B, "r-2", name="r-1")
    assert story.kinds() == ["name taken", "name twice"]


def test_a_name_may_be_used_again(story: Story) -> None:
    story.booked(A, "r-1", released=story.now + 1.2)
    story.withdraw(A, "r-1")
    story.put(B, "r-2", name="r-1")
    assert story.kinds() == []


def test_a_late_withdrawal_takes_the_name_of_the_next_booking(story: Story) -> None:
    story.booked(A, "r-1", released=story.now + 1.2)
    story.withdraw(A, "r-1")
    story.put(A, "r-2", name="r-1")
    story.change({"names/r-1": None})
    assert story.kinds() == ["name taken"]


def test_a_report_may_have_a_name_that_somebody_else_has(story: Story) -> None:
    story.booked(A, "r-1")
    story.put(A, "r-2", phase="held", name="r-1", named=False)
    assert story.kinds() == []


def test_a_host_books_while_the_store_is_away_and_must_not(story: Story) -> None:
    story.put(A, "r-1", phase="held")
    assert story.kinds() == []
    story.put(B, "r-2", phase="held")
    assert story.kinds() == ["booked while away"]


class TestRestored:
    def test_what_is_told_again_is_no_fault(self, story: Story) -> None:
        story.booked(B, "r-1")
        story.restore(2)
        story.put(B, "r-1", phase="held")
        story.booked(A, "r-2")
        assert story.kinds() == []

    def test_who_reserves_before_all_have_told_is_over_quota(self, story: Story) -> None:
        story.booked(B, "r-1")
        story.booked(B, "r-2")
        story.restore(2)
        story.put(A, "r-3")
        assert story.kinds() == ["over quota"]

    def test_a_name_that_the_store_has_lost(self, story: Story) -> None:
        story.booked(B, "r-1")
        story.restore(2)
        story.put(A, "r-2", name="r-1")
        assert story.kinds() == ["name twice"]


def test_a_gap_in_the_watch(story: Story) -> None:
    story.put(A, "r-1")
    story.change({"users/alice/fence": {"v": 1}}, skip=1)
    assert story.kinds() == ["missed change"]


class TestBooks:
    def look(self, story: Story, node: str, *names: str) -> None:
        bookings = dict.fromkeys(names, 1)
        at = story.now + 0.1
        story.history.add(Look(host=HOSTS[node], began=at, ended=at + 0.1, bookings=bookings))

    def test_a_booking_that_is_gone(self, story: Story) -> None:
        story.booked(A, "r-1")
        self.look(story, A, "r-1")
        assert story.kinds() == []
        self.look(story, A)
        self.look(story, A)
        assert story.kinds() == ["lost booking"]

    def test_one_that_is_being_released(self, story: Story) -> None:
        story.booked(A, "r-1", released=story.now + 1.0)
        self.look(story, A)
        assert story.kinds() == []

    def test_one_that_nobody_asked_for(self, story: Story) -> None:
        story.booked(A, "r-1")
        self.look(story, A, "r-1", "r-9")
        assert story.kinds() == ["foreign booking"]

    def test_one_whose_answer_never_came(self, story: Story) -> None:
        story.attempt(A, "r-1", granted=False)
        self.look(story, A, "r-1")
        self.look(story, A)
        assert story.kinds() == []


def test_what_the_campaign_found_is_in_it(story: Story) -> None:
    story.history.add(Wrong(kind="lasting difference", what="…", at=1.0))
    assert story.kinds() == ["lasting difference"]


def test_a_history_is_kept_and_read(story: Story, tmp_path: Path) -> None:
    story.booked(A, "r-1")
    story.booked(A, "r-2")
    story.put(B, "r-3")
    story.history.write(tmp_path / "history.jsonl")
    kept = read_history((tmp_path / "history.jsonl").read_text().splitlines())
    assert check_history(kept) == check_history(story.history) != []


def test_every_kind_is_shown_to_be_found() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert [kind for kind in KINDS if f'"{kind}"' not in source] == []


IMPORTED = """
import sys
import tests.verification.fleet.checker
import tests.verification.fleet.run
import tests.verification.fleet.reference
print(sorted(name for name in sys.modules if name.partition(".")[0] == "ds01d"))
"""


def test_the_checker_shares_no_code_with_ds01d() -> None:
    assert output(IMPORTED).strip() == "[]"
