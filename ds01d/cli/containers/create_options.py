"""The arguments of `container-create`, and which of them contradict each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import click

from ds01d.adapters.host.image_catalogue import REFERENCE
from ds01d.cli.output.text import make_printable


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateOptions:
    """The arguments, as they were given. None: not given."""

    name: str | None = None
    framework: str | None = None
    gpus: int | None = None
    slots: Sequence[str] = ()
    image: str | None = None
    architecture: str | None = None
    dry_run: bool = False
    start: bool = True

    def command(self) -> str:
        """The command that says the same."""
        words = ["container-create", self.name or "NAME", *filter(None, (self.framework,))]
        if self.slots:
            words += [f"--slot {slot}" for slot in self.slots]
        elif self.gpus is not None:
            words.append(f"--gpus {self.gpus}")
        words += [f"--image {self.image}"] if self.image else []
        words += [f"--architecture {self.architecture}"] if self.architecture else []
        words += ["--dry-run"] if self.dry_run else []
        words += [] if self.start else ["--no-start"]
        return " ".join(words)


def check_options(wish: CreateOptions, *, guided: bool) -> None:
    """What cannot be meant is a usage error, before anything else."""
    if not guided and wish.name is None:
        raise click.UsageError("Missing argument 'NAME' (or --guided, which asks for everything)")
    if not guided and wish.framework is None and wish.image is None:
        raise click.UsageError("Missing argument 'FRAMEWORK' (or an image: --image IMG)")
    if wish.slots and wish.gpus is not None and wish.gpus != len(wish.slots):
        raise click.UsageError(f"--gpus {wish.gpus} and {len(wish.slots)} --slot contradict")
    if len(set(wish.slots)) != len(wish.slots):
        raise click.UsageError("a --slot is named twice")
    if wish.image is not None and not REFERENCE.fullmatch(wish.image):
        raise click.UsageError(f"{make_printable(wish.image)!r} is no name that an image can have")
