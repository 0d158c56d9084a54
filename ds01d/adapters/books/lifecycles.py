"""When the lab's scripts stop and remove containers, and whose they leave alone. Pure.

ds01d does neither; it shows the values, and reports those that the scripts misread.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ds01d.adapters.books.hold_durations import parse_limit_hours
from ds01d.adapters.books.limits_layers import Layer, Mistakes, list_named, parse_layer
from ds01d.adapters.books.strict_yaml import WrittenDate, describe_value, text_of
from ds01d.adapters.books.timestamps import parse_time
from ds01d.model.container_labels import ContainerType
from ds01d.model.limits import (
    EXEMPTION_KEYS,
    IDLE_TIMEOUT,
    MAX_RUNTIME,
    Exemption,
    Lifecycle,
)
from ds01d.model.primitives import UserName, Wall

REMOVAL_KEY: Final = "container_hold_after_stop_h"
LIFECYCLE_KEYS: Final = (IDLE_TIMEOUT, MAX_RUNTIME, REMOVAL_KEY)
_TYPE_KEYS: Final = (IDLE_TIMEOUT, MAX_RUNTIME, "sigterm_grace_s")
_READABLE: Final = (
    *("username", "exempt_from", "expires_on", "reason"),
    *("category", "approved_by", "approved_on"),
)

_ZONE: Final = re.compile(r"([Zz]|[+-][0-9]{2}:?[0-9]{2})\s*$")


def find_lifecycle(chain: Sequence[Layer], mistakes: Mistakes) -> Lifecycle:
    """The lifecycle of containers of those whose limits are looked up in `chain`."""
    return Lifecycle(
        idle_timeout_s=_find_hours(chain, IDLE_TIMEOUT, mistakes),
        max_runtime_s=_find_hours(chain, MAX_RUNTIME, mistakes),
        removal_after_stop_s=_find_hours(chain, REMOVAL_KEY, mistakes),
    )


def _find_hours(chain: Sequence[Layer], key: str, mistakes: Mistakes) -> float | None:
    layer = next((layer for layer in chain if key in layer.values), None)
    if layer is None:
        return None
    hours = parse_limit_hours(layer.values[key], is_zero_at_once=key == REMOVAL_KEY)
    mistakes.add(layer, key, hours.problem)
    return hours.seconds


def parse_types(section: Layer, mistakes: Mistakes) -> Mapping[ContainerType, Lifecycle]:
    """The lifecycles by the type of a container; a type that is not known is reported."""
    types: dict[ContainerType, Lifecycle] = {}
    for name, value in list_named(section).items():
        layer = parse_layer(value, f"{section.key}.{name}", _TYPE_KEYS, section.origin)
        mistakes.add_layer(layer)
        if name not in {type_.value for type_ in ContainerType}:
            mistakes.add(section, name, "unknown type of container")
            continue
        types[ContainerType(name)] = find_lifecycle((layer,), mistakes)
    return types


def parse_exemptions(top: Layer, mistakes: Mistakes) -> tuple[Exemption, ...]:
    """The exemptions of lifecycle-exemptions.yaml; an invalid one exempts no user."""
    raw = top.values.get("exemptions")
    if raw is None:
        return ()
    if not isinstance(raw, list):
        mistakes.add(top, "exemptions", f"expected a list, got {describe_value(raw)}")
        return ()
    return tuple(
        exemption
        for number, item in enumerate(raw)
        for exemption in _parse_exemption(
            parse_layer(item, f"exemptions[{number}]", _READABLE, top.origin), mistakes
        )
    )


def _parse_exemption(layer: Layer, mistakes: Mistakes) -> Iterator[Exemption]:
    mistakes.add_layer(layer)
    user = text_of(layer.values.get("username"))
    keys = layer.values.get("exempt_from")
    if not user:
        mistakes.add(layer, "username", "expected a login; no user is exempt by it")
    elif not isinstance(keys, list):
        expected = f'expected a list like ["{IDLE_TIMEOUT}"]'
        mistakes.add(layer, "exempt_from", f"{expected}; no user is exempt by it")
    elif (expiry := _parse_expiry(layer, mistakes)) is not None:
        for key in keys:
            if key not in EXEMPTION_KEYS:
                problem = f"{describe_value(key)}: expected {IDLE_TIMEOUT} or {MAX_RUNTIME}"
                mistakes.add(layer, "exempt_from", problem)
                continue
            yield Exemption(
                user=UserName(user),
                key=str(key),
                expires=expiry.at,
                reason=str(layer.values.get("reason") or "")[:200],
            )


@dataclass(frozen=True, slots=True)
class _Expiry:
    """When an exemption ends; None: never."""

    at: Wall | None


def _parse_expiry(layer: Layer, mistakes: Mistakes) -> _Expiry | None:
    """When an exemption ends; None where that is invalid."""
    value = layer.values.get("expires_on")
    if value is None:
        return _Expiry(None)
    text = text_of(value) or ""
    at = parse_time(text) or parse_time(f"{text}T00:00")
    if at is None:
        problem = f'invalid time {describe_value(value)}: write one like "2026-06-30T23:59:59Z"'
        mistakes.add(layer, "expires_on", f"{problem}; no user is exempt by it")
        return None
    # The scripts exempt nobody by a date that is not quoted, nor by one without a zone.
    if isinstance(value, WrittenDate) or not _ZONE.search(text):
        problem = f'{text}: the lab\'s scripts want it quoted, like "2026-06-30T23:59:59Z"'
        mistakes.add(layer, "expires_on", problem)
    return _Expiry(at)
