"""`container-create --guided`: asks for everything, explains each choice, shows the command.

Asks only; what the answers lead to is checked where all arguments are.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import click

from ds01d.adapters.host.image_catalogue import find_catalogue, read_catalogue
from ds01d.bootstrap import ContainerServices
from ds01d.cli.containers.create_options import CreateOptions
from ds01d.cli.containers.order import host_architecture, owner_of_new
from ds01d.cli.output.blocks import Block, Cell, Sentence, Table, Title, Tone, Toned
from ds01d.cli.output.display import show_blocks
from ds01d.config import Config
from ds01d.containers.image_selection import choose_image, version_key
from ds01d.containers.names import full_name
from ds01d.errors import Ds01Error
from ds01d.model.allocation import Allocated, Rejected
from ds01d.model.creation import Caller, Catalogue, Image
from ds01d.model.primitives import ContainerName, SlotId, UserName, Wall
from ds01d.reconcile.allocator import Allocator


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptContext:
    """What questions are answered from."""

    config: Config
    caller: Caller
    workshop: ContainerServices

    def catalogue(self) -> Catalogue:
        return read_catalogue(find_catalogue(self.config.containers.frameworks))

    def survey(self, name: ContainerName) -> Mapping[SlotId | None, Allocated | Rejected]:
        owner = owner_of_new(name, self.caller)
        allocator = Allocator(self.workshop.world, self.config)
        return allocator.survey(UserName(owner.name), name)


def ask_options(wish: CreateOptions, desk: PromptContext) -> CreateOptions:
    """The wish, completed. Ctrl-C or an end of input ends the command; nothing is booked yet."""
    wish = _ask_framework(wish, desk)
    name, wish = _ask_name(wish, desk)
    wish = _ask_slots(wish, desk.survey(name))
    _show_blocks(
        [
            Title("The same without questions"),
            Sentence(f"  {replace(wish, dry_run=False).command()}", Tone.STRONG),
        ]
    )
    what = "Show what it would do?" if wish.dry_run else "Create it now?"
    click.confirm(what, default=True, abort=True)
    return wish


def _ask_framework(wish: CreateOptions, desk: PromptContext) -> CreateOptions:
    if wish.image is not None:
        return wish
    catalogue = desk.catalogue()
    images, here = _runnable_images(catalogue, wish, desk.config)
    _show_blocks(
        [
            Title("Framework"),
            Sentence(
                "What is installed in the container. The image is downloaded once; what you install"
                " yourself stays in your container."
            ),
            Table(
                ("no", "framework", "version", "for"),
                [
                    [number, one.framework, one.version, one.architecture or "any GPU"]
                    for number, one in enumerate(images, 1)
                ],
            ),
            *([Sentence(f"This host runs images for {here}.", Tone.FAINT)] if here else []),
        ]
    )

    def understood(text: str) -> str:
        if text.isdecimal() and 1 <= int(text) <= len(images):
            return images[int(text) - 1].title.lower()
        try:
            choose_image(catalogue, text, lambda: here)
        except Ds01Error as error:
            raise click.UsageError(str(error)) from error
        return text.lower()

    default = wish.framework or (images[0].title.lower() if images else None)
    return replace(
        wish, framework=click.prompt("Number or name", default=default, value_proc=understood)
    )


def _runnable_images(
    catalogue: Catalogue, wish: CreateOptions, config: Config
) -> tuple[Sequence[Image], str]:
    """The images for this host, the newest of each framework first; and what this host runs."""
    here = ""
    if any(one.architecture for one in catalogue.images):
        try:
            here = wish.architecture or host_architecture(config)
        except Ds01Error as error:
            _show_blocks([Sentence(str(error), Tone.WARN)])
    runs = [one for one in catalogue.images if one.architecture in {"", here}]
    runs.sort(key=lambda one: version_key(one.version), reverse=True)
    runs.sort(key=lambda one: one.framework.lower())
    return runs, here


def _ask_name(wish: CreateOptions, desk: PromptContext) -> tuple[ContainerName, CreateOptions]:
    _show_blocks(
        [
            Title("Name"),
            Sentence("How you will call it. Docker knows it with your user's number behind."),
        ]
    )

    def understood(text: str) -> str:
        try:
            name = full_name(text, desk.caller)
            if desk.workshop.hands.find(name) is not None:
                raise click.UsageError(f"{name} exists already")
        except Ds01Error as error:
            raise click.UsageError(str(error)) from error
        return text

    text = click.prompt("Name", default=wish.name, value_proc=understood)
    return full_name(text, desk.caller), replace(wish, name=text)


def _ask_slots(
    wish: CreateOptions, answers: Mapping[SlotId | None, Allocated | Rejected]
) -> CreateOptions:
    """Which slot, several, or none."""
    best = answers.get(None)
    rows: list[Sequence[Cell]] = []
    for slot, answer in answers.items():
        if slot is not None:
            rows.append([slot, *_offer_cells(answer)])
    told: list[Block] = [
        Title("GPU"),
        Sentence(
            "A slot is a GPU, or a part of one (1.2 is part 2 of GPU 1). It is yours until you"
            " remove the container, or stop it for longer than your limits allow."
        ),
        Table(("slot", "", "why"), rows),
    ]
    if isinstance(best, Rejected):
        told.append(Sentence(f"None can be had now: {best.reason}", Tone.WARN))
    _show_blocks(told)
    free = [slot for slot, one in answers.items() if slot and isinstance(one, Allocated)]

    def understood(text: str) -> CreateOptions:
        words = text.replace(",", " ").split()
        if text.strip().lower() == "best":
            return replace(wish, gpus=None, slots=())
        if text.strip().lower() == "none":
            return replace(wish, gpus=0, slots=())
        wrong = [word for word in words if word not in answers]
        if wrong or not words:
            raise click.UsageError(
                f'there is no slot {text!r}: write one of them, "best" or "none"'
            )
        taken = [word for word in words if word not in free]
        if taken:
            raise click.UsageError(f"{', '.join(taken)} cannot be had now")
        return replace(wish, gpus=None, slots=tuple(words))

    default = " ".join(wish.slots) or ("none" if wish.gpus == 0 or not free else "best")
    found: CreateOptions = click.prompt(
        'Slot, several of them, "best" or "none"', default=default, value_proc=understood
    )
    return found


def _offer_cells(answer: Allocated | Rejected) -> tuple[Cell, Cell]:
    if isinstance(answer, Rejected):
        return Toned("taken", Tone.WARN), answer.detail or str(answer.refusal)
    if answer.shared_with:
        return Toned("shared", Tone.WARN), f"with {', '.join(answer.shared_with)}"
    return Toned("free", Tone.GOOD), None


def _show_blocks(blocks: Sequence[Block]) -> None:
    show_blocks(blocks, Wall(time.time()))
