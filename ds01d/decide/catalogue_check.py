"""Decides whether an image of the catalogue can be used: by engine and registry. Pure."""

from __future__ import annotations

from ds01d.model.catalogue_check import (
    ImageCheck,
    ImageVerdict,
    InRegistry,
    LocalImage,
    NotInRegistry,
    RegistryImage,
)
from ds01d.model.creation import Image
from ds01d.model.primitives import Unknown


def split_pin(reference: str) -> tuple[str, str]:
    """The reference without its digest, and the digest, "" for none."""
    name, _, digest = reference.partition("@")
    return name, digest


def has_tag(name: str) -> bool:
    return ":" in name.rpartition("/")[2]


def check_image(
    image: Image,
    architecture: str,
    local: LocalImage | None,
    registry: InRegistry,
    tag: InRegistry | None,
) -> ImageCheck:
    """`registry`: what it has for the whole reference; `tag`: for the tag of a pinned one.

    An image that is present can be used, whatever the registry answers.
    """
    _, pinned = split_pin(image.reference)
    wrong: list[str] = []
    remarks: list[str] = []
    is_present = local is not None
    is_known = is_present or not isinstance(registry, Unknown)
    if local is not None and local.architecture not in {"", architecture}:
        wrong.append(f"is for {local.architecture}, this host is {architecture}")
    match registry:
        case Unknown():
            remarks.append(registry.reason)
        case NotInRegistry():
            (remarks if is_present else wrong).append(f"not in the registry: {registry.reason}")
        case RegistryImage(architectures=offered) if offered and architecture not in offered:
            wrong.append(f"has no {architecture}: {', '.join(sorted(offered))}")
        case RegistryImage():
            pass
    current = tag if pinned else registry
    if isinstance(current, RegistryImage):
        if pinned and current.digest != pinned:
            wrong.append(f"the tag is now {current.digest}")
        elif local is not None and current.digest not in local.digests:
            # Not wrong: containers are created from the image that is here.
            remarks.append("the tag has changed since it was pulled")
    elif pinned and isinstance(tag, NotInRegistry):
        wrong.append(f"its tag is not in the registry: {tag.reason}")
    verdict = ImageVerdict.OK if is_known else ImageVerdict.UNKNOWN
    return ImageCheck(
        image=image,
        verdict=ImageVerdict.WRONG if wrong else verdict,
        is_present=is_present,
        digest=pinned or (current.digest if isinstance(current, RegistryImage) else ""),
        remarks=(*wrong, *remarks),
    )
