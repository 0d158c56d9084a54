"""Builds the order from the arguments of `container-create`: image, owner, slots and mounts."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Final

from ds01d.adapters.host.callers import look_up_person
from ds01d.adapters.host.image_catalogue import REFERENCE, find_catalogue, read_catalogue
from ds01d.adapters.host.privileges import find_changeable, require_of_root, resolve_source
from ds01d.config import Config
from ds01d.containers.image_selection import ANY_ARCHITECTURE, choose_image, has_image
from ds01d.containers.names import full_name
from ds01d.containers.ports import ContainerEngine
from ds01d.decide.short_names import split_name
from ds01d.errors import ConfigError, Ds01Error, NoSuchContainer, NotPermitted, Refused
from ds01d.model.confinement import Confinement
from ds01d.model.creation import Caller, Catalogue, Image, Order, Person, Setup
from ds01d.model.limits import Limits, ResourceLimits
from ds01d.model.primitives import ContainerName, SlotId, Unknown, UserName

WORKSPACE: Final = "/workspace"
DATA: Final = "/data"


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateOptions:
    """The arguments of `container-create` as given; None: not given.

    `framework` may be an image that the catalogue does not have under a name. `workspace` and
    `data` are absolute paths.
    """

    name: str | None = None
    framework: str | None = None
    workspace: str | None = None
    data: str | None = None
    gpus: int | None = None
    slots: Sequence[str] = ()
    image: str | None = None
    architecture: str | None = None
    dry_run: bool = False
    start: bool = True
    wait: bool = False


def build_order(
    options: CreateOptions, config: Config, caller: Caller, limits: Limits | Unknown
) -> Order:
    """The order of a caller who can reach Docker, and could do all of it by hand."""
    name = full_name(options.name or "", caller)
    owner = owner_of_new(name, caller)
    image, setup = _select_image(options, config)
    order = _make_order(options, name, owner, image, limits)
    chosen = _choose_folders(options, owner)
    # What the caller chose stands before the mount of the catalogue at the same place.
    resolved = _resolve_mounts(_fill_setup(setup, owner), owner, without=chosen)
    return replace(order, setup=replace(resolved, mounts=(*resolved.mounts, *chosen.values())))


def build_confined_order(
    options: CreateOptions,
    config: Config,
    caller: Caller,
    limits: Limits | Unknown,
    confine_setup: Callable[[Setup, Person], Confinement],
) -> Order:
    """The order of a user of the service: of the catalogue, confined. Raises `Ds01Error`."""
    name = full_name(options.name or "", caller)
    owner = caller.person
    catalogue = read_root_catalogue(config)
    wanted = options.image or options.framework or ""
    if options.image is not None or is_image(catalogue, wanted):
        image = find_image(catalogue, wanted)
    else:
        image = choose_image(catalogue, wanted, _host_architecture(options, config))
    confinement = confine_setup(catalogue.setup, owner)
    order = _make_order(options, name, owner, image, limits)
    # Mounts and user are for the confinement to decide.
    setup = replace(catalogue.setup, mounts=(), user="")
    return replace(order, setup=setup, confinement=confinement)


def read_root_catalogue(config: Config) -> Catalogue:
    """The catalogue, which decides what users' containers are: only root may change it."""
    file = find_catalogue(config.containers.frameworks)
    place = find_changeable(file)
    if place is not None:
        raise NotPermitted(f"{file} is not used: users other than root can change {place}")
    return read_catalogue(file)


def find_image(catalogue: Catalogue, reference: str) -> Image:
    """The image of the catalogue with this reference. Raises `Refused`."""
    for image in catalogue.images:
        if image.reference == reference:
            return image
    raise Refused(f"{catalogue.origin} has no image {reference[:200]!a}")


def find_resources(limits: Limits | Unknown, user: UserName) -> ResourceLimits:
    """The limits of a user's containers. Raises `Refused` where they cannot be read."""
    if isinstance(limits, Unknown):
        if limits.missing:
            return ResourceLimits()
        raise Refused(f"cannot read the limits of containers: {limits.reason}")
    resources = limits.find_resources(user)
    if resources.problem:
        raise Refused(f"cannot read the limits of containers: {resources.problem}")
    return resources


def _make_order(
    options: CreateOptions,
    name: ContainerName,
    owner: Person,
    image: Image,
    limits: Limits | Unknown,
) -> Order:
    slots: tuple[SlotId | None, ...] = tuple(SlotId(slot) for slot in options.slots)
    if not slots:
        slots = (None,) * (1 if options.gpus is None else options.gpus)
    return Order(
        name=name,
        owner=owner,
        image=image.reference,
        framework=image.title,
        architecture=options.architecture or image.architecture,
        custom_image=options.image or "",
        slots=slots,
        resources=find_resources(limits, UserName(owner.name)),
        start=options.start,
    )


