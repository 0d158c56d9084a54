"""The values behind the metrics: label words, and the snapshot that a scrape renders."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Final

from ds01d.model.books import SlotType
from ds01d.model.drift import Kind, Outcome, WaitReason
from ds01d.model.notice import DeliveryRecord, DeliveryTarget
from ds01d.model.primitives import Word
from ds01d.reporting.status import SlotStatus, Status

_GPU: Final = re.compile(r"[0-9]{1,3}(?=[.:]|$)")
_PROFILE: Final = re.compile(r"([0-9]c\.)?[0-9]g\.[0-9]{1,4}gb([+.-][a-z]{1,8}){0,3}")
_STOPPED: Final = frozenset({"exited", "dead"})


class Scope(Word):
    """What a pass was over."""

    SWEEP = "sweep"
    NAMES = "names"


class Result(Word):
    """What a pass left, in the words of controller-runtime."""

    SUCCESS = "success"
    REQUEUE_AFTER = "requeue_after"  # a drift waits for time or for a person
    ERROR = "error"  # the pass failed, or a repair did


class SlotState(Word):
    """Who has a slot."""

    FREE = "free"
    ALLOCATED = "allocated"
    HELD = "held"  # by stopped containers alone
    FOREIGN = "foreign"  # used without a booking


class DeliveryResult(Word):
    """What became of a notice at a target."""

    SENT = "sent"
    FAILED = "failed"  # given up
    DROPPED = "dropped"  # too old, too many, or about a moment that has passed


class FleetHosts(Word):
    """Hosts in the store of a fleet, by whether there is a sign of them."""

    ALIVE = "alive"
    UNSEEN = "unseen"


class Frozen(Word):
    """What a freeze is of."""

    EVERYTHING = "everything"
    ONE = "one"  # a container or a slot


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenDrift:
    """A drift that is not repaired; `age_s` since it was first seen."""

    kind: Kind
    verdict: Outcome
    gate: WaitReason | None
    age_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Counts that others keep, since the process started."""

    adds: int = 0
    retries: int = 0
    received: int = 0
    lost: int = 0
    reconnects: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSnapshot:
    """What a scrape renders. `status`: the last one published, if any.

    `patience_s`: a pass that has been running for longer hangs. `deliveries`: the records of
    ds01d-notify, of the targets that it has.
    """

    status: Status | None
    drifts: tuple[OpenDrift, ...]
    totals: Totals
    depth: int
    running_s: float
    stream_open: bool
    inventory_frozen: bool
    patience_s: float = inf
    deliveries: Mapping[DeliveryTarget, DeliveryRecord] = field(default_factory=dict)


def slot_labels(slot: SlotStatus) -> tuple[str, str, SlotState]:
    """A slot's GPU, profile and state, as labels."""
    return _gpu_label(slot), _profile_label(slot), _slot_state(slot)


def find_idle_since(slots: Iterable[SlotStatus]) -> Mapping[tuple[str, str], float]:
    """By GPU and profile, since when the longest idle holder has been so."""
    since: dict[tuple[str, str], float] = {}
    for slot in slots:
        place = _gpu_label(slot), _profile_label(slot)
        for holder in slot.holders:
            if holder.idle_since is not None:
                since[place] = min(holder.idle_since, since.get(place, inf))
    return since


def _gpu_label(slot: SlotStatus) -> str:
    """The GPU's index; books may hold any text."""
    match = _GPU.match(slot.id)
    return match[0] if match else "other"


def _profile_label(slot: SlotStatus) -> str:
    """The MIG profile; books may hold any text."""
    if slot.type is SlotType.PHYSICAL:
        return "whole"
    profile = slot.profile or ""
    return profile if _PROFILE.fullmatch(profile) else "other"


def _slot_state(slot: SlotStatus) -> SlotState:
    if slot.holders:
        stopped = all(holder.state in _STOPPED for holder in slot.holders)
        return SlotState.HELD if stopped else SlotState.ALLOCATED
    return SlotState.FOREIGN if slot.foreign else SlotState.FREE
