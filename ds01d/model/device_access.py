"""What the kernel lets the processes of a container open: its device cgroup. Pure values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

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
    """The rules of a device cgroup that denies whatever no rule allows."""

    rules: frozenset[DeviceRule]

    def allows(self, major: int, minor: int) -> bool:
        """Whether a character device may be opened for reading and writing."""
        return any(
            rule.major in (None, major) and rule.minor in (None, minor) for rule in self.rules
        )


def name_node(minor: int) -> str:
    """The path of one of NVIDIA's device nodes."""
    return "/dev/nvidiactl" if minor == CONTROL_MINOR else f"/dev/nvidia{minor}"
