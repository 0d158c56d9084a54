"""dockerd started with another storage driver or image store hides its containers: honest 404s.

Engine ID, data root and inode stay the same. Nothing is released, whether it runs, stopped or is
hidden for long; and what was held before is held for as long when the driver comes back.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from simulation.engine import PrivateEngine
from tests.support.books import until
from tests.support.daemon import RunningDaemon, Site

pytestmark = [pytest.mark.docker, pytest.mark.timeout(240)]

LABELS = {"aime.mlc": "alice", "aime.mlc.USER": "alice"}
BOOKED = [("lives._.1001", "1.0"), ("stopped._.1001", "1.1"), ("created._.1001", "1.2")]
DAY = "defaults: {gpu_hold_after_stop: 24h, priority: 1}\n"


@pytest.fixture
def storage_engine(engine_host: None) -> Iterator[PrivateEngine]:
    """An engine of its own, whose running containers outlive dockerd."""
    with PrivateEngine(storage="vfs", live_restore=True) as engine:
        yield engine


def _others(engine: PrivateEngine) -> Sequence[tuple[str, bool]]:
    """The storage driver alone; where the engine has it, containerd's image store too."""
    newer = not engine.client.version()["Version"].startswith("20.10")
    return [("overlay2", False), *([("overlayfs", True)] if newer else [])]


def hold_end(site: Site, name: str) -> float | None:
    """Until when a stopped container is held, in seconds since the epoch, as published."""
    for slot in site.status()["slots"]:
        for holder in slot["holders"]:
            if holder["container"] == name and holder["until"] is not None:
                return float(holder["until"])
    return None


def doctor(site: Site, name: str) -> tuple[str, str]:
    """How a check of `ds01ctl doctor` came out, and its text."""
    checks = json.loads(site.ctl("doctor", "--json").stdout)["checks"]
    return next((one["health"], one["told"]) for one in checks if one["name"] == name)


def test_another_storage_driver_or_image_store_releases_nothing(
    tmp_path: Path, storage_engine: PrivateEngine
) -> None:
    engine = storage_engine
    site = Site(tmp_path, engine.url)
    site.limits.write_text(DAY, encoding="utf-8")
    # Before ds01d: a start that takes longer than the creation grace would cost the booking.
    for name, slot in BOOKED:
        site.allocator.allocate(name, "alice", slot)
        start = not name.startswith("created")
        engine.run(name, devices=site.uuid(slot), labels=LABELS, start=start)
    with RunningDaemon(site) as daemon:
        engine.stop_container("stopped._.1001")
        daemon.reload()
        ends = until(lambda: hold_end(site, "stopped._.1001"), what="a hold of a day")

        for driver, containerd in _others(engine):
            since = daemon.mark()
            engine.switch_storage(driver, containerd=containerd)
            assert engine.client.containers(all=True) == []
            entry = daemon.wait_for("engine.changed", since=since, level="error")
            assert f"storage driver {driver} instead of vfs" in entry["reason"]
            daemon.outlast(1.5)  # twice the absence grace
            daemon.stop()
            daemon.start()
            daemon.outlast(1.5)
            daemon.booked(*BOOKED)
            assert site.taken() == []
            health, told = doctor(site, "engine")
            assert health == "fail"
            assert f"storage driver {driver} instead of vfs" in told

            engine.switch_storage("vfs")
            until(lambda: site.status()["engine_trusted"], what="trust")
            daemon.outlast(1.5)
            daemon.booked(*BOOKED)
            assert site.taken() == []
            held = until(lambda: hold_end(site, "stopped._.1001"), what="the hold again")
            assert abs(held - ends) < 2.0

        engine.remove("stopped._.1001")
        daemon.booked(BOOKED[0], BOOKED[2])


def test_an_identity_from_before_storage_drivers_is_completed_not_changed(
    tmp_path: Path, storage_engine: PrivateEngine
) -> None:
    engine, site = storage_engine, Site(tmp_path, storage_engine.url)
    name, slot = BOOKED[0]
    site.allocator.allocate(name, "alice", slot)
    engine.run(name, devices=site.uuid(slot), labels=LABELS)
    with RunningDaemon(site) as daemon:
        daemon.reload()
        daemon.stop()
        checkpoint = site.state_dir / "checkpoint.json"
        document = json.loads(checkpoint.read_text(encoding="utf-8"))
        for key in ("driver", "image_store"):
            document["memory"]["engine"].pop(key, None)
        checkpoint.write_text(json.dumps(document), encoding="utf-8")
        daemon.start()
        assert site.status()["engine_trusted"]
        engine.switch_storage("overlay2")
        daemon.wait_for("engine.changed", level="error")
        daemon.outlast(1.0)
        daemon.booked((name, slot))
        assert site.taken() == []
