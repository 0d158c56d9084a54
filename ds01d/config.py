"""The configuration: one frozen tree, every key with a default, a unit and its check.

Reads TOML with msgspec; refuses unknown keys, wrong units and impossible combinations, naming
file, key and what would be right. Nothing below this module reads a file or an environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from ds01d.errors import ConfigError

DEFAULT_PATH = Path("/etc/ds01/ds01d.toml")
ENVIRONMENT = "DS01D_CONFIG"

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


class Seconds(float):
    """A duration: written "10s", "2m", "1h30m", "500ms"; kept in seconds."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: object) -> Seconds:
        """Read a duration as the configuration writes it. Raises ValueError with what would be right."""
        if not isinstance(text, str) or not _DURATION.fullmatch(text.strip()):
            raise ValueError(f'{text!r} is no duration: write a number with its unit, like "10s", "2m", "1h30m"')
        return cls(sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text)))


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file; a key that it does not have is refused."""


def _duration(name: str, default: float) -> Any:
    return msgspec.field(name=name, default=Seconds(default))


class Docker(_Table):
    """[docker]: the engine's socket and the deadline of each call."""

    url: str = "unix:///run/docker.sock"
    timeout_s: Seconds = _duration("timeout", 10)


class Gpu(_Table):
    """[gpu]: where the inventory comes from and the deadline of one sample."""

    source: Literal["nvml", "none"] = "nvml"
    timeout_s: Seconds = _duration("timeout", 60)


class Books(_Table):
    """[books]: the allocator's files."""

    state: Path = Path("/var/lib/ds01/gpu-state.json")
    metadata: Path = Path("/var/lib/ds01/container-metadata")
    limits: Path = Path("/opt/ds01-infra/config/resource-limits.yaml")
    whole_gpus: Literal["without-mig", "always"] = "without-mig"
    lock_timeout_s: Seconds = _duration("lock_timeout", 5)


class Logs(_Table):
    """[logs]: the two logs that ds01d adds lines to."""

    operations: Path = Path("/var/log/ds01/container-operations.log")
    allocations: Path = Path("/var/log/ds01/gpu-allocations.log")


class Daemon(_Table):
    """[daemon]: where it keeps its own state, and when it sweeps."""

    state_dir: Path = Path("/var/lib/ds01d")
    mode: Literal["repair", "observe"] = "repair"
    sweep_interval_s: Seconds = _duration("sweep_interval", 60)
    sweep_cron: str = ""


class Policy(_Table):
    """[policy]: how long to wait before a difference is settled, and how much at a time."""

    settle_s: Seconds = _duration("settle", 5)
    absence_grace_s: Seconds = _duration("absence_grace", 120)
    creation_grace_s: Seconds = _duration("creation_grace", 900)
    freeze_s: Seconds = _duration("freeze", 120)
    boot_grace_s: Seconds = _duration("boot_grace", 900)
    pace_count: int = 2
    pace_fraction: float = 0.25
    pace_window_s: Seconds = _duration("pace_window", 600)
    adopt: Literal["managed", "off"] = "managed"


class Allocator(_Table):
    """[allocator]: what the drop-in allocator may do."""

    sharing: Literal["when-full", "never"] = "when-full"


class Metrics(_Table):
    """[metrics]: off unless one of them is set."""

    listen: str = ""
    textfile: str = ""


class Config(_Table):
    """The whole configuration. `origin` is the file it came from, for messages."""

    docker: Docker = Docker()
    gpu: Gpu = Gpu()
    books: Books = Books()
    logs: Logs = Logs()
    daemon: Daemon = Daemon()
    policy: Policy = Policy()
    allocator: Allocator = Allocator()
    metrics: Metrics = Metrics()
