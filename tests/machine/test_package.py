"""The Debian package on a machine: installed, upgraded, removed, purged, as people do it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from ds01d import __version__
from ds01d.documents.output_versions import VERSIONS
from simulation import nvml
from simulation.machine import Machine
from tests.support.books import until
from tests.support.daemon import DATA, LIMITS
from tests.support.package import OLDER, Packages, packages
from tests.support.service import CONFIG, UNIT, Service

pytestmark = [pytest.mark.machine, pytest.mark.timeout(300)]

NEW, OLD = "/root/ds01d-new.deb", "/root/ds01d-old.deb"
EVERYWHERE = ("/etc", "/usr", "/opt", "/var/lib/ds01", "/var/log/ds01")
COMMANDS = [
    "ds01d",
    "ds01d-notify",
    "ds01ctl",
    "ds01-allocator",
    "ds01-dashboard",
    "reconcile-gpu-state",
    "container-create",
    "container-enter",
    "container-list",
    "container-logs",
    "container-remove",
    "container-start",
    "container-stop",
]


@pytest.fixture(scope="session")
def built(machine_host: None) -> Packages:
    """Build the package, once."""
    return packages()


@contextmanager
def bare_machine(built: Packages) -> Iterator[Machine]:
    """A machine without ds01d, booted, with both packages in root's home."""
    with Machine() as machine:
        machine.put(NEW, built.new)
        machine.put(OLD, built.old)
        # Where this host forbids packages to start services, the machine does not.
        machine.path("/usr/sbin/policy-rc.d").unlink(missing_ok=True)
        machine.put("/opt/ds01-infra/config/resource-limits.yaml", LIMITS)
        # An index of all the manual pages of this host takes seconds, and shows nothing.
        machine.path("/var/lib/man-db/auto-update").unlink(missing_ok=True)
        machine.boot()
        yield machine


