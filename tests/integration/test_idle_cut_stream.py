"""A proxy that cuts the stream of events, again and again, shorter apart than any grace.

What is gone is released in its time, who is created anew in a gap loses nothing, and it is said.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from simulation.engine import PrivateEngine
from simulation.proxy import Proxy
from tests.support.books import until
from tests.support.daemon import RunningDaemon, Site

pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]

LABELS = {"aime.mlc": "alice", "aime.mlc.USER": "alice"}
HENRYS = {"aime.mlc": "henry", "aime.mlc.USER": "henry"}
CUT_S = 0.7
GRACE_S = 4  # all absences of a container together last twice as long, none alone does
LIVES, AGAIN = ("lives._.1001", "1.0"), ("again._.1001", "1.1")
STOPPED, NEVER = ("stopped._.1003", "1.2"), ("never._.1001", "1.3")


def warnings(site: Site) -> list[str]:
    return [one["kind"] for one in site.status().get("warnings", [])]


def doctor(site: Site) -> list[tuple[str, str, str]]:
    checks = json.loads(site.ctl("doctor", "--json").stdout)["checks"]
    return [
        (one["health"], one["told"], one["fix"]) for one in checks if one["name"] == "event stream"
    ]


def test_a_stream_that_is_cut_again_and_again_stops_no_release_and_takes_nothing(
    tmp_path: Path, engine: PrivateEngine
) -> None:
    with Proxy(engine.root / "proxy.sock", engine.socket) as proxy:
        proxy.cut_events_after_s = CUT_S
        graces = {"settle": f"{GRACE_S}s", "absence_grace": f"{GRACE_S}s"}
        # A busy machine is no engine that was away: that would end the warning, and begin it again.
        site = Site(
            tmp_path,
            proxy.url,
            policy=graces,
            docker={"timeout": "5s"},
            daemon={"sweep_interval": "5s", "sweep_jitter": "0s"},
        )
        # Before ds01d: a start that takes longer than the creation grace would cost the booking.
        for (name, slot), labels in ((LIVES, LABELS), (AGAIN, LABELS), (STOPPED, HENRYS)):
            site.allocator.allocate(name, labels["aime.mlc"], slot)
            engine.run(name, devices=site.uuid(slot), labels=labels)
        with RunningDaemon(site) as daemon:
            site.allocator.allocate(NEVER[0], "alice", NEVER[1])
            engine.stop_container(STOPPED[0])

            # In gaps and out of them: it is gone for a moment, and comes back.
            away_s = 0.0
            while away_s < 2 * GRACE_S:
                gone = time.monotonic()
                engine.remove(AGAIN[0])
                engine.run(AGAIN[0], devices=site.uuid(AGAIN[1]), labels=LABELS)
                took_s = time.monotonic() - gone
                assert took_s < GRACE_S, "this engine is too slow for its grace"
                away_s += took_s
            daemon.booked(LIVES, AGAIN)
            assert set(site.taken()) == {STOPPED, NEVER}

            entry = daemon.wait_for("engine.warning", warning="stream-cut", level="warning")
            assert "idle timeout" in entry["reason"]
            assert "start again" not in entry["reason"]
            until(lambda: warnings(site) == ["stream-cut"], what="a warning")
            assert "is cut every" in site.ctl("status").stdout
            ((health, told, fix),) = doctor(site)
            assert health == "warn"
            assert re.search(r"is cut every [0-9.]+ s", told)
            assert "proxy_read_timeout" in fix

            engine.remove(LIVES[0])
            daemon.booked(AGAIN)

            proxy.cut_events_after_s = None
            daemon.wait_for("engine.warning-over", warning="stream-cut")
            until(lambda: not warnings(site), what="no warning")
            assert doctor(site) == []
            daemon.booked(AGAIN)
            assert len(daemon.seen("engine.warning")) == 1
