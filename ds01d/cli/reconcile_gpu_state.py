"""`reconcile-gpu-state`: the command of existing cron lines, as a pass of ds01d.

Takes the options of the script that it replaces. Without a running daemon, absence is proven by
repeated passes, so the command waits until then; with one, a single pass is enough. An unknown
option is an error, so that a broken cron job is noticed.
"""

from __future__ import annotations

import time

import click

from ds01d.cli.base.command import CONSISTENT, ExitCodeCommand, common_options
from ds01d.cli.base.context import Invocation
from ds01d.cli.ctl import report as reports
from ds01d.cli.ctl.plan import plan_pass, run_passes, show_report
from ds01d.config import Config
from ds01d.model.primitives import Wall
from ds01d.reporting.published_status import read_published_status

SLACK_S = 30.0


@click.command(
    "reconcile-gpu-state",
    cls=ExitCodeCommand,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@common_options
@click.option("--fix", is_flag=True, help="Repair (the default).")
@click.option("-n", "--dry-run", is_flag=True, help="Show what would be repaired; change nothing.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing if the books are consistent.")
@click.option("-v", "--verbose", is_flag=True, help="Show the evidence for each drift.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def main(
    invocation: Invocation, *, fix: bool, dry_run: bool, quiet: bool, verbose: bool, as_json: bool
) -> int:
    """Repair the allocator's books: ds01ctl reconcile, for cron.

    Exit code: 0 nothing is left to do, 2 some drift is waiting or failed, 1 an error or a failed
    source.
    """
    if fix and dry_run:
        raise click.UsageError("--fix and --dry-run exclude each other")
    config = invocation.config()
    patience_s = 0.0 if dry_run else _patience_s(config)
    report = (
        plan_pass(invocation, config) if dry_run else run_passes(invocation, config, patience_s)
    )
    code = reports.exit_code(report)
    # cron mails any output, so a consistent run has none.
    if quiet and code == CONSISTENT and not report.drifts:
        return code
    return show_report(report, as_json=as_json, verbose=verbose)


def _patience_s(config: Config) -> float:
    """How long to wait: not at all beside a daemon, else until an absence can be proven."""
    _, silent = read_published_status(config, Wall(time.time()))
    if not silent:
        return 0.0
    return config.policy.absence_grace_s + config.policy.settle_s + SLACK_S


if __name__ == "__main__":
    main()
