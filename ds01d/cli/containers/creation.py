"""What `container-create` does with its arguments: complete them, show or carry them out."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import click

from ds01d.adapters.host.callers import person
from ds01d.adapters.host.image_catalogue import REFERENCE, find_catalogue, read_catalogue
from ds01d.adapters.host.privileges import require_of_root, resolve_source
from ds01d.bootstrap import ContainerServices
from ds01d.cli.base.command import complain
from ds01d.cli.base.context import Invocation
from ds01d.cli.base.signals import noted
from ds01d.cli.output.blocks import Cell, Facts, Sentence, Tone, show
from ds01d.cli.output.text import printable
from ds01d.config import Config
from ds01d.containers.create import CommandContext, Created, Creation, Interrupt, Order, filled
from ds01d.containers.image_selection import choose
from ds01d.containers.names import full_name, split
from ds01d.containers.ports import ContainerEngine
from ds01d.errors import ConfigError, Ds01Error, Interrupted, NoSuchContainer, Refused
from ds01d.model.allocation import Allocated, Rejected
from ds01d.model.creation import Caller, Catalogue, Image, Person, Progress, Setup
from ds01d.model.primitives import ContainerName, SlotId, UserName, Wall
from ds01d.reconcile.allocator import Allocator

NO_TERMINAL = 2


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


def run(invocation: Invocation, wish: CreateOptions, *, guided: bool) -> int:
    """All of it; the exit code."""
    if guided and not (sys.stdin.isatty() and sys.stdout.isatty()):
        click.echo(
            "container-create: --guided asks, and there is no terminal to ask in; name everything:"
            " container-create NAME FRAMEWORK [--gpus N] [--slot SLOT] [--image IMAGE]",
            err=True,
        )
        return NO_TERMINAL
    _check(wish, guided=guided)
    config = invocation.config()
    caller = invocation.environment.caller()
    with invocation.environment.open_workshop(config) as workshop:
        if guided:
            from ds01d.cli.containers.guided import ask  # noqa: PLC0415 - few come this way

            wish = ask(wish, PromptContext(config=config, caller=caller, workshop=workshop))
        order = _order(wish, config, caller)
        if wish.dry_run:
            _show_plan(order, workshop, config)
            return 0
        try:
            created = carry_out(order, workshop, config)
        except Interrupted as interrupted:
            warn(str(interrupted))
            return 128 + interrupted.signal
    try:
        _show_created(order, created)
    except OSError as error:
        slots = ", ".join(one.slot for one in created.booked) or "none"
        told = f"{created.name} is created (GPU: {slots}), but that cannot be written"
        raise Ds01Error(f"{told}: {error.strerror}") from error
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptContext:
    """What questions are answered from."""

    config: Config
    caller: Caller
    workshop: ContainerServices

    def catalogue(self) -> Catalogue:
        return read_catalogue(find_catalogue(self.config.containers.frameworks))

    def survey(self, name: ContainerName) -> Mapping[SlotId | None, Allocated | Rejected]:
        owner = owner_of(name, self.caller)
        allocator = Allocator(self.workshop.world, self.config)
        return allocator.survey(UserName(owner.name), name)


def _check(wish: CreateOptions, *, guided: bool) -> None:
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
        raise click.UsageError(f"{printable(wish.image)!r} is no name that an image can have")


def owner_of(name: ContainerName, caller: Caller) -> Person:
    """Whose a new container will be: root may create for whose uid the name says."""
    _, uid = split(name)
    return caller.person if uid in {None, caller.person.uid} else person(uid or 0)


def host_architecture(config: Config) -> str:
    """What runs here. Raises `Refused`."""
    from ds01d.cli.ctl.cuda import of_host  # noqa: PLC0415 - not where the catalogue needs none

    try:
        return of_host(config).architecture
    except Ds01Error as error:
        raise Refused(f"{error}; say what runs here with --architecture") from error


def _order(wish: CreateOptions, config: Config, caller: Caller) -> Order:
    name = full_name(wish.name or "", caller)
    owner = owner_of(name, caller)
    image, setup = _image(wish, config)
    slots: tuple[SlotId | None, ...] = tuple(SlotId(slot) for slot in wish.slots)
    if not slots:
        slots = (None,) * (1 if wish.gpus is None else wish.gpus)
    return Order(
        name=name,
        owner=owner,
        image=image.reference,
        framework=image.title,
        architecture=wish.architecture or image.architecture,
        custom_image=wish.image or "",
        slots=slots,
        setup=_mountable(filled(setup, owner), owner),
        start=wish.start,
    )


def _mountable(setup: Setup, owner: Person) -> Setup:
    """The setup with its folders of the host as the owner reaches them. Raises `Refused`."""
    return replace(setup, mounts=tuple(_resolved(mount, owner) for mount in setup.mounts))


def _resolved(mount: str, owner: Person) -> str:
    host, *rest = mount.split(":")
    read_only = "ro" in ",".join(rest[1:]).split(",")
    return ":".join((resolve_source(host, owner, write=not read_only), *rest))


def check_binds(hands: ContainerEngine, name: ContainerName) -> None:
    """Raise `Refused` if a folder became a link to what its owner may not have, before a start.

    Docker follows links at each start anew, as root.
    """
    _, uid = split(name)
    try:
        binds = hands.binds(name) if uid and os.geteuid() == 0 else ()
    except NoSuchContainer:
        return  # which the start says better
    for mount in binds:
        if mount.startswith("/"):  # else it is a volume of Docker's
            _resolved(mount, person(uid or 0))


def _image(wish: CreateOptions, config: Config) -> tuple[Image, Setup]:
    """The image; the catalogue also says what every container gets."""
    catalogue_file = find_catalogue(config.containers.frameworks)
    require_of_root(catalogue_file, os.environ)
    if wish.image is not None:
        framework = wish.framework or "custom"
        image = Image(framework=framework, version="", architecture="", reference=wish.image)
        try:
            return image, read_catalogue(catalogue_file).setup
        except ConfigError:
            if catalogue_file.exists():
                raise
            return image, Setup()
    catalogue = read_catalogue(catalogue_file)

    def architecture() -> str:
        return wish.architecture or host_architecture(config)

    return choose(catalogue, wish.framework or "", architecture), catalogue.setup


def carry_out(order: Order, workshop: ContainerServices, config: Config) -> Created:
    """Create it; signals are noted, and heard between the steps."""
    interrupt = Interrupt()
    tools = CommandContext(
        hands=workshop.hands,
        allocator=Allocator(workshop.world, config),
        world=workshop.world,
        log=workshop.operations,
        tell=warn,
        watch=watch,
        interrupt=interrupt,
    )
    says = "interrupted: clearing up, so that nothing is left of it"
    with noted(interrupt, says, workshop.hands.give_up_pulling):
        return Creation(order, tools).run()


def watch(steps: Iterator[Progress], image: str) -> None:
    """Follow a pull: a bar on a terminal, else a line when it begins."""
    if not sys.stderr.isatty():
        click.echo(f"pulling {printable(image)}", err=True)
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
        task = bar.add_task(f"pulling {printable(image)}", total=None)
        for step in steps:
            bar.update(task, completed=step.done, total=step.total or None)


def warn(text: str) -> None:
    """A line beside what a command answers."""
    complain("container", text)


def user_name(uid: int) -> str:
    """The name of a uid."""
    return person(uid).name


def _show_plan(order: Order, workshop: ContainerServices, config: Config) -> None:
    """What would be created. Asks Docker and the books, and changes nothing."""
    if workshop.hands.find(order.name) is not None:
        raise Refused(f"{order.name} exists already")
    there = workshop.hands.has_image(order.image)
    rows: list[tuple[str, Cell]] = [
        ("name", order.name),
        ("user", order.owner.name),
        ("framework", order.framework),
        ("image", f"{order.image} ({'is here' if there else 'would be pulled'})"),
        ("GPUs", _would_book(order, workshop, config)),
        ("command", shlex.join(order.setup.command) or "as the image says"),
        ("mounts", list(order.setup.mounts)),
        ("start", order.start),
    ]
    show([Sentence("Nothing is done. It would create:"), Facts(rows)], Wall(time.time()))


def _would_book(order: Order, workshop: ContainerServices, config: Config) -> Cell:
    if not order.slots:
        return "none"
    answers = Allocator(workshop.world, config).survey(UserName(order.owner.name), order.name)
    told: list[str] = []
    for slot in order.slots:
        answer = answers.get(slot)
        if answer is None:
            there = ", ".join(one for one in answers if one is not None)
            raise Refused(f"there is no slot {slot}; there are {there}")
        if isinstance(answer, Rejected):
            raise Refused(f"no GPU: {answer.reason}")
        told.append(f"{answer.slot} ({answer.device or answer.docker_id})")
    if len(order.slots) > 1 and order.slots[0] is None:
        told = [f"{len(order.slots)}, the first of them {told[0]}"]
    return told


def _show_created(order: Order, created: Created) -> None:
    slots = ", ".join(one.slot for one in created.booked)
    gpu = f"on GPU {slots}" if slots else "without a GPU"
    does = "runs" if order.start else "is created, not started,"
    lines = [Sentence(f"{created.name} {does} {gpu}, from {order.image}", Tone.GOOD)]
    if order.start:
        lines.append(Sentence(f"Enter it: docker exec -it {created.name} bash"))
    else:
        lines.append(Sentence(f"Start it: container-start {created.name}"))
    show(lines, Wall(time.time()))
