"""What all commands share: exit codes, errors in one line, and common options.

Exit codes: what the command returns (0 consistent or done, 2 drift); 1 for every error, a wrong
option included, since click's 2 would read as drift; 130 after Ctrl-C. Knows nothing of what a
command does.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from ds01d import __version__
from ds01d.cli.base import process
from ds01d.cli.base.context import Environment, Invocation, host_environment
from ds01d.errors import Ds01Error
from ds01d.text import make_printable

CONSISTENT, ERROR, DRIFT, INTERRUPTED = 0, 1, 2, 130

_Anything = TypeVar("_Anything", bound=Callable[..., Any])


class ExitCodeCommand(click.Command):
    """A command whose return value is its exit code (None: 0)."""

    def main(self, *args: Any, **extra: Any) -> Any:  # noqa: ANN401 - click's own signature
        """Run, and exit. Whatever went wrong is one line a problem on stderr."""
        # click itself would exit with 2 for wrong usage, which means drift (decision 20).
        extra["standalone_mode"] = False
        name = str(extra.setdefault("prog_name", self.name))
        if extra.get("obj") is None:  # else a test or another program owns the process
            process.prepare_streams()
        _forgive_encoding()
        try:
            code = super().main(*args, **extra)
            # Inside the try: a full disk is an error of the command, not a traceback.
            sys.stdout.flush()
        except click.Abort:
            code = INTERRUPTED
        except click.UsageError as error:
            where = f" (see {error.ctx.command_path} --help)" if error.ctx is not None else ""
            code = print_error(name, f"{error.format_message().rstrip('.')}{where}")
        except click.ClickException as error:
            code = print_error(name, error.format_message())
        except Ds01Error as error:
            code = print_error(name, str(error))
        except BrokenPipeError:
            code = ERROR
        except OSError as error:
            code = print_error(name, str(error))
        finally:
            complete = process.flush_streams()
        # decision 113: output that is lost is a failure, even if the work was done.
        if not complete and code in {CONSISTENT, None}:
            code = ERROR
        sys.exit(code if isinstance(code, int) else 0)


class ExitCodeGroup(ExitCodeCommand, click.Group):
    """A group of such commands."""


def common_options(command: _Anything) -> _Anything:
    """The options that every command has, before and after the name of a sub-command."""
    version = click.version_option(__version__, "--version", message="%(prog)s %(version)s")
    return config_option(version(command))


def config_option(command: _Anything) -> _Anything:
    """--config, which also makes the context's object the `Invocation`."""
    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        expose_value=False,
        is_eager=True,
        callback=_set_config_file,
        help="Configuration file [$DS01D_CONFIG, /etc/ds01/ds01d.toml].",
    )(command)


def json_option(command: _Anything) -> _Anything:
    """--json, for every command that answers a question."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON object.")(command)


def _set_config_file(context: click.Context, _: click.Parameter, value: Path | None) -> None:
    given = context.obj
    if not isinstance(given, Invocation):
        environment = given if isinstance(given, Environment) else host_environment()
        given = Invocation(environment=environment)
    context.obj = given if value is None else replace(given, config_file=value)


def print_error(name: str, text: str) -> int:
    """Print an error on stderr, one line per line of text, and return the exit code for it."""
    with suppress(OSError):  # stderr is closed: there is nowhere left to report it
        for line in text.splitlines() or [text]:
            click.echo(f"{name}: {make_printable(line)}", err=True)
    return ERROR


def _forgive_encoding() -> None:
    """Characters that the terminal's encoding lacks are escaped; they never end a command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
