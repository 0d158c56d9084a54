"""The end of a process is seen within a second, and each end once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import inf

import pytest

from ds01d.daemon import process_watch
from ds01d.daemon.process_watch import LOOK_EVERY_S, ProcessWatch
from ds01d.model.primitives import ContainerName, Source, Unknown
from ds01d.model.reservation import ProcessState, ReservingProcess
from ds01d.model.snapshot import Snapshot
from tests.support.build import NAME, Life, record

DOCKER = ReservingProcess(pid=10, started=1, boot_id="b", command="docker")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(process_watch, "time", clock)
    return clock


def snapshot(state: ProcessState) -> Snapshot:
    observed = Life().plan().decision.snapshot
    records = {ContainerName(NAME): record(processes=(DOCKER,)), ContainerName("b"): record("b")}
    return replace(observed, metadata=records, processes={DOCKER: state})


def test_each_end_is_reported_once(clock: Clock) -> None:
    states = {DOCKER: ProcessState.RUNS}
    looked: list[int] = []

    def find_states(
        processes: Iterable[ReservingProcess],
    ) -> Mapping[ReservingProcess, ProcessState]:
        looked.append(1)
        return {one: states[one] for one in processes}

    watch = ProcessWatch(find_states)
    assert watch.wait_s() == inf
    watch.set_snapshot(snapshot(ProcessState.RUNS))
    assert watch.wait_s() == 0
    assert watch.find_ended() == frozenset()
    states[DOCKER] = ProcessState.ENDED
    assert watch.wait_s() == LOOK_EVERY_S
    assert watch.find_ended() == frozenset()  # not looked at yet
    assert len(looked) == 1
    clock.now += LOOK_EVERY_S
    assert watch.find_ended() == {NAME}
    clock.now += LOOK_EVERY_S
    assert watch.find_ended() == frozenset()
    assert watch.wait_s() == inf
    # A pass that knows nothing of the records changes nothing; one that saw the end watches none.
    watch.set_snapshot(snapshot(ProcessState.RUNS))
    unknown = Unknown(source=Source.METADATA, reason="x")
    watch.set_snapshot(replace(snapshot(ProcessState.RUNS), metadata=unknown))
    assert watch.wait_s() < inf
    watch.set_snapshot(snapshot(ProcessState.ENDED))
    assert watch.wait_s() == inf
