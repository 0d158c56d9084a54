"""Values of the fleet's store: written here, read here, and nowhere else. Pure.

JSON objects with `v`; fields that this version does not know are kept and written back. Nothing
that is read is trusted: who may write to the store may have written anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from sys import intern
from types import MappingProxyType
from typing import Annotated, Any, Final, TypeVar

import msgspec

from ds01d.errors import Malformed
from ds01d.model.fleet_books import (
    MAX_INCARNATION,
    EntryPhase,
    Extra,
    FleetEntry,
    NameEntry,
    NodeId,
    NodeIdentity,
)
from ds01d.model.primitives import BookingId, ContainerName, SlotId, UserName, Wall

Form = TypeVar("Form")
Value = TypeVar("Value", bound=msgspec.Struct)

FENCE: Final = b'{"v":1}'
# Decision 357: etcd takes values of 1.5 MiB; those of ds01d have some hundred bytes, one of a
# container with 1,000 slots 6 KiB, and each host keeps what all of them mean.
MAX_VALUE_BYTES: Final = 16 << 10
MAX_EXTRA_BYTES: Final = 4 << 10
"""Of fields that this version does not know, which are kept and written back."""
_MAX_EXTRA: Final = 32  # of such fields
# By profile and source; nothing of it is kept but what the other hosts go by.
_MAX_SUMMARY_BYTES: Final = 64 << 10
MAX_NAME: Final = 1024  # characters
_VERSION: Final = 1
_NO_EXTRA: Final[Extra] = MappingProxyType({})
_LATEST: Final = 1e11  # the year 5138: what lies further away breaks whatever counts with it

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
_Text = Annotated[str, msgspec.Meta(max_length=256)]  # it is shown in each status
_Count = Annotated[int, msgspec.Meta(ge=0, le=100_000)]
_Protocol = Annotated[int, msgspec.Meta(ge=0, le=1 << 31)]


class _Held(msgspec.Struct, frozen=True):
    v: Annotated[int, msgspec.Meta(ge=1)]
    phase: str
    container: _Name
    count: _Count
    sevenths: _Count
    # For display only: an entry counts whatever stands here.
    slots: Any = ()
    since: Any = 0.0


class _NameValue(msgspec.Struct, frozen=True):
    v: Annotated[int, msgspec.Meta(ge=1)]
    node: _Name
    booking: _Name


class _Identity(msgspec.Struct, frozen=True):
    v: Annotated[int, msgspec.Meta(ge=1)]
    host: _Name
    incarnation: Annotated[int, msgspec.Meta(ge=0, le=MAX_INCARNATION)]
    boot_id: _Text = ""
    engine_id: _Text = ""
    version: _Text = ""
    protocols: Annotated[tuple[_Protocol, ...], msgspec.Meta(max_length=64)] = ()
    limits_digest: _Text = ""
    nonce: _Text = ""


class _Synced(msgspec.Struct, frozen=True):
    cluster: _Text
    revision: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class _SummaryValue(msgspec.Struct, frozen=True):
    state: _Text = ""
    synced: _Synced | None = None


# Made once: a decoder costs more than what it decodes, and there are 100,000 entries.
_ANY: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_HELD: Final = msgspec.json.Decoder(_Held)
_NAME: Final = msgspec.json.Decoder(_NameValue)
_IDENTITY: Final = msgspec.json.Decoder(_Identity)
_SUMMARY: Final = msgspec.json.Decoder(_SummaryValue)


def encode_entry(entry: FleetEntry, extra: Extra = _NO_EXTRA) -> bytes:
    """`extra`: what the store has beside the fields of this version."""
    return _encode_fields(
        {**extra, **entry.extra},
        phase=entry.phase.value,
        container=entry.container,
        count=entry.count,
        sevenths=entry.sevenths,
        slots=list(entry.slots),
        since=entry.since,
    )


def parse_entry(user: str, node: str, booking: str, value: bytes) -> FleetEntry:
    """The value of a held key, whose parts these are. Raises Malformed."""
    extra, fields = _decode_value(value, _HELD)
    slots = fields.slots if isinstance(fields.slots, list) else []
    is_readable = all(isinstance(slot, str) for slot in slots)
    since = fields.since
    is_time = isinstance(since, int | float) and 0 <= since <= _LATEST
    return FleetEntry(
        # The same object for the same text: 100,000 entries name few users and hosts.
        user=UserName(intern(user)),
        node=NodeId(intern(node)),
        booking=BookingId(booking),
        container=ContainerName(fields.container),
        # A phase of a newer version counts as what takes up the quota for longer.
        phase=EntryPhase.RESERVED if fields.phase == EntryPhase.RESERVED else EntryPhase.HELD,
        count=fields.count,
        sevenths=fields.sevenths,
        since=Wall(float(since) if is_time else 0.0),
        slots=tuple(map(SlotId, map(intern, slots))) if is_readable else (),
        extra=extra,
    )


def encode_name(name: NameEntry) -> bytes:
    return _encode_fields(name.extra, node=name.node, booking=name.booking)


def parse_name(container: str, value: bytes) -> NameEntry:
    """The value of the key of a name. Raises Malformed."""
    extra, name = _decode_value(value, _NAME)
    return NameEntry(
        container=ContainerName(container),
        node=NodeId(intern(name.node)),
        booking=BookingId(name.booking),
        extra=extra,
    )


def make_unknown_name(container: ContainerName) -> NameEntry:
    """A name that is taken, and nobody can say by whom: it is free for nobody all the same."""
    return NameEntry(container=container, node=NodeId(""), booking=BookingId(""))


def encode_identity(identity: NodeIdentity, extra: Extra = _NO_EXTRA) -> bytes:
    """`extra`: what the store has beside the fields of this version."""
    return _encode_fields(
        {**extra, **identity.extra},
        host=identity.host,
        incarnation=identity.incarnation,
        boot_id=identity.boot_id,
        engine_id=identity.engine_id,
        version=identity.version,
        protocols=list(identity.protocols),
        limits_digest=identity.limits_digest,
        nonce=identity.nonce,
    )


def parse_identity(node: str, value: bytes) -> NodeIdentity:
    """The value of the key of a host. Raises Malformed."""
    extra, fields = _decode_value(value, _IDENTITY)
    return NodeIdentity(
        node=NodeId(node),
        host=fields.host,
        incarnation=fields.incarnation,
        boot_id=fields.boot_id,
        engine_id=fields.engine_id,
        version=fields.version,
        protocols=fields.protocols,
        limits_digest=fields.limits_digest,
        nonce=fields.nonce,
        extra=extra,
    )


def encode_object(fields: Mapping[str, object]) -> bytes:
    """An object without a form of its own: a summary, or what is alive."""
    return _encode_fields({}, **fields)


def parse_object(value: bytes) -> dict[str, object]:
    """Any JSON object of sane size. Raises Malformed."""
    return _decode_json(value, msgspec.json.Decoder(dict[str, object]), MAX_VALUE_BYTES)


def parse_summary(value: bytes) -> dict[str, object]:
    """What the other hosts go by, `state` and `synced`, of the value of a summary.

    The rest is for people who read the store. Raises Malformed.
    """
    fields = _decode_json(value, _SUMMARY, _MAX_SUMMARY_BYTES)
    return {"state": fields.state, "synced": fields.synced and msgspec.to_builtins(fields.synced)}


def _encode_fields(extra: Extra, **fields: object) -> bytes:
    # The fields of this version last: what a newer one added may not replace what they mean.
    whole = {**extra, "v": _VERSION, **fields}
    try:
        return msgspec.json.encode(whole)
    except UnicodeEncodeError:
        # Half a surrogate pair, which JSON can escape and some books may hold, has no UTF-8.
        return msgspec.json.encode({name: _replace_surrogates(whole[name]) for name in whole})


def _replace_surrogates(value: object) -> object:
    if isinstance(value, list):
        return list(map(_replace_surrogates, value))
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _decode_value(value: bytes, decoder: msgspec.json.Decoder[Value]) -> tuple[Extra, Value]:
    """The fields that the form of `decoder` does not have, and those that it has."""
    # In two steps: a typed decoder drops the fields that it does not know.
    raw = _decode_json(value, _ANY, MAX_VALUE_BYTES)
    return _find_extra(raw, decoder.type), _decode_json(value, decoder, MAX_VALUE_BYTES)


def _decode_json(value: bytes, decoder: msgspec.json.Decoder[Form], limit: int) -> Form:
    if len(value) > limit:
        raise Malformed(f"the value has more than {limit} bytes")
    try:
        return decoder.decode(value)
    except (msgspec.DecodeError, ValueError, OverflowError, RecursionError) as error:
        raise Malformed(f"not a value of ds01d: {error}") from error


def _find_extra(raw: dict[str, msgspec.Raw], form: type[msgspec.Struct]) -> Extra:
    field_names = form.__struct_fields__
    if len(raw) <= len(field_names) and raw.keys() <= set(field_names):
        return _NO_EXTRA
    # As text, a copy of it: parsed it would take twenty times the memory, and the text alone
    # would keep the whole value.
    extra = {name: raw[name].copy() for name in raw.keys() - set(field_names)}
    size = sum(len(name) + len(bytes(text)) for name, text in extra.items())
    if size > MAX_EXTRA_BYTES or len(extra) > _MAX_EXTRA:
        raise Malformed(
            f"{len(extra)} fields of another version with {size} bytes, expected at most"
            f" {_MAX_EXTRA} with {MAX_EXTRA_BYTES}"
        )
    return extra
