"""A machine that looks like the lab's present server: install, observe, take over, go back.

Every command is one of docs/migrating.md, typed as it stands there. The lab's own programs are
stand-ins (tests/support/lab/server) that behave towards ds01d as the originals do.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest

from simulation import nvml
from simulation.engine_client import IMAGE
from simulation.machine import ENVIRONMENT, Machine
from tests.support.books import until
from tests.support.daemon import DATA, LIMITS
from tests.support.package import packages
from tests.support.pages import read_steps
from tests.support.present_lab import SCRIPTS
from tests.support.samples import copy_sample
from tests.support.service import Service

pytestmark = [pytest.mark.machine, pytest.mark.timeout(300)]

LAB: Final = DATA / "lab"
SERVER: Final = SCRIPTS / "server"
INFRA: Final = "/opt/ds01-infra"
ALLOCATOR: Final = f"{INFRA}/scripts/docker/gpu_allocator_v2.py"
EVENTS: Final = "/var/log/ds01/events.jsonl"
CHOWN_JOB: Final = f"{INFRA}/scripts/system/permissions-manifest.sh"
UNITS: Final = ("ds01-exporter", "ds01-container-owner-tracker", "ds01-container-sync")
ENGINE: Final = {
    "bridge": "none",
    "iptables": False,
    "ip-forward": False,
    "shutdown-timeout": 1,
    "exec-opts": ["native.cgroupdriver=systemd"],
    "cgroup-parent": "ds01.slice",
    "default-runtime": "nvidia",
    "runtimes": {"nvidia": {"path": "/usr/local/sbin/nvidia-container-runtime"}},
}
PAGE: Final = "docs/migrating.md"
STEPS: Final = read_steps(PAGE, "Without a state file")
OBSERVE, TAKE_OUT, TAKE_OVER, NOTICES, GO_BACK = STEPS


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """The machine, and what its lab's files were before ds01d came."""

    machine: Machine
    service: Service
    before: dict[str, tuple[str, bytes]]

    def type_in(self, *blocks: str) -> str:
        """Run blocks of the page as root does; the output."""
        # `plan` says by its exit status that there is drift.
        prefix = 'ds01ctl() { command ds01ctl "$@" || [ $? = 2 ]; }\n'
        return "".join(
            self.machine.run("bash", "-euc", prefix + block, timeout_s=120).stdout
            for block in blocks
        )

    def run_as(self, user: str, *words: str) -> subprocess.CompletedProcess[str]:
        command = ("runuser", "-u", user, "--", "env", "LAB_PATIENCE_S=5", *words)
        return self.machine.run(*command, check=False)

    def docker_run(self, user: str, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        """`docker run` as a user types it; PATH leads to the lab's wrapper."""
        container = ("--name", name, "--network", "none", IMAGE, "sleep", "1000")
        return self.run_as(user, "docker", "run", "--detach", *words, *container)

    def device_of(self, name: str) -> str:
        (request,) = self.machine.docker.client.inspect_container(name)["HostConfig"][
            "DeviceRequests"
        ]
        (device,) = request["DeviceIDs"]
        return str(device)

    def holders(self) -> dict[str, str | None]:
        """Who holds what, by `ds01ctl status`: UUID → the user of its holder."""
        return {
            slot["uuid"]: slot["holders"][0]["user"]
            for slot in self.service.ctl("status")["slots"]
            if slot["holders"]
        }

    def events(self) -> list[dict[str, Any]]:
        text = self.machine.path(EVENTS).read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    def event_types(self) -> list[str]:
        return [event["event_type"] for event in self.events()]

    def doctor(self) -> dict[str, list[dict[str, str]]]:
        checks: dict[str, list[dict[str, str]]] = {}
        for check in self.service.ctl("doctor")["checks"]:
            checks.setdefault(check["name"], []).append(check)
        return checks


def lab_files(machine: Machine) -> dict[str, tuple[str, bytes]]:
    """Owner, mode and content of everything of the lab's."""
    places = (INFRA, "/etc/cron.d", "/usr/local/bin/docker", "/var/lib/ds01", "/var/log/ds01")
    listed = machine.run("find", *places, "-printf", "%p\t%u:%g %m %y %l\n").stdout
    files = {}
    for line in listed.splitlines():
        path, _, rights = line.partition("\t")
        is_file = rights.split()[2] == "f"
        files[path] = (rights, machine.path(path).read_bytes() if is_file else b"")
    return files


def alert_types(lab: Lab, user: str) -> set[str]:
    path = lab.machine.path(f"/var/lib/ds01/alerts/{user}.json")
    return {alert["type"] for alert in json.loads(path.read_text(encoding="utf-8"))}


def furnish(machine: Machine) -> None:
    """Put the lab's programs, settings and folders into the machine."""
    for script in ("docker-wrapper.sh", "gpu_allocator_v2.py"):
        machine.put(f"{INFRA}/scripts/docker/{script}", SERVER / script, mode=0o755)
    for file in (SCRIPTS / "docker-wrapper.sh", SCRIPTS / "parsing.sh"):
        machine.put(f"{INFRA}/scripts/docker/lab/{file.name}", file, mode=0o755)
    machine.put(CHOWN_JOB, SERVER / "permissions-manifest.sh", mode=0o755)
    machine.put("/etc/cron.d/ds01-maintenance", SERVER / "ds01-maintenance")
    machine.put("/etc/logrotate.d/ds01-lab", SERVER / "logrotate")
    machine.put("/var/log/ds01/gpu-allocations.log", "2026-07-22T08:20:00|ALLOCATED|…\n")
    uuids = [gpu.uuid for gpu in nvml.full(4).gpus]
    machine.put(f"{INFRA}/gpus.json", json.dumps(uuids))
    config = LAB / "config"
    for file in (path for path in config.rglob("*") if path.is_file()):
        machine.put(f"{INFRA}/config/{file.relative_to(config)}", file)
    machine.path("/usr/local/bin/docker").unlink(missing_ok=True)  # this host's own, if it has one
    machine.path("/usr/local/bin/docker").symlink_to(f"{INFRA}/scripts/docker/docker-wrapper.sh")
    machine.put("/var/lib/ds01/opa/container-owners.json", '{"containers": {}}')
    machine.put("/var/lib/ds01/alerts/.keep", "")
    machine.put(EVENTS, "")
    for unit in UNITS:
        text = f"[Unit]\nDescription={unit}\n[Service]\nExecStart=/bin/sleep infinity\n"
        machine.put(f"/etc/systemd/system/{unit}.service", text)
    for group in ("", "-student", "-student-alice", "-student-bob"):
        machine.put(f"/etc/systemd/system/ds01{group}.slice", "[Slice]\nTasksMax=1000\n")
    runtime = '#!/bin/sh\nexec runc "$@"\n'
    machine.put("/usr/local/sbin/nvidia-container-runtime", runtime, mode=0o755)
    machine.put("/etc/docker/daemon.json", json.dumps(ENGINE))


@pytest.fixture(scope="module")
def lab(machine_host: None) -> Iterator[Lab]:
    """The server as the lab has it, before ds01d comes."""
    built = packages()
    with Machine() as machine:
        machine.put("/root/ds01d.deb", built.new)
        machine.path("/usr/sbin/policy-rc.d").unlink(missing_ok=True)
        machine.path("/var/lib/man-db/auto-update").unlink(missing_ok=True)
        furnish(machine)
        machine.boot()
        machine.install_driver(nvml.build() / nvml.NAME, nvml.full(4).text())
        for user in ("alice", "bob"):
            machine.run("useradd", "--create-home", "--groups", "docker", user)
        machine.run("chgrp", "docker", "/var/lib/ds01/alerts")
        machine.run("chmod", "775", "/var/lib/ds01/alerts")
        machine.put("/var/log/ds01/gpu-allocator.lock", "", mode=0o666)
        machine.run("systemctl", "start", *UNITS)
        machine.start_docker()
        machine.run(CHOWN_JOB)
        yield Lab(machine=machine, service=Service(machine), before=lab_files(machine))


def install_and_observe(lab: Lab) -> None:
    machine = lab.machine
    assert lab.docker_run("alice", "first", "--gpus", "1").returncode == 0
    machine.run("dpkg", "--install", "/root/ds01d.deb", timeout_s=120)
    until(lambda: "docker ok, nvml ok" in lab.service.line, what=lambda: lab.service.line)
    assert "logrotate skips all of /etc/logrotate.d/ds01d" in lab.doctor()["logrotate"][0]["told"]
    shown = lab.type_in(*OBSERVE.there)
    assert lab.doctor()["logrotate"][0]["health"] == "ok"
    assert "error" not in machine.run("logrotate", "--debug", "/etc/logrotate.conf").stderr
    assert 'kind = "docker"' in shown
    assert 'mode = "observe"' in shown
    until(lambda: lab.holders() == {lab.device_of("first"): "alice"}, what=lab.holders)
    # The lab's wrapper and allocator work on, and ds01d sees what they do.
    assert lab.docker_run("bob", "second", "--gpus", "1").returncode == 0
    devices = {lab.device_of("first"): "alice", lab.device_of("second"): "bob"}
    until(lambda: lab.holders() == devices, what=lab.holders)
    after = lab_files(machine)
    assert {path: after.get(path) for path in lab.before} == lab.before
    assert {path for path in after if path not in lab.before} <= {
        "/var/lib/ds01/container-metadata",
    }

    checks = lab.doctor()
    assert [check for some in checks.values() for check in some if check["health"] == "fail"] == []
    warned = [check["told"] for check in checks["cron"] if check["health"] == "warn"]
    assert "may kill every process on the first GPU and reset it" in warned[0]
    assert len(warned) == 3
    assert f"{ALLOCATOR} is not ds01d's" in checks["allocator"][0]["told"]
    assert checks["docker wrapper"][0]["health"] == "ok"
    assert checks["lab units"][0]["health"] == "ok"
    machine.run("systemctl", "stop", UNITS[2])
    assert lab.doctor()["lab units"][0]["told"].startswith(f"{UNITS[2]}.service is inactive: ")
    machine.run("systemctl", "start", UNITS[2])


def take_over(lab: Lab) -> None:
    machine = lab.machine
    lab.type_in(*TAKE_OUT.there, *TAKE_OVER.there)
    checks = lab.doctor()
    assert [check["health"] for check in checks["allocator"]] == ["ok"]
    assert [check for check in checks["cron"] if check["health"] == "warn"] == []
    lab.type_in(*NOTICES.there)
    # The job of every quarter of an hour, in the middle of everything.
    machine.run(CHOWN_JOB)

    # Two users in the same second; the lab's own allocator would have given both the same GPU.
    both = [
        subprocess.Popen(
            machine.inside(
                f"runuser -u {user} -- docker run --detach --gpus 1 --name {name}"
                f" --network none {IMAGE} sleep 1000".split()
            ),
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for user, name in (("alice", "third"), ("bob", "fourth"))
    ]
    outputs = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    names = {"first": "alice", "second": "bob", "third": "alice", "fourth": "bob"}
    holders = {lab.device_of(name): user for name, user in names.items()}
    assert len(holders) == 4
    until(lambda: lab.holders() == holders, what=lab.holders)
    slices = machine.run("systemctl", "list-units", "--plain", "--no-legend", "docker-*.scope")
    assert slices.stdout.count("docker-") >= 4
    third = machine.docker.client.inspect_container("third")
    assert third["HostConfig"]["CgroupParent"] == "ds01-student-alice.slice"
    assert third["Config"]["Labels"]["ds01.user"] == "alice"

    # At the quota the wrapper gives up at once, and alice is told at her next login too.
    refused = lab.docker_run("alice", "fifth", "--gpus", "1")
    assert refused.returncode == 1
    assert "quota" in refused.stderr + refused.stdout
    assert "gpu_quota_refused" in alert_types(lab, "alice")

    # A stopped container: its user is told in time, and nobody else gets its GPU.
    lab.type_in("sed -i 's/^hold_warning = .*/hold_warning = \"1h\"/' /etc/ds01/ds01d.toml")
    machine.run("/usr/bin/docker", "stop", "--time", "0", "first")
    lab.service.systemctl("reload")
    until(lambda: "gpu_hold_ending" in alert_types(lab, "alice"), what=lab.service.tail)

    # Who goes around the wrapper has a GPU too, and it is not given away.
    until(lambda: "container.stop" in lab.event_types(), what=lab.event_types)  # the last so far
    before = lab.event_types()
    rotated = machine.run("logrotate", "--force", "/etc/logrotate.d/ds01-lab")
    assert rotated.stderr == ""
    assert lab.events() == []
    script = f"cd /var/log/ds01; mv gpu-allocations.log.1 gpu-allocations.log; rm {EVENTS}-*"
    machine.run("sh", "-euc", script)
    machine.run(CHOWN_JOB)
    freed = lab.device_of("fourth")
    machine.docker.remove("fourth")
    until(lambda: len(lab.holders()) == 3, what=lab.holders)
    machine.docker.run("around", devices=[freed])
    taken = lab.docker_run("bob", "sixth", "--gpus", "1")
    assert taken.returncode == 1, taken.stdout
    machine.docker.remove("around")
    until(lambda: len(lab.holders()) == 3, what=lab.holders)
    assert lab.docker_run("bob", "sixth", "--gpus", "1").returncode == 0
    assert lab.device_of("sixth") == freed
    until(lambda: len(lab.holders()) == 4, what=lab.holders)
    started = ("container.start", "sixth")
    until(lambda: started in [(e["event_type"], e["details"]["container"]) for e in lab.events()])
    types = [*before, *lab.event_types()]
    assert types.count("gpu.allocated") == 3
    assert "gpu.rejected" in types
    assert {event["schema_version"] for event in lab.events()} == {"1"}
    assert all(len(line) < 4096 for line in machine.path(EVENTS).read_bytes().splitlines())
    owner = machine.run("stat", "--format=%U:%G %a", EVENTS, "/var/lib/ds01", "/var/log/ds01d")
    assert owner.stdout == "root:docker 664\nroot:docker 775\nds01d:ds01d 755\n"
    assert lab.service.log("DS01_EVENT=config.risk", "PRIORITY=4") == []
    assert lab.service.log("DS01_EVENT=degraded.begin") == []

    # Users can exchange the folder of the notices: no link is followed, and there is one warning.
    exchange = "cd /var/lib/ds01; mv alerts away; ln -s /etc alerts"
    assert lab.run_as("alice", "sh", "-euc", exchange).returncode == 0
    machine.run("/usr/bin/docker", "stop", "--time", "0", "second")
    for _ in range(3):
        lab.service.systemctl("reload")
        until(lambda: lab.service.log("DS01_EVENT=degraded.begin"), what=lab.service.tail)
    (warning,) = lab.service.log("DS01_EVENT=degraded.begin")
    assert "/var/lib/ds01/alerts" in str(warning["DS01_REASON"])
    assert not machine.path("/etc/bob.json").exists()
    machine.run("sh", "-euc", "cd /var/lib/ds01; rm alerts; mv away alerts")

    # A release of the lab copies its own tree over the link, and loses the wrapper.
    machine.put(ALLOCATOR, SERVER / "gpu_allocator_v2.py", mode=0o755)
    machine.path("/usr/local/bin/docker").unlink()
    checks = lab.doctor()
    assert "was replaced, as by a release of the lab" in checks["allocator"][0]["told"]
    assert checks["docker wrapper"][0]["health"] == "warn"
    for check in (checks["allocator"][0], checks["docker wrapper"][0]):
        machine.run("sh", "-euc", check["fix"])
    checks = lab.doctor()
    assert {checks[name][0]["health"] for name in ("allocator", "docker wrapper")} == {"ok"}


def go_back(lab: Lab) -> None:
    machine = lab.machine
    for step in (NOTICES, TAKE_OVER, TAKE_OUT, OBSERVE):
        lab.type_in(*step.back)
    lab.type_in(*GO_BACK.there)
    after = lab_files(machine)
    written = {EVENTS, "/var/lib/ds01/alerts/alice.json", "/var/lib/ds01/alerts/bob.json"}
    changed = {path for path in lab.before if after.get(path) != lab.before[path]}
    assert changed <= written
    assert after[EVENTS][0] == lab.before[EVENTS][0]
    assert {path for path in after if path not in lab.before} <= {
        *written,
        "/var/lib/ds01/container-metadata",
    }
    # Nothing was stopped, and the lab's own allocator gives out what is free.
    states = [row["State"] for row in machine.docker.client.containers(all=True)]
    assert sorted(states) == ["exited", "exited", "running", "running"]
    full = lab.docker_run("bob", "seventh", "--gpus", "1")
    assert full.returncode == 1
    machine.docker.remove("third")
    assert lab.docker_run("bob", "seventh", "--gpus", "1").returncode == 0


LEGACY: Final = f"{INFRA}/scripts/docker/gpu_allocator.py"
RECONCILER: Final = f"{INFRA}/scripts/maintenance/reconcile-gpu-state.sh"


def go_the_way_with_a_state_file(lab: Lab) -> None:
    """The scripts of before: every step there, then every step back."""
    machine, service = lab.machine, lab.service
    machine.run("dpkg", "--purge", "ds01d", timeout_s=120)
    machine.docker.clear()
    for place in ("/etc/ds01", "/var/lib/ds01", "/var/log/ds01", "/var/log/ds01d", ALLOCATOR):
        machine.run("rm", "--recursive", "--force", place)
    machine.install_driver(nvml.build() / nvml.NAME, nvml.prod4().text())
    for kind, folder in (("lib", "/var/lib/ds01"), ("log", "/var/log/ds01")):
        copy_sample(DATA / "states" / "v3-dcce6c2-prod4" / kind, machine.path(folder))
    service.books.empty()
    machine.put(f"{INFRA}/config/resource-limits.yaml", LIMITS)
    machine.put(LEGACY, "print('the old allocator: gpu-state.json')\n")
    machine.put(RECONCILER, "#!/bin/bash\necho the old reconciler: gpu-state.json\n")
    machine.path("/usr/local/bin/container-list").symlink_to(f"{INFRA}/scripts/list")
    scripts = lab_files(machine)
    machine.run("dpkg", "--install", "/root/ds01d.deb", timeout_s=120)
    until(lambda: "docker ok, nvml ok" in service.line, what=lambda: service.line)
    steps = {step.title.split(". ")[0]: step for step in read_steps(PAGE, "With a state file")}
    numbered = [steps[number] for number in "1234567"]
    shown = [lab.type_in(*step.there) for step in numbered[:6]]
    assert "GPU Status" in shown[2]
    # What a script gives away, the only writer takes back; that is said once.
    lib = machine.path("/var/lib/ds01")
    for _ in range(3):
        machine.run("chmod", "775", "/var/lib/ds01")
        service.systemctl("reload")
        until(lambda: lib.stat().st_mode & 0o777 == 0o755, what=service.tail)

    def taken_back() -> list[str]:
        said = (str(entry["DS01_REASON"]) for entry in service.log("DS01_EVENT=config.risk"))
        return [text for text in said if "taken back" in text]

    # It is logged after it was done, and journald writes an entry when it can.
    assert until(taken_back, what=service.tail) == [
        "/var/lib/ds01: a script let others write there; taken back"
    ]
    lab.type_in(*numbered[6].there)
    assert service.books.status()["mode"] == "repair"
    assert machine.path("/var/lib/ds01").stat().st_mode & 0o022 == 0
    assert not machine.path("/usr/local/bin/container-list").exists()
    for step in reversed(numbered):
        lab.type_in(*step.back)
    assert service.active == "inactive"
    after = lab_files(machine)
    for path in (LEGACY, RECONCILER, "/usr/local/bin/docker"):
        assert after[path] == scripts[path]
    assert machine.path("/usr/local/bin/container-list").is_symlink()
    assert service.books.bookings() == set()


def test_a_lab_installs_observes_takes_over_and_goes_back(lab: Lab) -> None:
    """Each step begins where the one before has ended."""
    install_and_observe(lab)
    take_over(lab)
    go_back(lab)
    go_the_way_with_a_state_file(lab)
