"""What one engine has of an image, and what its registry has, as the engine itself can reach it."""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from ds01d.adapters.docker.http_client import HttpClient
from ds01d.adapters.host.image_catalogue import REFERENCE
from ds01d.errors import EngineRefused, Refused
from ds01d.model.catalogue_check import LocalImage, NotInRegistry, RegistryImage

# Docker waits 15 s for a registry before it gives up (moby, registry/auth.go).
_REGISTRY_S = 20.0
_GONE = ("not found", "manifest unknown", "name unknown", "access denied", "resource is denied")


class DockerImages:
    """One engine. One thread may use it."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._client = HttpClient(url, timeout_s)
        self._registry_client = HttpClient(url, max(timeout_s, _REGISTRY_S))

    def read_architecture(self) -> str:
        """What the engine's host is, as images name it: "amd64". Raises `EngineFailed`."""
        return self._client.decode_answer(
            self._client.get("/version"), _Version, "version"
        ).architecture

    def find_local(self, reference: str) -> LocalImage | None:
        """An image that the engine has. Raises `EngineFailed`."""
        try:
            answer = self._client.get(f"/images/{_quote_reference(reference)}/json")
        except EngineRefused as refusal:
            if refusal.is_missing("image"):
                return None
            raise
        image = self._client.decode_answer(answer, _InspectedImage, "inspectedimage")
        digests = (digest.rpartition("@")[2] for digest in image.digests or ())
        return LocalImage(architecture=image.architecture, digests=frozenset(digests))

    def ask_registry(self, reference: str) -> RegistryImage | NotInRegistry:
        """An image in its registry. Raises `EngineFailed` where that is not known."""
        try:
            answer = self._registry_client.get(f"/distribution/{_quote_reference(reference)}/json")
        except EngineRefused as refusal:
            # A registry refuses what is private in the same words as what does not exist.
            if any(word in refusal.message.lower() for word in _GONE):
                return NotInRegistry(reason=refusal.message)
            raise
        distribution = self._client.decode_answer(answer, _Distribution, "distribution")
        platforms = (p for p in distribution.platforms or () if p.system == "linux")
        return RegistryImage(
            digest=distribution.descriptor.digest,
            architectures=frozenset(platform.architecture for platform in platforms),
        )


def _quote_reference(reference: str) -> str:
    # Checked before the call: no name of the catalogue becomes another path of the API.
    if not REFERENCE.fullmatch(reference):
        raise Refused(f"invalid image name {reference[:200]!a}")
    return quote(reference, safe="/:@")


class _Version(msgspec.Struct):
    architecture: str = msgspec.field(name="Arch", default="")


class _InspectedImage(msgspec.Struct):
    architecture: str = msgspec.field(name="Architecture", default="")
    digests: list[str] | None = msgspec.field(name="RepoDigests", default=None)


class _Descriptor(msgspec.Struct):
    digest: str


class _Platform(msgspec.Struct):
    architecture: str = ""
    system: str = msgspec.field(name="os", default="")


class _Distribution(msgspec.Struct):
    descriptor: _Descriptor = msgspec.field(name="Descriptor")
    platforms: list[_Platform] | None = msgspec.field(name="Platforms", default=None)
