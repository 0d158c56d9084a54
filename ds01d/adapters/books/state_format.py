"""The format of gpu-state.json: bytes to values and back. Pure; it opens no file.

Understands every layout that may lie on a server, "1:0" with an int `mig_instance` included.
What it does not know it carries over; what it does not understand it refuses, since it could not
write that again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, Literal, TypeVar

import msgspec

from ds01d.adapters.books.timestamps import parse_time
from ds01d.adapters.files.safe_read import digest_of
from ds01d.errors import Malformed
from ds01d.model.books import AllocatorState, Slot, SlotType
from ds01d.model.primitives import ContainerName, DeviceUuid, SlotId, UserName

MOST_SLOTS: Final = 2_000
MOST_IN_SLOT: Final = 2_000
MOST_BOOKINGS: Final = 20_000
"""More than any server has, and little enough to be decided upon in time."""

_SLOT_ID = re.compile(r"([0-9]{1,4})(?:[.:]([0-9]{1,4}))?")
_WHERE = re.compile(r"(.*?)(?: - at `\$(.*)`)?", re.DOTALL)

_RawSlot = dict[str, Any]
_RawState = dict[str, Any]
_T = TypeVar("_T")


class _Slot(msgspec.Struct, frozen=True, kw_only=True):
    type: Literal["physical_gpu", "mig_instance"] | None = None
    containers: tuple[str, ...] = ()
    users: dict[str, int] = {}
    uuid: str | None = None
    profile: str | None = None
    physical_gpu: str | int | None = None
    device_id: str | int | None = None
    docker_id: str | None = None
    mig_instance: int | None = None
    reserved_for: Any = None
    reserved_until: Any = None


class _StateDocument(msgspec.Struct, frozen=True, kw_only=True):
    gpus: dict[str, Any]
    mig_enabled: bool | None = None


# --- reading ----------------------------------------------------------------------------------


def parse_state(data: bytes, where: str) -> AllocatorState:
    """Understand a state; `where` is the file's path. Raises `Malformed`, naming file and key.

    The same bytes are understood once: the file hardly ever changes between passes.
    """
    try:
        return _parsed(data)[1]
    except Malformed as error:
        raise Malformed(f"{where}: {error}") from error


@lru_cache(maxsize=4)
def _parsed(data: bytes) -> tuple[_RawState, AllocatorState]:
    """The document itself, which nobody changes, and what it means."""
    raw = _load(data)
    document = _convert(raw, _StateDocument, "")
    _refuse_many(document.gpus)
    slots = {SlotId(name): _slot(name, raw) for name, raw in document.gpus.items()}
    mig = document.mig_enabled
    if mig is None:
        mig = any(slot.type is SlotType.MIG for slot in slots.values())
    return raw, AllocatorState(slots=slots, mig_enabled=mig, digest=digest_of(data))


def _refuse_many(slots: Mapping[str, Any]) -> None:
    """Refuse a state that no server can have, before each name in it is looked at."""
    _at_most(MOST_SLOTS, len(slots), "gpus")
    total = 0
    for name, slot in slots.items():
        for key in ("containers", "users"):
            listed = slot.get(key) if isinstance(slot, dict) else None
            count = len(listed) if isinstance(listed, list | dict) else 0
            _at_most(MOST_IN_SLOT, count, f"gpus.{name:.20}.{key}")
            total += count
    _at_most(2 * MOST_BOOKINGS, total, "gpus: containers and users of all slots")


def _at_most(most: int, count: int, what: str) -> None:
    if count > most:
        raise Malformed(f"{what}: {count} entries, expected at most {most}")


def _load(data: bytes) -> Any:  # noqa: ANN401 - _convert gives it a type
    if not data.strip():
        raise Malformed("empty")
    try:
        return json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise Malformed(f"no valid JSON: {error}") from error


def _convert(raw: object, kind: type[_T], key: str) -> _T:
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        found = _WHERE.fullmatch(str(error))
        what, below = found.groups("") if found else (str(error), "")
        at = f"{key}{below}".lstrip(".")
        what = what.replace("`", "").replace("Expected", "expected").replace("Object", "object")
        raise Malformed(f"{at + ': ' if at else ''}{what}") from error
    except UnicodeEncodeError as error:  # JSON can name half a character
        raise Malformed(f"{key + ': ' if key else ''}{error.object!r} is no text") from error


def _slot(name: str, raw: object) -> Slot:
    key = f"gpus.{name}"
    found = _SLOT_ID.fullmatch(name)
    if found is None:
        raise Malformed(f'{key}: no slot id (like "0" or "1.2")')
    index, mig_index = int(found[1]), found[2]
    kind = SlotType.PHYSICAL if mig_index is None else SlotType.MIG
    slot = _convert(raw, _Slot, key)
    if slot.type not in {None, kind.value}:
        raise Malformed(f"{key}.type: expected {kind}, as its id says, got {slot.type}")
    reserved = (str(slot.reserved_for or ""), str(slot.reserved_until or ""))
    for text in (*slot.containers, *slot.users, slot.uuid or "", slot.profile or "", *reserved):
        if not text.isascii() and text != text.encode(errors="replace").decode():
            raise Malformed(f"{key}: {text!r} is no text")
    return Slot(
        id=SlotId(name),
        type=kind,
        gpu_index=index,
        mig_index=None if mig_index is None else int(mig_index),
        containers=tuple(map(ContainerName, slot.containers)),
        users={UserName(user): _bounded(count) for user, count in slot.users.items()},
        uuid=DeviceUuid(slot.uuid) if slot.uuid else None,
        profile=slot.profile or None,
        reserved_for=UserName(str(slot.reserved_for)) if slot.reserved_for else None,
        reserved_until=str(slot.reserved_until) if slot.reserved_until else None,
        reserved_end=parse_time(str(slot.reserved_until)) if slot.reserved_until else None,
    )


def _bounded(count: int) -> int:
    """No counter is larger; a number of any size would have to be written into histories too."""
    return max(-MOST_BOOKINGS, min(count, MOST_BOOKINGS))


# --- writing ----------------------------------------------------------------------------------


NO_TEXTS: Final[Mapping[SlotId, str]] = MappingProxyType({})


def slot_texts(data: bytes, slots: Iterable[SlotId]) -> dict[SlotId, str]:
    """Slots as a state that `parse_state` understands has them, unknown fields included."""
    raw = json.loads(data)["gpus"]
    return {name: json.dumps(raw[name]) for name in slots if name in raw}


def parse_slot(name: SlotId, text: str) -> Slot:
    """Understand what `slot_texts` gave. Raises `Malformed`."""
    return _slot(name, _load(text.encode()))


def render_state(
    base: bytes | None, state: AllocatorState, texts: Mapping[SlotId, str] = NO_TEXTS
) -> bytes:
    """Write `state` onto the document it was read from, keeping what ds01d does not know.

    Slots that `texts` names are written as it says, but for their containers and users.

    A slot that moved (its UUID under another id) takes its unknown fields along. Gives `base`
    itself where nothing would change. `base` is a state that `parse_state` understands, or None.
    """
    if base is None:
        was = None
        old: _RawState = {"gpus": {}, "mig_enabled": None}
        old["allocation_strategy"] = "least_allocated"
    else:
        old, was = _parsed(base)
    new = dict(old)
    new["gpus"] = _render_slots(old["gpus"], was.slots if was else {}, state.slots)
    for name, text in texts.items():
        bookings = {"containers": list(state.slots[name].containers)}
        new["gpus"][name] = json.loads(text) | bookings | {"users": dict(state.slots[name].users)}
    if was is None or was.mig_enabled != state.mig_enabled:
        new["mig_enabled"] = state.mig_enabled
    if base is not None and new == old and list(new["gpus"]) == list(old["gpus"]):
        return base
    return _written(new)


def _written(document: object) -> bytes:
    """As the allocator's `json.dump(…, indent=2)` writes it, in a quarter of the time."""
    try:
        return msgspec.json.format(json.dumps(document).encode(), indent=2)
    except msgspec.DecodeError:  # NaN or Infinity, which only Python takes for JSON
        return json.dumps(document, indent=2).encode()


