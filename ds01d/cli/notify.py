"""`ds01d-notify`: sends users their notices, in the foreground, apart from the daemon."""

from __future__ import annotations

import os

import click

from ds01d.cli.base.command import ExitCodeCommand, common_options, print_error
from ds01d.cli.base.context import Invocation
from ds01d.errors import ConfigError


@click.command(
    "ds01d-notify", cls=ExitCodeCommand, context_settings={"help_option_names": ["-h", "--help"]}
)
@common_options
@click.option(
    "--targets",
    type=click.Choice(["all", "local", "network"]),
    default="all",
    help="Which of them: terminals and greetings (local); mail, webhook and command (network).",
)
@click.pass_obj
def main(invocation: Invocation, *, targets: str) -> int:
    """Send users the notices that ds01d has for them, in the foreground.

    It reads the spool of ds01d and the table [notify] of the configuration, and ends if that has no
    target for it. SIGHUP reads the configuration again, SIGTERM ends it after the attempt that it
    is making. It does not run as root.
    """
    from ds01d.bootstrap_notify import run_notifier  # noqa: PLC0415 - heavy

    try:
        return run_notifier(invocation.config_file, os.environ, targets)
    # decision 44: 78 keeps systemd from restarting a service that cannot start.
    except ConfigError as error:
        print_error("ds01d-notify", str(error))
        return os.EX_CONFIG


if __name__ == "__main__":
    main()
