"""`ds01d`: the daemon in the foreground, or a check of its configuration."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from ds01d.cli.base.command import CONSISTENT, ExitCodeCommand, common_options, print_error
from ds01d.cli.base.context import Invocation
from ds01d.errors import ConfigError
from ds01d.text import make_printable


@click.command(
    "ds01d", cls=ExitCodeCommand, context_settings={"help_option_names": ["-h", "--help"]}
)
@common_options
@click.option(
    "--check", is_flag=True, help="Check the configuration; exit status 1 if it is invalid."
)
@click.pass_obj
def main(invocation: Invocation, *, check: bool) -> int:
    """Keep GPU allocation records consistent with Docker and NVML, in the foreground.

    SIGHUP reloads the configuration and starts a sweep, SIGTERM stops, SIGUSR1 logs the complete
    status. Exit status 78 for an invalid configuration at the start.
    """
    if check:
        return _check_config(invocation)
    import_structlog()
    from ds01d.bootstrap_daemon import run_daemon  # noqa: PLC0415 - heavy
    from ds01d.cli.views import VIEWS  # noqa: PLC0415 - heavy

    try:
        return run_daemon(invocation.config_file, VIEWS)
    # decision 44: 78 keeps systemd from restarting a service that cannot start.
    except ConfigError as error:
        print_error("ds01d", str(error))
        return os.EX_CONFIG


def import_structlog() -> None:
    """Import structlog without rich, which it imports for tracebacks in colour where it can."""
    if "rich" in sys.modules:
        return
    # Decision 259: with pygments 4 MiB, of which a daemon prints nothing. None makes an import fail
    # (sys.modules, The Python Language Reference, 5.3.1), and structlog is made for that.
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        import structlog  # noqa: F401, PLC0415
    finally:
        del sys.modules["rich"]


def _check_config(invocation: Invocation) -> int:
    from ds01d.config_checks import describe_risks  # noqa: PLC0415 - heavy

    config = invocation.config()
    for risk in describe_risks(config):
        click.echo(f"risky: {make_printable(risk)}")
    origin = make_printable(_describe_origin(invocation.config_file))
    click.echo(f"{origin}: the configuration is sound")
    return CONSISTENT


def _describe_origin(named: Path | None) -> str:
    from ds01d.config_file import DEFAULT_PATH, ENVIRONMENT  # noqa: PLC0415 - heavy

    file = named or Path(os.environ.get(ENVIRONMENT) or DEFAULT_PATH)
    return str(file) if file.exists() else f"{file} (missing, so every key has its default)"


if __name__ == "__main__":
    main()
