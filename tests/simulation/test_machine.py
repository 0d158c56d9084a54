"""The throw-away machine itself: what it takes along, and that nothing of it stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from simulation.machine import Machine
from tests.support.books import until
from tests.support.daemon import ROOT

pytestmark = pytest.mark.machine


def traces(name: str) -> list[Path]:
    """Everything on the host that bears the machine's name."""
    places = (Path("/tmp"), *Path("/sys/fs/cgroup").glob("*"), Path("/sys/fs/cgroup"))
    return [found for place in places if place.is_dir() for found in place.glob(f"{name}*")]


def processes(name: str) -> list[str]:
    """The pids of everything that bears the machine's name on its command line."""
    found = subprocess.run(("pgrep", "-f", name), capture_output=True, text=True, check=False)
    return found.stdout.split()


def test_a_machine_boots_runs_keeps_its_files_and_leaves_nothing(machine_host: None) -> None:
    with Machine() as machine:
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
