"""Values on the command line: durations and moments, refused with what would be right."""

from __future__ import annotations

import time

import click

from ds01d.adapters.books.timestamps import parse_time
from ds01d.config import Seconds
from ds01d.model.primitives import Wall


def parse_duration(_: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Read a span of time as the configuration writes it; zero is none."""
    if value is None:
        return None
    try:
        seconds = float(Seconds.parse(value))
    except ValueError as error:
        raise click.BadParameter(str(error), param=param) from error
    if seconds <= 0:
        raise click.BadParameter("zero is no duration: write one above it", param=param)
    return seconds


def parse_since(_: click.Context, param: click.Parameter, value: str | None) -> Wall | None:
    """Read a moment: so long ago ("2d"), or an ISO time (local, or with its offset)."""
    if value is None:
        return None
    moment = parse_time(value) or parse_time(f"{value}T00:00")
    if moment is not None:
        return moment
    try:
        return Wall(time.time() - Seconds.parse(value))
    except ValueError as error:
        raise click.BadParameter(
            f'{value!r} is no moment: write how long ago it is, like "2d", or a time, like'
            ' "2026-01-31T08:00"',
            param=param,
        ) from error
