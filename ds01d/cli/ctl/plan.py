"""`ds01ctl plan` and `ds01ctl reconcile`: what a pass would do, and making one."""

from __future__ import annotations

import click

from ds01d.cli.base.command import config_option, json_option
from ds01d.cli.base.context import Invocation
from ds01d.cli.base.options import parse_duration
from ds01d.cli.ctl import report as reports
from ds01d.cli.ctl.operations import open_operations
from ds01d.cli.output.display import (
    announce_on_stderr,
    announce_on_terminal,
    show_blocks,
    show_json,
)
from ds01d.config import Config
from ds01d.documents.passes import PassDocument


@click.command()
@json_option
@click.option("-v", "--verbose", is_flag=True, help="Show the evidence for each drift.")
@config_option
@click.pass_obj
def plan(invocation: Invocation, *, as_json: bool, verbose: bool) -> int:
    """Show what a pass would do now; change nothing.

    Exit code: 0 the books are consistent, 2 there is drift, 1 an error or a failed source.
    """
    report = plan_pass(invocation, invocation.config())
    return show_report(report, as_json=as_json, verbose=verbose)


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
        else run_passes(invocation, config, timeout * wait, loud=True)
    )
    return show_report(report, as_json=as_json, verbose=verbose)


def plan_pass(invocation: Invocation, config: Config) -> PassDocument:
    """The report of a dry pass."""
    with open_operations(invocation, config) as operations:
        return operations.plan_pass()


def run_passes(
    invocation: Invocation, config: Config, timeout_s: float, *, loud: bool = False
) -> PassDocument:
    """The report of a pass, or with a timeout of all passes until nothing waits for time alone.

    `loud`: what is waited for is a line, too, where stderr is no terminal.
    """
    announce = announce_on_stderr if loud else announce_on_terminal
    with open_operations(invocation, config, change="reconcile the books") as operations:
        return operations.run_passes(timeout_s, announce)


def show_report(report: PassDocument, *, as_json: bool, verbose: bool = False) -> int:
    """Show a report and return the exit code."""
    if as_json:
        show_json("pass", report)
    else:
        show_blocks(reports.report_blocks(report, verbose=verbose), report.at.at)
    return reports.exit_code(report)
