"""The format of gpu-state.json: bytes to values and back. Pure; it opens no file.

Parses every layout that older allocators wrote, "1:0" with an int `mig_instance` included. Unknown
fields are kept; a document with invalid known fields is refused, since it could not be written
again.
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

MAX_SLOTS: Final = 2_000
MAX_IN_SLOT: Final = 2_000
MAX_BOOKINGS: Final = 20_000
"""More than any server has, and few enough for a pass."""

_SLOT_ID = re.compile(r"([0-9]{1,4})(?:[.:]([0-9]{1,4}))?")
_KEY_IN_ERROR = re.compile(r"(.*?)(?: - at `\$(.*)`)?", re.DOTALL)

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


def parse_state(data: bytes, origin: str) -> AllocatorState:
    """Parse a state; `origin` is the file's path. Raises `Malformed`, naming file and key.

    The last few documents are cached: the file hardly ever changes between passes.
    """
    try:
        return _parse_document(data)[1]
    except Malformed as error:
        raise Malformed(f"{origin}: {error}") from error


@lru_cache(maxsize=4)
def _parse_document(data: bytes) -> tuple[_RawState, AllocatorState]:
    """The document, which must not be changed, and its state."""
    raw = _load_json(data)
    document = _convert(raw, _StateDocument, "")
    _refuse_many(document.gpus)
    slots = _slots.parse_slots(document.gpus)
    mig = document.mig_enabled
    # Older allocators did not write it.
    if mig is None:
        mig = any(slot.type is SlotType.MIG for slot in slots.values())
    return raw, AllocatorState(slots=slots, mig_enabled=mig, digest=digest_of(data))


class _SlotParser:
    """Parses the slots of documents; one that is as in the document before is not parsed again."""

    def __init__(self) -> None:
        self._before: Mapping[str, tuple[bytes | None, object, Slot]] = {}

    def parse_slots(self, raw_slots: Mapping[str, object]) -> dict[SlotId, Slot]:
        """Raises `Malformed`."""
        before, parsed = self._before, {}
        for name, raw in raw_slots.items():
            # Decision 257: both, because `==` takes true for 1, and the text null for infinity.
            text = _encode_raw(raw)
            known_text, known_raw, slot = before.get(name, (None, None, None))
            if slot is None or text is None or text != known_text or raw != known_raw:
                slot = _parse_slot_entry(name, raw)
            parsed[name] = text, raw, slot
        # Replaced as a whole: another thread may be parsing.
        self._before = parsed
        return {SlotId(name): slot for name, (_, _, slot) in parsed.items()}


_slots = _SlotParser()


def _encode_raw(raw: object) -> bytes | None:
    """The text of a slot, without its blanks; None where msgspec has none for it."""
    try:
        return msgspec.json.encode(raw)
    except (msgspec.MsgspecError, UnicodeEncodeError, OverflowError, RecursionError):
        return None


def _refuse_many(slots: Mapping[str, Any]) -> None:
    """Refuse a state larger than any server's, before its names are parsed."""
    # decision 95: bounds refuse, they do not cut.
    _refuse_above(MAX_SLOTS, len(slots), "gpus")
    total = 0
    for name, slot in slots.items():
        for key in ("containers", "users"):
            listed = slot.get(key) if isinstance(slot, dict) else None
            count = len(listed) if isinstance(listed, list | dict) else 0
            _refuse_above(MAX_IN_SLOT, count, f"gpus.{name:.20}.{key}")
            # Each list may be short and all of them together still take a pass for ever.
            total += count
    _refuse_above(2 * MAX_BOOKINGS, total, "gpus: containers and users of all slots")


def _refuse_above(limit: int, count: int, subject: str) -> None:
    if count > limit:
        raise Malformed(f"{subject}: {count} entries, expected at most {limit}")


def _load_json(data: bytes) -> Any:  # noqa: ANN401 - _convert gives it a type
    if not data.strip():
        raise Malformed("empty")
    try:
        return json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise Malformed(f"invalid JSON: {error}") from error


