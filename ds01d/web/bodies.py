"""What is sent: bytes with their ETag, packed once for all who read them."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Final

HTML: Final = "text/html; charset=utf-8"
JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"
_WORTH_PACKING: Final = 1400  # bytes: below that it is one packet anyway


@dataclass(frozen=True)
class Body:
    """A representation. Its parts are computed at their first use, then shared by all readers."""

    content: bytes
    content_type: str

    @cached_property
    def etag(self) -> str:
        """A strong validator, in quotes (RFC 9110, 8.8.3)."""
        return f'"{hashlib.blake2b(self.content, digest_size=12).hexdigest()}"'

    @cached_property
    def packed_etag(self) -> str:
        # RFC 9110, 8.8.3: representations that differ in their bytes have different validators.
        return f'{self.etag[:-1]}-gzip"'

    @cached_property
    def packed(self) -> bytes | None:
        """Packed by gzip; None where that saves nothing."""
        if len(self.content) < _WORTH_PACKING:
            return None
        # No time in it: the same content has the same bytes, as its validator requires.
        return gzip.compress(self.content, 6, mtime=0)
