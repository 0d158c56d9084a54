"""Containers that cannot open their devices: reported by rules that were read, never guessed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from ds01d.documents.device_access import device_section
from ds01d.model.containers import NO_REQUEST, State
from ds01d.model.device_access import DeviceAccess, DeviceRule
from ds01d.model.drift import Finding, FindingKind
from ds01d.model.primitives import ContainerId, SlotId, Source, UserName, Wall
from ds01d.reconcile.reconciler import Reconciler
from ds01d.reconcile.report import Report
from tests.support.build import ALL, NAME, Life, config, inventory

OWN = ContainerId(f"id-{NAME}")


@dataclass
class Rules:
    """The device rules of containers, in memory: the minors of NVIDIA's that each may open."""

    minors: dict[ContainerId, set[int]] = field(default_factory=dict)
    asked: list[frozenset[ContainerId]] = field(default_factory=list)

    def read_access(
        self, containers: Collection[ContainerId]
    ) -> Mapping[ContainerId, DeviceAccess]:
        self.asked.append(frozenset(containers))
        return {
            one: DeviceAccess(rules=frozenset(DeviceRule(195, minor) for minor in minors))
            for one, minors in self.minors.items()
            if one in containers
        }


@dataclass
class Watched:
    """A host whose device rules a sweep reads."""

    life: Life
    rules: Rules = field(default_factory=Rules)

    def sweep(self, seconds: float = 60.0, names: frozenset[Any] | None = None) -> Report:
        self.life.host.pass_time(seconds)
        world = replace(self.life.host.world(), device_rules=self.rules)
        return Reconciler(world, self.life.config).run(names)

    def found(self) -> list[Finding]:
        findings = self.sweep().findings
        return [one for one in findings if one.kind is FindingKind.DEVICE_LOST]


def watched(*minors: int, settings: Any = None, **fields: Any) -> Watched:
    """A container that runs on MIG-1-0, of the GPU with minor 1."""
    one = Watched(Life(settings, **fields).book("1.0").run("MIG-1-0"))
    one.rules.minors[OWN] = {1, 255}
    one.sweep()
    one.rules.minors[OWN] = {*minors}
    return one


@pytest.mark.parametrize(
    ("minors", "lost"),
    [((1, 255), False), ((0, 255), True), ((1,), True), ((), True), ((0, 1, 2, 255), False)],
    ids=["its GPU", "another GPU", "no nvidiactl", "nothing", "all"],
)
def test_the_rules_decide(minors: tuple[int, ...], lost: bool) -> None:
    one = watched(*minors)
    assert one.found() == []  # seen once: while runc writes the rules, everything is denied
    assert bool(one.found()) is lost


def test_what_it_says_and_since_when() -> None:
    one = watched(255)
    began = Wall(one.life.host.wall + 60)
    one.found()
    expected = Finding(
        kind=FindingKind.DEVICE_LOST,
        container=NAME,
        slot=SlotId("1.0"),
        reason="it runs, and its cgroup does not let it open /dev/nvidia1 (195:1) any more, as"
        " after systemctl daemon-reload: a program that has the GPU open goes on, a new one fails;"
        f" docker restart {NAME}",
        slots=(SlotId("1.0"),),
        user=UserName("alice"),
        since=began,
    )
    assert one.found() == [expected]
    # NVML's list proves nothing: what was opened before goes on.
    one.life.use("MIG-1-0", OWN)
    assert one.found() == [expected]
    one.rules.minors[OWN] = {1, 255}
    assert one.found() == []
    one.rules.minors[OWN] = {255}
    assert one.found() == []


def test_unknown_rules_are_no_loss_and_begin_the_time_again() -> None:
    one = watched(255)
    assert (one.found(), len(one.found())) == ([], 1)
    del one.rules.minors[OWN]
    assert one.found() == []
    one.rules.minors[OWN] = {255}
    assert one.found() == []
    assert one.found()


@pytest.mark.parametrize(
    "change",
    [
        lambda life: life.stop(),
        lambda life: life.change(state=State.PAUSED),
        lambda life: life.remove(),
        lambda life: life.fail(Source.NVML),
        lambda life: life.fail(Source.DOCKER),
        lambda life: life.fail(Source.STATE),
        lambda life: life.set_gpu(gpus=tuple(replace(g, minor=None) for g in life.host.gpu.gpus)),
        lambda life: life.change(started=Wall(life.host.wall)),
    ],
    ids=[
        *("stopped", "paused", "gone", "no NVML", "no Docker", "no state", "no minor"),
        "started again a moment ago",
    ],
)
def test_what_is_no_loss(change: Any) -> None:
    one = watched(255)
    one.found()
    change(one.life)
    assert one.found() == []


def test_what_it_never_had_it_did_not_lose() -> None:
    one = Watched(Life().book("1.0").run("MIG-1-0"))
    one.rules.minors[OWN] = set()
    assert (one.found(), one.found(), one.found()) == ([], [], [])
    one.rules.minors[OWN] = {1, 255}
    one.found()
    one.rules.minors[OWN] = set()
    assert one.found() == []
    # The next start has to have it first, too.
    one.life.change(started=Wall(one.life.host.wall))
    assert (one.found(), one.found()) == ([], [])


def test_who_named_no_device_was_given_none_to_lose() -> None:
    for request in (ALL, NO_REQUEST):
        one = Watched(Life().book("1.0").run(request=request))
        one.sweep()
        one.rules.minors[OWN] = set()
        assert (one.found(), one.found()) == ([], [])


def test_a_pass_over_names_reads_no_rules_and_forgets_nothing() -> None:
    one = watched(255)
    assert (one.found(), len(one.found())) == ([], 1)
    asked = len(one.rules.asked)
    one.sweep(names=frozenset({NAME}))
    assert len(one.rules.asked) == asked
    assert len(one.found()) == 1


def test_without_containers_or_rules_nothing_is_read() -> None:
    one = Watched(Life(gpu=inventory()))
    one.sweep()
    assert one.rules.asked == []
    assert Watched(Life(config(mode="observe"))).sweep().findings == ()


def test_what_explain_shows() -> None:
    one = watched(255)

    def shown() -> dict[str, Any] | None:
        decision = one.sweep().decision
        assert decision.index is not None
        container = decision.index.containers.get(NAME)
        section = device_section(container, decision.verdicts.get(NAME), decision.index)
        return None if section is None else dict(section)

    nodes = ["/dev/nvidia1"]
    assert shown() == {"needs": nodes, "can_open": False, "denied": nodes}
    one.rules.minors[OWN] = {1, 255}
    assert shown() == {"needs": nodes, "can_open": True, "denied": []}
    one.rules.minors.clear()
    told = shown()
    assert told is not None
    assert told["can_open"] is None
    assert "sudo ds01ctl doctor" in told["unknown"]
    one.life.stop()
    assert shown() is None
