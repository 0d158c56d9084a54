"""What each container of a user may use of the host, out of the limits' YAML. Pure.

A limit that is there and invalid is a problem, never no limit: no container is created with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from ds01d.adapters.books.strict_yaml import describe_value, text_of
from ds01d.model.limits import ResourceLimits

RESOURCE_KEYS: Final = (
    "max_cpus",
    "memory",
    "memory_swap",
    "shm_size",
    "pids_limit",
    "slice",
    "max_containers_per_user",
)
_SIZE: Final = re.compile(r"([0-9]{1,15})([bkmgt]?)b?", re.IGNORECASE)
_UNITS: Final = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_CPUS: Final = re.compile(r"[0-9]{1,5}(?:\.[0-9]{1,3})?")
_COUNT: Final = re.compile(r"[0-9]{1,9}")
_SLICE: Final = re.compile(r"[A-Za-z0-9_.:{}-]{1,100}\.slice")
_MIN_CPUS: Final = 0.01  # of Docker's


class _InvalidLimit(ValueError):
    """A limit that is there and cannot be read: which, and what is right."""


def find_resources(
    layers: Sequence[tuple[str, Mapping[object, object]]], group: str
) -> ResourceLimits:
    """The limits of a user's containers: of `layers`, by name, the first that has a key counts."""
    try:
        return ResourceLimits(
            cpus=_find_cpus(layers),
            memory=_find_size(layers, "memory"),
            memory_swap=_find_size(layers, "memory_swap"),
            shm_bytes=_find_size(layers, "shm_size"),
            pids=_find_count(layers, "pids_limit"),
            slice=_find_slice(layers, group),
            max_containers=_find_count(layers, "max_containers_per_user"),
        )
    except _InvalidLimit as error:
        return ResourceLimits(problem=str(error))


def _find_value(
    layers: Sequence[tuple[str, Mapping[object, object]]], key: str
) -> tuple[str, str] | None:
    """The key's full name and its value as it is written; None for null, and where it is not."""
    for section, values in layers:
        if key in values:
            value = values[key]
            text = text_of(value)
            if value is None:
                return None
            if text is None:
                raise _InvalidLimit(f"{section}.{key}: invalid value {describe_value(value)}")
            return f"{section}.{key}", str(text).strip()
    return None


def _find_size(layers: Sequence[tuple[str, Mapping[object, object]]], key: str) -> int | None:
    written = _find_value(layers, key)
    if written is None:
        return None
    name, text = written
    if key == "memory_swap" and text == "-1":
        return -1
    size = _SIZE.fullmatch(text)
    if size is None or not int(size[1]):
        raise _InvalidLimit(f'{name}: invalid size {text!r:.60}; write one like "32g"')
    return int(size[1]) * _UNITS[size[2].lower()]


def _find_cpus(layers: Sequence[tuple[str, Mapping[object, object]]]) -> float | None:
    written = _find_value(layers, "max_cpus")
    if written is None:
        return None
    name, text = written
    if not _CPUS.fullmatch(text) or float(text) < _MIN_CPUS:
        raise _InvalidLimit(f"{name}: invalid number of processors {text!r:.60}")
    return float(text)


def _find_count(layers: Sequence[tuple[str, Mapping[object, object]]], key: str) -> int | None:
    written = _find_value(layers, key)
    if written is None or written[1].lower() == "unlimited":
        return None
    name, text = written
    if not _COUNT.fullmatch(text):
        raise _InvalidLimit(f"{name}: invalid number {text!r:.60}")
    return int(text)


def _find_slice(layers: Sequence[tuple[str, Mapping[object, object]]], group: str) -> str:
    written = _find_value(layers, "slice")
    if written is None:
        return ""
    name, text = written
    named = text.replace("{group}", group)
    if not _SLICE.fullmatch(named) or re.search(r"[{}]", named.replace("{user}", "")):
        raise _InvalidLimit(
            f'{name}: invalid slice {text!r:.60}; write one like "ds01-{{group}}-{{user}}.slice"'
        )
    return named
