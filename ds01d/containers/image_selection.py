"""Selects the image of a framework for this host. Pure; never guesses, suggests close names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from typing import Final

from ds01d.errors import Refused
from ds01d.model.creation import Catalogue, Image

ANY_ARCHITECTURE: Final = "any"
_PARTS = re.compile(r"[0-9]+|[A-Za-z]+")


def choose_image(catalogue: Catalogue, wanted: str, architecture: Callable[[], str]) -> Image:
    """The image that "pytorch" (the newest) or "pytorch-2.5.0" means. Raises `Refused`.

    `architecture` is called only if the result depends on it; it may give `ANY_ARCHITECTURE`.
    """
    matches = [image for image in catalogue.images if _image_matches(image, wanted)]
    if not matches:
        hint = _describe_alternatives(catalogue, wanted)
        raise Refused(f"{catalogue.origin} has no framework {wanted[:80]!a}: {hint}")
    if all(not image.architecture for image in matches):
        return newest_image(matches)
    host_architecture = architecture()
    if host_architecture == ANY_ARCHITECTURE:
        return newest_image(matches)
    runnable = [image for image in matches if image.architecture in {"", host_architecture}]
    if not runnable:
        available = ", ".join(
            dict.fromkeys(f"{image.title} for {image.architecture}" for image in matches)
        )
        raise Refused(
            f"{catalogue.origin} has no {wanted} for {host_architecture}: it has {available}"
        )
    return newest_image(runnable)


def has_image(catalogue: Catalogue, wanted: str) -> bool:
    """Whether it is the name of a framework of the catalogue, with or without a version."""
    return any(_image_matches(image, wanted) for image in catalogue.images)


def newest_image(images: Iterable[Image]) -> Image:
    """The one of the highest version; of equal ones the first."""
    return max(images, key=lambda image: version_key(image.version))


def version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Versions as numbers: 2.10 comes after 2.9, and a plain 2.10 after "2.10.0-rc"."""
    parts = [
        (1, int(part), "") if part.isdecimal() else (-1, 0, part)
        for part in _PARTS.findall(version)
    ]
    return (*parts, (0, 0, ""))


def _image_matches(image: Image, wanted: str) -> bool:
    text = wanted.lower().replace(":", "-", 1)
    return text in {image.framework.lower(), image.title.lower()}


def _describe_alternatives(catalogue: Catalogue, wanted: str) -> str:
    titles = {image.title.lower(): image.title for image in catalogue.images}
    names = {image.framework.lower(): image.framework for image in catalogue.images}
    text = wanted.lower().replace(":", "-", 1)
    # Suggest, never substitute: the wrong framework would be found out hours later.
    close = difflib.get_close_matches(text, [*names, *titles], n=3)
    if not close and (family := text.partition("-")[0]) in names:
        close = [title for title in titles if title.startswith(f"{family}-")]
    if close:
        return f"did you mean {' or '.join((names | titles)[image] for image in close)}?"
    return f"it has {', '.join(dict.fromkeys(names.values()))}" if names else "it is empty"
