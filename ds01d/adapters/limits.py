"""resource-limits.yaml: how long a user's stopped container keeps its GPU, priorities, quotas.

Read, never written. A user's limits are `defaults` under those of the one group that names them
(else `default_group`); a user in `user_overrides` gets `defaults` and the override only. Whatever
is ambiguous or makes no sense never ends a hold: it affects those whose limits depend on it, and
says so with file and key. Everything else in the file is passed over.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ds01d.adapters.hold_durations import parse_hold
from ds01d.adapters.ordinary_files import (
    NotRead,
    Obstacle,
    Signature,
    open_configured,
    read_unchanged,
    too_large,
)
from ds01d.adapters.quotas import quota, reservations
from ds01d.adapters.yaml_reading import read_yaml, shown
from ds01d.errors import Malformed
from ds01d.model.facts import Source, Unknown, UserName
from ds01d.model.records import HoldRule, Limits

LIMIT = 4 << 20

_HOLD = "gpu_hold_after_stop"
_BUILT_IN = HoldRule(seconds=86_400.0, source="built in")
_QUIET_S = 0.05
_PATIENCE_S = 0.3


class LimitsFile:
    """The file, parsed again only when it changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: tuple[Signature, Limits | Unknown] | None = None

    def read(self) -> Limits | Unknown:
        """The limits; Unknown where the file is missing, unreadable or no mapping at all."""
        descriptor = open_configured(self._path)
        if isinstance(descriptor, NotRead):
            missing = descriptor.obstacle in {Obstacle.MISSING, Obstacle.NO_FOLDER}
            return Unknown(source=Source.LIMITS, reason=descriptor.reason, missing=missing)
        try:
            return self._read_open(descriptor)
        except OSError as error:
            return _unknown(f"{self._path} could not be read: {error.strerror}")
        finally:
            os.close(descriptor)

    def _read_open(self, descriptor: int) -> Limits | Unknown:
        signature = Signature.of(os.fstat(descriptor))
        if self._known is not None and self._known[0] == signature:
            return self._known[1]
        data = _read_quiet(descriptor)
        if data is None:
            return _unknown(f"{self._path} is being written")
        signature = Signature.of(os.fstat(descriptor))
        limits = self._understand(data)
        self._known = None if signature.racy() else (signature, limits)
        return limits

    def _understand(self, data: bytes) -> Limits | Unknown:
        if len(data) > LIMIT:
            return _unknown(too_large(self._path, LIMIT).reason)
        try:
            raw = read_yaml(data, str(self._path))
        except Malformed as error:
            return _unknown(str(error))
        if not isinstance(raw, dict):
            return _unknown(f"{self._path}: expected a mapping with defaults, groups, …")
        return resolve(raw, str(self._path))


def _unknown(reason: str) -> Unknown:
    return Unknown(source=Source.LIMITS, reason=reason)


def _read_quiet(descriptor: int) -> bytes | None:
    """Read when nobody has written for a moment: half a YAML file is valid, and names fewer users.

    None if that moment does not come.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while Signature.of(os.fstat(descriptor)).racy(_QUIET_S):
        if time.monotonic() > deadline:
            return None
        time.sleep(_QUIET_S / 5)
    return read_unchanged(descriptor, LIMIT + 1)


# --- resolving --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """A section in which a user's limits are looked up; `problem` where it is no mapping."""

    key: str
    values: Mapping[object, object]
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Groups:
    """The groups by name, who is in which, and why it can't be told of everybody."""

    layers: Mapping[str, _Layer]
    of_user: Mapping[str, list[str]]
    problem: str


def resolve(raw: Mapping[object, object], where: str) -> Limits:
    """Work out everybody's rule. Pure; `where` is the file's path, for what is reported."""
    defaults = _layer(raw.get("defaults"), "defaults")
    overrides = _layer(raw.get("user_overrides"), "user_overrides")
    if overrides.problem:
        never = _never(overrides.problem, where)
        return Limits(holds={}, unknown_user=never, unclear=(never.problem,))
    groups = _groups(_layer(raw.get("groups"), "groups"))
    chains = _chains(overrides, groups, defaults)
    holds = {UserName(user): _rule(chain, where) for user, chain in chains.items()}
    for user, names in groups.of_user.items():
        if len(names) > 1 and user not in _named(overrides):
            both = " and ".join(f"groups.{name}.members" for name in names)
            holds[UserName(user)] = _never(f"{both} both name {user}", where)
    others, unknown_user = _others(raw.get("default_group"), groups, defaults, where)
    reserved, unclear = reservations(_named(overrides), raw.get("gpu_allocation"))
    return Limits(
        holds=holds,
        unknown_user=unknown_user,
        priorities={UserName(user): _priority(chain) for user, chain in chains.items()},
        default_priority=_priority(others),
        quotas={
            UserName(user): quota(one.values for one in chain) for user, chain in chains.items()
        },
        default_quota=quota(one.values for one in others),
        reservations=reserved,
        unclear=tuple(f"{where}: {why}" for why in unclear),
    )


