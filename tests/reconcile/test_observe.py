"""A snapshot: every source once, and a failure of one is not a failure of another."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ds01d.model.checkpoint import Checkpoint, Resolved
from ds01d.model.containers import Engine
from ds01d.model.primitives import LOCAL_SOURCES, ContainerId, ContainerName, Source, Unknown, Wall
from ds01d.model.snapshot import Snapshot
from ds01d.reconcile.observe import observe_host
from tests.support.build import NAME, Life

STARTED = Wall(1_799_999_000.0)


def observe(life: Life, checkpoint: Checkpoint | None = None, *names: str) -> Snapshot:
    wanted = frozenset(map(ContainerName, names)) or None
    return observe_host(life.host.world(), checkpoint or Checkpoint(), life.config, wanted)


@pytest.mark.parametrize("source", LOCAL_SOURCES)
def test_a_source_that_fails_is_unknown_and_no_other(source: Source) -> None:
    life = Life().book("1.0").run("MIG-1-0").fail(source)
    answers = observe(life).sources()
    assert {one for one, answer in answers.items() if answer != "ok"} == {source}


def test_without_docker_nobody_asks_for_users() -> None:
    life = Life().run("MIG-1-0").fail(Source.DOCKER)
    life.host.passwd = {1001: "alice"}
    snapshot = observe(life)
    assert isinstance(snapshot.docker, Unknown)
    assert (snapshot.passwd, snapshot.logins) == ({}, {})


def test_users_are_those_of_all_containers_also_in_a_pass_over_one() -> None:
    life = Life().run("MIG-1-0").run("MIG-1-1", name="b._.1002")
    life.host.passwd = {1001: "alice", 1002: "bob", 1003: "eve"}
    assert observe(life, None, NAME).passwd == {1001: "alice", 1002: "bob"}


class Samples:
    """NVML that notes how fresh each sample had to be."""

    def __init__(self, life: Life) -> None:
        self.oldest: list[float] = []
        self._port = life.host.world().gpu

    def sample(self, *, not_before: float) -> object:
        self.oldest.append(not_before)
        assert self._port is not None
        return self._port.sample(not_before=not_before)  # type: ignore[arg-type]

    def read_faults(self) -> dict[str, str]:
        return {}


@pytest.mark.parametrize(
    ("devices", "resolved", "fresh"),
    [
        (("MIG-1-0",), False, False),
        (("1:0",), False, True),
        (("1:0",), True, False),
        ((), False, False),
    ],
    ids=["by UUID", "by index", "by index, and known what it meant", "none"],
)
def test_decision_5_a_request_by_index_needs_a_sample_from_after_its_start(
    devices: tuple[str, ...], *, resolved: bool, fresh: bool
) -> None:
    life = Life().run(*devices, started=STARTED)
    known = Resolved(started=STARTED, devices=frozenset())
    checkpoint = Checkpoint(resolved={ContainerId(f"id-{NAME}"): known} if resolved else {})
    samples = Samples(life)
    world = replace(life.host.world(), gpu=samples)  # type: ignore[arg-type]
    snapshot = observe_host(world, checkpoint, life.config, None)
    assert isinstance(snapshot.docker, Engine)
    age = life.host.boot - samples.oldest[0]
    assert age == (0.0 if fresh else life.config.policy.settle_s)
