"""`doctor` says whether somebody serves the page that is configured."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from ds01d.adapters.fleet.view_file import write_view
from ds01d.cli.doctor import web_checks
from ds01d.cli.doctor.source_checks import Health
from ds01d.cli.doctor.web_checks import check_web
from ds01d.config import Config, FleetConfig, WebConfig
from simulation.ports import find_free_port
from tests.decide.test_fleet_hosts import make_view
from tests.web.test_application import served


def test_a_page_that_is_off_is_no_check() -> None:
    assert [*check_web(Config())] == []


def test_a_page_that_is_served_is_well(tmp_path: Path) -> None:
    with served() as port:
        (check,) = check_web(Config(web=WebConfig(listen=f"127.0.0.1:{port}")))
        assert (check.health, check.detail) == (Health.OK, f"served at http://127.0.0.1:{port}/")
        everywhere = WebConfig(listen=f"0.0.0.0:{port}", remote=True)
        assert [check.health for check in check_web(Config(web=everywhere))] == [Health.OK]
    path = tmp_path / "page.sock"
    with served(WebConfig(listen=str(path)), path):
        (check,) = check_web(Config(web=WebConfig(listen=str(path))))
        assert check.health is Health.OK


def test_a_page_that_nobody_serves_has_a_fix(tmp_path: Path) -> None:
    for listen in (f"127.0.0.1:{find_free_port()}", str(tmp_path / "page.sock")):
        (check,) = check_web(Config(web=WebConfig(listen=listen)))
        assert check.health is Health.WARN
        assert "not served at" in check.detail
        assert "systemctl enable --now ds01d-web" in check.fix


def test_another_program_there_is_not_taken_for_it() -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other:
        thread = threading.Thread(target=other.handle_request)
        thread.start()
        listen = f"127.0.0.1:{other.server_address[1]}"
        (check,) = check_web(Config(web=WebConfig(listen=listen)))
        thread.join(60)
    assert check.health is Health.WARN
    assert "not as ds01d does" in check.detail
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        thread = threading.Thread(target=_answer_as_ssh, args=(deaf,))
        thread.start()
        listen = f"127.0.0.1:{deaf.getsockname()[1]}"
        (check,) = check_web(Config(web=WebConfig(listen=listen)))
        thread.join(60)
    assert "not served at" in check.detail


def test_a_page_that_knows_of_no_other_host_has_a_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(web_checks, "time", SimpleNamespace(time=lambda: now))
    file = tmp_path / "hosts.json"
    fleet = FleetConfig(hosts=("gpu01", "gpu02"), view_file=file)
    config = Config(fleet=fleet, web=WebConfig(listen=str(tmp_path / "page.sock")))
    assert [*check_web(Config(fleet=fleet))] == []
    check, _ = check_web(config)
    assert (check.name, check.health) == ("all hosts", Health.WARN)
    assert "hosts.json does not exist" in check.detail
    assert "systemctl enable --now ds01d-hosts" in check.fix
    write_view(file, make_view(at=now - 1000))
    check, _ = check_web(config)
    assert "what was so 16 m 40 s ago" in check.detail
    write_view(file, make_view(at=now))
    check, _ = check_web(config)
    assert check.health is Health.WARN
    assert check.detail.endswith("2 hosts, 1 unknown")
    known = make_view(at=now)
    write_view(file, replace(known, hosts=known.hosts[:1]))
    check, _ = check_web(config)
    assert (check.health, check.detail) == (Health.OK, "asked 0 s ago, 1 host, 0 unknown")


def _answer_as_ssh(listener: socket.socket) -> None:
    with listener.accept()[0] as peer:
        peer.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
        peer.shutdown(socket.SHUT_WR)
        peer.recv(1 << 16)
