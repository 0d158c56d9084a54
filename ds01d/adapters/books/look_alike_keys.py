"""Keys that look like one that is read, and are another one. Pure.

A key that nobody reads is harmless; one that somebody believes to be read is not: a hold of
`gpu_hold_after_stop_h: 0.25` is no hold of a quarter of an hour, and none of a day either.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from difflib import SequenceMatcher
from functools import lru_cache

_ALIKE = 0.85
_SHORTEST = 6  # "max_gpu"; what is shorter begins many keys
_LONGEST = 60
_INNER_CAPITAL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SEPARATORS = re.compile(r"[^a-z0-9]+")
_HOLD_WORDS = frozenset({"gpu", "hold"})


def find_look_alikes(keys: Iterable[str], known: Collection[str]) -> dict[str, str]:
    """The keys that are none of `known` and look like one of them, with that one."""
    wanted = tuple(known)
    return {
        key: meant
        for key in keys
        if key not in known and (meant := _meant(key, wanted)) is not None
    }


@lru_cache(maxsize=4096)
def _meant(key: str, known: tuple[str, ...]) -> str | None:
    if len(key) > _LONGEST:
        return None
    plain = _SEPARATORS.sub("_", _INNER_CAPITAL.sub("_", key).lower()).strip("_")
    return next((one for one in known if _resembles(plain, one)), None)


def _resembles(key: str, known: str) -> bool:
    shorter, longer = sorted((key, known), key=len)
    if len(shorter) >= _SHORTEST and longer.startswith(shorter):
        return True
    both_of_hold = all(set(name.split("_")) >= _HOLD_WORDS for name in (key, known))
    return both_of_hold or SequenceMatcher(a=key, b=known).ratio() >= _ALIKE
