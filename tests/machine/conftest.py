"""Throw-away machines: what every test here needs.

A machine boots in about a second, so each tells several stories; but a story finds the machine as
`service` leaves it, whichever came before.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from simulation.machine import Machine
from tests.support.service import binds


@pytest.fixture(scope="session")
def service_binds(machine_host: None) -> dict[str, Path]:
    """Build the environment of the service, once, and say where a machine sees it."""
    return binds()


@pytest.fixture(scope="module")
def machine(service_binds: dict[str, Path]) -> Iterator[Machine]:
    """Lend a machine with ds01d's environment in it, not yet booted."""
    with Machine(binds=service_binds) as machine:
        yield machine
