"""A CLOCK_BOOTTIME that is smaller than what is remembered, under the same boot ID.

So it is in a time namespace, after a restored snapshot, and with a memory of another machine. No
wait may then last longer than its own grace, and none that protects somebody may be over.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.config import Policy
from ds01d.decide import gate
from ds01d.decide.checkpoint_clock import is_ahead_of_clock
from ds01d.model.checkpoint import Checkpoint, DriftFirstSeen, Freeze, Repair
from ds01d.model.drift import RepairKey, WaitReason, drift_key
from ds01d.model.holding import Free, Holds, Proof, Undecided, Verdict
from ds01d.model.primitives import Boot, ContainerName, Now, Wall
from ds01d.reconcile.checkpoint_store import CheckpointStore
from tests.support.build import HOUR, NAME, OTHER, Life, config, mig, record

REPAIR = RepairKey(drift_key("wrong-slot", NAME, None), "f")
GRACE = 4.0
HOLD = 900.0
AGO = 5_000.0
ENDS = {("Repair", "not_before"), ("Freeze", "ends"), ("LimitsSeen", "settled")}


def memory(life: Life) -> Checkpoint:
    new, trouble = CheckpointStore(life.host.world().state_dir).load()
    assert not trouble
    return new


def remember(life: Life, **fields: Any) -> Life:
    CheckpointStore(life.host.world().state_dir).save(replace(memory(life), **fields))
    return life


def set_back(life: Life, seconds: float = AGO) -> Life:
    """The same boot by its ID, less of it by its clock; the wall clock goes on."""
    life.host.boot -= seconds
    life.host.destroyed.clear()
    return life


def watched(**policy: Any) -> Life:
    life = Life(config(mode="observe", **policy)).book("1.0").run("MIG-1-0")
    return life.after(HOUR)


def until(life: Life, name: ContainerName = NAME) -> float:
    verdict = life.plan().decision.verdicts[name]
    assert isinstance(verdict, Holds | Free), verdict
    end = verdict.due if isinstance(verdict, Free) else verdict.until
    assert end is not None
    return end - life.host.boot


def test_an_absence_is_proven_after_its_grace() -> None:
    """With a grace of 4 s it was once to be proven in 1 h 22 m."""
    life = watched(absence_grace_s=GRACE).remove(told=False).after(0)
    set_back(life)
    assert until(life) == GRACE
    assert {item.until and item.until - life.host.boot for item in life.plan().drifts} == {GRACE}
    life.after(0)
    life.host.pass_time(GRACE)
    assert until(life) == 0


def test_what_was_nearly_proven_starts_again() -> None:
    """How long it has really been away is not known; nothing is released at once."""
    life = watched().remove(told=False).after(100.0)
    assert until(life) == 20.0
    assert until(set_back(life)) == 120.0


def test_a_destroyed_one_waits_for_its_absence() -> None:
    life = watched().remove(told=True).after(0)
    assert until(set_back(life)) == 120.0


@pytest.mark.parametrize("back", [1.0, AGO, 90_000.0])
def test_a_hold_lasts_no_longer_than_it_would(back: float) -> None:
    """Its start lies on the wall clock: that goes on."""
    life = watched().stop().after(300.0)
    assert until(life) == 600.0
    assert until(set_back(life, back)) == 600.0


def test_a_creation_is_given_its_grace_once_more() -> None:
    life = watched().book("0.0", name=OTHER, allocated_at=Wall(0.0)).after(0)
    life.host.records[OTHER] = record(OTHER, "0.0", allocated_at=Wall(life.host.wall))
    life.after(60.0)
    assert until(life, OTHER) == 840.0
    assert 840.0 <= until(set_back(life), OTHER) <= 900.0


def test_a_back_off_a_freeze_and_a_window_last_no_longer_than_they_may() -> None:
    life = watched()
    boot, wall = Boot(life.host.boot), Wall(life.host.wall)
    remember(
        life,
        released=(boot, Boot(boot - 1)),
        repairs={REPAIR: Repair(times=5, last=boot, not_before=Boot(boot + 70))},
        inventory_changed=boot,
        freezes={
            "*": Freeze(
                subject="*",
                by="ada",
                reason="",
                since=Wall(wall - 60),
                until=Wall(wall + 60),
                ends=Boot(boot + 60),
            )
        },
    )
    new = memory(set_back(life).after(0))
    now = life.host.boot
    assert new.released == (now, now)
    assert new.repairs[REPAIR].not_before == now + 70
    assert new.inventory_changed == now
    assert new.freezes["*"].ends == now + 60


def test_ends_of_waits_that_are_too_far_are_cut_on_any_clock() -> None:
    life = watched()
    boot, wall = Boot(life.host.boot), Wall(life.host.wall)
    freeze = Freeze(
        subject="*", by="ada", reason="", since=wall, until=Wall(wall + 60), ends=Boot(boot + 9e9)
    )
    repair = Repair(times=5, last=boot, not_before=Boot(boot + 9e9))
    remember(life, repairs={REPAIR: repair}, freezes={"*": freeze})
    new = memory(life.after(0))
    assert new.freezes["*"].ends == boot + 60
    assert new.repairs[REPAIR].not_before == boot + gate.LONGEST_BACKOFF_S


def test_what_the_same_clock_says_stays() -> None:
    life = watched().remove(told=False).after(60.0)
    before = memory(life)
    assert not is_ahead_of_clock(
        before, Now(wall=Wall(0), boot=Boot(life.host.boot), boot_id="boot-1")
    )
    assert memory(life.after(0)).absent == before.absent


# --- the whole memory -------------------------------------------------------------------------


def moments(value: object, hint: Any, path: str = "") -> Iterator[str]:
    """The path of every `Boot` in a memory, found by its types: those that will be added too."""
    inner = typing.get_args(hint)
    if value is None or not _holds_boot(hint):
        return
    if hint is Boot:
        yield path
    elif dataclasses.is_dataclass(value):
        hints = typing.get_type_hints(type(value))
        for name in hints.keys() - {end for kind, end in ENDS if kind == type(value).__name__}:
            yield from moments(getattr(value, name), hints[name], f"{path}.{name}")
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from moments(item, inner[1], path)
    elif isinstance(value, tuple):
        parts = (inner[0],) * len(value) if Ellipsis in inner else inner
        for item, part in zip(value, parts, strict=True):
            yield from moments(item, part, path)
    else:
        yield from moments(value, next(part for part in inner if _holds_boot(part)), path)


def _holds_boot(hint: Any) -> bool:
    if dataclasses.is_dataclass(hint):
        return any(map(_holds_boot, typing.get_type_hints(hint).values()))
    return hint is Boot or any(map(_holds_boot, typing.get_args(hint)))


def full() -> Checkpoint:
    """A memory in which everything is remembered that can be."""
    life = watched().book("0.0", name=OTHER).run("MIG-0-0", name=OTHER, labels={}).after(60.0)
    life.remove(OTHER, told=True).stop().after(60.0)
    at = Boot(life.host.boot)
    return replace(
        memory(life),
        inventory_changed=at,
        released=(at,),
        sightings={REPAIR.drift: DriftFirstSeen(first=at, fingerprint="")},
        repairs={REPAIR: Repair(times=1, last=at, not_before=at)},
    )


def test_no_moment_is_overlooked() -> None:
    """Each one for itself ahead of the clock makes it another clock."""
    whole = full()
    paths = sorted(set(moments(whole, Checkpoint)))
    assert len(paths) >= 15, paths
    now = Now(wall=Wall(0), boot=Boot(1e6), boot_id=whole.boot_id)
    assert not is_ahead_of_clock(whole, now)
    for path in paths:
        assert is_ahead_of_clock(_ahead(whole, path.split(".")[1:]), now), path


def _ahead(value: Any, path: list[str]) -> Any:
    """`value` with what `path` names set far ahead."""
    if isinstance(value, float):
        return 1e9
    if isinstance(value, Mapping):
        return {key: _ahead(item, path) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(item if isinstance(item, str) else _ahead(item, path) for item in value)
    if value is None or not path:
        return value
    return replace(value, **{path[0]: _ahead(getattr(value, path[0]), path[1:])})


@given(st.floats(0.5, 100_000.0), st.data())
def test_no_wait_is_longer_than_its_own_grace(back: float, data: st.DataObject) -> None:
    life = watched(absence_grace_s=GRACE)
    life.book("0.0", name=OTHER).run("MIG-0-0", name=OTHER).book("0.1", name="gone._.1003")
    life.set_gpu(migs=(mig(0, 0), mig(0, 1), mig(1, 0), mig(1, 1))).after(60.0)
    for name in (NAME, OTHER):
        match data.draw(st.sampled_from(["stop", "remove", "rename", "nothing"])):
            case "stop":
                life.stop(name)
            case "remove":
                life.remove(name, told=data.draw(st.booleans()))
            case "rename":
                life.rename(name, f"new-{name}")
            case _:
                pass
    life.after(data.draw(st.sampled_from([0.0, 3.0, 60.0])))
    set_back(life, min(back, life.host.boot))
    policy = life.config.policy
    longest = {
        WaitReason.SETTLE: policy.settle_s,
        WaitReason.PROOF: max(HOLD, policy.absence_grace_s),
        WaitReason.PACE: policy.pace_window_s,
        WaitReason.INVENTORY: policy.freeze_s,
        WaitReason.BACKOFF: gate.LONGEST_BACKOFF_S,
    }
    for _ in range(2):
        report = life.sweep()
        for name, verdict in report.decision.verdicts.items():
            _bounded(name, verdict, life.host.boot, policy)
        for item in report.drifts:
            if item.until is not None and item.gate is not None:
                assert item.until <= life.host.boot + longest[item.gate], item
        life.host.pass_time(1.0)


def _bounded(name: ContainerName, verdict: Verdict, now: Boot | float, policy: Policy) -> None:
    match verdict:
        case Free(proof=Proof.ABSENT | Proof.DESTROYED, due=due):
            assert now < due <= now + GRACE + policy.settle_s, name
        case Holds(until=end) if end is not None:
            assert end <= now + max(HOLD, policy.creation_grace_s), name
        case Undecided():
            raise AssertionError(verdict)
        case _:
            pass
