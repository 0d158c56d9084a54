"""The arguments of `container-create`: checked that they fit together, and shown as a command."""

from __future__ import annotations

import shlex

import click

from ds01d.adapters.host.image_catalogue import REFERENCE
from ds01d.containers.order import CreateOptions
from ds01d.text import make_printable


def render_command(options: CreateOptions) -> str:
    """The equivalent command line."""
    words = ["container-create", options.name or "NAME", *filter(None, (options.framework,))]
    return shlex.join([*words, *list_options(options)])


def list_options(options: CreateOptions) -> list[str]:
    """The options that say the same, as words."""
    words: list[str] = []
    if options.slots:
        words += [word for slot in options.slots for word in ("--slot", slot)]
    elif options.gpus == 0:
        words.append("--cpu-only")
    elif options.gpus is not None:
        words += ["--gpus", str(options.gpus)]
    words += ["--image", options.image] if options.image else []
    words += ["--architecture", options.architecture] if options.architecture else []
    words += ["--workspace", options.workspace] if options.workspace else []
    words += ["--data", options.data] if options.data else []
    words += ["--dry-run"] if options.dry_run else []
    words += [] if options.start else ["--no-start"]
    words += ["--wait"] if options.wait else []
    return words


def check_options(options: CreateOptions, *, guided: bool) -> None:
    """Raise a usage error for contradicting arguments, before anything else."""
    if not guided and options.name is None:
        raise click.UsageError("Missing argument 'NAME' (or --guided, which asks for everything)")
    if not guided and options.framework is None and options.image is None:
        raise click.UsageError("Missing argument 'FRAMEWORK' (or an image: --image IMG)")
    for folder in filter(None, (options.workspace, options.data)):
        if ":" in folder or not folder.isprintable():
            raise click.UsageError(f"cannot mount {make_printable(folder)!r}: it has a colon")
    if options.slots and options.gpus is not None and options.gpus != len(options.slots):
        raise click.UsageError(f"--gpus {options.gpus} and {len(options.slots)} --slot contradict")
    if len(set(options.slots)) != len(options.slots):
        raise click.UsageError("a --slot is given twice")
    if options.image is not None and not REFERENCE.fullmatch(options.image):
        raise click.UsageError(f"invalid image name {make_printable(options.image)!r}")
