"""resource-limits.yaml: the file. What stands in it is understood by `limits_rules`.

Read, never written. Its version goes with the answer, so that a file which somebody still writes,
half of it valid, ends no hold.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

from ds01d.adapters.books.limits_rules import resolve_limits
from ds01d.adapters.books.strict_yaml import read_yaml
from ds01d.adapters.files.safe_read import (
    NotRead,
    ReadFailure,
    Signature,
    digest_of,
    open_configured,
    read_unchanged,
    too_large,
)
from ds01d.errors import Malformed
from ds01d.model.limits import HoldRule, Limits
from ds01d.model.primitives import Source, Unknown

LIMIT = 4 << 20

_QUIET_S = 0.05
_ATTEMPTS = 30  # 0.3 s; not counted by a clock, since one look can be slow by itself


_FOR_EVER = HoldRule(seconds=None, source="no limits")
NO_LIMITS = Limits(holds={}, unknown_user=_FOR_EVER, unnamed=_FOR_EVER, default_quota=None)


class LimitsFile:
    """The file, parsed again only when it changed. `missing`: the limits where there is none."""

    def __init__(self, path: Path, missing: Limits | None = None) -> None:
        self._path, self._missing = path, missing
        self._cached: tuple[Signature, Limits | Unknown] | None = None
        self._last_whole = b""

    def read(self) -> Limits | Unknown:
        """The limits; Unknown where the file is missing, unreadable or no mapping at all."""
        descriptor = open_configured(self._path)
        if isinstance(descriptor, NotRead):
            missing = descriptor.obstacle in {ReadFailure.MISSING, ReadFailure.NO_FOLDER}
            if missing and self._missing is not None:
                return self._missing
            return Unknown(source=Source.LIMITS, reason=descriptor.reason, missing=missing)
        try:
            return self._read_open(descriptor)
        except OSError as error:
            return _make_unknown(f"{self._path} could not be read: {error.strerror}")
        finally:
            os.close(descriptor)

    def _read_open(self, descriptor: int) -> Limits | Unknown:
        signature = Signature.of(os.fstat(descriptor))
        # The same signature is the same file: a sweep must not parse YAML each time.
        if self._cached is not None and self._cached[0] == signature:
            return self._cached[1]
        data = _read_quiet(descriptor)
        if data is None:
            return _make_unknown(f"{self._path} is being written")
        signature = Signature.of(os.fstat(descriptor))
        limits = self._parse_limits(data)
        if isinstance(limits, Limits):
            version = f"{digest_of(data)} {signature.modified_ns}"
            # Decision 129: the beginning of what stood there before is a file that was cut.
            is_part = len(data) < len(self._last_whole) and self._last_whole.startswith(data)
            if not is_part:
                self._last_whole = data
            limits = replace(limits, version=version, size=len(data), is_part=is_part)
        # A further write within the same tick of the clock would leave the same signature.
        self._cached = None if signature.is_racy() else (signature, limits)
        return limits

    def _parse_limits(self, data: bytes) -> Limits | Unknown:
        if len(data) > LIMIT:
            return _make_unknown(too_large(self._path, LIMIT).reason)
        try:
            raw = read_yaml(data, str(self._path))
        except Malformed as error:
            return _make_unknown(str(error))
        if not isinstance(raw, dict):
            return _make_unknown(f"{self._path}: expected a mapping with defaults, groups, …")
        return resolve_limits(raw, str(self._path))


def _make_unknown(reason: str) -> Unknown:
    return Unknown(source=Source.LIMITS, reason=reason)


def _read_quiet(descriptor: int) -> bytes | None:
    """Read when nobody has written for a moment: half a YAML file is valid, and names fewer users.

    None if that moment does not come.
    """
    for _ in range(_ATTEMPTS):
        # An editor writes in pieces, and each piece by itself is valid YAML.
        if not Signature.of(os.fstat(descriptor)).is_racy(_QUIET_S):
            return read_unchanged(descriptor, LIMIT + 1)
        time.sleep(_QUIET_S / 5)
    return None
