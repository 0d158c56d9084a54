"""All hosts in the live view: asked in the background, and only while somebody looks."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from ds01d.cli.dashboard.hosts import HostPoller
from ds01d.cli.output.display import format_blocks
from ds01d.errors import Ds01Error
from ds01d.model.fleet import FleetHost
from ds01d.model.primitives import Wall
from tests.decide.test_fleet_hosts import make_view
from tests.support.books import until

NOW = Wall(4e9)


class Fleet:
    """Hosts that answer when they may."""

    def __init__(self) -> None:
        self.now, self.asked, self.failing = 0.0, 0, ""
        self.may_answer = threading.Event()
        self.poller = HostPoller(self.look, clock=lambda: self.now)

    def look(self) -> Sequence[FleetHost]:
        self.asked += 1
        assert self.may_answer.wait(60)
        if self.failing:
            raise Ds01Error(self.failing)
        return make_view().hosts

    def refresh_until(self, asked: int) -> bool:
        """Whether they were asked so often; the thread before may just be ending."""
        self.poller.refresh()
        return self.asked == asked

    def text(self) -> str:
        return "\n".join(format_blocks(self.poller.list_blocks(NOW), NOW))


def test_nobody_waits_for_the_hosts_and_they_are_asked_once_at_a_time() -> None:
    fleet = Fleet()
    assert fleet.text() == "asking all hosts …"
    assert fleet.asked == 0
    for _ in range(3):
        fleet.poller.refresh()
        fleet.now += 60
    assert fleet.text() == "asking all hosts …"
    fleet.may_answer.set()
    until(lambda: "gpu01" in fleet.text())
    assert fleet.asked == 1
    text = fleet.text()
    assert "2 of 3 slots" not in text
    assert "1 of 3 slots free on 1 host; 1 host unknown" in text
    assert "train._.1001" in text
    assert "not booked" in text
    # The time of the last beginning counts, which was before the clock was moved twice.
    fleet.poller.refresh()
    until(lambda: fleet.asked == 2)


def test_hosts_are_asked_again_only_after_a_while() -> None:
    fleet = Fleet()
    fleet.may_answer.set()
    fleet.poller.refresh()
    until(lambda: "gpu01" in fleet.text())
    fleet.now = 29.0
    fleet.poller.refresh()
    assert fleet.asked == 1
    fleet.now = 30.0
    until(lambda: fleet.refresh_until(asked=2))


def test_a_failure_stands_above_what_they_said_before() -> None:
    fleet = Fleet()
    fleet.may_answer.set()
    fleet.poller.refresh()
    until(lambda: "gpu01" in fleet.text())
    fleet.failing, fleet.now = "no ssh", 60.0
    until(lambda: fleet.refresh_until(asked=2))
    until(lambda: "no ssh" in fleet.text())
    assert fleet.text().startswith("cannot ask the hosts: no ssh\n")
    assert "gpu01" in fleet.text()
