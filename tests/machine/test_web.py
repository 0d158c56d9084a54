"""The web page as a service: its user, what its sandbox refuses, and what it may ask of ds01d."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

from simulation import nvml
from simulation.machine import Machine
from tests.support.books import until
from tests.support.daemon import ROOT
from tests.support.service import UNIT, Service

pytestmark = [pytest.mark.machine, pytest.mark.timeout(600)]

WEB = "ds01d-web.service"
SOCKET = "/run/ds01d-web/page.sock"
NAME = "train._.1001"
LINE = f"2026-11-29 12:00:00|start|alice|{NAME}|1.0|success|"
ASK = """
import http.client, socket, sys
connection = http.client.HTTPConnection("localhost", timeout=60)
if sys.argv[1].startswith("/"):
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(sys.argv[1])
else:
    connection = http.client.HTTPConnection(*sys.argv[1].rsplit(":", 1), timeout=60)
connection.request("GET", sys.argv[2])
print(connection.getresponse().read().decode())
"""


@pytest.fixture(scope="module")
def service(machine: Machine) -> Service:
    """A booted machine with a driver, ds01d with its socket, and the page at a socket."""
    service = Service(machine)
    service.install(nvml.prod4())
    service.configure(
        web={"listen": SOCKET},
        books={"writers": "service"},
        service={"socket": "/run/ds01d/booking.sock"},
    )
    for unit in ("ds01d.socket", WEB):
        machine.put(f"/etc/systemd/system/{unit}", ROOT / "systemd" / unit)
    machine.boot()
    service.chown_books()
    machine.start_docker()
    machine.run("sh", "-euc", f"echo {shlex.quote(LINE)} >>/var/log/ds01/container-operations.log")
    machine.run("systemctl", "start", "ds01d.socket", UNIT)
    machine.run("systemctl", "enable", "--now", WEB)
    return service


def fetch(service: Service, where: str, path: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(service.machine.run("python3", "-c", ASK, where, path).stdout)
    return told


def test_everybody_sees_the_page_and_its_user_may_change_nothing(service: Service) -> None:
    machine = service.machine
    page = fetch(service, SOCKET, "/page.json")
    assert page["status"]["daemon"]["alive"] is True
    # Of all users: who is no operator and not the page's user would be refused.
    assert [line["container"] for line in page["activity"]["log"]][-1] == NAME
    assert len(page["week"]["lines"]) == 7
    assert "error" not in page["activity"]
    shown = json.loads(machine.run("ds01ctl", "status", "--json").stdout)
    assert fetch(service, SOCKET, "/status.json")["slots"] == shown["slots"]
    health = machine.run("ds01ctl", "doctor", check=False).stdout
    assert f"served at {SOCKET}" in health
    as_page = ("setpriv", "--reuid=ds01d-web", "--regid=ds01d-web", "--clear-groups")
    for words in (
        ("ds01ctl", "freeze"),
        ("ds01ctl", "release", NAME),
        ("ds01ctl", "report", "--by", "booking", "--user", "alice"),
        ("touch", "/var/lib/ds01d/x"),
        ("cat", "/var/lib/ds01d/history.jsonl"),
    ):
        assert machine.run(*as_page, *words, check=False).returncode != 0, words


def test_the_sandbox_is_closed_and_small(service: Service) -> None:
    machine = service.machine
    told = machine.show(WEB, "MainPID", "ActiveState", "User", "CapabilityBoundingSet")
    assert (told["ActiveState"], told["User"]) == ("active", "ds01d-web")
    assert told["CapabilityBoundingSet"] == ""
    memory = machine.run("grep", "VmRSS", f"/proc/{told['MainPID']}/status").stdout.split()
    assert int(memory[1]) < 64 << 10, "kB, half of MemoryMax="
    groups = machine.run("id", "-nG", "ds01d-web").stdout.split()
    assert groups == ["ds01d-web"]
    verdict = machine.run("systemd-analyze", "security", "--no-pager", WEB).stdout.splitlines()[-1]
    assert float(verdict.partition(":")[2].split()[0]) < 2.0, verdict


def test_it_listens_on_loopback_and_dies_without_ds01d_noticing(service: Service) -> None:
    machine = service.machine
    service.configure(web={"listen": "127.0.0.1:9465"})
    machine.run("systemctl", "restart", WEB)
    assert fetch(service, "127.0.0.1:9465", "/status.json")["daemon"]["alive"] is True
    before = service.pid
    machine.run("systemctl", "kill", "--signal=KILL", WEB)
    # With its socket, or the next call starts it again.
    machine.run("systemctl", "stop", "ds01d.socket", UNIT)
    machine.run("systemctl", "restart", WEB)
    page = fetch(service, "127.0.0.1:9465", "/page.json")
    assert page["status"]["daemon"]["alive"] is False
    machine.run("systemctl", "start", "ds01d.socket", UNIT)
    assert service.pid not in (0, before)
    until(lambda: fetch(service, "127.0.0.1:9465", "/status.json")["daemon"]["alive"])


def test_an_address_that_is_off_is_no_reason_to_try_again(service: Service) -> None:
    machine = service.machine
    service.configure(web={"listen": ""})
    assert machine.run("systemctl", "restart", WEB, check=False).returncode != 0
    told = machine.show(WEB, "ActiveState", "ExecMainStatus", "NRestarts")
    assert (told["ActiveState"], told["ExecMainStatus"]) == ("failed", "78")
