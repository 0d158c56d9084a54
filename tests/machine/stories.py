"""What the stories on a machine share: bookings by an old allocator, and what is waited for."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.books import Booking, until
from tests.support.legacy import LegacyAllocator
from tests.support.service import Service

TRAIN, OTHER = "train._.1001", "other._.1002"
ON_TRAIN, ON_OTHER = (TRAIN, "1.1"), (OTHER, "1.2")


def run_as(service: Service, user: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user."""
    return service.machine.run("runuser", "-u", user, "--", *words, check=False)


def legacy(service: Service) -> LegacyAllocator:
    """An old allocator that root runs: in place, without a lock."""
    books = service.books
    return LegacyAllocator(books.state, books.metadata, books.allocations, books.operations)


def train_and_other(service: Service) -> None:
    """Book two slots; only the first one's container is there, so the second one is drift."""
    for name, slot in (ON_TRAIN, ON_OTHER):
        legacy(service).allocate(name, "alice", slot)
    labels = {"aime.mlc": "alice", "ds01.managed": "true"}
    uuid = service.books.uuid(ON_TRAIN[1])
    service.machine.docker.run(TRAIN, devices=[uuid], labels=labels)


def own_files(service: Service) -> list[Path]:
    """What ds01d keeps for itself; without what it is just writing, which has another name soon."""
    return [path for path in service.books.state_dir.iterdir() if not path.name.startswith(".")]


def booked(service: Service, *bookings: Booking) -> None:
    """Wait until just these are booked."""
    until(
        lambda: service.books.bookings() == set(bookings),
        what=lambda: f"{bookings}: {service.books.bookings()}; {service.line}; {service.tail()}",
    )


def says(service: Service, *words: str) -> str:
    """Wait until the STATUS line has all these words."""
    return until(
        lambda: line if all(word in (line := service.line) for word in words) else None,
        what=lambda: f"{words} in {service.line!r}; {service.tail()}",
    )


def is_well(service: Service) -> None:
    """It is active and sees everything; a booking without a container does not stay."""
    says(service, "docker ok", "nvml ok")
    assert service.active == "active"
    left = service.books.bookings() - {ON_OTHER}
    if ON_OTHER not in service.books.bookings():
        legacy(service).allocate(OTHER, "alice", ON_OTHER[1])
    booked(service, *left)
    assert not [taken for taken in service.books.taken() if taken != ON_OTHER]
