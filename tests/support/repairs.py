"""Hosts in memory that ds01d watches or repairs, and hands that come in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ds01d.model.books import AllocatorState, Unreadable
from ds01d.model.checkpoint import Checkpoint
from ds01d.model.drift import GatedDrift, Kind
from ds01d.model.history import Entry
from ds01d.model.primitives import BookingId, ContainerName, Digest
from ds01d.reconcile.checkpoint_store import CheckpointStore
from ds01d.reconcile.history import read_entries
from ds01d.reconcile.reconciler import Reconciler
from ds01d.reconcile.report import Report
from tests.support.build import HOUR, NAME, Life, config

REPAIR = config()


def life() -> Life:
    """A host that ds01d repairs; one booked container runs on 1.0."""
    one = Life(REPAIR).book("1.0").run("MIG-1-0")
    return one.after(120.0)


def stale() -> Life:
    """Its container is gone without a word, for so long that the next pass is to release it."""
    one = life().remove(told=False)
    one.sweep()
    one.host.pass_time(60.0)
    one.sweep()
    one.host.pass_time(61.0)
    assert [drift.kind for drift in one.plan().decision.due_drifts] == [Kind.STALE_ALLOCATION]
    return one


def state(one: Life) -> AllocatorState:
    assert isinstance(one.host.state, AllocatorState)
    return one.host.state


def only(report: Report) -> GatedDrift:
    (gated,) = report.drifts
    return gated


def at_write(one: Life, what: Callable[[], object], times: int = 1) -> None:
    """Let something happen right before the state is replaced, so many times."""
    left = [times]

    def hook() -> None:
        if left[0]:
            left[0] -= 1
            what()

    one.host.before_write = hook


def at_look_up(one: Life, what: Callable[[], object]) -> Reconciler:
    """A reconciler to whom something happens between deciding and proving again."""
    world = one.host.world()
    engine = world.engine

    class Surprise:
        def observe(self, names: frozenset[ContainerName] | None) -> object:
            return engine.observe(names)

        def look_up(self, name: object, known_id: object) -> object:
            what()
            return engine.look_up(name, known_id)  # type: ignore[arg-type]

        def list_claimants(self, booking: BookingId | None) -> object:
            return engine.list_claimants(booking)

    return Reconciler(replace(world, engine=Surprise()), one.config)  # type: ignore[arg-type]


def history(one: Life) -> list[Entry]:
    return list(read_entries(one.host.history))


def memory(one: Life) -> Checkpoint:
    found, trouble = CheckpointStore(one.host.world().state_dir).load()
    assert not trouble
    return found


def unreadable(one: Life, *, digest: str = "broken", last_good: bool = True) -> Life:
    one.host.state = Unreadable(
        reason="line 3: expected a comma",
        digest=Digest(digest),
        last_good=state(one) if last_good else None,
    )
    return one


def watched() -> Life:
    """A booked container runs; a daemon has watched for an hour."""
    return Life().book("1.0").run("MIG-1-0").after(HOUR)


def rebooted(life: Life, boot: float = 500.0) -> Life:
    life.host.pass_time(300.0)
    life.host.boot, life.host.boot_id = boot, "boot-2"
    life.host.destroyed.clear()
    return life.after(0)


def hold_end(life: Life) -> float:
    verdict = life.plan().decision.verdicts[NAME]
    until = getattr(verdict, "until", None)
    assert until is not None, verdict
    return float(until)