def _select_image(options: CreateOptions, config: Config) -> tuple[Image, Setup]:
    """The image, and the setup that the catalogue has for every container."""
    catalogue_file = find_catalogue(config.containers.frameworks)
    require_of_root(catalogue_file, os.environ)
    if options.image is not None:
        framework = options.framework or "custom"
        image = _make_image(options.image, framework)
        try:
            return image, read_catalogue(catalogue_file).setup
        except ConfigError:
            # With --image the catalogue is optional, but a broken one must not be skipped.
            if catalogue_file.exists():
                raise
            return image, Setup()
    catalogue = read_catalogue(catalogue_file)
    wanted = options.framework or ""
    if is_image(catalogue, wanted):
        return _make_image(wanted, "custom"), catalogue.setup
    return choose_image(catalogue, wanted, _host_architecture(options, config)), catalogue.setup


def _make_image(reference: str, framework: str) -> Image:
    return Image(framework=framework, version="", architecture="", reference=reference)


def is_image(catalogue: Catalogue, wanted: str) -> bool:
    """Whether what was given for a framework can only be the name of an image."""
    # "ubuntu:24.04" is both; a plain word is a framework that is misspelt.
    has_mark = bool({":", "/", "@"} & set(wanted))
    return has_mark and REFERENCE.fullmatch(wanted) is not None and not has_image(catalogue, wanted)


def _host_architecture(options: CreateOptions, config: Config) -> Callable[[], str]:
    def find_architecture() -> str:
        if options.architecture:
            return options.architecture
        try:
            return host_architecture(config)
        except Refused:
            if options.gpus == 0 and not options.slots:
                return ANY_ARCHITECTURE  # without a GPU every image runs
            raise

    return find_architecture


def host_architecture(config: Config) -> str:
    """The architecture of this host. Raises `Refused`."""
    from ds01d.adapters.host.cuda_support import detect_on_host  # noqa: PLC0415 - slow to load

    try:
        return detect_on_host(config).architecture
    except Ds01Error as error:
        raise Refused(f"{error}; fix: --architecture ARCH") from error


def owner_of_new(name: ContainerName, caller: Caller) -> Person:
    """The owner of a new container: the caller, or for root the uid in the name."""
    _, uid = split_name(name)
    return caller.person if uid in {None, caller.person.uid} else look_up_person(uid or 0)


def _fill_setup(setup: Setup, owner: Person) -> Setup:
    """The setup with the owner's name, IDs and home filled in."""

    def fill_text(text: str) -> str:
        return text.format(user=owner.name, uid=owner.uid, gid=owner.gid, home=owner.home)

    mounts = tuple(
        ":".join((str(PurePosixPath(host)), *rest))
        for host, *rest in (fill_text(mount).split(":") for mount in setup.mounts)
    )
    return replace(setup, mounts=mounts, user=fill_text(setup.user))


def _choose_folders(options: CreateOptions, owner: Person) -> dict[str, str]:
    """The mounts of the caller's own folders by their places: to work in, and data to read."""
    mounts: dict[str, str] = {}
    if options.workspace is not None:
        folder = resolve_source(options.workspace, owner, write=True, chosen=True)
        mounts[WORKSPACE] = f"{folder}:{WORKSPACE}"
    if options.data is not None:
        folder = resolve_source(options.data, owner, write=False, chosen=True)
        mounts[DATA] = f"{folder}:{DATA}:ro"
    return mounts


def _resolve_mounts(setup: Setup, owner: Person, without: Container[str] = ()) -> Setup:
    """The setup with its host folders resolved, `without` some places. Raises `Refused`."""
    mounts = (mount for mount in setup.mounts if mount.split(":")[1] not in without)
    return replace(setup, mounts=tuple(_resolve_mount(mount, owner) for mount in mounts))


def check_binds(engine: ContainerEngine, name: ContainerName) -> None:
    """Raise `Refused` if a mounted folder is now a link to what its owner may not access.

    Docker follows links as root, again at each start.
    """
    _, uid = split_name(name)
    try:
        binds = engine.read_binds(name) if uid and os.geteuid() == 0 else ()
    except NoSuchContainer:
        return  # the start reports it better
    for mount in binds:
        if mount.startswith("/"):  # else a named volume
            _resolve_mount(mount, look_up_person(uid or 0))


def _resolve_mount(mount: str, owner: Person) -> str:
    host, *rest = mount.split(":")
    read_only = "ro" in ",".join(rest[1:]).split(",")
    return ":".join((resolve_source(host, owner, write=not read_only), *rest))
