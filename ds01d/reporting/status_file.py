"""Writes and reads status.json: replaced atomically, without fsync."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

import msgspec

from ds01d.reporting.public_files import publish_file, withdraw_file
from ds01d.reporting.status import Status

NAME: Final = "status.json"
RUNTIME_DIR: Final = Path("/run/ds01d")
"""RuntimeDirectory= of the unit."""


def write_with_fallback(status: Status, state_dir: Path, runtime_dir: Path | None) -> str | None:
    """Write to `state_dir`, or if that fails to `runtime_dir`; gives the failure of the former."""
    # Decision 100: on a full disk readers would otherwise get an old status.
    failed = write_status(status, state_dir)
    if runtime_dir is not None:
        if failed is None:
            with contextlib.suppress(OSError):
                withdraw_file(runtime_dir / NAME)
        else:
            write_status(status, runtime_dir)
    return failed


def write_status(status: Status, state_dir: Path) -> str | None:
    """Replace status.json; None, or the reason why it could not be. Never raises."""
    # Not synced: after a crash the next pass writes it again within a minute.
    target = state_dir / NAME
    try:
        publish_file(target, msgspec.json.format(msgspec.json.encode(status)) + b"\n")
    except (OSError, ValueError, TypeError) as error:
        return f"{target}: {error}"
    return None


def read_status(state_dir: Path) -> Status:
    """The document. Raises FileNotFoundError (there is none yet), OSError or ValueError."""
    try:
        return msgspec.json.decode((state_dir / NAME).read_bytes(), type=Status)
    except msgspec.DecodeError as error:
        raise ValueError(f"{state_dir / NAME}: {error}") from error