@pytest.fixture
def bare(built: Packages) -> Iterator[Machine]:
    """Lend a machine without ds01d."""
    with bare_machine(built) as machine:
        yield machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A machine on which the package was just installed; `before`: every file that was there."""

    machine: Machine
    before: set[str]
    loaded: int
    said: str


@pytest.fixture(scope="module")
def installed(built: Packages) -> Iterator[Installed]:
    """Install the package as the README has it."""
    with bare_machine(built) as machine:
        before, loaded = listed(machine, *EVERYWHERE), reloads(machine)
        done = machine.run(
            *("apt-get", "--yes", "--quiet", "--no-install-recommends", "install", NEW),
            timeout_s=120,
        )
        said = done.stdout + done.stderr
        yield Installed(machine=machine, before=before, loaded=loaded, said=said)


def dpkg(machine: Machine, *words: str) -> str:
    """Have dpkg do something; what it said. It has nobody to ask, and fails if it has to."""
    done = machine.run("dpkg", *words, timeout_s=120)
    return done.stdout + done.stderr


def reloads(machine: Machine) -> int:
    """How often systemd was told to read all units again, as it says itself."""
    machine.run("journalctl", "--sync")  # journald writes what it is told when it can
    told = [str(entry["MESSAGE"]) for entry in machine.journal("_PID=1")]
    return sum(text.startswith(("Reloading.", "Reloading requested")) for text in told)


def listed(machine: Machine, *folders: str) -> set[str]:
    """Every file below these folders."""
    command = ("find", *folders, "-xdev", "!", "-type", "d")
    return set(machine.run(*command, check=False).stdout.splitlines())


def put_books(machine: Machine) -> Service:
    """Copy the books of a sample into the folders that the package has made."""
    for kind, folder in (("lib", "/var/lib/ds01"), ("log", "/var/log/ds01")):
        source = DATA / "states" / "v3-dcce6c2-prod4" / kind
        for file in (path for path in source.rglob("*") if path.is_file()):
            machine.put(f"{folder}/{file.relative_to(source)}", file)
    service = Service(machine)
    service.books.empty()
    return service


def content(machine: Machine, *folders: str) -> dict[str, bytes]:
    return {name: machine.path(name).read_bytes() for name in listed(machine, *folders)}


def remembered(service: Service) -> dict[str, Any]:
    """What the daemon keeps of absences and drifts, and since when it has watched."""
    memory = json.loads((service.books.state_dir / "checkpoint.json").read_bytes())["memory"]
    return {key: memory[key] for key in ("since", "absent", "sightings")}


def test_installed_it_runs_and_tells_the_truth(installed: Installed) -> None:
    machine = installed.machine
    service = Service(machine)
    told = service.tells("ActiveState", "UnitFileState", "NRestarts", "User")
    assert told == {
        "ActiveState": "active",
        "UnitFileState": "enabled",
        "NRestarts": "0",
        "User": "ds01d",
    }
    # Docker runs here; there are no books yet, and no driver. All of that is said.
    assert service.line.startswith("observing only; 0 slots of 0 held"), service.line
    assert "docker ok, nvml down (" in service.line
    assert "state down (/var/lib/ds01/gpu-state.json does not exist)" in service.line
    shown = machine.run("systemctl", "status", UNIT).stdout
    assert "active (running)" in shown
    # It has the time of the last sweep, and the next may come between two looks.
    until(lambda: service.line in machine.run("systemctl", "status", UNIT).stdout, what=shown)
    # systemd found the unit without being told to read all of them again, which is what may hurt.
    assert reloads(machine) == installed.loaded
    assert "reloaded" not in installed.said
    assert machine.run("systemd-analyze", "verify", UNIT).stderr == ""


def test_it_runs_on_the_python_of_the_distribution_alone(installed: Installed) -> None:
    machine, pid = installed.machine, Service(installed.machine).pid
    maps = machine.run("cat", f"/proc/{pid}/maps").stdout
    files = {line.split()[5] for line in maps.splitlines() if len(line.split()) > 5}
    modules = {name for name in files if "/python3" in name and name.endswith(".so")}
    assert any("/msgspec/" in name for name in modules)
    for name in modules:
        assert name.startswith(("/usr/lib/ds01d/venv/lib/", "/usr/lib/python3.")), name
        assert "dist-packages" not in name
    executable = machine.run("readlink", "-f", f"/proc/{pid}/exe").stdout.strip()
    assert executable == machine.run("readlink", "-f", "/usr/bin/python3").stdout.strip()


def test_the_files_are_those_that_are_promised(installed: Installed) -> None:
    machine = installed.machine
    promised = set(machine.run("dpkg-query", "--listfiles", "ds01d").stdout.splitlines())
    for command in COMMANDS:
        assert f"/usr/bin/{command}" in promised
        assert f"/usr/share/bash-completion/completions/{command}" in promised
        assert f"/usr/share/zsh/vendor-completions/_{command}" in promised
        assert f"/usr/share/fish/vendor_completions.d/{command}.fish" in promised
    for output in VERSIONS:
        assert f"/usr/share/ds01d/schemas/{output}.json" in promised
        assert any(re.fullmatch(rf"/usr/share/man/man\d/{command}\.\d\.gz", x) for x in promised)
        assert machine.run(command, "--help").stdout
    # Nothing was compiled or written beside them, or changed.
    assert machine.run("dpkg", "--verify", "ds01d").stdout == ""
    after = listed(machine, *EVERYWHERE)
    assert installed.before - after == set()
    assert after - installed.before - promised <= {
        *(f"/etc/{name}-" for name in ("passwd", "shadow", "group", "gshadow")),
        "/etc/.pwd.lock",
        CONFIG,
        "/etc/docker/key.json",  # made by dockerd 20.10 at its first start
        "/etc/systemd/system/multi-user.target.wants/ds01d.service",
        "/etc/systemd/system/multi-user.target.wants/ds01d-notify.service",
        "/etc/systemd/system/multi-user.target.wants/ds01d-notify-network.service",
        "/etc/systemd/system/sockets.target.wants/ds01d.socket",
    }
    conffiles = machine.run("dpkg-query", "--show", "--showformat=${Conffiles}", "ds01d").stdout
    assert sorted(conffiles.split()[0::2]) == [
        "/etc/logrotate.d/ds01d",
        "/etc/logrotate.d/ds01d-own",
    ]
    groups = machine.run("id", "--name", "--groups", "ds01d").stdout.split()
    assert set(groups) == {"ds01d", "ds01", "docker", "systemd-journal", "ds01d-notify"}
    # No target is configured: what sends notices ended at once, and begins with each boot.
    for unit in ("ds01d-notify.service", "ds01d-notify-network.service"):
        ended = {"ActiveState": "inactive", "Result": "success", "UnitFileState": "enabled"}
        until(lambda: machine.show(unit, *ended) == ended)  # noqa: B023 - called at once


def test_what_it_brings_is_found_where_people_look(installed: Installed) -> None:
    machine = installed.machine
    manual = machine.run("man", "--warnings", "ds01d.toml", env={"MANWIDTH": "80"})
    assert "sweep_interval" in manual.stdout
    assert manual.stderr == ""
    allocator = machine.run("python3", "/usr/share/ds01d/gpu_allocator.py", "--version").stdout
    assert allocator == f"ds01-allocator {__version__}\n"
    script = machine.run("bash", "/usr/share/ds01d/reconcile-gpu-state.sh", "--version").stdout
    assert script == f"reconcile-gpu-state {__version__}\n"
    # Nobody has written a catalogue yet: ours is taken, and what goes wrong is something else.
    refused = machine.run("container-create", "test", "pytroch", check=False)
    assert refused.returncode == 1
    assert "/usr/share/ds01d/frameworks.toml has no framework 'pytroch'" in refused.stderr
    assert machine.run("cat", "/usr/share/ds01d/frameworks.toml").stdout
    assert machine.run("ds01-dashboard", "--once", check=False).returncode in {0, 1}
    script = """
    . /usr/share/bash-completion/completions/ds01ctl
    COMP_WORDS=(ds01ctl rec) COMP_CWORD=1
    { _ds01ctl_completion ds01ctl; } && echo "${COMPREPLY[@]}"
    """
    assert machine.run("bash", "-c", script).stdout == "reconcile\n"


def test_no_line_is_lost_when_logs_are_rotated(installed: Installed) -> None:
    machine = installed.machine
    log = "/var/log/ds01/container-operations.log"
    writer = """
    . /usr/share/ds01d/container-logger.sh
    for number in $(seq 200); do
        log_container_operation start alice train._.1001 1.0 success "$number"
    done
    """
    with subprocess.Popen(machine.inside(("sh", "-c", writer))) as writing:
        for rotation in range(1, 4):
            until(lambda: machine.path(log).exists() and machine.path(log).stat().st_size > 100)
            done = machine.run("logrotate", "--force", "/etc/logrotate.d/ds01d")
            assert done.stderr == ""
            assert machine.path(f"{log}.{rotation}{'' if rotation == 1 else '.gz'}").exists()
        assert writing.wait(timeout=60) == 0
    entries = machine.run("ds01ctl", "log", "--json").stdout
    assert [int(x) for x in re.findall(r'"details": "(\d+)"', entries)] == list(range(1, 201))
    owner = machine.run("stat", "--format=%U %a", log, "/var/log/ds01").stdout
    assert owner == "ds01d 644\nds01d 755\n"


def test_an_upgrade_keeps_settings_memory_and_docker(bare: Machine) -> None:
    bare.install_driver(nvml.build() / nvml.NAME, nvml.prod4().text())
    service = put_books(bare)
    # A drift that will be in hand: somebody is booked who is not there.
    name = "gone._.1001"
    record = {"container": name, "user": "alice", "gpu_id": "1.1", "priority": 10}
    record["allocated_at"] = "2026-01-01T00:00:00"
    bare.put(f"/var/lib/ds01/container-metadata/{name}.json", json.dumps(record))
    service.books.write_state(
        lambda state: state["gpus"]["1.1"].update(containers=[name], users={"alice": 1})
    )
    docker = bare.start_docker()
    dpkg(bare, "--install", OLD)
    # As after a boot: from now on systemd has the unit loaded even if it does not run.
    bare.run("systemctl", "daemon-reload")
    shipped = bare.path(CONFIG).read_text()
    settings = shipped.replace('mode = "observe"', 'mode = "repair"').replace('"2m"', '"10m"')
    bare.path(CONFIG).write_text(settings)
    service.systemctl("restart")
    assert service.books.status()["version"] == OLDER
    in_hand = remembered(service)
    assert list(in_hand["absent"]) == [name]

    loaded, dockerd = reloads(bare), bare.show("docker.service", "MainPID", "NRestarts")
    dpkg(bare, "--install", NEW)
    assert service.active == "active"
    assert service.books.status()["version"] == __version__
    assert remembered(service) == in_hand  # its wait went on
    assert bare.path(CONFIG).read_text() == settings
    assert [path.name for path in bare.path("/etc/ds01").iterdir()] == ["ds01d.toml"]
    assert bare.show("docker.service", "MainPID", "NRestarts") == dockerd
    # No container has a GPU here: systemd was told, and goes by the new unit file.
    assert reloads(bare) == loaded + 1
    assert service.tells("NeedDaemonReload") == {"NeedDaemonReload": "no"}

    # Now one has.
    docker.run("train._.1001", devices=["0"])
    loaded = reloads(bare)
    said = dpkg(bare, "--install", OLD)
    assert "systemd was NOT reloaded: running containers have GPUs: train._.1001." in said
    assert "systemctl daemon-reload && systemctl restart ds01d.service" in said
    assert reloads(bare) == loaded
    assert service.active == "active"
    assert service.books.status()["version"] == OLDER
    assert bare.show("docker.service", "MainPID", "NRestarts") == dockerd
    assert docker.client.inspect_container("train._.1001")["State"]["Running"]
    docker.remove("train._.1001")

    # Nobody answers for Docker: then it must be assumed.
    bare.run("systemctl", "kill", "--signal=STOP", "docker.service")
    said = dpkg(bare, "--install", NEW)
    bare.run("systemctl", "kill", "--signal=CONT", "docker.service")
    assert "systemd was NOT reloaded: cannot get the containers with GPUs from Docker." in said
    assert reloads(bare) == loaded


def test_removed_and_purged_it_takes_only_its_own(bare: Machine) -> None:
    before = listed(bare, "/etc", "/usr")
    dpkg(bare, "--install", NEW)
    service = put_books(bare)
    bare.put("/etc/ds01/resource-limits.yaml", LIMITS)
    bare.run("ds01ctl", "freeze", "--reason", "to be removed")
    books = content(bare, "/var/lib/ds01", "/var/log/ds01")
    assert books
    bare.run("systemctl", "daemon-reload")  # as after a boot: it has the unit loaded for good

    dpkg(bare, "--remove", "ds01d")
    assert service.tells("ActiveState")["ActiveState"] == "inactive"
    assert service.tells("LoadState")["LoadState"] == "not-found"
    assert bare.run("systemctl", "--failed", "--no-legend").stdout.count("ds01d") == 0
    left = listed(bare, "/etc", "/usr") - before
    assert {name for name in left if "ds01" in name} >= {CONFIG, "/etc/logrotate.d/ds01d"}
    assert not {name for name in left if name.startswith("/usr/") and "ds01" in name}
    assert bare.path("/var/lib/ds01d/checkpoint.json").exists()
    assert content(bare, "/var/lib/ds01", "/var/log/ds01") == books

    dpkg(bare, "--install", NEW)  # and it goes on where it was
    assert "frozen" in service.line or service.ctl("status")["freezes"]
    dpkg(bare, "--purge", "ds01d")
    assert not bare.path("/var/lib/ds01d").exists()
    assert not {x for x in listed(bare, "/etc", "/usr") - before if "ds01d" in x}
    assert bare.path("/etc/ds01/resource-limits.yaml").read_text() == LIMITS
    assert content(bare, "/var/lib/ds01", "/var/log/ds01") == books
    assert bare.run("id", "ds01d").returncode == 0  # files of the books may be its


def test_a_host_with_docker_and_gpus_alone_has_an_allocator(built: Packages) -> None:
    """Nothing is configured and nothing was there: a user books, runs, stops, removes."""
    with Machine() as machine:
        machine.put(NEW, built.new)
        machine.path("/usr/sbin/policy-rc.d").unlink(missing_ok=True)
        machine.path("/var/lib/man-db/auto-update").unlink(missing_ok=True)
        machine.boot()
        machine.install_driver(nvml.build() / nvml.NAME, nvml.prod4().text())
        docker = machine.start_docker()
        machine.run("useradd", "--no-create-home", "-u", "2001", "amy")
        dpkg(machine, "--install", NEW)
        service, name = Service(machine), "train._.2001"
        until(lambda: "docker ok, nvml ok" in service.line, what=lambda: service.line)
        assert service.line.startswith("0 slots of 13 held"), service.line
        as_amy = ("runuser", "-u", "amy", "--")
        done = machine.run(*as_amy, "ds01ctl", "allocate", "amy", name, "--json")
        device = json.loads(done.stdout)["docker_id"]
        docker.run(name, devices=[device], labels={"ds01.managed": "true"})
        until(lambda: "1 slot of 13 held, 0 drifts" in service.line, what=lambda: service.line)
        docker.stop_container(name)
        assert machine.run(*as_amy, "ds01-allocator", "user-count", "amy").stdout == "1\n"
        explained = machine.run("ds01ctl", "explain", name).stdout
        assert "docker: exited" in explained
        docker.remove(name)
        until(lambda: "0 slots of 13 held" in service.line, what=lambda: service.line)
        assert machine.run("ds01ctl", "plan").stdout == "the books are consistent\n"
        assert not machine.path("/var/lib/ds01/gpu-state.json").exists()
