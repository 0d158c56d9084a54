"""Which version of Docker's API to ask for. Pure."""

from __future__ import annotations

import re

import msgspec

_VERSION = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})")
# decision 144: the newest version whose answers are tested (Docker 28.5). Each version may drop
# fields: 1.52 did (moby, api/docs/CHANGELOG.md).
_NEWEST = (1, 51)


class EngineVersion(msgspec.Struct):
    """The answer of /version, the one path that every engine answers without a version."""

    api_version: str = msgspec.field(name="ApiVersion")
    min_api_version: str | None = msgspec.field(name="MinAPIVersion", default=None)
    components: list[_Component] | None = msgspec.field(name="Components", default=None)

    @property
    def is_dockerd(self) -> bool:
        """The engine is Docker's own (or Moby)."""
        return any(component.name == "Engine" for component in self.components or ())


class _Component(msgspec.Struct):
    name: str = msgspec.field(name="Name", default="")


def choose_api_version(newest: str, oldest: str = "") -> str:
    """The version to ask an engine for that speaks those from `oldest` to `newest`.

    The newest one that is tested; where the engine speaks none of those, its oldest: Docker 29
    refuses what is older than 1.44. `oldest` is "" where the engine does not say. Raises
    `ValueError` for what is not an API version.
    """
    chosen = min(_parse_version(newest), _NEWEST)
    if oldest:
        chosen = max(chosen, _parse_version(oldest))
    return "{}.{}".format(*chosen)


def _parse_version(text: str) -> tuple[int, int]:
    match = _VERSION.fullmatch(text)
    if match is None:
        raise ValueError(f"invalid API version {text[:80]!a}")
    return int(match.group(1)), int(match.group(2))
