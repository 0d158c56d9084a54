"""The web page of a real daemon: its documents over HTTP, also after the end of the daemon."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simulation.fake_engine import FakeEngine
from simulation.ports import find_free_port
from tests.support.books import until
from tests.support.daemon import RunningDaemon, Site
from tests.support.peers import BIN, call_as, public_socket, read_error
from tests.support.web import request, serving

NAME = "train._.1001"
LINE = f"2026-11-29 12:00:00|gpu_allocated|alice|{NAME}|1.0|success|\n"


@pytest.fixture
def site(tmp_path: Path, fake_engine: FakeEngine) -> Iterator[Site]:
    with public_socket() as path:
        site = Site(
            tmp_path,
            fake_engine.url,
            service={"socket": str(path)},
            # A booking waits for its container, and sweeps change nothing meanwhile.
            policy={"creation_grace": "10m"},
            daemon={"sweep_interval": "60s"},
        )
        site.allocator.allocate(NAME, "alice", "1.0")
        site.operations.write_text(LINE, encoding="utf-8")
        yield site


def read_document(port: int, path: str = "/status.json") -> dict[str, Any]:
    document: dict[str, Any] = json.loads(request(port, path).body)
    return document


def test_it_shows_what_ds01ctl_shows_and_that_ds01d_has_ended(site: Site) -> None:
    port = find_free_port()

    def look() -> dict[str, Any] | None:
        shown = read_document(port)
        return shown if shown == json.loads(site.ctl("status", "--json").stdout) else None

    with serving(site.config, site.environment(), f"127.0.0.1:{port}") as server:
        assert read_document(port)["daemon"]["alive"] is False
        with RunningDaemon(site) as daemon:
            until(lambda: read_document(port)["daemon"]["alive"])
            # Where the stream of events is late, a second sweep is published soon.
            shown = until(look, what="two looks between two publications")
            (holder,) = (h for slot in shown["slots"] for h in slot["holders"])
            assert (holder["container"], holder["user"]) == (NAME, "alice")
            page = request(port, "/page.json")
            parts = json.loads(page.body)
            assert parts["status"] == shown
            assert parts["activity"]["waiting"] == []
            assert NAME in [line["container"] for line in parts["activity"]["log"]]
            week = parts["week"]
            assert (week["by"], len(week["lines"])) == ("day", 7)
            etag = page.headers["etag"]
            assert request(port, "/page.json", If_None_Match=etag).status == 304
            # What the books get is seen without a pass of the daemon's.
            site.allocator.allocate("eval._.1002", "bob", "1.1")
            until(lambda: b"eval._.1002" in request(port, "/status.json").body)
            daemon.kill()
            until(lambda: not read_document(port)["daemon"]["alive"])
            gone = read_document(port)
            assert f"process {shown['daemon']['pid']} has ended" in gone["daemon"]["reason"]
            assert gone["slots"], "what the books say is still shown"
        until(lambda: b"cannot reach ds01d" in request(port, "/page.json").body)
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0


def test_users_can_be_hidden_and_it_can_be_a_socket(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "page.sock"
    site.configure(web={"listen": str(path), "hide_users": True})
    with RunningDaemon(site), serving(site.config, site.environment()) as server:
        for document in ("/status.json", "/page.json"):
            body = request(path, document).body
            assert b"alice" not in body
            assert NAME.encode() not in body
            assert b'"container-' in body
        server.terminate()
        assert server.wait(60) == 0
    assert not path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="acts as other users, which root can")
def test_what_all_do_is_for_operators_and_the_page_alone(site: Site) -> None:
    socket = Path(str(site.tables["service"]["socket"]))
    with RunningDaemon(site):
        assert read_error(call_as(BIN, socket, "Activity"))[0] == "NotPermitted"
        # Their own days; and nobody has ds01d add up centuries.
        until(lambda: "400 days" in str(call_as(BIN, socket, "Report", since=0.0, by="day")))
        assert len(call_as(0, socket, "Activity", most=1)["parameters"]["log"]) == 1
        assert read_error(call_as(0, socket, "Activity", most=101))[0] == "InvalidParameter"


def test_an_address_that_is_none_or_taken_is_an_error(site: Site) -> None:
    none = site.ctl("web")
    assert (none.returncode, none.stderr) == (
        os.EX_CONFIG,
        "ds01ctl: web.listen is empty: set it, or use --listen 127.0.0.1:9465\n",
    )
    remote = site.ctl("web", "--listen", "192.0.2.1:80")
    assert remote.returncode == os.EX_CONFIG
    assert "--listen: " in remote.stderr
    assert "web.remote = true" in remote.stderr
    port = find_free_port()
    with serving(site.config, site.environment(), f"127.0.0.1:{port}"):
        taken = site.ctl("web", "--listen", f"127.0.0.1:{port}")
        assert taken.returncode == 1
        assert "in use" in taken.stderr