def _render_slots(
    raw: Mapping[str, _RawSlot], was: Mapping[SlotId, Slot], now: Mapping[SlotId, Slot]
) -> dict[str, _RawSlot]:
    origins = _origins(was, now)
    slots = {}
    for name in _in_order(list(was), now):
        origin = origins[name]
        if origin is None:
            slots[name] = _new_slot(now[name])
        else:
            slots[name] = _patched_slot(raw[origin], was[origin], now[name])
    return {str(name): slot for name, slot in slots.items()}


def _origins(was: Mapping[SlotId, Slot], now: Mapping[SlotId, Slot]) -> dict[SlotId, SlotId | None]:
    """Tell for each slot under which id the file has it so far: by UUID first, then by id.

    One whose id has that very UUID stays, also where another has the same UUID.
    """
    by_uuid = {slot.uuid: name for name, slot in was.items() if slot.uuid}
    moved = {
        name: name if name in was and was[name].uuid == slot.uuid else by_uuid[slot.uuid]
        for name, slot in now.items()
        if slot.uuid in by_uuid
    }
    taken = set(moved.values())
    stayed = {name: name if name in was and name not in taken else None for name in now}
    return {**stayed, **moved}


def _in_order(old: list[SlotId], now: Mapping[SlotId, Slot]) -> list[SlotId]:
    """Known slots where they were; new ones behind, or sorted in if the file is sorted."""
    names = [name for name in old if name in now]
    added = sorted((name for name in now if name not in old), key=_natural)
    if added and old == sorted(old, key=_natural):
        return sorted((*names, *added), key=_natural)
    return names + added


def _natural(name: SlotId) -> tuple[int, ...]:
    return tuple(map(int, re.split("[.:]", name)))


def _new_slot(slot: Slot) -> _RawSlot:
    raw: _RawSlot = {"type": slot.type.value}
    if slot.type is SlotType.MIG:
        raw["physical_gpu"] = str(slot.gpu_index)
        raw["device_id"] = str(slot.mig_index)
        if slot.uuid is not None:
            raw |= {"uuid": slot.uuid, "profile": slot.profile or "", "docker_id": slot.uuid}
    raw["containers"] = list(slot.containers)
    raw["users"] = dict(slot.users)
    return raw | {"reserved_until": None, "reserved_for": None}


def _patched_slot(raw: _RawSlot, was: Slot, now: Slot) -> _RawSlot:
    if now is was:
        return raw
    patched = dict(raw)
    if was.id != now.id:
        patched["physical_gpu"] = str(now.gpu_index)
        patched["device_id"] = str(now.mig_index)
        if "mig_instance" in raw:
            patched["mig_instance"] = now.mig_index
    # The UUID of a whole GPU has no place in the format, unless somebody put it there.
    if now.uuid != was.uuid and now.uuid and (now.type is SlotType.MIG or "uuid" in raw):
        patched["uuid"] = patched["docker_id"] = now.uuid
        if now.type is SlotType.MIG:
            patched["device_id"] = str(now.mig_index)
    if now.profile != was.profile and now.profile:
        patched["profile"] = now.profile
    if now.containers != was.containers:
        patched["containers"] = list(now.containers)
    if dict(now.users) != dict(was.users):
        patched["users"] = dict(now.users)
    return patched
