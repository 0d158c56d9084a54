"""What another host's status.json has, as far as the fleet needs it; and the same as it is kept.

The text comes from another machine: it is bounded in size before it comes here, parsed into typed
values, and whatever does not fit is an error, never a guess. Unknown keys are ignored, so that
hosts may be newer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from ds01d.errors import Malformed
from ds01d.model.fleet import FleetHolder, FleetSlot, HostStatus, LastWord
from ds01d.model.primitives import ContainerName, DeviceUuid, SlotId, Source, UserName, Wall

MAX_REASON: Final = 300  # characters of what a host says about itself
_MAX_VERSION: Final = 100


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
    sources: dict[str, _Source] = {}
    passes: _Passes = _Passes()
    slots: tuple[_RemoteSlot, ...] = ()
    state_dir: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedStatus:
    """`state_dir`: of which ds01d it speaks, where it was found elsewhere."""

    status: HostStatus
    state_dir: str


def parse_status(data: bytes) -> ParsedStatus:
    """A status as ds01d publishes it. Raises `Malformed`."""
    try:
        raw = msgspec.json.decode(data, type=_Status)
    # Text nested too deep, or a lone surrogate.
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Malformed(f"its status is not one of ds01d: {error}") from error
    status = HostStatus(
        published_at=Wall(raw.written_at),
        next_at=None if raw.next_sweep is None else Wall(raw.next_sweep),
        version=raw.version[:_MAX_VERSION],
        slots=tuple(map(_build_slot, raw.slots)),
        # Decision 358: it goes to logs, each time that it changes.
        doubt=_find_doubt(raw)[:MAX_REASON],
    )
    return ParsedStatus(status=status, state_dir=raw.state_dir)


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
    if Source.DOCKER.value not in raw.sources:
        return "ds01d there has not asked Docker yet"
    # NVML may be missing, as on a host whose GPUs are all booked by their numbers.
    for source in (Source.DOCKER, Source.STATE):
        entry = raw.sources.get(source.value)
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
