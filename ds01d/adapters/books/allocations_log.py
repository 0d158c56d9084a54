"""gpu-allocations.log: who was given a GPU, who gave it back. Written, never read."""

from __future__ import annotations

from pathlib import Path

from ds01d.adapters.books.operations_format import escape_field
from ds01d.adapters.books.timestamps import format_iso
from ds01d.adapters.files.write_in_place import append_line
from ds01d.model.primitives import Wall


class AllocationsLog:
    """The log, in the allocator's own format."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(
        self,
        *,
        at: Wall,
        event: str,
        user: str,
        container: str,
        gpu: str,
        priority: int,
        reason: str,
    ) -> None:
        """One line, one write; `gpu` "" where there is none. Raises `WriteFailed`."""
        names = map(escape_field, (event, user, container, gpu or "N/A"))
        append_line(
            self._path,
            "|".join((format_iso(at), *names, f"priority={priority}", escape_field(reason))),
        )
