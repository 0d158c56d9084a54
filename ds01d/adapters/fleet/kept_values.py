"""What a host keeps of the store: values by key, within a bound of memory.

Who may write to the store may have written as much as etcd takes, and made it of what takes the
most memory here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from ds01d.adapters.fleet.etcd_messages import KeyValue
from ds01d.adapters.fleet.stored_values import Spoilt, StoredValue, parse_key
from ds01d.errors import TooMuchStored
from ds01d.model.fleet_books import Extra, FleetEntry, NameEntry, NodeIdentity

MAX_KEPT_BYTES: Final = 512 << 20
"""As estimated below, which is twice what usual entries take: 250,000 of them, with their names."""
_KEY_BYTES: Final = 400
# Of a character: four, and two more where the interpreter keeps the text as UTF-8 beside it.
_WIDE_BYTES: Final = 6
_SLOT_BYTES: Final = 150
_FIELD_BYTES: Final = 400
_IDENTITY_BYTES: Final = 12 << 10


class KeptValues:
    """Values of the store by key, up to `MAX_KEPT_BYTES` altogether."""

    def __init__(self) -> None:
        self._values: dict[bytes, StoredValue] = {}
        self._size = 0

    def __len__(self) -> int:
        return len(self._values)

    @property
    def by_key(self) -> Mapping[bytes, StoredValue]:
        return self._values

    def take_keys(self, keys: Iterable[KeyValue]) -> None:
        """Add or replace these. Raises TooMuchStored where they are, and keeps none then."""
        for key in keys:
            if key.key in self._values:
                self._size -= _estimate_size(key.key, self._values[key.key])
            value = self._values[key.key] = parse_key(key)
            self._size += _estimate_size(key.key, value)
            # Decision 357: here, because each scan is within its own bounds, and they add up.
            if self._size > MAX_KEPT_BYTES:
                count = len(self._values)
                self.clear()
                most = MAX_KEPT_BYTES >> 20
                raise TooMuchStored(f"too much in etcd: {count} keys take more than {most} MiB")

    def retain_keys(self, keys: Iterable[bytes]) -> None:
        """Drop all others."""
        for key in self._values.keys() - set(keys):
            self._size -= _estimate_size(key, self._values.pop(key))

    def clear(self) -> None:
        self._values, self._size = {}, 0


def _estimate_size(key: bytes, value: StoredValue) -> int:
    """How many bytes are kept of a key at most, about.

    By what was parsed: of a value that is replaced nothing else is left.
    """
    # One wide character makes all of a text as wide. The names in a key are kept, too.
    size = _KEY_BYTES + (1 + _WIDE_BYTES) * len(key)
    match value:
        case FleetEntry():
            size += _WIDE_BYTES * len(value.container) + _SLOT_BYTES * len(value.slots)
            return size + _estimate_extra(value.extra)
        case NameEntry():
            return (
                size
                + _WIDE_BYTES * (len(value.node) + len(value.booking))
                + _estimate_extra(value.extra)
            )
        case NodeIdentity():
            return size + _IDENTITY_BYTES + _estimate_extra(value.extra)
        case Spoilt():
            return size + _WIDE_BYTES * len(value.reason)
        case _:
            return size + 2 * _FIELD_BYTES


def _estimate_extra(extra: Extra) -> int:
    return 4 * len(msgspec.json.encode(extra)) + _FIELD_BYTES * len(extra) if extra else 0
