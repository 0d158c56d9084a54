"""Passes of ds01d that `release-stale` and `sync` make, over some kinds of drift only."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ds01d.cli.allocator.call import print_warnings
from ds01d.config import Config
from ds01d.errors import BooksUnreadable, NotPermitted
from ds01d.model.primitives import ContainerName, Wall

if TYPE_CHECKING:
    from ds01d.model.drift import Kind
    from ds01d.reconcile.report import Report


def run_passes(
    config: Config,
    names: frozenset[ContainerName] | None,
    kinds: frozenset[Kind],
    patience_s: float,
) -> Report | None:
    """Passes over these kinds of drift; None where the daemon makes them, and we may not."""
    from ds01d import bootstrap  # noqa: PLC0415 - with Docker: heavy
    from ds01d.adapters.files import permissions  # noqa: PLC0415
    from ds01d.cli.output.display import announce_on_terminal  # noqa: PLC0415
    from ds01d.documents.passes import describe_wait  # noqa: PLC0415
    from ds01d.reconcile.reconciler import Reconciler  # noqa: PLC0415
    from ds01d.reconcile.report import join_reports  # noqa: PLC0415
    from ds01d.reconcile.settling import run_until_settled  # noqa: PLC0415
    from ds01d.reporting.published_status import read_published_status  # noqa: PLC0415

    _, daemon_problem = read_published_status(config, Wall(time.time()))
    state_dir = bootstrap.state_dir(config)
    try:
        permissions.require_access((state_dir.path,), (state_dir.checkpoint, state_dir.history))
    except NotPermitted as error:
        # A running daemon repairs the same drift itself, so the caller needs no permission.
        if not daemon_problem and config.daemon.mode == "repair":
            return None
        raise NotPermitted(
            f"only root can do this while ds01d does not ({daemon_problem}): {error}"
        ) from error
    # The first call on a new host may come before the daemon's first start.
    state_dir.make()
    with bootstrap.open_world(config) as world:
        reconciler = Reconciler(world, config)
        waited = run_until_settled(
            lambda: reconciler.run(names, kinds),
            world.clock,
            time.sleep,
            config,
            # A running daemon has watched all along, so one pass is enough proof.
            timeout_s=patience_s if daemon_problem else 0.0,
            announce=lambda wait: announce_on_terminal(describe_wait(wait)),
        )
        report = join_reports(tuple(waited))
    _report_problems(report, config)
    return report


def _report_problems(report: Report, config: Config) -> None:
    """A source that failed is an error; other problems are warnings."""
    failed = [f"{source}: {state}" for source, state in report.sources.items() if state != "ok"]
    if not report.needed_sources_ok:
        # Without every needed source an absence would be a guess: release nothing.
        raise BooksUnreadable(f"nothing can be proven: {'; '.join(failed)}")
    print_warnings(report.warnings)
    if config.daemon.mode == "observe":
        print_warnings(['daemon.mode is "observe": nothing is repaired'])


def repaired_slots(report: Report | None) -> dict[str, tuple[tuple[str, ...], str]]:
    """What was settled: container → the slots it lost or got, and why."""
    from ds01d.model.drift import Outcome  # noqa: PLC0415

    drifts = (
        [gated.drift for gated in report.drifts if gated.outcome is Outcome.DONE] if report else []
    )
    return {
        str(drift.container): (
            tuple(sorted(slot for _, slot in drift.taken | drift.given)),
            drift.reason,
        )
        for drift in drifts
    }
