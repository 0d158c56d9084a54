"""frameworks.toml: the catalogue of images that containers are made of. Read, never written.

An invalid catalogue is refused as a whole, naming file and key.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ds01d import config_text
from ds01d.config import ContainersConfig
from ds01d.errors import ConfigError
from ds01d.model.creation import Catalogue, Image, Setup

# What Docker takes for the name of an image; nothing else may become part of a URL.
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
REFERENCE = re.compile(
    rf"(?:[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]{{1,5}})?/)?{_PART}(?:/{_PART})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)

_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_+]*")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*|")
_SIZE = re.compile(r"([0-9]+)([kmgt]?)", re.IGNORECASE)
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_PLACEHOLDER = re.compile(r"\{(?!(?:user|uid|gid|home)\})[^}]*\}?")


class _Image(msgspec.Struct, forbid_unknown_fields=True):
    framework: str
    image: str
    version: str = ""
    architecture: str = ""


class _Container(msgspec.Struct, forbid_unknown_fields=True):
    command: list[str] = []
    mounts: list[str] = []
    user: str = ""
    network: str = ""
    ipc: str = ""
    shm_size: str = ""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    image: list[_Image] = []
    container: _Container = msgspec.field(default_factory=_Container)


# Where packages and wheels put the one to begin with, and where it lies in the source tree.
SHIPPED = (
    Path(sys.prefix) / "share" / "ds01d" / "frameworks.toml",
    Path("/usr/share/ds01d/frameworks.toml"),
    Path(__file__).parents[3] / "etc" / "frameworks.toml",
)


def find_catalogue(path: Path, shipped: Sequence[Path] = SHIPPED) -> Path:
    """The file to read: `path`; where nobody has made the usual one yet, the one that we ship."""
    # Decision 117: the shipped one is read where nobody has written the usual one.
    if path != ContainersConfig().frameworks or path.exists():
        return path
    return next((candidate for candidate in shipped if candidate.is_file()), path)


def read_catalogue(path: Path) -> Catalogue:
    """The catalogue. Raises `ConfigError`."""
    try:
        text = config_text.read_config(path)
    except FileNotFoundError as error:
        example = next((candidate for candidate in SHIPPED if candidate.is_file()), None)
        copy = f"copy {example} there" if example is not None else "write one"
        raise ConfigError(
            f"{path}: no catalogue of frameworks: {copy}, name another one with"
            " [containers] frameworks, or give the image with --image"
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    return parse_catalogue(text, origin=str(path))


def parse_catalogue(text: str, *, origin: str) -> Catalogue:
    """The catalogue in `text`. Raises `ConfigError`."""
    try:
        raw = msgspec.toml.decode(text, type=_File)
    except msgspec.ValidationError as error:
        problem = str(error).replace("`$.", "`").replace("`", "")
        raise ConfigError(f"{origin}: {problem}") from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{origin}: is not TOML: {error}") from error
    images = tuple(
        _parse_image(image, f"{origin}: image {n}") for n, image in enumerate(raw.image, 1)
    )
    keys: set[tuple[str, str, str]] = set()
    for image in images:
        key = (image.framework.lower(), image.version, image.architecture)
        # Which of two would be taken depends on their order, and nobody sees that.
        if key in keys:
            raise ConfigError(f"{origin}: {image.title} {image.architecture} is there twice")
        keys.add(key)
    return Catalogue(origin=origin, images=images, setup=_parse_setup(raw.container, origin))


def _parse_image(raw: _Image, origin: str) -> Image:
    for key, value, form in (
        ("framework", raw.framework, _IDENTIFIER),
        ("version", raw.version, _VERSION),
        ("architecture", raw.architecture, re.compile(f"(?:{_IDENTIFIER.pattern})?")),
        ("image", raw.image, REFERENCE),
    ):
        if not form.fullmatch(value):
            raise ConfigError(f"{origin}: {key}: invalid value {config_text.show_value(value)}")
    return Image(
        framework=raw.framework,
        version=raw.version,
        architecture=raw.architecture,
        reference=raw.image,
    )


def _parse_setup(raw: _Container, origin: str) -> Setup:
    for value in (*raw.mounts, raw.user):
        # Refused here: `str.format` would let a mount name read attributes of our objects.
        if placeholder := _PLACEHOLDER.search(value):
            raise ConfigError(
                f"{origin}: container: unknown placeholder {placeholder[0]}: use {{user}}, {{uid}},"
                " {gid} or {home}"
            )
    for mount in raw.mounts:
        parts = mount.split(":")
        if len(parts) not in {2, 3} or not all(part.startswith(("/", "{")) for part in parts[:2]):
            raise ConfigError(
                f"{origin}: container: mounts: invalid mount {config_text.show_value(mount)}: write"
                ' "/on/the/host:/in/the/container", with ":ro" behind it or not'
            )
    size = _SIZE.fullmatch(raw.shm_size) if raw.shm_size else None
    if raw.shm_size and size is None:
        raise ConfigError(
            f"{origin}: container: shm_size: invalid size {config_text.show_value(raw.shm_size)}:"
            ' write one like "16g"'
        )
    return Setup(
        command=tuple(raw.command),
        mounts=tuple(raw.mounts),
        user=raw.user,
        network=raw.network,
        ipc=raw.ipc,
        shm_bytes=int(size[1]) * _UNITS[size[2].lower()] if size else 0,
    )
