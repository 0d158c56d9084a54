"""What another host's status.json has, as far as the fleet needs it; and the same as it is kept.

The text comes from another machine: it is bounded in size before it comes here, parsed into typed
values, and whatever does not fit is an error, never a guess. Unknown keys are ignored, so that
hosts may be newer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, TypeVar

import msgspec

from ds01d.errors import Malformed
from ds01d.model.fleet import FleetHolder, FleetSlot, HostStatus, LastWord
from ds01d.model.primitives import ContainerName, DeviceUuid, SlotId, Source, UserName, Wall

_Form = TypeVar("_Form")

MAX_REASON: Final = 300  # characters of what a host says about itself
_MAX_VERSION: Final = 100
# Decision 356: what is made of a status takes ten times its text, for each of many hosts. A host
# of 16 GPUs with seven slots each has 112; of 10,000 containers most have a slot, if any, once.
MAX_SLOTS: Final = 1_000
MAX_HOLDERS: Final = 20_000
"""Of all slots, those without a booking included."""
MAX_TEXT: Final = 2 << 20
"""Characters of all names: a hundred for each of so many containers."""


class _Holder(msgspec.Struct, frozen=True):
    container: str
    user: str | None = None
    state: str = "unknown"


class _RemoteSlot(msgspec.Struct, frozen=True):
    id: str
    type: str
    uuid: str | None = None
    profile: str | None = None
    holders: tuple[_Holder, ...] = ()
    foreign: tuple[str, ...] = ()
    foreign_holders: tuple[_Holder, ...] = ()


class _Source(msgspec.Struct, frozen=True):
    ok: bool
    reason: str = ""


# Only those that count: what a dictionary has is as much as its writer likes.
class _Sources(msgspec.Struct, frozen=True):
    docker: _Source | None = None
    state: _Source | None = None


class _Passes(msgspec.Struct, frozen=True):
    failing_since: float | None = None
    reason: str = ""


# Until the year 5138: what lies further away breaks whatever counts with it.
_Time = Annotated[float, msgspec.Meta(ge=0, le=1e11)]


class _Status(msgspec.Struct, frozen=True):
    written_at: _Time
    version: str
    ready: bool
    next_sweep: _Time | None = None
    sources: _Sources = _Sources()
    passes: _Passes = _Passes()
    slots: tuple[_RemoteSlot, ...] = ()


class StatusOrigin(msgspec.Struct, frozen=True):
    """When a status was published, and of which ds01d it speaks."""

    written_at: _Time
    state_dir: str = ""


def parse_origin(data: bytes | bytearray) -> StatusOrigin:
    """As much of a status as is needed to choose between two. Raises `Malformed`."""
    return _decode_status(data, StatusOrigin)


def parse_status(data: bytes | bytearray) -> HostStatus:
    """A status as ds01d publishes it. Raises `Malformed`, also where it is too large."""
    raw = _decode_status(data, _Status)
    _check_size(raw.slots)
    return HostStatus(
        published_at=Wall(raw.written_at),
        next_at=None if raw.next_sweep is None else Wall(raw.next_sweep),
        version=raw.version[:_MAX_VERSION],
        slots=tuple(map(_build_slot, raw.slots)),
        # Decision 358: it goes to logs, each time that it changes.
        doubt=_find_doubt(raw)[:MAX_REASON],
    )


def _decode_status(data: bytes | bytearray, form: type[_Form]) -> _Form:
    try:
        return msgspec.json.decode(data, type=form)
    # Text nested too deep, or a lone surrogate.
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Malformed(f"its status is not one of ds01d: {error}") from error


def _check_size(slots: Sequence[_RemoteSlot]) -> None:
    """Raises `Malformed` for more than a host has."""
    holders = sum(
        len(slot.holders) + len(slot.foreign) + len(slot.foreign_holders) for slot in slots
    )
    for count, most, noun in (
        (len(slots), MAX_SLOTS, "slots"),
        (holders, MAX_HOLDERS, "containers in slots"),
        (sum(map(_measure_text, slots)), MAX_TEXT, "characters of names"),
    ):
        if count > most:
            raise Malformed(f"its status has {count} {noun}, at most {most} are read")


def _measure_text(slot: _RemoteSlot) -> int:
    names = len(slot.id) + len(slot.type) + len(slot.uuid or "") + len(slot.profile or "")
    return (
        names
        + sum(map(len, slot.foreign))
        + sum(
            len(holder.container) + len(holder.user or "") + len(holder.state)
            for holders in (slot.holders, slot.foreign_holders)
            for holder in holders
        )
    )


def _build_slot(raw: _RemoteSlot) -> FleetSlot:
    return FleetSlot(
        id=SlotId(raw.id),
        type=raw.type,
        uuid=None if raw.uuid is None else DeviceUuid(raw.uuid),
        profile=raw.profile,
        holders=tuple(map(_build_holder, raw.holders)),
        foreign=raw.foreign,
        foreign_holders=tuple(map(_build_holder, raw.foreign_holders)),
    )


def _build_holder(raw: _Holder) -> FleetHolder:
    user = None if raw.user is None else UserName(raw.user)
    return FleetHolder(container=ContainerName(raw.container), user=user, state=raw.state)


def _find_doubt(raw: _Status) -> str:
    """Why the slots may be others: ds01d there could not look at what decides about them."""
    if not raw.ready:
        return "ds01d there has not completed a sweep yet"
    # Decision 97: a status of failing passes is fresh, and yet from the last good pass.
    if raw.passes.failing_since is not None:
        return f"passes of ds01d there fail: {raw.passes.reason}"
    if raw.sources.docker is None:
        return "ds01d there has not asked Docker yet"
    # NVML may be missing, as on a host whose GPUs are all booked by their numbers.
    for source, entry in ((Source.DOCKER, raw.sources.docker), (Source.STATE, raw.sources.state)):
        if entry is not None and not entry.ok:
            return f"ds01d there cannot read {source}: {entry.reason}"
    return ""


# A file of another version has another tag, and counts as if there was none.
class _LastWord(msgspec.Struct, frozen=True, tag="1", tag_field="v"):
    answered_at: _Time | None = None
    unknown_since: _Time | None = None
    status: HostStatus | None = None


def encode_last_word(word: LastWord) -> bytes:
    """One JSON object."""
    return msgspec.json.encode(
        _LastWord(
            answered_at=word.answered_at, unknown_since=word.unknown_since, status=word.status
        )
    )


def parse_last_word(data: bytes) -> LastWord:
    """What `encode_last_word` wrote. Raises `Malformed`."""
    try:
        raw = msgspec.json.decode(data, type=_LastWord)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Malformed(f"not a last known status of a host: {error}") from error
    return LastWord(
        answered_at=None if raw.answered_at is None else Wall(raw.answered_at),
        unknown_since=None if raw.unknown_since is None else Wall(raw.unknown_since),
        status=raw.status,
    )
