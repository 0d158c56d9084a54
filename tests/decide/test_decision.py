"""Deciding as a whole: of one name what a sweep decides of it, and twice the same."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ds01d.decide.decision import decide
from ds01d.reconcile.checkpoint_store import CheckpointStore
from ds01d.reconcile.observe import observe_host
from ds01d.reconcile.reconciler import Reconciler
from tests.support.reality import NAMES, Reality, realities

FEW = settings(max_examples=max(20, settings.get_profile("deciding").max_examples // 20))


def after_some_sweeps(real: Reality, sweeps: int) -> None:
    for _ in range(sweeps):
        real.look()
        real.host.pass_time(30.0)


@FEW
@given(realities(), st.integers(0, 6), st.sets(st.sampled_from(NAMES), min_size=1))
def test_a_pass_over_some_names_decides_of_them_what_a_sweep_does(
    real: Reality, sweeps: int, names: set[str]
) -> None:
    after_some_sweeps(real, sweeps)
    reconciler = Reconciler(real.host.world(), real.config)
    sweep = reconciler.plan().decision
    partial = reconciler.plan(frozenset(names)).decision  # type: ignore[arg-type]
    for name, verdict in partial.verdicts.items():
        assert verdict == sweep.verdicts[name]
    decided = {gated.drift.key: gated.drift for gated in sweep.gated}
    for gated in partial.gated:
        assert gated.drift == decided[gated.drift.key]


@FEW
@given(realities(), st.integers(0, 6))
def test_deciding_is_a_function_of_snapshot_checkpoint_and_configuration(
    real: Reality, sweeps: int
) -> None:
    after_some_sweeps(real, sweeps)
    world = real.host.world()
    checkpoint, _ = CheckpointStore(world.state_dir).load()
    snapshot = observe_host(world, checkpoint, real.config, None)
    once, twice = (decide(snapshot, checkpoint, real.config) for _ in range(2))
    assert (once.gated, once.verdicts, once.findings) == (
        twice.gated,
        twice.verdicts,
        twice.findings,
    )
    assert once.checkpoint == twice.checkpoint
