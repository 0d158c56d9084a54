"""`ds01ctl plan` and `ds01ctl reconcile`: what a pass would do, and making one."""

from __future__ import annotations

import click

from ds01d.cli.base.command import config_option, json_option
from ds01d.cli.base.context import Invocation
from ds01d.cli.base.options import parse_duration
from ds01d.cli.ctl import report as reports
from ds01d.cli.ctl.published_drifts import with_published
from ds01d.cli.ctl.wait import Announce, run_until_settled
from ds01d.cli.output.display import (
    announce_on_stderr,
    announce_on_terminal,
    show_blocks,
    show_json,
)
from ds01d.config import Config
from ds01d.reconcile.reconciler import Reconciler
from ds01d.reconcile.report import Report
from ds01d.reporting.published_status import read_published_status


@click.command()
@json_option
@click.option("-v", "--verbose", is_flag=True, help="Show the evidence for each drift.")
@config_option
@click.pass_obj
def plan(invocation: Invocation, *, as_json: bool, verbose: bool) -> int:
    """Show what a pass would do now; change nothing.

    Exit code: 0 the books are consistent, 2 there is drift, 1 an error or a failed source.
    """
    config = invocation.config()
    return show_report(plan_pass(invocation, config), config, as_json=as_json, verbose=verbose)


@click.command()
@click.option("--dry-run", is_flag=True, help="The same as plan.")
@click.option("--wait", is_flag=True, help="Wait until all drift that only needs time is repaired.")
@click.option(
    "--timeout", callback=parse_duration, default="10m", show_default=True, help="With --wait."
)
@json_option
@click.option("-v", "--verbose", is_flag=True, help="Show the evidence for each drift.")
@config_option
@click.pass_obj
def reconcile(
    invocation: Invocation,
    *,
    dry_run: bool,
    wait: bool,
    timeout: float,
    as_json: bool,
    verbose: bool,
) -> int:
    """Make a full pass now, with or without the daemon.

    Exit code: 0 nothing is left to do, 2 some drift is waiting or failed, 1 an error or a failed
    source.
    """
    if dry_run and wait:
        raise click.UsageError("--dry-run and --wait exclude each other")
    config = invocation.config()
    report = (
        plan_pass(invocation, config)
        if dry_run
        else run_passes(invocation, config, timeout * wait, announce_on_stderr)
    )
    return show_report(report, config, as_json=as_json, verbose=verbose)


def plan_pass(invocation: Invocation, config: Config) -> Report:
    """The report of a dry pass."""
    with invocation.environment.open_world(config) as world:
        report = Reconciler(world, config).plan()
    published, daemon_problem = read_published_status(config, report.decision.snapshot.now.wall)
    # decision 104: a failed repair is in the published status only.
    return with_published(report, None if daemon_problem else published)


def run_passes(
    invocation: Invocation,
    config: Config,
    timeout_s: float,
    announce: Announce = announce_on_terminal,
) -> Report:
    """The report of a pass, or with a timeout of all passes until nothing waits for time alone.

    `announce` shows what is being waited for.
    """
    environment = invocation.environment
    # Before the world opens: a first pass on a new host creates its directory.
    environment.make_state_dir(config)
    with environment.open_world(config) as world:
        run = Reconciler(world, config).run
        # Without --wait one pass is the answer, whatever still waits.
        if not timeout_s:
            return run()
        reports_made = run_until_settled(
            run, world.clock, environment.sleep, config, timeout_s=timeout_s, announce=announce
        )
        return reports.join_reports(tuple(reports_made))


def show_report(report: Report, config: Config, *, as_json: bool, verbose: bool = False) -> int:
    """Show a report and return the exit code."""
    if as_json:
        show_json(reports.report_document(report, config))
    else:
        show_blocks(
            reports.report_blocks(report, config, verbose=verbose), reports.report_time(report)
        )
    return reports.exit_code(report)
