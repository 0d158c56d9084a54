"""Shows the progress of a pull."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from ds01d.model.creation import Progress
from ds01d.text import make_printable


def show_pull_progress(steps: Iterator[Progress], image: str) -> None:
    """Follow a pull: a bar on a terminal, else a line when it begins."""
    if not sys.stderr.isatty():
        click.echo(f"pulling {make_printable(image)}", err=True)
        for _ in steps:
            pass
        return
    from rich.console import Console  # noqa: PLC0415 - slow to load
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn  # noqa: PLC0415
    from rich.progress import Progress as Bar  # noqa: PLC0415

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(f"pulling {make_printable(image)}", total=None)
        for step in steps:
            bar.update(task, completed=step.done, total=step.total or None)
