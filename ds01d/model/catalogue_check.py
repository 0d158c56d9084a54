"""Whether the images of the catalogue can be used on this host. Pure values."""

from __future__ import annotations

from dataclasses import dataclass

from ds01d.model.creation import Image
from ds01d.model.primitives import Unknown, Word


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalImage:
    """What an engine has. `digests`: those of its manifests, "sha256:…"."""

    architecture: str
    digests: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryImage:
    """What a registry has for a reference."""

    digest: str
    architectures: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class NotInRegistry:
    """The registry has no such image, or does not show it without a login."""

    reason: str


class ImageVerdict(Word):
    """Whether a container can be created from an image."""

    OK = "ok"
    WRONG = "wrong"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageCheck:
    """One image of the catalogue. `remarks`: what is wrong with it, or worth knowing."""

    image: Image
    verdict: ImageVerdict
    is_present: bool
    digest: str
    remarks: tuple[str, ...] = ()


InRegistry = RegistryImage | NotInRegistry | Unknown
