"""Notices of free slots from a real daemon: asked for by two users and by root, over a restart."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simulation.fake_engine import FakeEngine
from tests.support.books import until
from tests.support.daemon import RunningDaemon, Site
from tests.support.peers import BIN, DAEMON, call_as, public_socket, read_error

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="acts as other users, which root can")


@pytest.fixture
def site(tmp_path: Path, fake_engine: FakeEngine) -> Iterator[Site]:
    with public_socket() as path:
        yield Site(
            tmp_path,
            fake_engine.url,
            service={"socket": str(path)},
            policy={"creation_grace": "10m"},
            notify={"greetings": True},
            # A look comes after a pass: only a release has one made here.
            daemon={"sweep_interval": "10m"},
        )


def test_a_slot_that_is_given_back_is_one_notice_to_who_asked_before_a_restart(site: Site) -> None:
    path = Path(str(site.tables["service"]["socket"]))

    def ask(uid: int, method: str, **parameters: Any) -> Any:
        return call_as(uid, path, method, **parameters)

    def list_messages() -> list[str]:
        return [one["message"] for one in ask(DAEMON, "Notices")["parameters"]["notices"]]

    with RunningDaemon(site):
        assert "error" not in ask(BIN, "Allocate", container="theirs", slot="1.0")
        refused = ask(DAEMON, "Allocate", slot="1.0", notify=True)
        code, rest = read_error(refused)
        assert (code, rest["code"]) == ("Refused", "SLOT_TAKEN")
        assert rest["notify_until"] > 0
        shown = site.ctl("allocate", "root", "--slot", "1.0", "--notify")
        assert shown.returncode == 3
        assert "root gets a notice once there is room, within 7 d" in shown.stdout
        document = json.loads(
            site.ctl("allocate", "root", "--slot=1.0", "--notify", "--json").stdout
        )
        assert document["notify_until"] is not None
        assert json.loads(site.ctl("me", "--json").stdout)["notice_requests"][0]["slot"] == "1.0"
        assert site.ctl("withdraw").stdout == "1 request for a notice withdrawn\n"
        assert site.ctl("withdraw").stdout == "0 requests for a notice withdrawn\n"
    with RunningDaemon(site):
        assert len(ask(DAEMON, "Notices")["parameters"]["requests"]) == 1
        assert list_messages() == []
        before = site.bookings()
        assert "error" not in ask(BIN, "Release", container="theirs")
        until(list_messages, 60)
        assert list_messages() == [
            "GPU 1.0 is free and not reserved; to book it: ds01ctl allocate daemon --slot 1.0"
        ]
        assert ask(DAEMON, "Notices")["parameters"]["requests"] == []
        others = ask(BIN, "Notices")["parameters"]["notices"]
        assert [one["type"] for one in others] == ["gpu_quota_reached"]
        assert site.bookings() == before - {("theirs", "1.0")}
        assert json.loads(site.ctl("me", "--json").stdout)["notices"] == []
