"""The throw-away machine itself: what it takes along, and that nothing of it stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simulation.machine import Machine
from tests.support.books import until
from tests.support.daemon import ROOT
from tests.support.processes import command_lines

pytestmark = pytest.mark.machine


def traces(name: str) -> list[Path]:
    """Everything on the host that bears the machine's name."""
    places = (Path("/tmp"), *Path("/sys/fs/cgroup").glob("*"), Path("/sys/fs/cgroup"))
    return [found for place in places if place.is_dir() for found in place.glob(f"{name}*")]


def processes(name: str) -> list[int]:
    """The pids of everything that bears the machine's name on its command line."""
    return [pid for pid, words in command_lines() if name in words]


def test_a_machine_boots_runs_keeps_its_files_and_leaves_nothing(machine_host: None) -> None:
    with Machine() as machine:
        assert not [path for path in machine.path("/var/log").rglob("*") if path.is_file()]
        machine.put("/etc/greeting", "hello\n")
        machine.boot()
        assert machine.run("cat", "/etc/greeting").stdout == "hello\n"
        assert machine.run("systemctl", "list-units", "--failed", "--no-legend").stdout == ""
        assert machine.run("ls", "/tmp").stdout.count("ds01-") == 0
        assert machine.run("false", check=False).returncode == 1
        with pytest.raises(RuntimeError, match="exit status 3: no"):
            machine.run("sh", "-c", "echo no; exit 3")
        machine.run("sh", "-c", "logger -t greeter --id=7 'good morning'")
        [entry] = until(lambda: machine.journal("-t", "greeter"))
        assert entry["MESSAGE"] == "good morning"
        engine = machine.start_docker()
        engine.run("train._.1001", devices=["MIG-1"])
        machine.run("touch", "/var/kept")
        machine.shut_down()
        machine.boot()
        assert machine.path("/var/kept").exists()
        [container] = machine.start_docker().client.containers(all=True)
        assert container["Names"] == ["/train._.1001"]
        assert not Path("/var/kept").exists()
    until(lambda: not traces(machine.name) and not processes(machine.name))


def test_it_goes_with_its_owner(machine_host: None) -> None:
    story = (
        "import sys; from simulation.machine import Machine\n"
        "machine = Machine(); machine.boot(); print(machine.name, flush=True); sys.stdin.read()"
    )
    command = (sys.executable, "-c", story)
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        name = owner.stdout.readline().strip()
        assert processes(name)
        os.kill(owner.pid, signal.SIGKILL)
    until(lambda: not traces(name) and not processes(name))


INNER = """
from simulation.machine import Machine
with Machine() as machine:
    machine.put("/usr/lib/sysusers.d/guest.conf", 'g guest -\\n')
    machine.boot()
    print(machine.run("getent", "group", "guest", check=False).stdout.partition(":")[0])
    print(len(machine.start_docker().run("train._.1001")))
"""


def test_it_boots_on_a_host_that_systemd_has_booted(machine_host: None) -> None:
    """There version 2 of cgroups is alone, and systemd has marked /etc and /var as up to date."""
    python = Path(sys.base_prefix)
    needed = {str(folder): folder for folder in (ROOT, python) if folder != Path("/usr")}
    with Machine(binds=needed) as host:
        host.boot()
        assert host.run("stat", "-fc", "%T", "/sys/fs/cgroup").stdout == "cgroup2fs\n"
        # As Debian 13 does it, and later than all that the machine inside will bring.
        host.run("touch", "-d", "+1 hour", "/etc/.updated", "/var/.updated")
        told = host.run(
            *("sh", "-c", 'cd "$1" && exec "$2" -c "$3"', "sh", str(ROOT), sys.executable, INNER),
            env={"PYTHONDONTWRITEBYTECODE": "1"},
            timeout_s=100,
        )
        assert told.stdout.split() == ["guest", "64"]


def test_a_machine_may_seem_just_booted(machine_host: None) -> None:
    with Machine(uptime_s=20) as machine:
        before = time.clock_gettime(time.CLOCK_BOOTTIME)
        machine.boot()
        up = float(machine.run("cat", "/proc/uptime").stdout.split()[0])
        passed = time.clock_gettime(time.CLOCK_BOOTTIME) - before
        assert min(before, 20) <= up <= 20 + passed + 1


def test_a_machine_of_another_system_is_a_copy_that_goes_with_it(
    machine_host: None, tmp_path: Path
) -> None:
    system = tmp_path / "system"
    (system / "etc").mkdir(parents=True)
    (system / "etc" / "greeting").write_text("hello\n")
    with Machine(system=system) as machine:
        assert machine.path("/etc/greeting").read_text() == "hello\n"
        machine.put("/etc/greeting", "changed\n")
        assert (system / "etc" / "greeting").read_text() == "hello\n"
        assert len(list(tmp_path.iterdir())) == 2
    assert list(tmp_path.iterdir()) == [system]
