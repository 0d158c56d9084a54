"""How much of the GPUs a user may hold, in GPU-equivalents, out of the limits' YAML. Pure.

Whatever is invalid gives nobody more than one GPU, and is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from math import isfinite
from typing import Final

from ds01d.adapters.books.limits_layers import Layer, Mistakes
from ds01d.adapters.books.strict_yaml import WrittenFloat, describe_value
from ds01d.model.limits import BUILT_IN, GpuQuota

# The lab's scripts take the first of these that is there, in the user's limits with the defaults
# under them; the later ones are older names.
EQUIVALENTS_KEYS: Final = (
    "max_gpu_equivalents",
    "max_gpu_slots",
    "max_gpus_per_user",
    "max_mig_instances",
)
CONTAINER_KEYS: Final = (
    "max_gpu_slots_per_container",
    "max_gpus_per_container",
    "max_mig_per_container",
)
WHOLE_GPUS_KEY: Final = "allow_full_gpu"
AGGREGATE_KEY: Final = "aggregate"
_ONE: Final = Fraction(1)
_ANY: Final = "unlimited"


def find_gpu_quota(
    chain: Sequence[Layer], aggregate: Sequence[Layer], mistakes: Mistakes
) -> GpuQuota:
    """The quota of those whose limits are looked up in `chain`, and `aggregate` in its own."""
    return GpuQuota(
        gpus=_find_equivalents(chain, EQUIVALENTS_KEYS, mistakes),
        aggregate=_find_aggregate(aggregate, mistakes),
        slots_per_container=_find_container_slots(chain, mistakes),
        whole_gpus=_find_whole_gpus(chain, mistakes),
        source=_locate(chain, EQUIVALENTS_KEYS),
        aggregate_source=_locate(aggregate, (AGGREGATE_KEY,)),
    )


def _find_first(chain: Sequence[Layer], keys: Sequence[str]) -> tuple[Layer, str] | None:
    """The layer and the key that count: the first key that is there, and its first layer."""
    return next(((layer, key) for key in keys for layer in chain if key in layer.values), None)


def _find_counting(
    chain: Sequence[Layer], keys: Sequence[str], mistakes: Mistakes
) -> tuple[Layer, str] | None:
    """As `_find_first`; an older name in a nearer section, which it hides, is noted."""
    place = _find_first(chain, keys)
    if place is None:
        return None
    for layer in chain[: chain.index(place[0])]:
        for key in keys:
            if key in layer.values:
                counts = f"{place[0].key}.{place[1]}"
                mistakes.add(layer, key, f"{counts} counts before it: write {place[1]} here too")
    return place


def _locate(chain: Sequence[Layer], keys: Sequence[str]) -> str:
    place = _find_first(chain, keys)
    return BUILT_IN if place is None else place[0].locate(place[1])


def _find_equivalents(
    chain: Sequence[Layer], keys: Sequence[str], mistakes: Mistakes
) -> Fraction | None:
    place = _find_counting(chain, keys, mistakes)
    if place is None:
        return _ONE
    layer, key = place
    quota, problem = _parse_equivalents(layer.values[key])
    mistakes.add(layer, key, problem)
    return quota


def _parse_equivalents(value: object) -> tuple[Fraction | None, str]:
    """GPU-equivalents, None for any amount, and what is wrong with them."""
    if value is None:
        return None, ""
    if isinstance(value, str):
        text = value.strip().lower()
        if text == _ANY:
            return None, "" if value == _ANY else f'{describe_value(value)}: write "{_ANY}"'
        if text.replace(".", "", 1).isdecimal() and text.isascii():
            return Fraction(text), f"{describe_value(value)} is a text: write {text}"
    elif isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        if isinstance(value, int):
            return Fraction(value), ""
        if isfinite(value):
            # As it is written: 0.1 as a float is a little more than a tenth.
            text = value.text if isinstance(value, WrittenFloat) else repr(value)
            return Fraction(Decimal(text.replace("_", ""))), ""
    problem = f'invalid number {describe_value(value)}: write one like 2.0, null or "{_ANY}"'
    return _ONE, f"{problem}; until that is fixed it counts as 1"


def _find_aggregate(layers: Sequence[Layer], mistakes: Mistakes) -> Fraction | None:
    layer = next((layer for layer in layers if AGGREGATE_KEY in layer.values), None)
    if layer is None or (section := layer.values[AGGREGATE_KEY]) is None:
        return None
    if not isinstance(section, dict):
        problem = f"expected a mapping, got {describe_value(section)}"
        mistakes.add(layer, AGGREGATE_KEY, f"{problem}; until that is fixed gpu_limit is 1")
        return _ONE
    limit, problem = _parse_equivalents(section.get("gpu_limit"))
    mistakes.add(layer, f"{AGGREGATE_KEY}.gpu_limit", problem)
    return limit


def _find_container_slots(chain: Sequence[Layer], mistakes: Mistakes) -> int | None:
    place = _find_counting(chain, CONTAINER_KEYS, mistakes)
    if place is None:
        return 1
    layer, key = place
    slots, problem = _parse_equivalents(layer.values[key])
    if slots is not None and slots.denominator != 1:
        problem = (
            f"{describe_value(layer.values[key])} is no whole number: it counts as {int(slots)}"
        )
    mistakes.add(layer, key, problem)
    return None if slots is None else int(slots)


def _find_whole_gpus(chain: Sequence[Layer], mistakes: Mistakes) -> bool:
    place = _find_first(chain, (WHOLE_GPUS_KEY,))
    if place is None:
        return False
    layer, key = place
    value = layer.values[key]
    if value is not None and not isinstance(value, bool):
        mistakes.add(
            layer, key, f"{describe_value(value)}: write true or false; it counts as false"
        )
    return value is True
