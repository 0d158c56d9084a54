"""Three booted machines as a fleet: ds01d on two of them, one frozen later, one that dies.

ssh reaches each through a real sshd in it, over a pipe in the place of a network. amy and ben, in
no group but their own, ask from this host.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from simulation import nvml
from simulation.machine import Machine
from simulation.sshd import SshdUnavailable, SshHosts, find_sshd, ssh_hosts
from tests.machine.test_booking_service import LIMITS, SOCKET
from tests.machine.test_container_service import CATALOGUE
from tests.support.books import until
from tests.support.daemon import ROOT, toml
from tests.support.fleet import start_command
from tests.support.service import PLACE, Service

pytestmark = [pytest.mark.machine, pytest.mark.timeout(900)]

NAMES: Final = ("gpu01", "gpu02", "gpu03")
USERS: Final = {"amy": "2001", "ben": "2002"}
SSHD: Final = """\
UsePAM no
StrictModes no
AuthorizedKeysFile /etc/fleet/id.pub
HostKey /etc/fleet/host_key
"""


class FleetOfMachines:
    """The machines by name, and users who ask them; `frozen`: whose sshd does not go on."""

    def __init__(self, machines: Mapping[str, Machine], ssh: Mapping[str, SshHosts]) -> None:
        self.machines, self.ssh = machines, ssh
        self.frozen: set[str] = set()
        self.folder = Path(ssh["amy"].commands).parent
        tables: dict[str, dict[str, object]] = {
            "fleet": {"hosts": list(NAMES)},
            "service": {"socket": ""},
        }
        (self.folder / "ds01d.toml").write_text(toml(tables), encoding="utf-8")
        self.connect()

    def connect(self) -> None:
        """Write the configurations of ssh anew."""
        sshd = shlex.join(find_sshd())
        for user, hosts in self.ssh.items():
            blocks = []
            for name, machine in self.machines.items():
                run = f"{sshd} -i -e -f /etc/fleet/sshd_config"
                if name in self.frozen:
                    # Not nsenter's own child, with which it would stop itself, for ever.
                    run = f"{run} <&0 & kill -STOP $!; wait"
                script = self.folder / f"{user}-{name}"
                inside = f"nsenter --target {machine.leader} --all -- sh -c '{run}' 2>/dev/null"
                script.write_text(f"#!/bin/sh\nexec {inside}\n")
                script.chmod(0o755)
                blocks.append(
                    f"Host {name}\n  User {user}\n  ProxyCommand {script}\n  HostKeyAlias {name}\n"
                    "  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n"
                )
            hosts.write_client("\n".join(blocks))

    def start(self, user: str, command: str, *words: str) -> subprocess.Popen[str]:
        environ = {
            "PATH": f"{self.ssh[user].commands}:/usr/bin:/bin:/usr/sbin",
            "DS01D_CONFIG": str(self.folder / "ds01d.toml"),
            "XDG_CACHE_HOME": str(self.folder / f"cache-{user}"),
            "LANG": "C.UTF-8",
        }
        return start_command(environ, command, *words)

    def run(self, user: str, command: str, *words: str) -> subprocess.CompletedProcess[str]:
        process = self.start(user, command, *words)
        output, errors = process.communicate(timeout=240)
        return subprocess.CompletedProcess(words, process.returncode, output, errors)

    def view(self) -> dict[str, dict[str, Any]]:
        document = json.loads(self.run("amy", "ds01ctl", "fleet", "status", "--json").stdout)
        return {host["host"]: host for host in document["hosts"]}

    def list_free(self) -> dict[str, int | None]:
        """How many slots of each are known to be free."""
        return {
            name: None if host["slots"] is None else sum(slot["free"] for slot in host["slots"])
            for name, host in self.view().items()
        }

    def find_hosts(self, subject: str) -> set[str]:
        """Where something is, or was when that host answered last."""
        done = self.run("amy", "ds01ctl", "fleet", "where", subject, "--json")
        return {place["host"] for place in json.loads(done.stdout)["found"]}


def prepare(machine: Machine, key: Path, *, with_ds01d: bool) -> Service:
    service = Service(machine)
    if with_ds01d:
        service.install(nvml.prod4())
        command = "container-create"
        machine.path(f"/usr/bin/{command}").symlink_to(f"{PLACE}/bin/{command}")
    machine.boot()
    machine.run("sh", "-c", "id sshd || useradd --system --no-create-home sshd")
    for user, uid in USERS.items():
        machine.run("useradd", "--create-home", "-U", "-p", "*", "-s", "/bin/sh", "-u", uid, user)
    machine.put("/etc/fleet/sshd_config", SSHD)
    machine.put("/etc/fleet/id.pub", key.with_suffix(".pub"))
    machine.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/etc/fleet/host_key")
    machine.run("mkdir", "-p", "-m", "755", "/run/sshd")
    if with_ds01d:
        start_ds01d(service)
    return service


def start_ds01d(service: Service) -> None:
    machine = service.machine
    service.chown_books()
    machine.start_docker()
    machine.put("/etc/systemd/system/ds01d.socket", ROOT / "systemd" / "ds01d.socket")
    machine.put("/etc/ds01/frameworks.toml", CATALOGUE)
    machine.put("/opt/ds01-infra/config/resource-limits.yaml", LIMITS)
    machine.run("systemctl", "daemon-reload")
    service.configure(
        service={"socket": SOCKET, "containers": True},
        books={"writers": "service"},
        policy={"creation_grace": "30m"},
        allocator={"sharing": "never"},
        # Who waits for an engine that is stopped is cut off before.
        docker={"timeout": "30s"},
        daemon={"sweep_interval": "30s"},
    )
    machine.run("systemctl", "start", "ds01d.socket")
    service.start()


def fill(service: Service, left: int) -> None:
    """Book all that can be booked, but so many; then only those are free for users."""
    slots = [f"{gpu}.{part}" for gpu in (1, 2, 3) for part in range(4)]
    count = str(len(slots) - left)
    words = ("ds01ctl", "allocate", "filler", "--max", "99", "--profile", "1g.10gb")
    service.machine.run(*words, "--count", count)
    service.machine.run("ds01ctl", "allocate", "filler", "--max", "99", "--slot", "0", check=False)


@pytest.fixture(scope="module")
def fleet(service_binds: dict[str, Path]) -> Iterator[FleetOfMachines]:
    try:
        find_sshd()
    except SshdUnavailable as error:
        pytest.skip(str(error))
    with ExitStack() as stack:
        ssh = {user: stack.enter_context(ssh_hosts()) for user in USERS}
        # One key for both: a login is chosen by its name.
        key = ssh["amy"].key
        for suffix in ("", ".pub"):
            target = ssh["ben"].key.with_name(f"id{suffix}")
            target.write_bytes(key.with_name(f"id{suffix}").read_bytes())
        machines = {name: stack.enter_context(Machine(binds=service_binds)) for name in NAMES}
        services = {
            name: prepare(machine, key, with_ds01d=name != "gpu03")
            for name, machine in machines.items()
        }
        fill(services["gpu01"], 1)
        fill(services["gpu02"], 3)
        yield FleetOfMachines(machines, ssh)


# All of sshd, sshd-session too.
CUT: Final = """
until pgrep --euid amy --full 'python.*container-create' >/dev/null; do sleep 0.05; done
pkill -KILL '^sshd'
"""


def test_a_fleet_from_a_race_to_the_death_of_a_host(fleet: FleetOfMachines) -> None:
    until(lambda: fleet.list_free()["gpu01"] in {1, 2}, what=lambda: str(fleet.view()))
    assert fleet.list_free()["gpu03"] is None
    # All hosts together have five seconds for an answer, on a busy machine too.
    until(lambda: "no status of ds01d there" in fleet.view()["gpu03"]["reason"])

    # Two users ask for the last GPU of gpu01: one gets it, the other goes on to gpu02.
    racing = [
        fleet.start(user, "container-create", "train", "pytorch", "--any-host") for user in USERS
    ]
    results = [process.communicate(timeout=240) for process in racing]
    hosts = sorted(
        line.split(" of ")[1].split(",")[0]
        for output, _ in results
        for line in output.splitlines()
        if " runs on GPU " in line
    )
    assert hosts == ["gpu01", "gpu02"], results
    names = {
        name: {
            str(container["Names"][0]).lstrip("/")
            for container in fleet.machines[name].docker.client.containers()
        }
        for name in ("gpu01", "gpu02")
    }
    assert sorted(len(found) for found in names.values()) == [1, 1]
    assert set.union(*names.values()) == {f"train._.{uid}" for uid in USERS.values()}

    # A connection that is cut in the middle of a creation.
    gpu02 = fleet.machines["gpu02"]
    # An engine that is stopped keeps the creation from ending between two looks.
    gpu02.run("systemctl", "kill", "--signal=STOP", "docker.service")
    try:
        cutter = threading.Thread(target=gpu02.run, args=("timeout", "120", "sh", "-c", CUT))
        cutter.start()
        cut = fleet.start("amy", "container-create", "second", "pytorch", "--host", "gpu02")
        cutter.join()
        output, errors = cut.communicate(timeout=240)
    finally:
        gpu02.run("systemctl", "kill", "--signal=CONT", "docker.service")
    assert (cut.returncode, output) == (1, "")
    assert "gpu02: the connection was lost in the middle" in errors
    assert 'container "second" may exist there, and is not tried elsewhere' in errors

    # One freezes, one dies: what it said last is shown, as such.
    until(lambda: fleet.find_hosts("train") == {"gpu01", "gpu02"})
    fleet.frozen.add("gpu02")
    fleet.connect()
    fleet.machines["gpu03"].power_off()

    def look() -> tuple[subprocess.CompletedProcess[str], dict[str, str], float] | None:
        """The table, its states, and the time for it, once gpu01 answers in its five seconds."""
        started = time.monotonic()
        done = fleet.run("amy", "ds01ctl", "fleet", "status")
        rows = {line.split()[0]: line.split()[1] for line in done.stdout.splitlines()}
        return (done, rows, time.monotonic() - started) if rows["gpu01"] == "ok" else None

    done, rows, took_s = until(look)
    assert done.returncode == 1
    assert (rows["gpu01"], rows["gpu02"], rows["gpu03"]) == ("ok", "unknown", "unknown")
    assert "2 hosts unknown" in done.stdout
    # Whichever is first, ssh or who waits for it.
    assert re.search(r"no answer within 5 s|timed out", done.stdout), done.stdout
    assert "slots held by" in done.stdout
    assert fleet.find_hosts("train") == {"gpu01", "gpu02"}
    # A person waits six seconds on a machine with nothing else to do; this one may be busy.
    assert took_s < 20, took_s
