"""One host that has every kind of drift at once: all found and settled, then nothing is left."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ds01d.model.drift import FindingKind, Kind
from simulation import nvml
from simulation.engine import PrivateEngine
from tests.support.books import until
from tests.support.daemon import RunningDaemon, Site
from tests.support.fixtures import NvmlWorld

pytestmark = pytest.mark.docker

LABELS = {"aime.mlc": "alice", "aime.mlc.USER": "alice"}
HENRYS = {"aime.mlc": "henry", "aime.mlc.USER": "henry"}
DEAD = "MIG-00000000-dead-4000-8000-000000000000"

RUNNING = {
    "unread._.1001": "1.0",
    "bare._.1001": "1.2",
    "again._.1001": "1.3",
    "found._.1001": "2.0",
    "lost._.1001": "2.1",
    "moved._.1001": "2.3",
    "double._.1001": "3.0",
    "count._.1001": "3.1",
    "after._.1001": "3.2",
    "idle._.1001": "1.1",
}
"""Every DS01 container that runs, and the slot that it has or is booked in at the end."""


def test_every_kind_of_drift_at_once_is_settled(
    nvml_site: Site, engine: PrivateEngine, nvml_world: NvmlWorld
) -> None:
    site = nvml_site
    # No shorter: what a busy machine is slow to answer would count as failed.
    site.configure(docker={"timeout": "5s"}, gpu={"timeout": "5s"}, daemon={"sweep_interval": "5s"})
    # Before ds01d: a start that takes longer than the creation grace would cost the booking.
    site.allocator.allocate("before._.1001", "alice", "3.2")
    run(engine, site, "before._.1001", "3.2")
    with RunningDaemon(site) as daemon:
        daemon.at_rest(force=True)
    assert site.taken() == []
    plant(site, engine, nvml_world)

    with RunningDaemon(site) as daemon:
        daemon.booked(*RUNNING.items())
        daemon.at_rest(force=True)
        history = site.history()
        settled = {entry["kind"] for entry in history if entry["outcome"] == "done"}
        assert settled == {kind.value for kind in Kind} - {"unreadable-state"}
        assert {entry["outcome"] for entry in history} == {"done"}
        until(lambda: {drift["drift"] for drift in daemon.seen("drift.settled")} == settled)
        assert all(drift["evidence"] for drift in daemon.seen("drift.settled"))
        reported = {finding["kind"] for finding in site.status()["findings"]}
        assert reported == {
            FindingKind.FOREIGN_USE,
            FindingKind.BROAD_REQUEST,
            FindingKind.ROGUE_PROCESS,
            FindingKind.LABEL_CONTRADICTION,
            FindingKind.BOOKING_WITHOUT_DEVICE,
            FindingKind.DEVICE_WITHOUT_SLOT,
        }

        # Nothing is left to do, neither for it nor for a pass of the command.
        before = len(history)
        daemon.reload()
        assert json.loads(site.ctl("reconcile", "--json", check=True).stdout)["drifts"] == []
        assert len(site.history()) == before
        assert site.plan()["consistent"]

        check_books(site)

        # The one kind that hides all others: a state that cannot be read.
        good = site.state.read_bytes()
        site.state.write_bytes(good[: len(good) // 2])
        since = daemon.mark()
        daemon.reload()
        daemon.wait_for("drift.settled", since=since, drift="unreadable-state")
        assert site.state.read_bytes() == good
        daemon.at_rest(force=True)
        assert [entry["kind"] for entry in site.history()[before:]] == ["unreadable-state"]
        kept = [path for path in site.state_dir.iterdir() if "gpu-state.broken" in path.name]
        assert [path.read_bytes() for path in kept] == [good[: len(good) // 2]]
    assert not set(RUNNING.items()) & set(site.taken())


def run(engine: PrivateEngine, site: Site, name: str, slot: str | None, **options: Any) -> str:
    """Run a container of alice on the device of a slot."""
    options = {"labels": LABELS, "devices": None if slot is None else site.uuid(slot)} | options
    return engine.run(name, **options)


def plant(site: Site, engine: PrivateEngine, world: NvmlWorld) -> None:
    """Everything that can be wrong."""
    book = site.allocator.allocate
    book("stale._.1001", "alice", "1.0")
    book("expired._.1003", "henry", "1.1")
    book("bare._.1001", "alice", "1.2")
    book("again._.1001", "alice", "1.3")
    book("lost._.1001", "alice", "2.1")
    book("moved._.1001", "alice", "2.2")
    book("double._.1001", "alice", "3.0")
    book("count._.1001", "alice", "3.1")
    book("unread._.1001", "alice", "1.0")
    book("idle._.1001", "alice", "1.1")
    for name, slot in RUNNING.items():
        if name not in {"after._.1001", "idle._.1001", "count._.1001"}:
            run(engine, site, name, slot)
    run(engine, site, "count._.1001", "3.1", labels=LABELS | {"ds01.gpu.slots": "0"})
    run(engine, site, "idle._.1001", None)
    run(engine, site, "expired._.1003", "1.1", labels=HENRYS)
    engine.stop_container("expired._.1003")
    engine.client.rename("before._.1001", "after._.1001")
    record(site, "orphan._.1001", {**(site.record("stale._.1001") or {}), "gpu_id": "2.2"})
    record(site, "again._.1001", (site.record("again._.1001") or {}) | {"stopped_at": "2026-01-01"})
    (site.metadata / "bare._.1001.json").unlink()
    (site.metadata / "unread._.1001.json").write_text("{torn", encoding="utf-8")

    # What is only reported: others on the GPUs, and requests that no booking can match.
    engine.run("vscode", devices=site.uuid("2.2"))
    run(engine, site, "broad._.1001", None, devices="all")
    shown = nvml.prod4()
    run(engine, site, "whole._.1001", None, devices=shown.slots()["0"])
    world.set(shown.with_process("3.3", engine.pid_of("idle._.1001")))

    def spoil(state: dict[str, Any]) -> None:
        slots = state["gpus"]
        slots["2.1"].update(containers=[], users={})
        slots["2.2"]["containers"].append("double._.1001")
        slots["2.2"]["users"]["alice"] += 1
        slots["3.1"]["users"]["alice"] = 3
        slots["3.3"].update(uuid=DEAD, docker_id=DEAD)
        slots["1.7"] = slots["3.3"] | {"physical_gpu": "1", "device_id": "7", "uuid": f"{DEAD}7"}

    site.write_state(spoil)


def record(site: Site, name: str, content: dict[str, Any]) -> None:
    path = site.metadata / f"{name}.json"
    path.write_text(json.dumps(content | {"container": name}, indent=2), encoding="utf-8")


def check_books(site: Site) -> None:
    """The books say what is, in all their parts."""
    slots = site.read_state()["gpus"]
    assert {slot: entry["uuid"] for slot, entry in slots.items()} == {
        slot: uuid for slot, uuid in nvml.prod4().slots().items() if slot != "0"
    }
    for slot, entry in slots.items():
        holders = [name for name, booked in RUNNING.items() if booked == slot]
        assert entry["containers"] == holders
        assert entry["users"] == ({"alice": len(holders)} if holders else {})
    assert {path.name for path in site.metadata.iterdir()} == {f"{name}.json" for name in RUNNING}
    for name, slot in RUNNING.items():
        written = site.record(name) or {}
        assert (written["container"], written["user"], written["gpu_id"]) == (name, "alice", slot)
        assert "stopped_at" not in written
