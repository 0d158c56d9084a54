"""The page of a booted machine shows other hosts, which a user with a key and no page asks for it.

The machine asks itself, over a real sshd, with a key that may only see the status; a second host
does not answer. The steps are those of docs/fleet.md.
"""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from ds01d.model.fleet import HOSTS_UNIT
from simulation import nvml
from simulation.machine import Machine
from simulation.sshd import SshdUnavailable, find_sshd
from tests.machine.test_web import SOCKET, WEB, fetch
from tests.support.books import until
from tests.support.daemon import ROOT
from tests.support.service import Service

pytestmark = [pytest.mark.machine, pytest.mark.timeout(300)]

HOME: Final = "/var/lib/ds01d-hosts"
VIEW: Final = "/run/ds01d-hosts/hosts.json"
SSHD: Final = """\
Port 2222
ListenAddress 127.0.0.1
HostKey /etc/ssh/fleet_key
UsePAM no
"""
SSH: Final = """\
Host gpu02
    Port 2223
Host gpu01 gpu02
    HostName 127.0.0.1
    Port 2222
"""
# As docs/fleet.md has it, for both ends at once.
SET_UP: Final = f"""
usermod -p '*' ds01d-hosts
id sshd 2>/dev/null || useradd --system --no-create-home sshd
mkdir -p -m 755 /run/sshd
ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/fleet_key
install -d -m 700 -o ds01d-hosts -g ds01d-hosts {HOME} {HOME}/.ssh
cd {HOME}/.ssh
ssh-keygen -q -t ed25519 -N '' -f id_ed25519
answers='restrict,command="/usr/share/ds01d/fleet-status.sh"'
echo "$answers $(cat id_ed25519.pub)" >authorized_keys
echo "[127.0.0.1]:2222 $(cat /etc/ssh/fleet_key.pub)" >known_hosts
chown ds01d-hosts:ds01d-hosts *
"""


@pytest.fixture(scope="module")
def service(machine: Machine) -> Service:
    try:
        sshd = find_sshd()
    except SshdUnavailable as error:
        pytest.skip(str(error))
    service = Service(machine)
    service.install(nvml.prod4())
    service.configure(web={"listen": SOCKET}, fleet={"hosts": ["gpu01", "gpu02"]})
    for unit in (WEB, HOSTS_UNIT):
        machine.put(f"/etc/systemd/system/{unit}", ROOT / "systemd" / unit)
    script = ROOT / "share" / "fleet-status.sh"
    machine.put("/usr/share/ds01d/fleet-status.sh", script, mode=0o755)
    machine.put("/etc/ssh/fleet_sshd", SSHD)
    machine.boot()
    service.chown_books()
    machine.start_docker()
    machine.run("systemctl", "start", "ds01d.service")
    machine.run("sh", "-euc", SET_UP)
    machine.put(f"{HOME}/.ssh/config", SSH)
    daemon = (*sshd, "-D", "-e", "-f", "/etc/ssh/fleet_sshd")
    machine.run("systemd-run", "--unit=fleet-sshd", *daemon)
    machine.run("systemctl", "enable", "--now", WEB, HOSTS_UNIT)
    return service


def read_hosts(service: Service) -> dict[str, dict[str, Any]]:
    fleet = fetch(service, SOCKET, "/page.json")["fleet"]
    return {host["host"]: host for host in fleet["hosts"]}


def test_the_page_has_all_hosts_and_no_key(service: Service) -> None:
    machine = service.machine

    def both_asked() -> dict[str, dict[str, Any]] | None:
        hosts = read_hosts(service)
        is_refused = "Connection refused" in (hosts["gpu02"]["reason"] or "")
        return hosts if hosts["gpu01"]["state"] == "ok" and is_refused else None

    # Of this look: each round asks anew, and a busy machine may be too slow for one.
    hosts = until(both_asked, what=lambda: str(read_hosts(service)))
    shown = json.loads(machine.run("ds01ctl", "status", "--json").stdout)
    assert {slot["slot"] for slot in hosts["gpu01"]["slots"]} == {
        slot["slot"] for slot in shown["slots"]
    }
    assert (hosts["gpu02"]["state"], hosts["gpu02"]["slots"]) == ("unknown", None)
    assert "Connection refused" in hosts["gpu02"]["reason"]
    health = machine.run("ds01ctl", "doctor", check=False).stdout
    assert "2 hosts, 1 unknown" in health
    # Who serves the page reaches no key and no connection; the page's own unit reaches no host.
    as_page = ("setpriv", "--reuid=ds01d-web", "--regid=ds01d-web", "--clear-groups")
    for place in (f"{HOME}/.ssh/id_ed25519", "/run/ds01d-hosts/ds01d"):
        assert machine.run(*as_page, "ls", place, check=False).returncode != 0, place
    assert machine.run(*as_page, "cat", VIEW).stdout.startswith('{"v":"1"')
    # The key opens no shell, as the user that has it.
    as_hosts = ("setpriv", "--reuid=ds01d-hosts", "--regid=ds01d-hosts", "--clear-groups")
    done = machine.run(*as_hosts, "env", f"HOME={HOME}", "ssh", "gpu01", "id", check=False)
    assert "may only be used by ds01ctl fleet" in done.stderr


def test_its_sandbox_is_closed_and_small(service: Service) -> None:
    machine = service.machine
    properties = machine.show(HOSTS_UNIT, "ActiveState", "User", "CapabilityBoundingSet")
    assert (properties["ActiveState"], properties["User"]) == ("active", "ds01d-hosts")
    assert properties["CapabilityBoundingSet"] == ""
    command = ("systemd-analyze", "security", "--no-pager", HOSTS_UNIT)
    verdict = machine.run(*command).stdout.splitlines()[-1]
    assert float(verdict.partition(":")[2].split()[0]) < 2.5, verdict
    assert machine.run("id", "-nG", "ds01d-hosts").stdout.split() == ["ds01d-hosts"]
    # It is told behind the view that the page shows.
    known = {"StatusText": "1 host known, 1 unknown"}
    until(lambda: machine.show(HOSTS_UNIT, *known) == known, what=service.tail)
    pid = machine.show(HOSTS_UNIT, "MainPID")["MainPID"]
    memory = machine.run("grep", "VmRSS", f"/proc/{pid}/status").stdout.split()
    assert int(memory[1]) < 64 << 10, "kB; beside it a few MB for the connection of each host"


def test_a_view_that_nobody_renews_is_no_answer(service: Service) -> None:
    machine = service.machine
    machine.run("systemctl", "stop", HOSTS_UNIT)
    # The runtime directory goes with the unit, and with it the file.
    until(lambda: read_hosts(service)["gpu01"]["state"] == "unknown")
    assert "is ds01d-hosts.service running?" in read_hosts(service)["gpu01"]["reason"]
    service.configure(fleet={"hosts": []})
    assert machine.run("systemctl", "start", HOSTS_UNIT, check=False).returncode != 0
    ended = machine.show(HOSTS_UNIT, "ActiveState", "ExecMainStatus", "NRestarts")
    assert (ended["ActiveState"], ended["ExecMainStatus"]) == ("failed", "78")
