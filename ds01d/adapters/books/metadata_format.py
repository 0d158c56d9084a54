"""The format of container-metadata/NAME.json: bytes to a record and back. Opens no file."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import msgspec

from ds01d.adapters.books.timestamps import format_iso, parse_time
from ds01d.adapters.files.safe_read import digest_of
from ds01d.errors import Malformed
from ds01d.model.books import Record
from ds01d.model.primitives import ContainerName, SlotId, UserName, Wall
from ds01d.model.reservation import MOST_PROCESSES, ReservingProcess, parse_booking_id
from ds01d.text import make_printable

_MAX_PRIORITY = 2**31  # msgspec and JavaScript cannot write a number of any size


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    container: str | None = None
    user: str | None = None
    gpu_id: str | int | list[str | int] | None = None
    priority: Annotated[int, msgspec.Meta(ge=-_MAX_PRIORITY, le=_MAX_PRIORITY)] | None = None
    allocated_at: str | None = None
    stopped_at: str | None = None
    # Not checked: a value of another form is one that ds01d does not know, and stays as it is.
    booking_id: object = None
    processes: object = None


_Number = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]


class _Process(msgspec.Struct, frozen=True, kw_only=True):
    pid: _Number
    started: _Number
    boot_id: Annotated[str, msgspec.Meta(max_length=64)]
    command: Annotated[str, msgspec.Meta(max_length=64)] = ""


_Processes = Annotated[tuple[_Process, ...], msgspec.Meta(max_length=MOST_PROCESSES)]


def parse_record(data: bytes, name: ContainerName) -> Record:
    """Understand the record of `name`. Raises `Malformed`, naming the key."""
    try:
        raw = msgspec.convert(json.loads(data.decode()), _Record)
    except msgspec.ValidationError as error:
        raise Malformed(str(error).replace("`", "").replace("$.", "").replace("$", "it")) from error
    except (ValueError, RecursionError) as error:
        raise Malformed(f"invalid JSON: {error}" if data.strip() else "empty") from error
    # A record copied by hand would book for two containers.
    if raw.container not in {None, name}:
        raise Malformed(f"container: expected {name}, as in the file name, got another name")
    return Record(
        container=name,
        user=UserName(_check_text(raw.user, "user")) if raw.user else None,
        gpu_id=_parse_slot(raw.gpu_id),
        priority=raw.priority,
        allocated_at=parse_time(raw.allocated_at) if raw.allocated_at else None,
        allocated_text=raw.allocated_at and _check_text(raw.allocated_at, "allocated_at"),
        stopped_at=parse_time(raw.stopped_at) if raw.stopped_at else None,
        stopped_text=raw.stopped_at and _check_text(raw.stopped_at, "stopped_at"),
        booking=parse_booking_id(raw.booking_id),
        processes=_parse_processes(raw.processes),
        digest=digest_of(data),
    )


def read_container_name(data: bytes) -> str | None:
    """The container that a record names itself, if it is one."""
    try:
        name = msgspec.convert(json.loads(data.decode()), _Record).container
    except (ValueError, RecursionError):
        return None
    return name


def read_user(text: str) -> UserName | None:
    """The user that a record names, if it is one."""
    try:
        user = msgspec.convert(json.loads(text), _Record).user
    except (ValueError, RecursionError):
        return None
    return UserName(user) if user else None


def render_record(
    base: bytes | None, record: Record, base_name: ContainerName | None = None
) -> bytes:
    """Write a record onto the document it was read from, keeping unknown fields.

    Of a `base` that `parse_record` refuses only the unknown keys are kept, if there are any.
    `base_name`: whose document that is, where the container had another name then.
    """
    raw, old = _parse_base(base, base_name or record.container)
    is_new = old is None
    old = old or Record(container=record.container, user=None, gpu_id=None)
    # Only what changed is written: the rest stays as its writer put it, byte for byte.
    if is_new or old.container != record.container:
        raw["container"] = record.container
    for key, previous, new in (
        ("user", old.user, record.user),
        ("gpu_id", old.gpu_id, record.gpu_id),
    ):
        if is_new or previous != new:
            raw[key] = new
    if old.priority != record.priority:
        _set_key(raw, "priority", record.priority)
    for key, old_text, new_text in (
        (
            "allocated_at",
            old.allocated_text,
            _choose_time_text(record.allocated_at, record.allocated_text),
        ),
        ("stopped_at", old.stopped_text, _choose_time_text(record.stopped_at, record.stopped_text)),
    ):
        if old_text != new_text:
            _set_key(raw, key, new_text)
    if old.booking != record.booking:
        _set_key(raw, "booking_id", record.booking)
    if old.processes != record.processes:
        _set_key(raw, "processes", [asdict(process) for process in record.processes] or None)
    return json.dumps(raw, indent=2).encode()


def _parse_base(base: bytes | None, name: ContainerName) -> tuple[dict[str, Any], Record | None]:
    """The document to write onto, and the record that is in it, if there is one."""
    if base is None:
        return {}, None
    try:
        raw = json.loads(base.decode())
    except (ValueError, RecursionError):
        return {}, None
    if not isinstance(raw, dict):
        return {}, None
    try:
        return raw, parse_record(base, name)
    except Malformed:
        # What is broken goes, what other tools put beside it stays.
        return {key: raw[key] for key in raw if key not in _Record.__struct_fields__}, None


def _set_key(raw: dict[str, Any], key: str, value: object) -> None:
    if value is None:
        raw.pop(key, None)
    else:
        raw[key] = value


def _choose_time_text(at: Wall | None, text: str | None) -> str | None:
    """The text as it was written, as long as it means `at`; else `at` in ds01d's format."""
    # The same moment in another format is no reason to change a file of somebody else's.
    if text is not None and (parse_time(text) if text else None) == at:
        return text
    return None if at is None else format_iso(at)


def _parse_processes(raw: object) -> tuple[ReservingProcess, ...]:
    if raw is None:  # as nearly always
        return ()
    try:
        processes = msgspec.convert(raw, _Processes)
    except msgspec.ValidationError:
        return ()
    return tuple(
        ReservingProcess(
            pid=process.pid,
            started=process.started,
            boot_id=process.boot_id,
            command=make_printable(process.command),
        )
        for process in processes
    )


def _check_text(text: str, key: str) -> str:
    """Refuse a lone surrogate, which JSON can escape and nothing can write."""
    if text != text.encode(errors="replace").decode():
        raise Malformed(f"{key}: invalid text {text!r}")
    return text


def _parse_slot(value: str | int | list[str | int] | None) -> SlotId | None:
    """Read the slot; of several, as a list or as "0,1", the first."""
    if isinstance(value, list):
        value = value[0] if value else None
    text = "" if value is None else str(value).partition(",")[0].strip()
    return SlotId(_check_text(text, "gpu_id")) if text else None
