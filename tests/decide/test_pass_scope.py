"""What a pass over some names leaves alone."""

from __future__ import annotations

from dataclasses import replace

from ds01d.decide.pass_scope import find_scope
from ds01d.decide.update_checkpoint import update_checkpoint
from ds01d.reconcile.reconciler import Reconciler
from tests.support.build import HOUR, NAME, OTHER
from tests.support.repairs import hold_end, memory, watched

TRAIN = f"id-{NAME}"


def test_a_pass_over_some_names_forgets_nothing_of_others() -> None:
    life = watched().book("0.0", name=OTHER).run("MIG-0-0", name=OTHER).after(60.0).stop(OTHER)
    life.after(0)
    before = memory(life)
    decision = life.plan().decision
    noted = replace(decision.snapshot, names=frozenset({NAME}))
    after = update_checkpoint(noted, before, life.config, find_scope(noted, before))
    assert after.identities == before.identities
    assert after.resolved == before.resolved
    assert after.absent == before.absent


def test_deadlines_of_others_survive_a_pass_over_one_name() -> None:
    life = watched().stop().after(60.0)
    before = hold_end(life)
    Reconciler(life.host.world(), life.config).run(frozenset({OTHER}))
    life.set_wall(24 * HOUR)
    assert hold_end(life.after(0)) == before
