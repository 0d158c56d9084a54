"""The arguments of `container-create`, and the check that they fit together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import click

from ds01d.adapters.host.image_catalogue import REFERENCE
from ds01d.text import make_printable


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateOptions:
    """The arguments as given; None: not given."""

    name: str | None = None
    framework: str | None = None
    gpus: int | None = None
    slots: Sequence[str] = ()
    image: str | None = None
    architecture: str | None = None
    dry_run: bool = False
    start: bool = True
    wait: bool = False

    def as_command(self) -> str:
        """The equivalent command line."""
        words = ["container-create", self.name or "NAME", *filter(None, (self.framework,))]
        if self.slots:
            words += [f"--slot {slot}" for slot in self.slots]
        elif self.gpus is not None:
            words.append(f"--gpus {self.gpus}")
        words += [f"--image {self.image}"] if self.image else []
        words += [f"--architecture {self.architecture}"] if self.architecture else []
        words += ["--dry-run"] if self.dry_run else []
        words += [] if self.start else ["--no-start"]
        words += ["--wait"] if self.wait else []
        return " ".join(words)


def check_options(options: CreateOptions, *, guided: bool) -> None:
    """Raise a usage error for contradicting arguments, before anything else."""
    if not guided and options.name is None:
        raise click.UsageError("Missing argument 'NAME' (or --guided, which asks for everything)")
    if not guided and options.framework is None and options.image is None:
        raise click.UsageError("Missing argument 'FRAMEWORK' (or an image: --image IMG)")
    if options.slots and options.gpus is not None and options.gpus != len(options.slots):
        raise click.UsageError(f"--gpus {options.gpus} and {len(options.slots)} --slot contradict")
    if len(set(options.slots)) != len(options.slots):
        raise click.UsageError("a --slot is given twice")
    if options.image is not None and not REFERENCE.fullmatch(options.image):
        raise click.UsageError(f"invalid image name {make_printable(options.image)!r}")