def _convert(raw: object, kind: type[_T], key: str) -> _T:
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        match = _KEY_IN_ERROR.fullmatch(str(error))
        problem, below = match.groups("") if match else (str(error), "")
        at = f"{key}{below}".lstrip(".")
        problem = (
            problem.replace("`", "").replace("Expected", "expected").replace("Object", "object")
        )
        raise Malformed(f"{at + ': ' if at else ''}{problem}") from error
    except UnicodeEncodeError as error:  # JSON can name half a character
        raise Malformed(f"{key + ': ' if key else ''}invalid text {error.object!r}") from error


def _parse_slot_entry(name: str, document: object) -> Slot:
    key = f"gpus.{name}"
    match = _SLOT_ID.fullmatch(name)
    if match is None:
        raise Malformed(f'{key}: invalid slot ID (expected one like "0" or "1.2")')
    index, mig_index = int(match[1]), match[2]
    kind = SlotType.PHYSICAL if mig_index is None else SlotType.MIG
    slot = _convert(document, _Slot, key)
    # The ID decides: allocators take it apart themselves.
    if slot.type not in {None, kind.value}:
        raise Malformed(f"{key}.type: expected {kind} for this slot ID, got {slot.type}")
    reserved = (str(slot.reserved_for or ""), str(slot.reserved_until or ""))
    for text in (*slot.containers, *slot.users, slot.uuid or "", slot.profile or "", *reserved):
        if not text.isascii() and text != text.encode(errors="replace").decode():
            raise Malformed(f"{key}: invalid text {text!r}")
    return Slot(
        id=SlotId(name),
        type=kind,
        gpu_index=index,
        mig_index=None if mig_index is None else int(mig_index),
        containers=tuple(map(ContainerName, slot.containers)),
        users={UserName(user): _limit_count(count) for user, count in slot.users.items()},
        uuid=DeviceUuid(slot.uuid) if slot.uuid else None,
        profile=slot.profile or None,
        reserved_for=UserName(str(slot.reserved_for)) if slot.reserved_for else None,
        reserved_until=str(slot.reserved_until) if slot.reserved_until else None,
        reserved_end=parse_time(str(slot.reserved_until)) if slot.reserved_until else None,
    )


def _limit_count(count: int) -> int:
    """A counter within bounds: a number of any size would be copied into the history."""
    return max(-MAX_BOOKINGS, min(count, MAX_BOOKINGS))


# --- writing ----------------------------------------------------------------------------------


NO_TEXTS: Final[Mapping[SlotId, str]] = MappingProxyType({})


def slot_texts(data: bytes, slots: Iterable[SlotId]) -> dict[SlotId, str]:
    """Slots as a state that `parse_state` understands has them, unknown fields included."""
    raw = json.loads(data)["gpus"]
    return {name: json.dumps(raw[name]) for name in slots if name in raw}


def parse_slot(name: SlotId, text: str) -> Slot:
    """Parse a text of `slot_texts`. Raises `Malformed`."""
    return _parse_slot_entry(name, _load_json(text.encode()))


def render_state(
    base: bytes | None, state: AllocatorState, texts: Mapping[SlotId, str] = NO_TEXTS
) -> bytes:
    """Write `state` onto the document it was read from, keeping unknown fields.

    Slots in `texts` are written as given there, except for their containers and users.

    A slot that moved (its UUID under another id) takes its unknown fields along. Gives `base`
    itself where nothing would change. `base` is a state that `parse_state` understands, or None.
    """
    if base is None:
        old_state = None
        old: _RawState = {"gpus": {}, "mig_enabled": None}
        old["allocation_strategy"] = "least_allocated"
    else:
        old, old_state = _parse_document(base)
    new = dict(old)
    new["gpus"] = _render_slots(old["gpus"], old_state.slots if old_state else {}, state.slots)
    for name, text in texts.items():
        bookings = {"containers": list(state.slots[name].containers)}
        new["gpus"][name] = json.loads(text) | bookings | {"users": dict(state.slots[name].users)}
    if old_state is None or old_state.mig_enabled != state.mig_enabled:
        new["mig_enabled"] = state.mig_enabled
    # The same bytes, so that a second pass writes nothing.
    if base is not None and new == old and list(new["gpus"]) == list(old["gpus"]):
        return base
    return _encode_document(new)


