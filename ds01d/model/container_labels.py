"""What the labels of a container say: that DS01 made it, and what kind of program did. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from ds01d.model.primitives import Word
from ds01d.model.reservation import BOOKING_LABEL


def has_ds01_labels(labels: Mapping[str, str]) -> bool:
    """These are the labels of a finished DS01 creation; `ds01.managed=false` denies it.

    One that claims a reservation is one, too.
    """
    managed = labels.get("ds01.managed")
    if managed is None:
        return "aime.mlc" in labels or BOOKING_LABEL in labels
    return managed.strip().lower() != "false"


USER_LABELS = ("ds01.user", "aime.mlc.USER", "aime.mlc")
_DEVICE_LABELS = ("ds01.gpu.uuids", "ds01.gpu.uuid", "ds01.gpu_slot")


def list_user_labels(labels: Mapping[str, str]) -> tuple[str, ...]:
    """The users that labels name, the most telling label first."""
    return tuple(text for text in map(labels.get, USER_LABELS) if text)


def find_claimed_devices(labels: Mapping[str, str]) -> tuple[str, ...]:
    """The devices that labels name by UUID, sorted, as the server's wrapper writes them."""
    texts = [labels[key] for key in _DEVICE_LABELS if key in labels]
    parts = {part.strip() for text in texts for part in text.split(",")}
    return tuple(sorted(part for part in parts if part.startswith(("GPU-", "MIG-"))))


class ContainerType(Word):
    """Who made a container, by its labels. Limits and the end of its hold depend on it."""

    DEVCONTAINER = "devcontainer"
    COMPOSE = "compose"
    DOCKER = "docker"  # docker run
    ATOMIC = "atomic"  # a command for containers
    ORCHESTRATION = "orchestration"  # a command that deploys one
    API = "api"  # a service for jobs
    UNKNOWN = "unknown"


_TYPE_LABELS = ("ds01.interface", "ds01.container_type")
_TYPES = frozenset(type_.value for type_ in ContainerType)


def find_container_type(labels: Mapping[str, str]) -> ContainerType:
    """The type that the first of its labels names which are understood."""
    for label in _TYPE_LABELS:
        word = labels.get(label, "").strip().lower()
        if word in _TYPES:
            return ContainerType(word)
    if "com.docker.compose.project" in labels:
        return ContainerType.COMPOSE
    # Not any key that begins so: the lab's own commands write "devcontainer.workspaceFolder".
    if "devcontainer.local_folder" in labels:
        return ContainerType.DEVCONTAINER
    return ContainerType.UNKNOWN
