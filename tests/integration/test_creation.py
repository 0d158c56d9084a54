"""A container as DS01 really creates it keeps its booking, however long its name is gone.

Run without labels, commit, destroy, create again under the same name with labels, start: the
recording in `tests/data/docker-events-mlc-create.jsonl`, done for real.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from simulation.engine import PrivateEngine
from tests.support.books import until
from tests.support.daemon import DATA, RunningDaemon, Site

pytestmark = pytest.mark.docker

GAPS = {"a._.1001": 0.02, "b._.1001": 0.2, "c._.1002": 1.0, "d._.1002": 2.5}
"""Seconds between rm and create: to several times the absence grace, in the creation grace."""

SLOTS = dict(zip(GAPS, ("1.0", "1.1", "2.0", "3.3"), strict=True))
POLICY = {"settle": "200ms", "absence_grace": "700ms", "creation_grace": "60s"}


def label(name: str) -> dict[str, str]:
    return {"aime.mlc": "alice", "aime.mlc.NAME": name, "aime.mlc.USER": "alice"}


def test_no_gap_in_a_creation_loses_the_booking(tmp_path: Path, engine: PrivateEngine) -> None:
    site = Site(tmp_path, engine.url, policy=POLICY)
    with RunningDaemon(site) as daemon:
        for name, slot in SLOTS.items():
            site.allocator.attempt(name, "alice", slot)
            site.allocator.allocate(name, "alice", slot)
        # Nothing in Docker yet: an image is being pulled, longer than the absence grace.
        daemon.outlast(0.7)
        daemon.booked(*SLOTS.items())
        for name, slot in SLOTS.items():
            engine.run(name, devices=site.uuid(slot), command=("true",))
        for name in SLOTS:
            engine.client.wait(name)
            engine.client.commit(name, repository="ds01d-test", tag=name[0])
        removed = {}
        for name, slot in SLOTS.items():
            engine.remove(name)
            removed[name] = time.monotonic()
            if GAPS[name] < 0.1:
                time.sleep(GAPS[name])
                engine.run(name, devices=site.uuid(slot), labels=label(name), start=False)
        for name, slot in SLOTS.items():
            if GAPS[name] > 0.1:
                time.sleep(max(0.0, removed[name] + GAPS[name] - time.monotonic()))
                assert (name, slot) in site.bookings()
                engine.run(name, devices=site.uuid(slot), labels=label(name), start=False)
        for name in SLOTS:
            engine.client.update_container(name, cpu_shares=1024)
            engine.client.start(name)
        daemon.outlast(0.7)
        daemon.booked(*SLOTS.items())
        assert site.taken() == []
        daemon.at_rest()

        # A finished container, in contrast, is released right after the settle time.
        site.configure(daemon={"sweep_interval": "10m"})
        daemon.reload()
        began = time.clock_gettime(time.CLOCK_BOOTTIME)
        engine.remove("a._.1001")
        daemon.booked(*((name, slot) for name, slot in SLOTS.items() if name != "a._.1001"))
        over = time.clock_gettime(time.CLOCK_BOOTTIME)
        released = site.history()[-1]
        assert released["kind"] == "stale-allocation"
        assert 0.2 <= released["boot"] - began <= over - began
        assert over - began < 60, "not before the next sweep"
        until(lambda: site.record("a._.1001") is None, what="its metadata to go")


def test_a_creation_that_is_abandoned_is_released_after_its_grace(
    tmp_path: Path, engine: PrivateEngine
) -> None:
    site = Site(tmp_path, engine.url, policy=POLICY | {"creation_grace": "2s"})
    with RunningDaemon(site) as daemon:
        began = time.clock_gettime(time.CLOCK_BOOTTIME)
        site.allocator.allocate("a._.1001", "alice", "1.0")
        engine.run("a._.1001", devices=site.uuid("1.0"), command=("true",))
        engine.remove("a._.1001")
        daemon.booked()
        assert site.history()[-1]["boot"] - began >= 2
        until(lambda: site.record("a._.1001") is None, what="its metadata to go")


def test_what_is_done_here_is_what_was_recorded(engine: PrivateEngine) -> None:
    recording = (DATA / "docker-events-mlc-create.jsonl").read_text(encoding="utf-8")
    events = [json.loads(line) for line in recording.splitlines()]
    wanted = [e["Action"] for e in events if e["Type"] == "container"]
    wanted = wanted[: wanted.index("start", wanted.index("destroy")) + 1]

    since = time.time_ns()
    engine.mlc_create("a._.1001", labels=label("a._.1001"), devices="all")
    told = engine.client.events(
        since=since // 10**9, until=int(time.time()) + 1, filters={"type": "container"}, decode=True
    )
    found = [event["Action"] for event in told if event["timeNano"] >= since]
    assert [a for a in found if a in wanted] == [a for a in wanted if a in found]
    assert {"create", "start", "die", "destroy", "update"} <= set(found)
