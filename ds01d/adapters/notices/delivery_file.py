"""What became of each notice at one target, in a file, so that a restart sends none again.

Everybody may read it: it has identifiers, counts and the last failure, and no address or message.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from ds01d.adapters.files.atomic_write import replace_file
from ds01d.adapters.files.safe_read import NotRead, ReadFailure, read_bytes
from ds01d.errors import Malformed
from ds01d.model.notice import DeliveryRecord

FOLDER: Final = "deliveries"
_MAX_BYTES: Final = 4 << 20
_MAX_COUNT: Final = 1 << 53  # what a metric can count one by one


class DeliveryFile:
    """`path` is replaced as a whole at each change. It does not have to survive a power failure."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> DeliveryRecord | None:
        """None if there is none. Raises `Malformed`."""
        return read_record(self.path)

    def save(self, record: DeliveryRecord) -> None:
        """Raises `WriteFailed`."""
        replace_file(self.path, msgspec.json.encode(record), mode=0o644, durable=False)


def read_record(path: Path) -> DeliveryRecord | None:
    """None if there is none. Raises `Malformed`."""
    data = read_bytes(path, _MAX_BYTES)
    if isinstance(data, NotRead):
        if data.obstacle in {ReadFailure.MISSING, ReadFailure.NO_FOLDER}:
            return None
        raise Malformed(data.reason)
    try:
        record = msgspec.json.decode(data, type=DeliveryRecord)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"{path}: is damaged: {error}") from error
    # The daemon adds these to its metrics, and its reader here is not the user who writes them.
    counts = (record.sent, record.failed, record.dropped, *record.attempts.values())
    if not all(0 <= count <= _MAX_COUNT for count in counts):
        raise Malformed(f"{path}: is damaged: expected counts from 0 to {_MAX_COUNT}")
    return record
