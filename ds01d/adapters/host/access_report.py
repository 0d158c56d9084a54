"""What root found out about the devices of containers, left for ds01d, which may not look itself.

`ds01ctl doctor --publish-devices` writes the file, ds01d-devices.timer starts it. Only what root
wrote counts, and not for long.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from ds01d.adapters.files.atomic_write import replace_file
from ds01d.adapters.files.safe_read import NotRead, open_file, read_unchanged
from ds01d.model.device_access import NVIDIA_MAJOR, DeviceAccess, DeviceRule, TriedAccess
from ds01d.model.primitives import Boot, ContainerId, Now, Wall

REPORT: Final = Path("/run/ds01d-devices/access.json")
VALID_S: Final = 1500.0
"""Two and a half times the interval of ds01d-devices.timer."""
_MAX_BYTES: Final = 4 * 1024 * 1024


class _AccessRow(msgspec.Struct, frozen=True, kw_only=True):
    container: ContainerId
    started: Wall
    allowed: tuple[int, ...] = ()
    denied: tuple[int, ...] = ()


class _AccessReportFile(msgspec.Struct, frozen=True, kw_only=True):
    # No boot ID: /run does not outlive a boot.
    at: Boot
    containers: tuple[_AccessRow, ...] = ()


class AccessReport:
    """The file. `owner`: the uid that may have written it."""

    def __init__(self, path: Path = REPORT, owner: int = 0) -> None:
        self._path, self._owner = path, owner

    def write(self, tried: Iterable[TriedAccess], now: Now) -> None:
        """Replace the report. Raises `WriteFailed`."""
        rows = tuple(
            _AccessRow(
                container=access.container,
                started=access.started,
                allowed=tuple(sorted(access.allowed)),
                denied=tuple(sorted(access.denied)),
            )
            for access in tried
        )
        report = _AccessReportFile(at=now.boot, containers=rows)
        # Not synced: it is worth nothing after a boot.
        replace_file(self._path, msgspec.json.encode(report), mode=0o644, durable=False)

    def read_access(
        self, containers: Collection[ContainerId], now: Now
    ) -> Mapping[ContainerId, DeviceAccess]:
        """What it has of `containers`; nothing where it is missing, old, or not root's."""
        report = None
        with suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            report = self._read()
        if report is None or not 0.0 <= now.boot - report.at <= VALID_S:
            return {}
        return {
            row.container: DeviceAccess(
                rules=frozenset(DeviceRule(NVIDIA_MAJOR, minor) for minor in row.allowed),
                tried=frozenset((*row.allowed, *row.denied)),
                started=row.started,
            )
            for row in report.containers
            if row.container in containers
        }

    def _read(self) -> _AccessReportFile | None:
        """Raises `OSError`, or msgspec's errors."""
        descriptor = open_file(self._path)
        if isinstance(descriptor, NotRead):
            return None
        try:
            if os.fstat(descriptor).st_uid != self._owner:
                return None
            data = read_unchanged(descriptor, _MAX_BYTES + 1)
        finally:
            os.close(descriptor)
        if data is None or len(data) > _MAX_BYTES:
            return None
        return msgspec.json.decode(data, type=_AccessReportFile)
