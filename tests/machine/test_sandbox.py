"""The sandbox of ds01d.service: what systemd thinks of it, and that it bites.

A probe runs in a unit made from the very file, with another command in it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from simulation.machine import Machine
from tests.support.daemon import ROOT
from tests.support.service import UNIT, Service

pytestmark = pytest.mark.machine

MOST_EXPOSED = 1.5
MOST_WITH_METRICS = 2.0
CAP_SYS_PTRACE = 1 << 19
ALLOWED = {
    *("/var/lib/ds01", "/var/lib/ds01/container-metadata", "/var/log/ds01", "/var/lib/ds01d")
}
# Nodes of our own making: (type, major, minor). There is no such driver, so what is allowed to be
# opened fails in another way than what is not.
DEVICES = {
    "/dev/nvidiactl": ("c", 195, 255),
    "/dev/nvidia0": ("c", 195, 0),
    "/dev/net-tun": ("c", 10, 200),
    "/dev/disk-of-the-host": ("b", 254, 0),
}
PROBE = "ds01d-probe"
METRICS = ROOT / "systemd" / "ds01d-metrics.conf"


@pytest.fixture(scope="module")
def prober(machine: Machine) -> Service:
    """A booted machine with the unit, and things that it is not to touch."""
    service = Service(machine)
    service.install()
    machine.put("/home/alice/secret", "of alice's")
    machine.put("/usr/lib/probe.py", Path(__file__).with_name("probe.py"))
    command = f"/usr/bin/python3 /usr/lib/probe.py {' '.join(DEVICES)}"
    for name in (PROBE, f"{PROBE}-metrics"):
        machine.put(f"/usr/lib/systemd/system/{name}.service", probing(command, name))
    drop_in = f"/etc/systemd/system/{PROBE}-metrics.service.d/metrics.conf"
    machine.put(drop_in, METRICS)
    machine.boot()
    for path, (kind, major, minor) in DEVICES.items():
        machine.run("mknod", "--mode=666", path, kind, str(major), str(minor))
    for place in ("/tmp", "/var/tmp", "/dev/shm"):
        machine.put(f"{place}/of-others", "")
    return service


def probing(command: str, name: str) -> str:
    """The unit, with another command, that is not waited for to be ready."""
    text = (ROOT / "systemd" / UNIT).read_text(encoding="utf-8")
    for line, instead in (
        ("Type=.*", "Type=oneshot"),
        ("ExecStart=.*", f"ExecStart={command}\nStandardOutput=truncate:/run/{name}.json"),
        ("ExecReload=.*", ""),
        ("WatchdogSec=.*", ""),
        ("Restart=.*", ""),
    ):
        text, count = re.subn(f"(?m)^{line}$", instead, text)
        assert count == 1, line
    return text


def probe(service: Service, name: str = PROBE) -> dict[str, Any]:
    """What the probe found."""
    service.machine.run("systemctl", "start", f"{name}.service")
    found: dict[str, Any] = json.loads(service.machine.path(f"/run/{name}.json").read_text())
    return found


def exposure(service: Service, unit: str) -> float:
    """The figure of systemd-analyze."""
    told = service.machine.run("systemd-analyze", "security", "--no-pager", unit).stdout
    figure = told.strip().splitlines()[-1]
    print(figure)  # noqa: T201 - for whoever reads the log of a run
    return float(figure.split(": ")[1].split()[0])


def test_systemd_finds_it_little_exposed(
    prober: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        assert exposure(prober, UNIT) <= MOST_EXPOSED
        assert exposure(prober, f"{PROBE}-metrics.service") <= MOST_WITH_METRICS


def test_the_sandbox_bites(prober: Service) -> None:
    found = probe(prober)
    assert found["uid"] != 0
    writable = {folder for folder, how in found["writes"].items() if how == "ok"}
    assert writable == ALLOWED
    assert {name for name, how in found["sockets"].items() if how == "ok"} == {"unix"}
    assert found["serve"] == "EAFNOSUPPORT"
    assert {path for path, how in found["reads"].items() if how == "ok"} == {"/proc/1/cgroup"}
    assert found["of others"] == []
    assert found["setuid"] == "EPERM"
    assert found["unshare"] != 0
    assert [int(word, 16) for word in found["capabilities"]] == [CAP_SYS_PTRACE] * 2
    assert found["journal"] is True
    devices = found["devices"]
    assert {path for path, how in devices.items() if how == "EPERM"} == {
        "/dev/net-tun",
        "/dev/disk-of-the-host",
    }, devices


def test_with_the_drop_in_for_metrics_it_may_serve_and_nothing_more(prober: Service) -> None:
    without, found = probe(prober), probe(prober, f"{PROBE}-metrics")
    opened = {name for name, how in found["sockets"].items() if how == "ok"}
    assert opened == {"unix", "inet", "inet6"}
    assert found["serve"] == "ok"
    for same in ("writes", "reads", "devices", "capabilities", "setuid", "unshare"):
        assert found[same] == without[same], same


def test_its_capability_is_what_shows_processes_of_others_under_hidepid(prober: Service) -> None:
    machine = prober.machine
    machine.run("mount", "-o", "remount,hidepid=2", "/proc")
    try:
        assert probe(prober)["reads"]["/proc/1/cgroup"] == "ok"
        hidden = ("runuser", "-u", "ds01d", "--", "cat", "/proc/1/cgroup")
        assert machine.run(*hidden, check=False).returncode != 0
    finally:
        machine.run("mount", "-o", "remount,hidepid=0", "/proc")
