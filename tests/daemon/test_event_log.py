"""What Docker's events tell, in the operations log: once, and not again what a wrapper has told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

import pytest

from ds01d.adapters.operations_log import OperationsLog, parse_line
from ds01d.daemon.event_log import WAIT_S, EventLog
from ds01d.model.facts import Boot, ContainerName, Wall
from ds01d.model.records import LogLine

LABELS = {"ds01.managed": "true", "ds01.user": "ann", "ds01.gpu.allocated": "1.2"}
BOX = ContainerName("box")
NOON = Wall(1_800_000_000.0)


@dataclass
class Event:
    action: str
    name: ContainerName | None = BOX
    labels: Mapping[str, str] = field(default_factory=lambda: LABELS)


class Bench:
    """An event log over a real file, and a clock that the test moves."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 100.0
        self.log = OperationsLog(path)
        self.events = EventLog(self.log, lambda: Wall(NOON + self.now), lambda: Boot(self.now))

    def hear(self, *events: Event) -> None:
        for event in events:
            self.events.hear(event)

    def written(self, after_s: float = WAIT_S) -> list[tuple[str, str]]:
        self.now += after_s
        assert self.events.write() == ""
        text = self.path.read_text() if self.path.exists() else ""
        lines = [parse_line(one) for one in text.splitlines()]
        return [(line.operation, line.container) for line in lines if line is not None]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "container-operations.log")


def test_an_event_waits_for_its_wrapper_and_is_written_then(bench: Bench) -> None:
    assert bench.events.wait_s() == inf
    bench.hear(Event("start"), Event("die"))
    assert bench.events.wait_s() == WAIT_S
    assert bench.written(WAIT_S / 2) == []
    assert bench.events.wait_s() == WAIT_S / 2
    assert bench.written() == [("start", "box"), ("stop", "box")]
    line = parse_line(bench.path.read_text().splitlines()[0])
    assert line is not None
    assert (line.user, line.gpu, line.status) == ("ann", "1.2", "success")


def test_what_a_wrapper_has_told_is_not_told_again(bench: Bench) -> None:
    bench.hear(Event("destroy"), Event("destroy", ContainerName("other")))
    bench.log.append(
        LogLine(
            at=Wall(NOON + bench.now),
            operation="remove",
            user="ann",
            container="box",
            gpu="1.2",
            status="success",
            details="container-remove",
        )
    )
    assert bench.written() == [("remove", "box"), ("remove", "other")]


def test_what_comes_again_and_again_is_told_once_in_a_while(bench: Bench) -> None:
    bench.hear(*[Event("start"), Event("die")] * 50)
    assert bench.written() == [("start", "box"), ("stop", "box")]
    bench.hear(Event("start"))
    assert len(bench.written()) == 2
    bench.now += 60
    bench.hear(Event("start"))
    assert len(bench.written()) == 3


@pytest.mark.parametrize(
    "event",
    [
        Event("exec_start"),
        Event("start", None),
        Event("start", labels={"com.example": "of somebody else"}),
    ],
    ids=["of no interest", "without a name", "of no DS01 container"],
)
def test_other_events_are_worth_no_line(bench: Bench, event: Event) -> None:
    bench.hear(event)
    assert bench.events.wait_s() == inf
    assert bench.written() == []


def test_thousands_are_written_in_one_go_and_none_is_lost(bench: Bench) -> None:
    names = [ContainerName(f"box{number}") for number in range(9_000)]
    bench.hear(*(Event("start", name) for name in names))
    assert bench.written() == [("start", name) for name in names]


def test_a_log_that_cannot_be_written_is_a_trouble_and_no_end(bench: Bench) -> None:
    bench.path.mkdir()
    bench.hear(Event("start"))
    assert str(bench.path) in bench.events.write(at_once=True)
    bench.path.rmdir()
    bench.hear(Event("die"))
    assert bench.events.write(at_once=True) == ""
    assert "|stop|" in bench.path.read_text()
