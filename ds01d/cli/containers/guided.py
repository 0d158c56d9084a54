"""`container-create --guided`: asks for each argument, explains it, and shows the command.

Only asks; the answers are checked where all arguments are.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import click

from ds01d.adapters.host.image_catalogue import find_catalogue, read_catalogue
from ds01d.cli.containers.create_options import render_command
from ds01d.cli.output.blocks import Block, Cell, Sentence, Table, Title, Tone, Toned
from ds01d.cli.output.display import show_blocks
from ds01d.config import Config
from ds01d.containers.commands import ContainerCommands
from ds01d.containers.image_selection import choose_image, version_key
from ds01d.containers.names import full_name
from ds01d.containers.order import CreateOptions, host_architecture
from ds01d.errors import Ds01Error
from ds01d.model.allocation import Allocated, Rejected
from ds01d.model.creation import Caller, Catalogue, Image
from ds01d.model.primitives import ContainerName, SlotId, Wall


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptContext:
    """What the questions are answered from."""

    config: Config
    caller: Caller
    commands: ContainerCommands

    def catalogue(self) -> Catalogue:
        return read_catalogue(find_catalogue(self.config.containers.frameworks))


def ask_options(options: CreateOptions, context: PromptContext) -> CreateOptions:
    """The options, completed. Ctrl-C or end of input ends the command; nothing is booked yet."""
    options = _ask_framework(options, context)
    name, options = _ask_name(options, context)
    options = _ask_slots(options, context.commands.survey_slots(name))
    _show_blocks(
        [
            Title("The same without questions"),
            Sentence(f"  {render_command(replace(options, dry_run=False))}", Tone.STRONG),
        ]
    )
    question = "Show what it would do?" if options.dry_run else "Create it now?"
    click.confirm(question, default=True, abort=True)
    return options


def _ask_framework(options: CreateOptions, context: PromptContext) -> CreateOptions:
    if options.image is not None:
        return options
    # Read before the first question: a broken catalogue should not cost the user five answers.
    catalogue = context.catalogue()
    images, architecture = _runnable_images(catalogue, options, context.config)
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
                    [number, image.framework, image.version, image.architecture or "any GPU"]
                    for number, image in enumerate(images, 1)
                ],
            ),
            *(
                [Sentence(f"This host runs images for {architecture}.", Tone.FAINT)]
                if architecture
                else []
            ),
        ]
    )

    def parse_framework(text: str) -> str:
        # A number of the table first: no framework has a name of digits.
        if text.isdecimal() and 1 <= int(text) <= len(images):
            return images[int(text) - 1].title.lower()
        try:
            choose_image(catalogue, text, lambda: architecture)
        except Ds01Error as error:
            raise click.UsageError(str(error)) from error
        return text.lower()

    default = options.framework or (images[0].title.lower() if images else None)
    return replace(
        options,
        framework=click.prompt("Number or name", default=default, value_proc=parse_framework),
    )


def _runnable_images(
    catalogue: Catalogue, options: CreateOptions, config: Config
) -> tuple[Sequence[Image], str]:
    """The images for this host, the newest of each framework first; and what this host runs."""
    architecture = ""
    if any(image.architecture for image in catalogue.images):
        try:
            architecture = options.architecture or host_architecture(config)
        except Ds01Error as error:
            _show_blocks([Sentence(str(error), Tone.WARN)])
    runnable = [image for image in catalogue.images if image.architecture in {"", architecture}]
    # Two stable sorts: by framework, and within one the newest first.
    runnable.sort(key=lambda image: version_key(image.version), reverse=True)
    runnable.sort(key=lambda image: image.framework.lower())
    return runnable, architecture


def _ask_name(
    options: CreateOptions, context: PromptContext
) -> tuple[ContainerName, CreateOptions]:
    _show_blocks(
        [
            Title("Name"),
            Sentence("The name in your commands. In Docker it ends with your uid."),
        ]
    )

    def parse_name(text: str) -> str:
        try:
            name = full_name(text, context.caller)
            listed = context.commands.list_containers(with_stopped=True)
            if any(row.name == name for row in listed.rows):
                raise click.UsageError(f'container "{name}" already exists')
        except Ds01Error as error:
            raise click.UsageError(str(error)) from error
        return text

    text = click.prompt("Name", default=options.name, value_proc=parse_name)
    return full_name(text, context.caller), replace(options, name=text)


def _ask_slots(
    options: CreateOptions, answers: Mapping[SlotId | None, Allocated | Rejected]
) -> CreateOptions:
    """Which slot, several, or none."""
    best = answers.get(None)
    rows: list[Sequence[Cell]] = []
    for slot, answer in answers.items():
        if slot is not None:
            rows.append([slot, *_offer_cells(answer)])
    blocks: list[Block] = [
        Title("GPU"),
        Sentence(
            "A slot is a GPU, or a part of one (1.2 is part 2 of GPU 1). It is yours until you"
            " remove the container, or stop it for longer than your limits allow."
        ),
        Table(("slot", "", "why"), rows),
    ]
    if isinstance(best, Rejected):
        blocks.append(Sentence(f"no slot is available: {best.reason}", Tone.WARN))
    _show_blocks(blocks)
    free = [slot for slot, offer in answers.items() if slot and isinstance(offer, Allocated)]

    def parse_slots(text: str) -> CreateOptions:
        words = text.replace(",", " ").split()
        if text.strip().lower() == "best":
            return replace(options, gpus=None, slots=())
        if text.strip().lower() == "none":
            return replace(options, gpus=0, slots=())
        # All at once, before anything is booked: five questions later is too late.
        wrong = [word for word in words if word not in answers]
        if wrong or not words:
            raise click.UsageError(
                f'no slot {text!r}: expected slots of the table, "best" or "none"'
            )
        taken = [word for word in words if word not in free]
        if taken:
            raise click.UsageError(f"slot {', '.join(taken)} is not available")
        return replace(options, gpus=None, slots=tuple(words))

    default = " ".join(options.slots) or ("none" if options.gpus == 0 or not free else "best")
    chosen: CreateOptions = click.prompt(
        'Slot, several of them, "best" or "none"', default=default, value_proc=parse_slots
    )
    return chosen


def _offer_cells(answer: Allocated | Rejected) -> tuple[Cell, Cell]:
    if isinstance(answer, Rejected):
        return Toned("taken", Tone.WARN), answer.detail or str(answer.refusal)
    if answer.shared_with:
        return Toned("shared", Tone.WARN), f"with {', '.join(answer.shared_with)}"
    return Toned("free", Tone.GOOD), None


def _show_blocks(blocks: Sequence[Block]) -> None:
    show_blocks(blocks, Wall(time.time()))
