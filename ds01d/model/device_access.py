"""What the kernel lets the processes of a container open: its device cgroup. Pure values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from ds01d.model.primitives import ContainerId, Wall

NVIDIA_MAJOR: Final = 195
"""Of /dev/nvidiactl and /dev/nvidia0 …, the same on every host (Linux's devices.txt)."""
CONTROL_MINOR: Final = 255
"""Of /dev/nvidiactl, without which no GPU can be used."""


class DeviceRule(NamedTuple):
    """Character devices that may be read and written. None: any."""

    major: int | None
    minor: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceAccess:
    """The rules of a device cgroup that denies whatever no rule allows.

    `tried`: it is known of these minors of NVIDIA's alone; None: of every device. `started`: of
    which start of the container; None: of the present one.
    """

    rules: frozenset[DeviceRule]
    tried: frozenset[int] | None = None
    started: Wall | None = None

    def allows(self, major: int, minor: int) -> bool:
        """Whether a character device may be opened for reading and writing."""
        return any(
            rule.major in (None, major) and rule.minor in (None, minor) for rule in self.rules
        )

    def denies(self, minor: int) -> bool:
        """Whether it is known that one of NVIDIA's devices cannot be opened."""
        return self.is_tried(minor) and not self.allows(NVIDIA_MAJOR, minor)

    def is_tried(self, minor: int) -> bool:
        """Whether it is known of one of NVIDIA's devices."""
        return self.tried is None or minor in self.tried


@dataclass(frozen=True, slots=True, kw_only=True)
class TriedAccess:
    """Which of NVIDIA's device nodes a container can open, by their minors."""

    container: ContainerId
    started: Wall
    allowed: frozenset[int]
    denied: frozenset[int]


def name_node(minor: int) -> str:
    """The path of one of NVIDIA's device nodes."""
    return "/dev/nvidiactl" if minor == CONTROL_MINOR else f"/dev/nvidia{minor}"