def _chains(overrides: _Layer, groups: _Groups, defaults: _Layer) -> dict[str, tuple[_Layer, ...]]:
    """For everybody who is named: where their limits are looked up, in this order."""
    chains: dict[str, tuple[_Layer, ...]] = {
        user: (groups.layers[names[0]], defaults) for user, names in groups.of_user.items()
    }
    for user, value in _named(overrides).items():
        chains[user] = (_layer(value, f"user_overrides.{user}"), defaults)
    return chains


def _others(
    default_group: object, groups: _Groups, defaults: _Layer, where: str
) -> tuple[tuple[_Layer, ...], HoldRule]:
    """Where the limits of those whom nobody names are looked up, and their rule."""
    name = _name(default_group)
    layer = groups.layers.get(name) if name is not None else None
    chain = (defaults,) if layer is None else (layer, defaults)
    if groups.problem:
        return chain, _never(groups.problem, where)
    if default_group is not None and layer is None:
        return chain, _never(f"default_group: there is no group {shown(default_group)}", where)
    assumed = "the defaults are" if layer is None else f"the default group {name} is"
    rule = _rule(chain, where)
    if rule.problem:
        return chain, rule
    problem = f"{where}: in no group and no override: {assumed} assumed"
    return chain, HoldRule(seconds=rule.seconds, source=rule.source, problem=problem)


def _rule(chain: tuple[_Layer, ...], where: str) -> HoldRule:
    for layer in chain:
        if layer.problem:
            return _never(layer.problem, where)
        if _HOLD in layer.values:
            key = f"{layer.key}.{_HOLD}"
            duration = parse_hold(layer.values[_HOLD])
            if duration.problem:
                return _never(f"{key}: {duration.problem}", where)
            return HoldRule(seconds=duration.seconds, source=key)
    return _BUILT_IN


def _never(problem: str, where: str) -> HoldRule:
    return HoldRule(
        seconds=None,
        source=problem.partition(":")[0],
        problem=f"{where}: {problem}; until that is mended the hold does not end",
    )


def _priority(chain: tuple[_Layer, ...]) -> int:
    for layer in chain:
        value = layer.values.get("priority")
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return 0


def _layer(raw: object, key: str) -> _Layer:
    if isinstance(raw, dict):
        return _Layer(key=key, values=raw)
    problem = "" if raw is None else f"{key}: expected a mapping, got {shown(raw)}"
    return _Layer(key=key, values={}, problem=problem)


def _groups(section: _Layer) -> _Groups:
    layers: dict[str, _Layer] = {}
    of_user: dict[str, list[str]] = {}
    problems = [section.problem]
    for name, value in _named(section).items():
        layers[name] = _layer(value, f"groups.{name}")
        members, problem = _members(layers[name])
        problems += [layers[name].problem, problem]
        for user in members:
            of_user.setdefault(user, []).append(name)
    return _Groups(layers=layers, of_user=of_user, problem=next(filter(None, problems), ""))


def _members(layer: _Layer) -> tuple[set[str], str]:
    """Who is in a group, and why that is not known of all."""
    raw = layer.values.get("members")
    if raw is None:
        return set(), ""
    key = f"{layer.key}.members"
    if not isinstance(raw, list):
        return set(), f"{key}: expected a list, got {shown(raw)}"
    names = [(item, _name(item)) for item in raw if item is not None]
    unclear = [
        f"{key}: {shown(item)} is no user name; quote it" for item, name in names if not name
    ]
    return {name for _, name in names if name}, "".join(unclear[:1])


def _named(section: _Layer) -> dict[str, object]:
    return {name: value for key, value in section.values.items() if (name := _name(key))}


def _name(value: object) -> str | None:
    """A name; YAML reads one of digits as a number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else None
