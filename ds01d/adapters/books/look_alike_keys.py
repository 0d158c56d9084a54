"""Keys that look like one that is read, and are another one. Pure.

A key that nobody reads is harmless; one that somebody believes to be read is not: a hold of
`gpu_hold_after_stop_h: 0.25` is no hold of a quarter of an hour, and none of a day either.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from difflib import SequenceMatcher
from functools import lru_cache

_MIN_RATIO = 0.85
_MIN_PREFIX = 6  # "max_gpu"; what is shorter begins many keys
_MAX_KEY_LENGTH = 60
_INNER_CAPITAL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SEPARATORS = re.compile(r"[^a-z0-9]+")
_HOLD_WORDS = frozenset({"gpu", "hold"})


def find_look_alikes(keys: Iterable[str], readable: Collection[str]) -> dict[str, str]:
    """The keys that are none of `readable` and look like one of them, with that one."""
    names = tuple(readable)
    return {
        key: match
        for key in keys
        if key not in readable and (match := _find_match(key, names)) is not None
    }


@lru_cache(maxsize=4096)
def _find_match(key: str, readable: tuple[str, ...]) -> str | None:
    if len(key) > _MAX_KEY_LENGTH:
        return None
    plain = _SEPARATORS.sub("_", _INNER_CAPITAL.sub("_", key).lower()).strip("_")
    return next((name for name in readable if _is_alike(plain, name)), None)


def _is_alike(key: str, readable: str) -> bool:
    shorter, longer = sorted((key, readable), key=len)
    if len(shorter) >= _MIN_PREFIX and longer.startswith(shorter):
        return True
    both_of_hold = all(set(name.split("_")) >= _HOLD_WORDS for name in (key, readable))
    return both_of_hold or SequenceMatcher(a=key, b=readable).ratio() >= _MIN_RATIO
