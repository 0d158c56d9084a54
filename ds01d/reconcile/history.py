"""The history: every change of the books, with before, after and evidence.

An entry is written ("begin") before its change is made and closed ("done", "failed") after it. One
that is still open belongs to a process that was killed, or was closed right before the power
failed; `recovery` closes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone

import msgspec

from ds01d.model.history import BooksState, Entry, Phase, SlotRecord
from ds01d.model.primitives import Now
from ds01d.reconcile.ports import World

OURSELVES = "ds01d"


def make_entry_id(now: Now, number: int | str) -> str:
    """An ID that is unique: one pass runs at a time, and `number` counts within it."""
    # The time first, so that IDs sort as the entries do, as long as no clock is set back.
    return f"{int(now.wall * 1000):x}-{number}"


def append_entries(world: World, entries: Iterable[Entry], *, durable: bool = True) -> None:
    """Append entries, durably. Raises `HistoryFailed`."""
    lines = [msgspec.json.encode(_encode_entry(entry)) for entry in entries]
    world.state_dir.append_history(lines, durable=durable)


def close_entries(world: World, outcomes: Mapping[str, str | None]) -> None:
    """Close entries: ID → why it failed, None if it succeeded. Raises `HistoryFailed`."""
    at = format_utc(world.clock.now())
    append_entries(
        world,
        [
            Entry(
                id=entry,
                at=at,
                phase=Phase.DONE if failed is None else Phase.FAILED,
                reason=failed or "",
            )
            for entry, failed in outcomes.items()
        ],
        # Decision 256: the books say the same; nobody waits for the disk to say it again.
        durable=False,
    )


def read_entries(lines: Iterable[bytes]) -> Iterator[Entry]:
    """Entries of a history file, oldest first; a line that a crash cut short is skipped."""
    for line in lines:
        entry = _decode_entry(line)
        if entry is not None:
            yield entry


def format_utc(now: Now) -> str:
    return datetime.fromtimestamp(now.wall, tz=timezone.utc).isoformat(timespec="milliseconds")


_decoder = msgspec.json.Decoder(Entry)


def _decode_entry(line: bytes) -> Entry | None:
    try:
        # A killed process leaves at most one half line, and nothing is written before its line is
        # durable: so a line that cannot be read is of a change that was not made.
        return _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _encode_entry(entry: Entry) -> dict[str, object]:
    """The entry as JSON, without empty fields. In a `BooksState` None stays: "there was none"."""
    return {
        key: _encode_side(value) if isinstance(value, BooksState) else value
        # Most fields of most entries are empty.
        for key in Entry.__dataclass_fields__
        if (value := getattr(entry, key)) not in ("", None, (), 0.0) and value != {}
    }


def _encode_side(side: BooksState) -> dict[str, object]:
    written: dict[str, object] = {}
    if side.slots:
        written["slots"] = {name: slot and _encode_slot(slot) for name, slot in side.slots.items()}
    if side.metadata:
        written["metadata"] = side.metadata
    if side.broken:
        written["broken"] = side.broken
    if side.mig_enabled is not None:
        written["mig_enabled"] = side.mig_enabled
    return written


def _encode_slot(slot: SlotRecord) -> dict[str, object]:
    written: dict[str, object] = {"containers": slot.containers, "users": slot.users}
    return written | {
        key: value for key in ("uuid", "profile", "text", "device") if (value := getattr(slot, key))
    }
