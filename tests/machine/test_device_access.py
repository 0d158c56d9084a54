"""`systemctl daemon-reload` takes the GPUs from running containers, and `doctor` shows it.

A machine with cgroup v2, where Docker lets systemd make the cgroups, as it does by default. The
nodes have NVIDIA's numbers and no driver: the kernel decides about a device cgroup before it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simulation import nvml
from simulation.machine import Machine
from tests.machine.test_sandbox import exposure
from tests.support.books import until
from tests.support.daemon import ROOT
from tests.support.service import Service

pytestmark = pytest.mark.machine

UNITS = ("ds01d-devices.service", "ds01d-devices.timer")
LABELS = {"aime.mlc": "alice", "ds01.managed": "true"}
NODES = """
mkdir -p /dev/char
for folder in /dev /srv; do
    mknod -m 666 $folder/nvidia1 c 195 1; mknod -m 666 $folder/nvidiactl c 195 255
done
"""
LINKS = "ln -s ../nvidia1 /dev/char/195:1; ln -s ../nvidiactl /dev/char/195:255"


@pytest.fixture
def service(service_binds: dict[str, Path]) -> Iterator[Service]:
    """ds01d runs, and Docker lets systemd make the cgroups."""
    with Machine(binds=service_binds) as machine:
        service = Service(machine)
        service.install(nvml.prod4())
        for unit in UNITS:
            machine.put(f"/usr/lib/systemd/system/{unit}", ROOT / "systemd" / unit)
        path = "/etc/docker/daemon.json"
        settings = json.loads(machine.path(path).read_text())
        machine.put(path, json.dumps({**settings, "exec-opts": ["native.cgroupdriver=systemd"]}))
        machine.boot()
        service.chown_books()
        machine.start_docker()
        machine.run("sh", "-euc", NODES)
        yield service


def told(service: Service) -> list[tuple[str, str]]:
    """What `doctor` says of device access, as root."""
    checks: list[dict[str, Any]] = service.ctl("doctor")["checks"]
    return [(one["health"], one["told"]) for one in checks if one["name"] == "device access"]


def test_a_reload_of_systemd_takes_a_gpu_and_doctor_tells(service: Service) -> None:
    machine, name = service.machine, "train._.1001"

    # From elsewhere: by its own name it would be a request for the whole GPU.
    nodes = [f"/srv/{node}:/dev/{node}" for node in ("nvidia1", "nvidiactl")]
    device = service.books.uuid("1.0")
    machine.docker.run(name, devices=[device], host_devices=nodes, labels=LABELS)
    service.start()
    until(lambda: service.books.bookings() == {(name, "1.0")})
    assert [health for health, _ in told(service)] == ["warn", "ok"]
    assert "/dev/char/195:255 is missing" in told(service)[0][1]
    assert told(service)[1] == ("ok", "1 container can open the requested GPUs")

    machine.run("systemctl", "start", UNITS[0])
    assert service.ctl("explain", name)["device_access"]["can_open"] is True
    # Until a sweep of the daemon's has seen that, too.
    service.systemctl("reload")

    machine.run("systemctl", "daemon-reload")
    scope = f"docker-{machine.docker.client.inspect_container(name)['Id']}.scope"
    rules = machine.run("systemctl", "show", "--property=DeviceAllow", scope).stdout
    # runc 1.1.15 (Debian 13) gives systemd the devices without a link, too: a reload takes nothing.
    if "/dev/char/195:255 " in rules:
        assert told(service)[1] == ("ok", "1 container can open the requested GPUs")
        machine.run("systemctl", "set-property", "--runtime", scope, "DeviceAllow=")
    machine.path("/run/ds01d-devices/access.json").unlink()
    lost = ("warn", f"{name} runs and cannot open /dev/nvidia1, /dev/nvidiactl")
    # systemd writes the rules of its cgroups after it has answered.
    until(lambda: told(service)[1] == lost, what=lambda: told(service))
    # The daemon may not ask for the program of a cgroup, and does not guess.
    service.systemctl("reload")
    access = service.ctl("explain", name)["device_access"]
    assert (access["needs"], access["can_open"]) == (["/dev/nvidia1"], None)
    assert service.ctl("status")["findings"] == []

    # What root's unit leaves for it, it knows.
    with service.logging("finding.new", DS01_FINDING="device-lost", DS01_CONTAINER=name):
        machine.run("systemctl", "start", UNITS[0])
    # What a pass has found is published after it is logged.
    (finding,) = until(lambda: service.ctl("status")["findings"], what=service.tail)
    assert (finding["container"], finding["user"], finding["slots"]) == (name, "alice", ["1.0"])
    assert service.ctl("explain", name)["device_access"]["can_open"] is False
    assert exposure(service, UNITS[0]) <= 3.0

    # Docker makes a new cgroup. With the links that NVIDIA's tool makes, systemd knows the devices.
    machine.run("sh", "-euc", LINKS)
    # What was tried before says nothing of this start.
    with service.logging("finding.gone", DS01_FINDING="device-lost"):
        machine.run("systemctl", "revert", scope)
        machine.run("docker", "restart", "--time=0", name)
    assert told(service) == [("ok", "1 container can open the requested GPUs")]
    machine.run("systemctl", "daemon-reload")
    assert told(service) == [("ok", "1 container can open the requested GPUs")]

    # Not everybody may look, and a container that is paused would pause who looks.
    as_nobody = machine.run("runuser", "-u", "nobody", "--", "ds01ctl", "doctor", check=False)
    assert "of containers: not checked, only root can" in as_nobody.stdout
    machine.run("docker", "pause", name)
    assert told(service) == []
    machine.run("docker", "unpause", name)
