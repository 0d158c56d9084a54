"""`ds01ctl catalogue`: what containers can be created from, and whether that works."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import click

from ds01d.adapters.host.image_catalogue import find_catalogue, read_catalogue
from ds01d.cli.base.command import (
    CONSISTENT,
    DRIFT,
    ERROR,
    ExitCodeCommand,
    ExitCodeGroup,
    config_option,
    json_option,
)
from ds01d.cli.base.context import ImageSource, Invocation
from ds01d.cli.output.blocks import Block, Cell, Sentence, Table, Tone, Toned
from ds01d.cli.output.display import show_blocks, show_json
from ds01d.decide.catalogue_check import check_image, has_tag, split_pin
from ds01d.documents.values import Section
from ds01d.errors import EngineFailed, EngineRefused
from ds01d.model.catalogue_check import ImageCheck, ImageVerdict, InRegistry
from ds01d.model.creation import Catalogue, Image
from ds01d.model.primitives import Source, Unknown, Wall

_TONES = {
    ImageVerdict.OK: Tone.GOOD,
    ImageVerdict.WRONG: Tone.BAD,
    ImageVerdict.UNKNOWN: Tone.WARN,
}


@click.group("catalogue", cls=ExitCodeGroup)
@config_option
def catalogue() -> None:
    """Inspect the catalogue of images for containers."""


@catalogue.command("check", cls=ExitCodeCommand)
@json_option
@config_option
@click.pass_obj
def check(invocation: Invocation, *, as_json: bool) -> int:
    """Check each image: whether it is here or in its registry, for this host, and as pinned.

    Docker is asked, and through it each registry. Nothing is pulled.

    Exit code: 0 every image can be used, 2 one cannot, or its tag is not what is pinned,
    1 something is unknown: Docker or a registry cannot be reached.
    """
    config = invocation.config()
    images = read_catalogue(find_catalogue(config.containers.frameworks))
    checks = [*check_images(images, invocation.environment.open_images(config))]
    if as_json:
        show_json("catalogue-check", _make_document(images, checks))
    else:
        show_blocks(_make_blocks(images, checks), Wall(time.time()))
    verdicts = {check.verdict for check in checks}
    # Unknown first: what could not be asked may be wrong as well.
    if ImageVerdict.UNKNOWN in verdicts:
        return ERROR
    return DRIFT if ImageVerdict.WRONG in verdicts else CONSISTENT


def check_images(catalogue: Catalogue, source: ImageSource) -> Iterator[ImageCheck]:
    """Ask for each image. Raises `EngineFailed` where Docker itself does not answer."""
    architecture = source.read_architecture()
    registries = _Registries(source)
    for image in catalogue.images:
        name, pinned = split_pin(image.reference)
        yield check_image(
            image,
            architecture,
            source.find_local(image.reference),
            registries.ask(image.reference),
            registries.ask(name) if pinned and has_tag(name) else None,
        )


class _Registries:
    """Asks each registry until it cannot be reached once: the others would wait as long."""

    def __init__(self, source: ImageSource) -> None:
        self._source = source
        self._failures: dict[str, Unknown] = {}

    def ask(self, reference: str) -> InRegistry:
        first, _, rest = reference.partition("/")
        # As Docker reads a name: a registry has a dot or a colon in its own, or is localhost.
        host = first if rest and (set(first) & set(".:") or first == "localhost") else "docker.io"
        if host in self._failures:
            return self._failures[host]
        try:
            return self._source.ask_registry(reference)
        except EngineFailed as error:
            reason = error.message if isinstance(error, EngineRefused) else str(error)
            failure = Unknown(source=Source.DOCKER, reason=f"cannot reach {host}: {reason}")
            self._failures[host] = failure
            return failure


def _make_document(catalogue: Catalogue, checks: Sequence[ImageCheck]) -> Section:
    return {
        "catalogue": catalogue.origin,
        "images": [
            {
                "framework": check.image.framework,
                "version": check.image.version,
                "architecture": check.image.architecture,
                "image": check.image.reference,
                "verdict": check.verdict.value,
                "present": check.is_present,
                "digest": check.digest or None,
                "remarks": list(check.remarks),
            }
            for check in checks
        ],
    }


def _make_blocks(catalogue: Catalogue, checks: Sequence[ImageCheck]) -> Iterator[Block]:
    if not checks:
        yield Sentence(f"{catalogue.origin} has no images")
        return
    columns = ("framework", "image", "verdict", "present", "remarks")
    yield Table(columns, [_make_row(check.image, check) for check in checks])


def _make_row(image: Image, check: ImageCheck) -> list[Cell]:
    return [
        image.title,
        image.reference,
        Toned(check.verdict.value, _TONES[check.verdict]),
        check.is_present,
        "; ".join(check.remarks),
    ]
