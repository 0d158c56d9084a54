"""The checkpoint file: one JSON document in `state_dir`, written by passes alone.

Losing it is safe: one that cannot be parsed is set aside, never used in part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from ds01d.errors import CheckpointBroken
from ds01d.model.checkpoint import Checkpoint
from ds01d.model.drift import DriftKey, RepairKey
from ds01d.model.primitives import ContainerName, SlotId
from ds01d.reconcile.ports import StateDir

VERSION = 1


class _CheckpointDocument(msgspec.Struct, kw_only=True):
    version: int
    memory: Checkpoint


class _UntypedDocument(msgspec.Struct, kw_only=True):
    version: int
    memory: dict[str, Any]


_decoder = msgspec.json.Decoder(_UntypedDocument)
# What fields were called in files that an earlier ds01d wrote.
_FORMER_FIELDS = {"stranger": "untrusted_engine", "acquainted": "has_baseline"}
_DECODE_ERRORS = (CheckpointBroken, msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def _decode_checkpoint(data: bytes) -> Checkpoint:
    document = _decoder.decode(data)
    # Another version may mean other things by the same fields: used in part it would shorten waits.
    if document.version != VERSION:
        raise CheckpointBroken(f"version {document.version}, expected {VERSION}")
    fields = {_FORMER_FIELDS.get(name, name): value for name, value in document.memory.items()}
    _parse_keys(fields, "sightings", _parse_drift_key)
    _parse_keys(fields, "repairs", _parse_repair_key)
    undone = fields.get("undone")
    for change in undone.values() if isinstance(undone, dict) else ():
        _parse_keys(change, "drifts", _parse_drift_key)
    return msgspec.convert(fields, Checkpoint)


def _format_key(key: object) -> str:
    """A key as in the file: `kind|container|slot`, for a repair also `|fingerprint`.

    A container called "a|b" may be listed in the state, so the parts of a drift are escaped.
    """
    match key:
        case RepairKey(drift, fingerprint):
            return f"{_format_key(drift)}|{fingerprint}"
        case DriftKey():
            return "|".join(part.replace("%", "%25").replace("|", "%7C") for part in key)
        case _:
            raise TypeError(f"no text for a key of type {type(key).__name__}")


def _parse_drift_key(text: str) -> DriftKey:
    parts = [part.replace("%7C", "|").replace("%25", "%") for part in text.split("|", 2)]
    kind, container, slot = (*parts, "", "")[:3]
    return DriftKey(kind, ContainerName(container), SlotId(slot))


def _parse_repair_key(text: str) -> RepairKey:
    *parts, fingerprint = text.split("|", 3)
    return RepairKey(_parse_drift_key("|".join(parts)), fingerprint)


def _parse_keys(holder: object, field: str, parse: Callable[[str], object]) -> None:
    """Replace the keys of a mapping in `holder`; whatever else is there, `convert` rejects."""
    if isinstance(holder, dict) and isinstance(mapping := holder.get(field), dict):
        holder[field] = {parse(text): value for text, value in mapping.items()}


class CheckpointStore:
    """Loads and saves the checkpoint, and keeps the last one in this process.

    Bytes that have not changed are not parsed again.
    """

    # Decision 98: the file counts only where another process has written it since. On a full disk
    # every wait would otherwise begin again with each pass, and no drift would ever be due.

    def __init__(self, state_dir: StateDir) -> None:
        self._state_dir = state_dir
        self._file_content = b""  # what the file was when it was last read or written
        self._checkpoint = Checkpoint()
        self._has_checkpoint = False
        self._is_saved = False
        self.is_unreadable = False
        """The last `load` could not read the file, which may be valid (no permission)."""

    def load(self) -> tuple[Checkpoint, str]:
        """The checkpoint, and why the file cannot be used ("" if it can)."""
        self.is_unreadable = True
        try:
            data = self._state_dir.load_checkpoint()
            self.is_unreadable = False
            if data is None:
                self._file_content, self._is_saved = b"", False
            # It is mostly our own last write, which need not be parsed again.
            elif data != self._file_content:
                self._checkpoint, self._file_content = _decode_checkpoint(data), data
                self._has_checkpoint = self._is_saved = True
        except _DECODE_ERRORS as error:
            self._is_saved = False
            if self._has_checkpoint:
                return (
                    self._checkpoint,
                    f"the checkpoint cannot be used, this process keeps its: {error}",
                )
            # A lost checkpoint, not a first start: a booking without a container may be part of a
            # creation, so none of them counts as long known.
            return (
                Checkpoint(has_baseline=True),
                f"what was remembered cannot be used, waiting times start again: {error}",
            )
        return self._checkpoint, ""

    @property
    def has_checkpoint(self) -> bool:
        """This process has loaded or saved a checkpoint, which a broken file does not replace."""
        return self._has_checkpoint

    def save(self, checkpoint: Checkpoint) -> None:
        """Keep the checkpoint, and write it if the file differs. Raises `WriteFailed`."""
        if checkpoint == self._checkpoint and self._is_saved:
            return
        data = msgspec.json.encode(
            _CheckpointDocument(version=VERSION, memory=checkpoint), enc_hook=_format_key
        )
        # Decision 98: kept before it is written. A disk that takes nothing must not make every wait
        # begin again.
        self._checkpoint, self._has_checkpoint, self._is_saved = checkpoint, True, False
        self._state_dir.save_checkpoint(data)
        self._file_content, self._is_saved = data, True

    def set_aside(self) -> None:
        """Rename a file that cannot be parsed, for a person to look at. Raises `WriteFailed`."""
        self._state_dir.set_checkpoint_aside()
