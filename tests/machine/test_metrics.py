"""Metrics of the service: what its sandbox refuses and who opens it, and what Prometheus gets."""

from __future__ import annotations

import stat
import subprocess

import pytest

from simulation import nvml
from simulation.machine import Machine
from tests.support.books import until
from tests.support.daemon import ROOT
from tests.support.metrics import samples, value
from tests.support.service import UNIT, Service

pytestmark = pytest.mark.machine

ADDRESS = "127.0.0.1:9464"
COLLECTOR = "/var/lib/prometheus/node-exporter"
TEXTFILE = f"{COLLECTOR}/ds01d.prom"
DROP_INS = f"/etc/systemd/system/{UNIT}.d"
ASK = f"import urllib.request as r; print(r.urlopen('http://{ADDRESS}/metrics').read().decode())"


@pytest.fixture(scope="module")
def service(machine: Machine) -> Service:
    """A booted machine with a driver, and ds01d ready; Docker and the drop-ins are yet to come."""
    service = Service(machine)
    service.install(nvml.prod4())
    service.configure(metrics={"listen": ADDRESS, "textfile": TEXTFILE})
    machine.path(COLLECTOR).mkdir(parents=True)
    machine.boot()
    machine.run("chown", "ds01d:", COLLECTOR)
    service.start()
    return service


def scrape(service: Service) -> bytes:
    return service.machine.run("python3", "-c", ASK).stdout.encode()


def troubles(service: Service) -> str:
    entries = service.log("DS01_EVENT=degraded.begin")
    return "\n".join(str(entry["MESSAGE"]) for entry in entries)


def test_what_the_sandbox_refuses_is_told_with_the_mend_and_stops_nothing(service: Service) -> None:
    until(lambda: ADDRESS in troubles(service) and TEXTFILE in troubles(service))
    told = troubles(service)
    assert "ds01d-metrics.conf" in told
    assert f"ReadWritePaths={COLLECTOR} in a drop-in" in told
    assert service.active == "active"


def test_with_the_drop_ins_prometheus_gets_all_of_it_both_ways(service: Service) -> None:
    machine = service.machine
    machine.put(f"{DROP_INS}/metrics.conf", ROOT / "systemd" / "ds01d-metrics.conf")
    machine.put(f"{DROP_INS}/textfile.conf", f"[Service]\nReadWritePaths={COLLECTOR}\n")
    machine.start_docker()
    machine.run("systemctl", "daemon-reload")
    service.systemctl("restart")

    def shows_gpus() -> bool:
        """It listens by a thread of its own, and a first sample that takes too long is none."""
        asked = machine.run("python3", "-c", ASK, check=False)
        return (
            not asked.returncode and value(asked.stdout.encode(), "source_up", source="nvml") == 1
        )

    until(shows_gpus, what=service.tail)
    text = scrape(service)
    promtool = ["promtool", "check", "metrics"]
    checked = subprocess.run(promtool, input=text, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
    assert value(text, "ready") == 1
    assert value(text, "source_up", source="docker") == 1
    assert value(text, "source_up", source="nvml") == 1
    assert sum(n for (name, _), n in samples(text).items() if name == "ds01d_slots") == 12
    file = machine.path(TEXTFILE)
    until(file.exists, what="the textfile")
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert samples(file.read_bytes()).keys() <= samples(text).keys()
    service.systemctl("stop")
    assert not file.exists()
