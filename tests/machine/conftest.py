"""Throw-away machines: what every test here needs.

A machine boots in about a second, so each tells several stories; but a story finds the machine as
`service` leaves it, whichever came before.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from simulation import nvml
from simulation.machine import Machine
from tests.support.service import Service, binds

SHORT_UNIT = """\
[Service]
WatchdogSec=8s
RestartSec=100ms
"""
"""The unit's own times divided by some dozen, so that a story lasts seconds."""


@pytest.fixture(scope="session")
def service_binds(machine_host: None) -> dict[str, Path]:
    """Build the environment of the service, once, and say where a machine sees it."""
    return binds()


@pytest.fixture(scope="module")
def machine(service_binds: dict[str, Path]) -> Iterator[Machine]:
    """Lend a machine with ds01d's environment in it, not yet booted."""
    with Machine(binds=service_binds) as machine:
        yield machine


@pytest.fixture(scope="module")
def booted(machine: Machine) -> Service:
    """A booted machine with Docker, a driver, and ds01d installed."""
    service = Service(machine)
    service.install(nvml.prod4())
    machine.put("/etc/systemd/system/ds01d.service.d/short.conf", SHORT_UNIT)
    machine.boot()
    service.chown_books()
    machine.start_docker()
    return service


@pytest.fixture
def stopped_service(booted: Service) -> Iterator[Service]:
    """ds01d, stopped, with empty books; Docker runs and has no containers."""
    booted.make_new()
    yield booted
    booted.machine.run("systemctl", "start", "docker.socket", "docker.service")


@pytest.fixture
def service(stopped_service: Service) -> Service:
    """ds01d, just started and ready, with empty books; Docker has no containers."""
    stopped_service.start()
    return stopped_service