def _encode_document(document: object) -> bytes:
    """As the allocator's `json.dump(…, indent=2)` writes it, in a quarter of the time."""
    try:
        return msgspec.json.format(json.dumps(document).encode(), indent=2)
    except msgspec.DecodeError:  # NaN or Infinity, which only Python takes for JSON
        return json.dumps(document, indent=2).encode()


def _render_slots(
    raw: Mapping[str, _RawSlot], old: Mapping[SlotId, Slot], new: Mapping[SlotId, Slot]
) -> dict[str, _RawSlot]:
    origins = _find_origins(old, new)
    slots = {}
    for name in _order_names(list(old), new):
        origin = origins[name]
        if origin is None:
            slots[name] = _render_new_slot(new[name])
        else:
            slots[name] = _patch_slot(raw[origin], old[origin], new[name])
    return {str(name): slot for name, slot in slots.items()}


def _find_origins(
    old: Mapping[SlotId, Slot], new: Mapping[SlotId, Slot]
) -> dict[SlotId, SlotId | None]:
    """The ID under which the file has each slot now: by UUID first, then by ID; None: new."""
    # One whose id has that very UUID stays, also where another has the same UUID.
    by_uuid = {slot.uuid: name for name, slot in old.items() if slot.uuid}
    moved = {
        name: name if name in old and old[name].uuid == slot.uuid else by_uuid[slot.uuid]
        for name, slot in new.items()
        if slot.uuid in by_uuid
    }
    taken = set(moved.values())
    stayed = {name: name if name in old and name not in taken else None for name in new}
    return {**stayed, **moved}


def _order_names(old_names: list[SlotId], new: Mapping[SlotId, Slot]) -> list[SlotId]:
    """Existing slots in their order; new ones at the end, or sorted in if the file is sorted."""
    # An order that somebody chose stays; diffs of the file show only what changed.
    names = [name for name in old_names if name in new]
    added = sorted((name for name in new if name not in old_names), key=_sort_key)
    if added and old_names == sorted(old_names, key=_sort_key):
        return sorted((*names, *added), key=_sort_key)
    return names + added


def _sort_key(name: SlotId) -> tuple[int, ...]:
    return tuple(map(int, re.split("[.:]", name)))


def _render_new_slot(slot: Slot) -> _RawSlot:
    raw: _RawSlot = {"type": slot.type.value}
    if slot.type is SlotType.MIG:
        raw["physical_gpu"] = str(slot.gpu_index)
        raw["device_id"] = str(slot.mig_index)
        if slot.uuid is not None:
            raw |= {"uuid": slot.uuid, "profile": slot.profile or "", "docker_id": slot.uuid}
    elif slot.uuid is not None:  # decision 202: in the file of reservations, whole GPUs have one
        raw["uuid"] = slot.uuid
    raw["containers"] = list(slot.containers)
    raw["users"] = dict(slot.users)
    return raw | {"reserved_until": None, "reserved_for": None}


def _patch_slot(raw: _RawSlot, old: Slot, new: Slot) -> _RawSlot:
    if new is old:
        return raw
    patched = dict(raw)
    if old.id != new.id:
        patched["physical_gpu"] = str(new.gpu_index)
        patched["device_id"] = str(new.mig_index)
        # Only where an older allocator reads it.
        if "mig_instance" in raw:
            patched["mig_instance"] = new.mig_index
    # The format has no UUID for a whole GPU, unless another tool has added it.
    if new.uuid != old.uuid and new.uuid and (new.type is SlotType.MIG or "uuid" in raw):
        patched["uuid"] = patched["docker_id"] = new.uuid
        if new.type is SlotType.MIG:
            patched["device_id"] = str(new.mig_index)
    if new.profile != old.profile and new.profile:
        patched["profile"] = new.profile
    if new.containers != old.containers:
        patched["containers"] = list(new.containers)
    # By value: counters of another order are no change.
    if dict(new.users) != dict(old.users):
        patched["users"] = dict(new.users)
    return patched
