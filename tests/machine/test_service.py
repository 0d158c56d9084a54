"""ds01d.service as systemd runs it: installed, started, watched."""

from __future__ import annotations

import pytest

from simulation import nvml
from simulation.machine import Machine
from tests.support.service import UNIT, Service

pytestmark = pytest.mark.machine


@pytest.fixture(scope="module")
def service(machine: Machine) -> Service:
    """A booted machine with Docker, a driver, and ds01d installed and ready."""
    service = Service(machine)
    service.install(nvml.prod4())
    machine.boot()
    machine.start_docker()
    service.start()
    return service


def test_it_becomes_ready_and_its_status_line_tells_the_truth(service: Service) -> None:
    told = service.tells("ActiveState", "StatusText", "User", "NRestarts")
    assert told["ActiveState"] == "active"
    assert told["User"] == "ds01d"
    assert told["NRestarts"] == "0"
    assert told["StatusText"].startswith("0 slots of 12 held, 0 drifts; docker ok, nvml ok")


def test_systemd_finds_nothing_to_say_about_the_unit(service: Service) -> None:
    # Without its man pages, which the package brings and the source does not.
    verified = service.machine.run("systemd-analyze", "verify", "--man=no", UNIT)
    assert (verified.stdout, verified.stderr) == ("", "")
