"""A booking whose answer cannot be written is released, unless a container may have it by then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from ds01d.cli.base.delivery import release_if_undelivered
from ds01d.config import Config
from ds01d.errors import Ds01Error
from ds01d.model.allocation import Allocated
from ds01d.model.primitives import ContainerId, ContainerName, Source, Unknown, UserName
from ds01d.model.usage import Running
from ds01d.reconcile.allocator import Allocator
from tests.support.build import ALWAYS_UNLIMITED, four_slots, two_by_two
from tests.support.world import Host

NAME = ContainerName("train._.1001")
ALIVE = Running(names={ContainerId("1" * 64): NAME})
NOBODY = Running(names={})
SILENT = Unknown(source=Source.DOCKER, reason="timed out after 3 s")
ABSENT = Unknown(source=Source.DOCKER, reason="no such file", missing=True)


@dataclass
class Docker:
    """What answers the allocator's question for what lives."""

    answer: Running | Unknown = NOBODY

    def read(self, _: frozenset[str]) -> Running | Unknown:
        return self.answer


@pytest.fixture
def host() -> Host:
    return Host(gpu=two_by_two(), state=four_slots(), limits=ALWAYS_UNLIMITED)


def fail_to_deliver(host: Host, meanwhile: Callable[[Allocator, Docker], object]) -> str:
    """What is said of a booking whose answer cannot be written, after `meanwhile`."""
    docker = Docker()
    allocator = Allocator(replace(host.world(), running=docker), Config())
    answer = allocator.allocate(UserName("alice"), NAME)
    assert isinstance(answer, Allocated)
    meanwhile(allocator, docker)
    with pytest.raises(Ds01Error) as failed, release_if_undelivered(allocator, answer):
        raise OSError(28, "No space left on device")
    prefix = "cannot write the answer: No space left on device; the booking of 0.0 for "
    assert str(failed.value).startswith(prefix + NAME)
    return str(failed.value).removeprefix(prefix + NAME)


@pytest.mark.parametrize("answer", [NOBODY, ABSENT])
def test_it_is_taken_back(host: Host, answer: Running | Unknown) -> None:
    outcome = fail_to_deliver(host, lambda _, docker: setattr(docker, "answer", answer))
    assert (outcome, host.bookings()) == (" is taken back", set())


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (ALIVE, f"a container with the name {NAME} exists"),
        (SILENT, f"cannot see whether {NAME} exists: timed out after 3 s"),
    ],
)
def test_it_stays_if_a_container_may_have_it(
    host: Host, answer: Running | Unknown, reason: str
) -> None:
    outcome = fail_to_deliver(host, lambda _, docker: setattr(docker, "answer", answer))
    assert (outcome, host.bookings()) == (f" stays: {reason}", {(NAME, "0.0")})


def test_a_booking_that_was_made_after_it_stays(host: Host) -> None:
    def book_again(allocator: Allocator, _: Docker) -> None:
        allocator.release(NAME)
        allocator.allocate(UserName("alice"), NAME)

    fail_to_deliver(host, book_again)
    assert host.bookings() == {(NAME, "0.0")}
