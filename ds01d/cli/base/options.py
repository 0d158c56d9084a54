"""Values on the command line: durations and times, with errors that name the expected form."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import click

from ds01d.adapters.books.timestamps import parse_time
from ds01d.config_values import Seconds
from ds01d.model.primitives import Wall

_Command = TypeVar("_Command", bound=Callable[..., object])


def watch_options(command: _Command) -> _Command:
    """--watch and --interval, for a view that is shown again and again."""
    interval = click.option(
        "--interval",
        default="2s",
        metavar="TIME",
        show_default=True,
        callback=parse_interval,
        help="How often --watch looks.",
    )
    watch = click.option(
        "-w",
        "--watch",
        "watched",
        is_flag=True,
        help="Show it again and again; q or Ctrl-C ends it.",
    )
    return watch(interval(command))


_SHORTEST_S, _LONGEST_S = 0.1, 86400.0


def parse_duration(_: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Parse a duration as in the configuration, in seconds; zero is invalid."""
    if value is None:
        return None
    try:
        seconds = float(Seconds.parse(value))
    except ValueError as error:
        raise click.BadParameter(str(error), param=param) from error
    if seconds <= 0:
        raise click.BadParameter("invalid duration: expected more than zero", param=param)
    return seconds


def parse_interval(context: click.Context, param: click.Parameter, value: str) -> float:
    """Parse how often to look, in seconds: a tenth of a second at least, a day at most."""
    seconds = parse_duration(context, param, value) or 0.0
    if not _SHORTEST_S <= seconds <= _LONGEST_S:
        raise click.BadParameter("expected 0.1s to 24h", param=param)
    return seconds


def parse_since(_: click.Context, param: click.Parameter, value: str | None) -> Wall | None:
    """Parse an age ("2d") or an ISO time (local, or with its offset)."""
    if value is None:
        return None
    # A date alone means its first minute.
    moment = parse_time(value) or parse_time(f"{value}T00:00")
    if moment is not None:
        return moment
    try:
        return Wall(time.time() - Seconds.parse(value))
    except ValueError as error:
        raise click.BadParameter(
            f'invalid time {value!r}: expected an age such as "2d" or a time such as'
            ' "2026-01-31T08:00"',
            param=param,
        ) from error
